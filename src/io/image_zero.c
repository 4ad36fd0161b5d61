/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "io/image.h"

/*
 * Up to here, writing zeros is cheaper than the change of the backing file's extents that a punch
 * is, and than allocating the space once more when data follows.
 */
#define WRITE_MAX (256U << 10)

#define ZEROS_SIZE (64U << 10)
#define ZEROS_PER_WRITE 16

static const char zeros[ZEROS_SIZE];

int
image_write_zeros(struct image *img, uint64_t offset, uint64_t len)
{
	while (len) {
		struct iovec iov[ZEROS_PER_WRITE];
		uint64_t written = 0;
		int nr = 0;
		int r;

		while (nr < ZEROS_PER_WRITE && written < len) {
			uint64_t part = len - written;

			if (part > ZEROS_SIZE)
				part = ZEROS_SIZE;
			iov[nr].iov_base = (void *)zeros;
			iov[nr].iov_len = (size_t)part;
			nr++;
			written += part;
		}
		r = image_writev(img, iov, nr, offset);
		if (r)
			return r;
		offset += written;
		len -= written;
	}
	return 0;
}

int
image_zero(struct image *img, uint64_t offset, uint64_t len)
{
	if (len <= WRITE_MAX)
		return image_write_zeros(img, offset, len);
	return image_punch(img, offset, len);
}

int
image_zero_in_place(struct image *img, uint64_t offset, uint64_t len)
{
	if (len <= WRITE_MAX || !img->ops->zero)
		return image_write_zeros(img, offset, len);
	return img->ops->zero(img, offset, len);
}
