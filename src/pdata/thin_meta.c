/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/thin_meta_internal.h"
#include "util/msg.h"

#define RESERVE_MAX_BLOCKS 4096U
#define MIN_FANOUT 84U /* of an internal node, S 4.1 */

/* --- the trees and what their values refer to: S 4.7, S 5 --- */

static int
each_mapping(struct thin_meta *m, const void *values, unsigned nr,
	     int (*fn)(struct space_map *sm, uint64_t block))
{
	const struct le64 *v = values;
	int r = 0;

	for (unsigned i = 0; i < nr && !r; i++)
		r = fn(m->data_sm, le64_get(v[i]) >> MAPPING_TIME_BITS);
	return r;
}

static int
mapping_inc(void *context, const void *values, unsigned nr)
{
	return each_mapping(context, values, nr, sm_inc);
}

static int
mapping_dec(void *context, const void *values, unsigned nr)
{
	return each_mapping(context, values, nr, sm_dec);
}

static bool
mapping_equal(void *context, const void *a, const void *b)
{
	const struct le64 *x = a, *y = b;

	(void)context;
	return le64_get(*x) >> MAPPING_TIME_BITS == le64_get(*y) >> MAPPING_TIME_BITS;
}

static int
root_inc(void *context, const void *values, unsigned nr)
{
	struct thin_meta *m = context;
	const struct le64 *v = values;
	int r = 0;

	for (unsigned i = 0; i < nr && !r; i++)
		r = txn_inc(&m->txn, le64_get(v[i]));
	return r;
}

static int
root_dec(void *context, const void *values, unsigned nr)
{
	struct btree mappings = meta_mapping_tree(context);
	const struct le64 *v = values;
	int r = 0;

	for (unsigned i = 0; i < nr && !r; i++)
		r = btree_delete(&mappings, le64_get(v[i]));
	return r;
}

static bool
root_equal(void *context, const void *a, const void *b)
{
	(void)context;
	return !memcmp(a, b, sizeof(struct le64));
}

static const struct btree_value_type mapping_type = {
	.name = "mapping",
	.size = sizeof(struct le64),
	.inc = mapping_inc,
	.dec = mapping_dec,
	.equal = mapping_equal,
};

static const struct btree_value_type top_type = {
	.name = "top-level mapping",
	.size = sizeof(struct le64),
	.inc = root_inc,
	.dec = root_dec,
	.equal = root_equal,
};

static const struct btree_value_type top_set_type = {
	.name = "top-level mapping",
	.size = sizeof(struct le64),
	.inc = root_inc,
};

static const struct btree_value_type details_type = {
	.name = "device details",
	.size = sizeof(struct disk_details),
};

struct btree
meta_mapping_tree(struct thin_meta *m)
{
	return (struct btree){.txn = &m->txn, .type = &mapping_type, .context = m};
}

struct btree
meta_top_tree(struct thin_meta *m)
{
	return (struct btree){.txn = &m->txn, .type = &top_type, .context = m};
}

struct btree
meta_top_set_tree(struct thin_meta *m)
{
	return (struct btree){.txn = &m->txn, .type = &top_set_type, .context = m};
}

struct btree
meta_details_tree(struct thin_meta *m)
{
	return (struct btree){.txn = &m->txn, .type = &details_type};
}

/* --- opening --- */

int
meta_is_unformatted(struct image *img, bool *zero)
{
	uint8_t *data = aligned_alloc(METADATA_BLOCK_SIZE, METADATA_BLOCK_SIZE);
	int r;

	if (!data)
		return -ENOMEM;
	r = image_read(img, data, METADATA_BLOCK_SIZE, 0);
	if (!r)
		*zero = !data[0] && !memcmp(data, data + 1, METADATA_BLOCK_SIZE - 1);
	free(data);
	return r;
}

