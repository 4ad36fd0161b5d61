/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "io/unflushed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/minmax.h"
#include "util/u64map.h"

#define UNIT 4096U

struct piece {
	struct piece *next;
	uint64_t offset;
	uint64_t len; /* less than UNIT at the end of the image */
	uint8_t bytes[UNIT];
};

struct unflushed {
	struct piece *pieces;
	struct u64map seen; /* number of the unit -> unused */
};

struct unflushed *
unflushed_new(void)
{
	return calloc(1, sizeof(struct unflushed));
}

void
unflushed_forget(struct unflushed *u)
{
	struct piece *piece;

	while ((piece = u->pieces)) {
		u->pieces = piece->next;
		free(piece);
	}
	u64map_clear(&u->seen);
}

void
unflushed_free(struct unflushed *u)
{
	if (u)
		unflushed_forget(u);
	free(u);
}

static int
remember_unit(struct unflushed *u, struct image *img, uint64_t unit, uint64_t size)
{
	struct piece *piece;
	int r;

	if (u64map_get(&u->seen, unit, NULL))
		return 0;
	piece = malloc(sizeof(*piece));
	if (!piece)
		return -ENOMEM;
	piece->offset = unit * UNIT;
	piece->len = min_u64(UNIT, size - piece->offset);
	r = image_read(img, piece->bytes, piece->len, piece->offset);
	if (!r)
		r = u64map_set(&u->seen, unit, 0);
	if (r) {
		free(piece);
		return r;
	}
	piece->next = u->pieces;
	u->pieces = piece;
	return 0;
}

int
unflushed_remember(struct unflushed *u, struct image *img, uint64_t offset, uint64_t len)
{
	uint64_t size, end;
	int r = image_get_size(img, &size);

	end = min_u64(size, offset + len);
	for (uint64_t unit = offset / UNIT; unit * UNIT < end && !r; unit++)
		r = remember_unit(u, img, unit, size);
	return r;
}

void
unflushed_take_back(struct unflushed *u, struct image *img)
{
	for (struct piece *piece = u->pieces; piece; piece = piece->next)
		image_write(img, piece->bytes, piece->len, piece->offset);
	unflushed_forget(u);
}
