/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/thin_meta_internal.h"
#include "util/msg.h"

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

/* -EUCLEAN unless the metadata space map counts block NR. */
static int
check_counted(void *arg, uint64_t nr)
{
	struct thin_meta *m = arg;
	uint32_t count;
	int r = sm_count(m->meta_sm, nr, &count);

	if (r || count)
		return r;
	msg_error("%s: the metadata space map counts block %" PRIu64 " as free, but it is in use; "
		  "check it with 'thinfs check'", m->img->name, nr);
	return -EUCLEAN;
}

/*
 * What is known without a walk to be in use must be counted, or it would be written over: the roots, and the
 * blocks of the space maps themselves.
 */
static int
check_own_blocks(struct thin_meta *m)
{
	const uint64_t blocks[] = {
		SUPERBLOCK_LOCATION,
		m->sb.held_root, /* or 0 */
		m->sb.data_mapping_root,
		m->sb.device_details_root,
	};
	int r = 0;

	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]) && !r; i++)
		r = check_counted(m, blocks[i]);
	if (!r)
		r = sm_for_each_own_block(m->meta_sm, check_counted, m);
	return r ? r : sm_for_each_own_block(m->data_sm, check_counted, m);
}

/* What only a writer needs. Of the hints in the index, older tools got some wrong: S 6.5. */
static int
prepare_maps_for_writing(struct thin_meta *m)
{
	int r = sm_check_counts(m->meta_sm);

	if (!r)
		r = sm_check_counts(m->data_sm);
	if (!r)
		r = sm_recount(m->meta_sm, 0);
	if (!r && sm_nr_blocks(m->data_sm))
		r = sm_recount(m->data_sm, (sm_nr_blocks(m->data_sm) - 1) / BITMAP_ENTRIES);
	return r ? r : check_own_blocks(m);
}

int
meta_open_maps(struct thin_meta *m)
{
	int (*open)(struct txn *t, enum space_map_kind kind, const struct disk_sm_root *root,
		    struct space_map **out) = m->read_only ? sm_open_for_reading : sm_open;
	int r = open(&m->txn, SM_METADATA, &m->sb.metadata_sm_root, &m->meta_sm);

	if (!r)
		r = open(&m->txn, SM_DATA, &m->sb.data_sm_root, &m->data_sm);
	if (!r && !m->read_only)
		r = prepare_maps_for_writing(m);
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
	m->pinned = MAP_HOLE;
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

/* --- what there is --- */

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
		.meta_reserve = meta_kernel_reserve(m),
		.nr_dirty = bc_nr_dirty(m->bc),
	};
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
	if (!r)
		r = sm_settle_counts(m->data_sm);
	if (!r)
		r = sm_settle_counts(m->meta_sm);
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
	r = meta_require_growth(m, nr_data_blocks - sm_nr_blocks(m->data_sm), 0);
	if (r)
		return r;
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
	r = meta_require_growth(m, 0, nr_meta_blocks - sm_nr_blocks(m->meta_sm));
	if (r)
		return r;
	bc_set_nr_blocks(m->bc, nr_meta_blocks);
	return meta_end_change(m, sm_grow(m->meta_sm, nr_meta_blocks));
}
