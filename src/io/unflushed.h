/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * unflushed: what an image held before it was written to, so that all writes since the last flush can be undone. For
 * image_fault.
 *
 * Memory: as much as is written between two flushes, in units of 4096 bytes. Locking: the caller's.
 */
#ifndef THINFS_IO_UNFLUSHED_H
#define THINFS_IO_UNFLUSHED_H

#include "io/image.h"

struct unflushed;

/* NULL: no memory. */
struct unflushed *unflushed_new(void);
void unflushed_free(struct unflushed *u);

/* [offset, offset + len) of IMG is about to change. 0 or negative errno. */
int unflushed_remember(struct unflushed *u, struct image *img, uint64_t offset, uint64_t len);
/* All of it is safe. */
void unflushed_forget(struct unflushed *u);
/* Write back what was there. */
void unflushed_take_back(struct unflushed *u, struct image *img);

#endif
