/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sm_open: making, opening and closing a space map.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "pdata/space_map_internal.h"
#include "util/msg.h"

static struct space_map *
sm_alloc_struct(struct txn *t, enum space_map_kind kind, uint64_t nr_blocks)
{
	struct space_map *sm = calloc(1, sizeof(*sm));

	if (!sm)
		return NULL;
	sm->nr_chunks = sm_chunks_for(nr_blocks);
	sm->chunks = calloc(sm->nr_chunks ? sm->nr_chunks : 1, sizeof(*sm->chunks));
	if (!sm->chunks) {
		free(sm);
		return NULL;
	}
	mutex_init(&sm->load_lock, "load_lock", LOCK_LEAF - 1);
	sm->txn = t;
	sm->kind = kind;
	sm->nr_blocks = nr_blocks;
	sm->fence = UINT64_MAX;
	if (kind == SM_METADATA)
		t->sm = sm;
	return sm;
}

void
sm_close(struct space_map *sm)
{
	if (!sm)
		return;
	for (uint64_t i = 0; i < sm->nr_chunks; i++)
		chunk_unload(&sm->chunks[i]);
	free(sm->chunks);
	u64map_clear(&sm->changed_counts);
	runs_clear(&sm->freed_open);
	runs_clear(&sm->freed_frozen);
	sm_drops_clear(&sm->dropped_open);
	sm_drops_clear(&sm->dropped_frozen);
	mutex_destroy(&sm->load_lock);
	if (sm->txn->sm == sm)
		sm->txn->sm = NULL;
	free(sm);
}

static int
create_metadata_roots(struct space_map *sm)
{
	struct btree counts = sm_count_tree(sm);
	struct block *b;
	int r = txn_new(sm->txn, BLOCK_INDEX, &b);

	if (r)
		return r;
	sm->bitmap_root = b->nr;
	bc_put(b);
	return btree_empty(&counts, &sm->count_root);
}

/* The metadata map's own blocks, in the kernel's order: S 7.3. */
static int
create_metadata(struct space_map *sm)
{
	struct block *b;
	uint64_t block;
	int r;

	r = sm_alloc(sm, &block);
	assert(r || block == SUPERBLOCK_LOCATION);
	if (!r)
		r = create_metadata_roots(sm);
	for (uint64_t i = 0; !r && i < sm->nr_chunks; i++) {
		r = txn_new(sm->txn, BLOCK_BITMAP, &b);
		if (r)
			break;
		sm->chunks[i].blocknr = b->nr;
		bc_put(b);
	}
	return r;
}

static int
create_data_roots(struct space_map *sm)
{
	struct btree index = sm_index_tree(sm);
	struct btree counts = sm_count_tree(sm);
	int r = btree_empty(&index, &sm->bitmap_root);

	return r ? r : btree_empty(&counts, &sm->count_root);
}

int
sm_create(struct txn *t, enum space_map_kind kind, uint64_t nr_blocks, struct space_map **out)
{
	struct space_map *sm = sm_alloc_struct(t, kind, nr_blocks);
	int r;

	if (!sm)
		return -ENOMEM;
	for (uint64_t i = 0; i < sm->nr_chunks; i++)
		sm_mark_dirty(sm, &sm->chunks[i]);
	r = kind == SM_METADATA ? create_metadata(sm) : create_data_roots(sm);
	if (r) {
		sm_close(sm);
		return r;
	}
	*out = sm;
	return 0;
}

/* The counts that COUNTS says. */
static int
take_counts(struct space_map *sm, const struct sm_counts *counts)
{
	uint64_t block, count;
	size_t pos = 0;
	int r = 0;

	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
		struct sm_chunk *c = &sm->chunks[i];

		sm_mark_dirty(sm, c);
		if (i >= counts->nr_chunks || !counts->chunks[i])
			continue;
		r = chunk_load_words(c, counts->chunks[i], sm_entries_in(sm, i));
		if (!r)
			sm->nr_allocated += BITMAP_ENTRIES - c->nr_free;
	}
	while (!r && u64map_next(&counts->large, &pos, &block, &count))
		r = u64map_set(&sm->changed_counts, block, count);
	return r;
}

/* Keep blocks that IN_USE counts from being handed out. */
static int
hold_counted(struct space_map *sm, const struct sm_counts *in_use)
{
	for (uint64_t block = 0; block < in_use->nr_blocks; block++) {
		uint32_t entry = block % BITMAP_ENTRIES;
		struct sm_chunk *c;
		int r;

		if (!sm_counts_get(in_use, block))
			continue;
		r = sm_get_chunk(sm, block / BITMAP_ENTRIES, &c);
		if (r)
			return r;
		if (chunk_is_busy(c, entry))
			continue;
		chunk_set_busy(c, entry, true);
		sm->nr_held++;
	}
	return 0;
}

int
sm_create_counted(struct txn *t, enum space_map_kind kind, uint64_t nr_blocks,
		  const struct sm_counts *counts, const struct sm_counts *in_use, struct space_map **out)
{
	struct space_map *sm = sm_alloc_struct(t, kind, nr_blocks);
	int r;

	if (!sm)
		return -ENOMEM;
	r = take_counts(sm, counts);
	if (!r && in_use)
		r = hold_counted(sm, in_use);
	if (!r)
		r = kind == SM_METADATA ? create_metadata_roots(sm) : create_data_roots(sm);
	if (r) {
		sm_close(sm);
		return r;
	}
	*out = sm;
	return 0;
}