int
meta_open_maps(struct thin_meta *m)
{
	int r = sm_open(&m->txn, SM_METADATA, &m->sb.metadata_sm_root, &m->meta_sm);

	if (!r)
		r = sm_open(&m->txn, SM_DATA, &m->sb.data_sm_root, &m->data_sm);
	/* What only a writer needs, and older tools got wrong: S 6.5. */
	if (!r && !m->read_only)
		r = sm_check_counts(m->meta_sm);
	if (!r && !m->read_only)
		r = sm_check_counts(m->data_sm);
	if (!r && !m->read_only)
		r = sm_recount(m->meta_sm, 0);
	if (!r && !m->read_only && sm_nr_blocks(m->data_sm))
		r = sm_recount(m->data_sm, (sm_nr_blocks(m->data_sm) - 1) / BITMAP_ENTRIES);
	if (r)
		meta_close_maps(m);
	return r;
}

void
meta_close_maps(struct thin_meta *m)
{
	sm_close(m->data_sm);
	sm_close(m->meta_sm);
	m->data_sm = NULL;
	m->meta_sm = NULL;
}

static int
check_size(struct thin_meta *m)
{
	uint64_t nr = le64_get(m->sb.metadata_sm_root.nr_blocks);
	uint64_t size;
	int r = image_get_size(m->img, &size);

	if (r)
		return r;
	if (nr > METADATA_BLOCKS_MAX || nr > size / METADATA_BLOCK_SIZE) {
		msg_error("%s: cut off: the pool's metadata has %" PRIu64
			  " blocks of 4096 bytes, the image only %" PRIu64, m->img->name, nr,
			  size / METADATA_BLOCK_SIZE);
		return -EUCLEAN;
	}
	return bc_open(m->img, nr, m->cache_bytes, &m->bc);
}

int
meta_open(struct image *img, size_t cache_bytes, bool read_only, struct thin_meta **out)
{
	struct thin_meta *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->img = img;
	m->cache_bytes = cache_bytes;
	m->read_only = read_only;
	m->open_txn = 1;
	TAILQ_INIT(&m->devs);
	m->frozen_sb = aligned_alloc(METADATA_BLOCK_SIZE, METADATA_BLOCK_SIZE);
	r = m->frozen_sb ? superblock_read(img, read_only, &m->sb) : -ENOMEM;
	if (!r)
		r = check_size(m);
	if (!r) {
		m->txn.bc = m->bc;
		r = meta_open_maps(m);
	}
	if (r) {
		meta_close(m);
		return r;
	}
	*out = m;
	return 0;
}

void
meta_close(struct thin_meta *m)
{
	if (!m)
		return;
	meta_free_devs(m);
	meta_close_maps(m);
	bc_close(m->bc);
	free(m->frozen_sb);
	free(m);
}

/* --- what there is, and whether it is enough --- */

static uint64_t
metadata_reserve(const struct thin_meta *m)
{
	uint64_t tenth = sm_nr_blocks(m->meta_sm) / 10;

	return tenth < RESERVE_MAX_BLOCKS ? tenth : RESERVE_MAX_BLOCKS;
}

void
meta_get_info(struct thin_meta *m, struct meta_info *info)
{
	memset(info, 0, sizeof(*info));
	if (!m->data_sm) /* an abort failed: there is nothing to say */
		return;
	*info = (struct meta_info){
		.data_block_sectors = m->sb.data_block_sectors,
		.trans_id = m->sb.trans_id,
		.time = m->sb.time,
		.held_root = m->sb.held_root,
		.needs_check = m->sb.needs_check,
		.nr_data_blocks = sm_nr_blocks(m->data_sm),
		.used_data_blocks = sm_nr_allocated(m->data_sm),
		.free_data_blocks = sm_nr_free(m->data_sm),
		.pending_data_blocks = sm_nr_pending(m->data_sm),
		.nr_meta_blocks = sm_nr_blocks(m->meta_sm),
		.used_meta_blocks = sm_nr_allocated(m->meta_sm),
		.free_meta_blocks = sm_nr_free(m->meta_sm),
		.meta_reserve = metadata_reserve(m),
		.nr_dirty = bc_nr_dirty(m->bc),
	};
}

