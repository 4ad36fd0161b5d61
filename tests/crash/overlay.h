/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * overlay: an image over bytes that do not change: what is written is kept aside, and forgotten by
 * overlay_reset(). So one of thousands of states that differ a little costs little.
 */
#ifndef THINFS_TESTS_CRASH_OVERLAY_H
#define THINFS_TESTS_CRASH_OVERLAY_H

#include "io/image.h"

#define OVERLAY_PAGE 4096U

struct overlay {
	struct image image; /* closing it does nothing */
	const uint8_t *base;
	uint64_t size; /* of the bytes; whole pages */
	uint64_t shown; /* of the image: not more; all of it, unless it is set to something else */
	uint8_t **pages; /* NULL: as in BASE */
	uint8_t **spare;
	size_t nr_spare;
	uint32_t *changed;
	size_t nr_changed;
};

void overlay_init(struct overlay *o, const char *name, const uint8_t *base, uint64_t size);
void overlay_free(struct overlay *o);
void overlay_reset(struct overlay *o);
/* LEN bytes that do not cross a page. */
const uint8_t *overlay_at(const struct overlay *o, uint64_t offset);
uint8_t *overlay_change(struct overlay *o, uint64_t offset);

#endif
