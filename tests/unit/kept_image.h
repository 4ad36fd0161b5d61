/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kept_image: an image that passes everything on to another one and outlives being closed, so that a
 * test can open a pool over the same bytes again; counts flushes.
 */
#ifndef THINFS_TESTS_KEPT_IMAGE_H
#define THINFS_TESTS_KEPT_IMAGE_H

#include "io/image.h"

struct kept_image {
	struct image image; /* to be given to a pool */
	struct image *inner;
	uint64_t nr_flushes;
};

/* INNER is closed by kept_image_free(), not before. */
void kept_image_init(struct kept_image *k, struct image *inner);
void kept_image_free(struct kept_image *k);

/* All bytes, in memory of the image's size: free(). */
char *kept_image_copy(struct kept_image *k, uint64_t *size);
/* Make the image what it was when BYTES were copied. */
void kept_image_restore(struct kept_image *k, const char *bytes, uint64_t size);

#endif