static void
chunk_from_disk(struct sm_chunk *c, const struct disk_index_entry *e)
{
	c->blocknr = le64_get(e->blocknr);
	c->nr_free = le32_get(e->nr_free);
	c->none_free_before = le32_get(e->none_free_before);
}

struct index_reader {
	struct space_map *sm;
	uint64_t next;
};

static int
bad_index(const struct index_reader *reader)
{
	msg_error("%s: the data space map's index has no %" PRIu64
		  " bitmaps in a row; check it with 'thinfs check'", bc_name(reader->sm->txn->bc),
		  reader->sm->nr_chunks);
	return -EUCLEAN;
}

static int
read_index_entry(void *arg, uint64_t key, const void *value)
{
	struct index_reader *reader = arg;

	if (key != reader->next || key >= reader->sm->nr_chunks)
		return bad_index(reader);
	chunk_from_disk(&reader->sm->chunks[key], value);
	reader->next++;
	return reader->sm->chunks[key].blocknr ? 0 : bad_index(reader);
}

static int
open_data_index(struct space_map *sm)
{
	struct index_reader reader = {.sm = sm};
	struct btree index = sm_index_tree(sm);
	int r = btree_iterate(&index, sm->bitmap_root, 0, read_index_entry, &reader);

	if (r == 0 && reader.next != sm->nr_chunks)
		r = bad_index(&reader);
	return r;
}

static int
open_metadata_index(struct space_map *sm)
{
	const struct disk_index *index;
	struct block *b;
	int r = txn_read(sm->txn, sm->bitmap_root, BLOCK_INDEX, &b);

	if (r)
		return r;
	index = b->data;
	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
		chunk_from_disk(&sm->chunks[i], &index->entries[i]);
		if (!sm->chunks[i].blocknr)
			r = -EUCLEAN;
	}
	bc_put(b);
	if (r)
		msg_error("%s: the metadata space map's index block %" PRIu64
			  " lacks bitmaps; check it with 'thinfs check'", bc_name(sm->txn->bc),
			  sm->bitmap_root);
	return r;
}

/* All that the root says; nothing is read. */
static int
open_root(struct txn *t, enum space_map_kind kind, const struct disk_sm_root *root, struct space_map **out)
{
	uint64_t nr_blocks = le64_get(root->nr_blocks);
	struct space_map *sm;

	if (nr_blocks > (kind == SM_METADATA ? bc_nr_blocks(t->bc) : DATA_BLOCKS_MAX) ||
	    le64_get(root->nr_allocated) > nr_blocks ||
	    (kind == SM_DATA && sm_chunks_for(nr_blocks) > bc_nr_blocks(t->bc)) ||
	    (kind == SM_METADATA && sm_chunks_for(nr_blocks) > METADATA_BITMAPS_MAX)) {
		msg_error("%s: the %s space map cannot have %" PRIu64 " blocks, %" PRIu64
			  " of them allocated; is the metadata image cut off?", bc_name(t->bc),
			  kind == SM_METADATA ? "metadata" : "data", nr_blocks,
			  le64_get(root->nr_allocated));
		return -EUCLEAN;
	}
	sm = sm_alloc_struct(t, kind, nr_blocks);
	if (!sm)
		return -ENOMEM;
	sm->nr_allocated = le64_get(root->nr_allocated);
	sm->bitmap_root = le64_get(root->bitmap_root);
	sm->count_root = le64_get(root->ref_count_root);
	*out = sm;
	return 0;
}

static int
open_index(struct space_map *sm)
{
	return sm->kind == SM_METADATA ? open_metadata_index(sm) : open_data_index(sm);
}

int
sm_open(struct txn *t, enum space_map_kind kind, const struct disk_sm_root *root,
	struct space_map **out)
{
	struct space_map *sm;
	int r = open_root(t, kind, root, &sm);

	if (r)
		return r;
	r = open_index(sm);
	if (r)
		sm_close(sm);
	else
		*out = sm;
	return r;
}

int
sm_open_for_reading(struct txn *t, enum space_map_kind kind, const struct disk_sm_root *root,
		    struct space_map **out)
{
	int r = open_root(t, kind, root, out);

	if (!r)
		(*out)->damaged = open_index(*out) != 0;
	return r;
}

int
sm_check_counts(struct space_map *sm)
{
	struct btree tree = sm_count_tree(sm);
	struct le32 value;
	int r = btree_lookup(&tree, sm->count_root, 0, &value);

	return r == -ENODATA ? 0 : r;
}

int
sm_recount(struct space_map *sm, uint64_t first_chunk)
{
	uint64_t used = 0;

	for (uint64_t i = first_chunk; i < sm->nr_chunks; i++) {
		struct sm_chunk *c;
		int r = sm_get_chunk(sm, i, &c);

		if (r)
			return r;
		used += BITMAP_ENTRIES - c->nr_free;
	}
	if (!first_chunk)
		sm->nr_allocated = used;
	return 0;
}

int
sm_for_each_own_block(const struct space_map *sm, int (*fn)(void *arg, uint64_t block), void *arg)
{
	int r = fn(arg, sm->bitmap_root);

	if (!r)
		r = fn(arg, sm->count_root);
	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++)
		r = fn(arg, sm->chunks[i].blocknr);
	return r;
}
