/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "pool/catalog_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "pool/catalog_record.h"
#include "util/msg.h"

#define CHECK_CACHE_BYTES (1U << 20)
/* The smallest data block; all others are multiples. */
#define PIECE (DATA_BLOCK_MIN_SECTORS * SECTOR_SIZE)

struct catalog_walk {
	struct image *data;
	struct thin_dev *dev;
	uint64_t block_bytes;
	void (*fn)(void *arg, uint32_t id);
	void *arg;
	struct catalog_check_result result;
	uint8_t buf[PIECE];
};

static void
walk_records(struct catalog_walk *w, uint64_t offset)
{
	for (size_t i = 0; i < PIECE; i += RECORD_SIZE) {
		uint64_t id = (offset + i) / RECORD_SIZE;
		struct record record;
		enum record_state state;

		if (id > CATALOG_ID)
			return;
		state = record_decode(w->buf + i, (uint32_t)id, &record);
		w->result.nr_good += state == RECORD_GOOD;
		w->result.nr_bad += state == RECORD_BAD;
		if (state == RECORD_BAD && w->fn)
			w->fn(w->arg, (uint32_t)id);
	}
}

static int
walk_block(struct catalog_walk *w, uint64_t vblock)
{
	struct map_run run;
	unsigned nr;
	int r = dev_map(w->dev, vblock, 1, &run, 1, &nr);

	for (uint64_t at = 0; at < w->block_bytes && !r; at += PIECE) {
		r = image_read(w->data, w->buf, PIECE, run.dblock * w->block_bytes + at);
		if (r)
			msg_error("%s: reading the catalog: %s", w->data->name, strerror(-r));
		else
			walk_records(w, vblock * w->block_bytes + at);
	}
	return r;
}

static int
walk_catalog(struct catalog_walk *w)
{
	uint64_t vblock = 0, len;
	int r;

	w->result = (struct catalog_check_result){0};
	while (!(r = dev_next_mapped(w->dev, vblock, 1, &vblock, &len))) {
		if (vblock > (uint64_t)CATALOG_ID * RECORD_SIZE / w->block_bytes)
			return 0;
		r = walk_block(w, vblock++);
		if (r)
			return r;
	}
	return r == -ENODATA ? 0 : r;
}

/* Without a good record it is no catalog, but some device with the same number. */
static int
walk_if_catalog(struct catalog_walk *w)
{
	void (*fn)(void *arg, uint32_t id) = w->fn;
	int r;

	w->fn = NULL;
	r = walk_catalog(w);
	w->fn = fn;
	if (!r && !w->result.nr_good)
		w->result.nr_bad = 0;
	else if (!r && w->result.nr_bad)
		r = walk_catalog(w);
	return r;
}

int
catalog_check(struct image *data, struct image *meta, void (*fn)(void *arg, uint32_t id), void *arg,
	      struct catalog_check_result *result)
{
	struct catalog_walk *w = calloc(1, sizeof(*w));
	struct meta_info info;
	struct thin_meta *m;
	int r = w ? meta_open(meta, CHECK_CACHE_BYTES, true, &m) : -ENOMEM;

	*result = (struct catalog_check_result){0};
	if (r) {
		free(w);
		return r;
	}
	meta_get_info(m, &info);
	w->data = data;
	w->block_bytes = (uint64_t)info.data_block_sectors * SECTOR_SIZE;
	w->fn = fn;
	w->arg = arg;
	r = dev_open(m, CATALOG_ID, &w->dev);
	if (!r) {
		r = walk_if_catalog(w);
		dev_close(w->dev);
	} else if (r == -ENODATA) {
		r = 0;
	}
	*result = w->result;
	meta_close(m);
	free(w);
	return r;
}
