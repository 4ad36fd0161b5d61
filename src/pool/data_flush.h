/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * data_flush: flushing the data image, also while a commit writes its metadata.
 *
 * One flush at a time, or an error could be told to the one that nobody asks: the kernel tells it once for each open
 * file. So these are for the one who leads commits only (sync.c), with no lock held.
 */
#ifndef THINFS_POOL_DATA_FLUSH_H
#define THINFS_POOL_DATA_FLUSH_H

#include <stdbool.h>

struct pool;

/* Without a thread (tests) data_flush_begin() is always false. */
int data_flush_start(struct pool *p);
/* When no call is under way any more. */
void data_flush_stop(struct pool *p);

/* All that was written to the data image before is safe. A failure is said once, not at each call. */
int data_flush(struct pool *p) __attribute__((warn_unused_result));
/*
 * The same in two parts: what was written before the first is safe when the second has returned 0. False: it was not
 * begun, because flushes are too quick for that to be worth it.
 */
bool data_flush_begin(struct pool *p);
int data_flush_end(struct pool *p) __attribute__((warn_unused_result));

#endif
