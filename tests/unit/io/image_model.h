/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image_model: any image against an array of bytes, random operations at odd offsets.
 */
#ifndef THINFS_TESTS_IMAGE_MODEL_H
#define THINFS_TESTS_IMAGE_MODEL_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "io/image.h"
#include "unit/random.h"

#define IMAGE_MODEL_MAX (1U << 20)

/* Cut BUF into up to NR pieces. */
static inline int
image_model_cut(struct random_source *rs, struct iovec *iov, int nr, char *buf, size_t len)
{
	int i;

	for (i = 0; i < nr - 1; i++) {
		iov[i].iov_base = buf;
		iov[i].iov_len = random_below(rs, len + 1);
		buf += iov[i].iov_len;
		len -= iov[i].iov_len;
	}
	iov[i].iov_base = buf;
	iov[i].iov_len = len;
	return nr;
}

static inline void
image_model_step(struct random_source *rs, struct image *img, char *model, uint64_t *size)
{
	static char buf[IMAGE_MODEL_MAX];
	uint64_t max_len = 1ULL << random_below(rs, 20);
	uint64_t offset = random_below(rs, *size);
	size_t len = random_below(rs, (max_len < *size - offset ? max_len : *size - offset) + 1);
	uint64_t new_size, punched;
	struct iovec iov[8];
	int nr = image_model_cut(rs, iov, 1 + (int)random_below(rs, 8), buf, len);

	switch (random_below(rs, 16)) {
	default:
		cr_assert_eq(image_readv(img, iov, nr, offset), 0);
		cr_assert_eq(memcmp(buf, model + offset, len), 0);
		break;
	case 0 ... 6:
		memset(buf, (int)random_below(rs, 256), len);
		memcpy(model + offset, buf, len);
		cr_assert_eq(image_writev(img, iov, nr, offset), 0);
		break;
	case 7:
		memset(model + offset, 0, len);
		cr_assert_eq(image_zero(img, offset, len), 0);
		break;
	case 8: /* past the end as well: clipped */
		punched = len + random_below(rs, 3) * *size;
		memset(model + offset, 0, punched < *size - offset ? punched : *size - offset);
		cr_assert_eq(image_punch(img, offset, punched), 0);
		break;
	case 9:
		cr_assert_eq(image_flush(img), 0);
		break;
	case 10:
		new_size = 1 + random_below(rs, IMAGE_MODEL_MAX);
		if (image_resize(img, new_size) == 0) {
			if (new_size < *size)
				memset(model + new_size, 0, *size - new_size);
			*size = new_size;
		}
		break;
	}
}

static inline void
image_model_run(struct image *img, const char *test, int steps)
{
	struct random_source rs = random_start(test);
	char *model = calloc(1, IMAGE_MODEL_MAX);
	char *whole = malloc(IMAGE_MODEL_MAX);
	uint64_t size, now;

	cr_assert_eq(image_get_size(img, &size), 0);
	for (int i = 0; i < steps; i++)
		image_model_step(&rs, img, model, &size);

	cr_assert_eq(image_get_size(img, &now), 0);
	cr_assert_eq(now, size);
	cr_assert_eq(image_read(img, whole, size, 0), 0);
	cr_assert_eq(memcmp(whole, model, size), 0);
	free(whole);
	free(model);
}

#endif
