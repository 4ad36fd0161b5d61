/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash/overlay.h"

const uint8_t *
overlay_at(const struct overlay *o, uint64_t offset)
{
	const uint8_t *page = o->pages[offset / OVERLAY_PAGE];

	return page ? page + offset % OVERLAY_PAGE : o->base + offset;
}

uint8_t *
overlay_change(struct overlay *o, uint64_t offset)
{
	uint64_t nr = offset / OVERLAY_PAGE;
	uint8_t *page = o->pages[nr];

	if (!page) {
		page = o->nr_spare ? o->spare[--o->nr_spare] : malloc(OVERLAY_PAGE);
		if (!page)
			abort();
		memcpy(page, o->base + nr * OVERLAY_PAGE, OVERLAY_PAGE);
		o->pages[nr] = page;
		o->changed[o->nr_changed++] = (uint32_t)nr;
	}
	return page + offset % OVERLAY_PAGE;
}

/* Bytes up to the end of the page. */
static uint64_t
in_page(uint64_t offset, uint64_t len)
{
	uint64_t n = OVERLAY_PAGE - offset % OVERLAY_PAGE;

	return n < len ? n : len;
}

static int
overlay_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct overlay *o = (struct overlay *)img;

	for (int i = 0; i < nr_iov; i++) {
		uint8_t *to = iov[i].iov_base;

		for (uint64_t left = iov[i].iov_len, n; left; left -= n, to += n, offset += n) {
			n = in_page(offset, left);
			if (offset + n > o->shown)
				return -EIO;
			memcpy(to, overlay_at(o, offset), n);
		}
	}
	return 0;
}

static int
overlay_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct overlay *o = (struct overlay *)img;

	for (int i = 0; i < nr_iov; i++) {
		const uint8_t *from = iov[i].iov_base;

		for (uint64_t left = iov[i].iov_len, n; left; left -= n, from += n, offset += n) {
			n = in_page(offset, left);
			if (offset + n > o->shown)
				return -EIO;
			memcpy(overlay_change(o, offset), from, n);
		}
	}
	return 0;
}

static int
overlay_flush(struct image *img)
{
	(void)img;
	return 0;
}

static int
overlay_punch(struct image *img, uint64_t offset, uint64_t len)
{
	struct overlay *o = (struct overlay *)img;

	for (uint64_t n; len && offset < o->shown; len -= n, offset += n) {
		n = in_page(offset, len);
		memset(overlay_change(o, offset), 0, n);
	}
	return 0;
}

static int
overlay_get_size(struct image *img, uint64_t *size)
{
	*size = ((struct overlay *)img)->shown;
	return 0;
}

static void
overlay_close(struct image *img)
{
	(void)img;
}

static const struct image_ops overlay_ops = {
	.readv = overlay_readv,
	.writev = overlay_writev,
	.flush = overlay_flush,
	.punch = overlay_punch,
	.discard = overlay_punch,
	.get_size = overlay_get_size,
	.close = overlay_close,
};

void
overlay_init(struct overlay *o, const char *name, const uint8_t *base, uint64_t size)
{
	size_t nr = size / OVERLAY_PAGE;

	*o = (struct overlay){.image = {.ops = &overlay_ops, .name = name}, .base = base};
	o->size = o->shown = size;
	o->pages = calloc(nr, sizeof(*o->pages));
	o->spare = calloc(nr, sizeof(*o->spare));
	o->changed = calloc(nr, sizeof(*o->changed));
	if (!o->pages || !o->spare || !o->changed)
		abort();
}

void
overlay_reset(struct overlay *o)
{
	for (size_t i = 0; i < o->nr_changed; i++) {
		o->spare[o->nr_spare++] = o->pages[o->changed[i]];
		o->pages[o->changed[i]] = NULL;
	}
	o->nr_changed = 0;
}

void
overlay_free(struct overlay *o)
{
	overlay_reset(o);
	while (o->nr_spare)
		free(o->spare[--o->nr_spare]);
	free(o->pages);
	free(o->spare);
	free(o->changed);
}