/* The deepest tree that can be made of this many blocks: every level has 84 times the one above. */
static unsigned
max_depth(uint64_t nr_blocks)
{
	unsigned depth = 2;

	while (nr_blocks >= MIN_FANOUT) {
		nr_blocks /= MIN_FANOUT;
		depth++;
	}
	return depth;
}

/* Metadata blocks that a change of OPS paths, and the commit after it, may take. */
static uint64_t
worst_case(struct thin_meta *m, uint64_t ops)
{
	/* At each level: the node, a sibling to share out with, and a new one. */
	uint64_t path = 3 * max_depth(sm_nr_allocated(m->meta_sm));
	/* A copied leaf changes the counts of all that it points to. */
	uint64_t counts = ops * 252;

	return ops * path + sm_flush_cost(m->data_sm, counts) + sm_flush_cost(m->meta_sm, ops * path);
}

int
meta_require(struct thin_meta *m, unsigned ops, bool use_reserve)
{
	uint64_t need, kept = 0;

	if (m->broken)
		return -EIO;
	need = worst_case(m, ops);
	if (!use_reserve) {
		uint64_t least = worst_case(m, META_LEAST_OPS);

		kept = metadata_reserve(m);
		/* In a small pool, a tenth is too little to delete anything with. */
		if (kept < least)
			kept = least;
	}
	return sm_nr_free(m->meta_sm) >= need + kept ? 0 : -ENOSPC;
}

uint64_t
meta_open_txn(const struct thin_meta *m)
{
	return m->open_txn;
}

bool
meta_has_changes(const struct thin_meta *m)
{
	return m->changed || m->broken;
}

int
meta_begin_change(struct thin_meta *m)
{
	if (m->read_only)
		return -EROFS;
	return m->broken ? -EIO : 0;
}

int
meta_end_change(struct thin_meta *m, int r)
{
	if (r)
		m->broken = true;
	else
		m->changed = true;
	return r;
}

/* --- data blocks --- */

int
meta_reserve_data(struct thin_meta *m, uint64_t goal, uint64_t want, uint64_t *dblock,
		  uint64_t *got)
{
	return m->broken ? -EIO : sm_reserve(m->data_sm, goal, want, dblock, got);
}

void
meta_unreserve_data(struct thin_meta *m, uint64_t dblock, uint64_t nr)
{
	if (m->data_sm)
		sm_unreserve(m->data_sm, dblock, nr);
}

/* --- the pool --- */

int
meta_set_transaction_id(struct thin_meta *m, uint64_t current, uint64_t new_id)
{
	int r = meta_begin_change(m);

	if (r)
		return r;
	if (m->sb.trans_id != current)
		return -EINVAL;
	m->sb.trans_id = new_id;
	return meta_end_change(m, 0);
}

int
meta_set_needs_check(struct thin_meta *m, bool on)
{
	int r = meta_begin_change(m);

	if (r)
		return r;
	m->sb.needs_check = on;
	return meta_end_change(m, 0);
}

int
meta_grow_data(struct thin_meta *m, uint64_t nr_data_blocks)
{
	int r = meta_begin_change(m);

	if (r)
		return r;
	if (nr_data_blocks < sm_nr_blocks(m->data_sm) || nr_data_blocks > DATA_BLOCKS_MAX)
		return -EINVAL;
	return meta_end_change(m, sm_grow(m->data_sm, nr_data_blocks));
}

int
meta_grow_metadata(struct thin_meta *m, uint64_t nr_meta_blocks)
{
	int r = meta_begin_change(m);

	if (r)
		return r;
	if (nr_meta_blocks > METADATA_BLOCKS_MAX)
		nr_meta_blocks = METADATA_BLOCKS_MAX;
	if (nr_meta_blocks < sm_nr_blocks(m->meta_sm))
		return -EINVAL;
	bc_set_nr_blocks(m->bc, nr_meta_blocks);
	return meta_end_change(m, sm_grow(m->meta_sm, nr_meta_blocks));
}
