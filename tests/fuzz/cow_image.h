/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cow_image: an image in memory that goes back to what it was, at the cost of what was changed.
 *
 * An image of the usual kind (image_open_memory) would have to be written anew for each of millions of
 * runs. Pages are of 4096 bytes, one metadata block. One thread.
 */
#ifndef THINFS_TESTS_COW_IMAGE_H
#define THINFS_TESTS_COW_IMAGE_H

#include "io/image.h"

#define COW_PAGE 4096U

struct cow_image {
	struct image image; /* closing it does nothing: it may be opened again, as often as wanted */
	uint64_t size;
	uint64_t nr_pages;
	uint8_t **base; /* NULL: zeros */
	uint8_t **now; /* NULL: as the base */
	uint32_t *changed; /* pages that have a NOW */
	uint32_t nr_changed;
	/* When set, one byte a page: writing to a page whose byte is not 0 is a bug. */
	const uint8_t *guard;
};

/* SIZE bytes of zeros. NULL: no memory. Never freed. */
struct cow_image *cow_new(const char *name, uint64_t size);
/* As it was made, or last kept. */
void cow_reset(struct cow_image *c);
/* From now on, this is what cow_reset() goes back to. */
void cow_keep(struct cow_image *c);
/* For reading, and for changing, past the image's functions; the same memory until cow_reset(). */
const uint8_t *cow_look(const struct cow_image *c, uint64_t page);
uint8_t *cow_touch(struct cow_image *c, uint64_t page);

#endif
