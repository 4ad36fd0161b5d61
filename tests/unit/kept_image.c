/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "unit/kept_image.h"

#define PIECE 65536U

static struct image *
inner(struct image *img)
{
	return ((struct kept_image *)img)->inner;
}

static int
kept_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	return image_readv(inner(img), iov, nr_iov, offset);
}

static int
kept_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	return image_writev(inner(img), iov, nr_iov, offset);
}

static int
kept_flush(struct image *img)
{
	((struct kept_image *)img)->nr_flushes++;
	return image_flush(inner(img));
}

static int
kept_punch(struct image *img, uint64_t offset, uint64_t len)
{
	return image_punch(inner(img), offset, len);
}

static int
kept_discard(struct image *img, uint64_t offset, uint64_t len)
{
	return image_discard(inner(img), offset, len);
}

static bool
kept_is_hole(struct image *img, uint64_t offset, uint64_t len)
{
	return image_is_hole(inner(img), offset, len);
}

static int
kept_resize(struct image *img, uint64_t size)
{
	return image_resize(inner(img), size);
}

static int
kept_get_size(struct image *img, uint64_t *size)
{
	return image_get_size(inner(img), size);
}

static void
kept_close(struct image *img)
{
	(void)img;
}

static const struct image_ops kept_ops = {
	.readv = kept_readv,
	.writev = kept_writev,
	.flush = kept_flush,
	.punch = kept_punch,
	.discard = kept_discard,
	.is_hole = kept_is_hole,
	.resize = kept_resize,
	.get_size = kept_get_size,
	.close = kept_close,
};

void
kept_image_init(struct kept_image *k, struct image *img)
{
	*k = (struct kept_image){.image = {.ops = &kept_ops, .name = img->name}, .inner = img};
}

void
kept_image_free(struct kept_image *k)
{
	image_close(k->inner);
	k->inner = NULL;
}

char *
kept_image_copy(struct kept_image *k, uint64_t *size)
{
	char *bytes;

	if (image_get_size(k->inner, size))
		abort();
	bytes = malloc(*size);
	if (!bytes || image_read(k->inner, bytes, *size, 0))
		abort();
	return bytes;
}

void
kept_image_restore(struct kept_image *k, const char *bytes, uint64_t size)
{
	static const char zeros[PIECE];

	if (image_resize(k->inner, size) || image_punch(k->inner, 0, size))
		abort();
	for (uint64_t at = 0; at < size; at += PIECE) {
		size_t n = size - at < PIECE ? size - at : PIECE;

		if (memcmp(bytes + at, zeros, n) && image_write(k->inner, bytes + at, n, at))
			abort();
	}
}
