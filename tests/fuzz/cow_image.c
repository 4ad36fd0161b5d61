/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/cow_image.h"
#include "fuzz/fuzz.h"
#include "util/minmax.h"

/* Bounds the memory of a run; an image that is changed further is out of space. */
#define MAX_CHANGED 8192U

static const uint8_t zero_page[COW_PAGE];

static struct cow_image *
to_cow(struct image *img)
{
	return (struct cow_image *)img;
}

const uint8_t *
cow_look(const struct cow_image *c, uint64_t page)
{
	if (c->now[page])
		return c->now[page];
	return c->base[page] ? c->base[page] : zero_page;
}

uint8_t *
cow_touch(struct cow_image *c, uint64_t page)
{
	uint8_t *p = c->now[page];

	if (p)
		return p;
	if (c->nr_changed == MAX_CHANGED)
		return NULL;
	p = malloc(COW_PAGE);
	if (!p)
		return NULL;
	memcpy(p, cow_look(c, page), COW_PAGE);
	c->now[page] = p;
	c->changed[c->nr_changed++] = (uint32_t)page;
	return p;
}

/* LEN bytes at OFFSET, to or from BUF, a page at a time. BUF NULL: zeros. */
static int
write_pages(struct cow_image *c, const uint8_t *buf, uint64_t len, uint64_t offset)
{
	while (len) {
		uint64_t page = offset / COW_PAGE, at = offset % COW_PAGE;
		uint64_t n = min_u64(len, COW_PAGE - at);
		uint8_t *p;

		if (c->guard && c->guard[page])
			fuzz_fail("%s: block %llu is overwritten, though the last commit needs it",
				  c->image.name, (unsigned long long)page);
		/* What is zero stays without memory. */
		if (buf || c->now[page] || c->base[page]) {
			p = cow_touch(c, page);
			if (!p)
				return -ENOSPC;
			if (buf)
				memcpy(p + at, buf, n);
			else
				memset(p + at, 0, n);
		}
		buf = buf ? buf + n : NULL;
		offset += n;
		len -= n;
	}
	return 0;
}

static void
read_pages(const struct cow_image *c, uint8_t *buf, uint64_t len, uint64_t offset)
{
	while (len) {
		uint64_t at = offset % COW_PAGE, n = min_u64(len, COW_PAGE - at);

		memcpy(buf, cow_look(c, offset / COW_PAGE) + at, n);
		buf += n;
		offset += n;
		len -= n;
	}
}

static bool
in_range(const struct cow_image *c, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	uint64_t left = c->size - offset;

	if (offset > c->size)
		return false;
	for (; nr_iov; nr_iov--, iov++) {
		if (iov->iov_len > left)
			return false;
		left -= iov->iov_len;
	}
	return true;
}

static int
cow_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct cow_image *c = to_cow(img);

	if (!in_range(c, iov, nr_iov, offset))
		return -EIO;
	for (; nr_iov; nr_iov--, iov++) {
		read_pages(c, iov->iov_base, iov->iov_len, offset);
		offset += iov->iov_len;
	}
	return 0;
}

static int
cow_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct cow_image *c = to_cow(img);
	int r = 0;

	if (!in_range(c, iov, nr_iov, offset))
		return -EIO;
	for (; nr_iov && !r; nr_iov--, iov++) {
		if (iov->iov_len)
			r = write_pages(c, iov->iov_base, iov->iov_len, offset);
		offset += iov->iov_len;
	}
	return r;
}

static int
cow_flush(struct image *img)
{
	(void)img;
	return 0;
}

static int
cow_punch(struct image *img, uint64_t offset, uint64_t len)
{
	struct cow_image *c = to_cow(img);

	if (offset >= c->size)
		return 0;
	return write_pages(c, NULL, min_u64(len, c->size - offset), offset);
}

static int
cow_resize(struct image *img, uint64_t size)
{
	(void)img;
	(void)size;
	return -EOPNOTSUPP;
}

static int
cow_get_size(struct image *img, uint64_t *size)
{
	*size = to_cow(img)->size;
	return 0;
}

static void
cow_close(struct image *img)
{
	(void)img;
}

static const struct image_ops cow_ops = {
	.readv = cow_readv,
	.writev = cow_writev,
	.flush = cow_flush,
	.punch = cow_punch,
	.discard = cow_punch,
	.resize = cow_resize,
	.get_size = cow_get_size,
	.close = cow_close,
};

struct cow_image *
cow_new(const char *name, uint64_t size)
{
	struct cow_image *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->image = (struct image){.ops = &cow_ops, .name = name};
	c->size = size;
	c->nr_pages = (size + COW_PAGE - 1) / COW_PAGE;
	c->base = calloc(c->nr_pages + 1, sizeof(*c->base));
	c->now = calloc(c->nr_pages + 1, sizeof(*c->now));
	c->changed = calloc(MAX_CHANGED, sizeof(*c->changed));
	return c->base && c->now && c->changed ? c : NULL;
}

void
cow_reset(struct cow_image *c)
{
	c->guard = NULL;
	for (uint32_t i = 0; i < c->nr_changed; i++) {
		free(c->now[c->changed[i]]);
		c->now[c->changed[i]] = NULL;
	}
	c->nr_changed = 0;
}

void
cow_keep(struct cow_image *c)
{
	for (uint32_t i = 0; i < c->nr_changed; i++) {
		uint32_t page = c->changed[i];

		free(c->base[page]);
		c->base[page] = c->now[page];
		c->now[page] = NULL;
	}
	c->nr_changed = 0;
}
