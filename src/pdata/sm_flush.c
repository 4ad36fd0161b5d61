/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sm_flush: writing a space map down, once a transaction; counts of 3 and more already before, when they are many.
 *
 * Flushing the metadata map changes it: each changed bitmap needs a new block, whose allocation
 * changes a bitmap. The loop in flush_metadata() ends because a bitmap is placed once in a
 * transaction, and because the nodes of the count tree are never shared, so that placing them
 * adds no counts of 3 and more.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/space_map_internal.h"

/* Let the chunk have a block of the open transaction. */
static int
place_chunk(struct space_map *sm, struct sm_chunk *c)
{
	struct block *b;
	bool shared;
	int r;

	if (c->blocknr)
		r = txn_shadow(sm->txn, c->blocknr, BLOCK_BITMAP, &b, &shared);
	else
		r = txn_new(sm->txn, BLOCK_BITMAP, &b);
	if (r)
		return r;
	c->blocknr = b->nr;
	c->placed = true;
	bc_put(b);
	return 0;
}

static int
fill_chunk(struct space_map *sm, struct sm_chunk *c)
{
	struct block *b;
	int r = txn_read(sm->txn, c->blocknr, BLOCK_BITMAP, &b);

	if (r)
		return r;
	chunk_store(c, b->data);
	c->placed = false;
	c->dirty = false;
	sm->nr_dirty--;
	bc_put(b);
	return 0;
}

static struct disk_index_entry
chunk_to_disk(const struct sm_chunk *c)
{
	return (struct disk_index_entry){
		.blocknr = le64_make(c->blocknr),
		.nr_free = le32_make(c->nr_free),
		.none_free_before = le32_make(c->none_free_before),
	};
}

static int
compare_keys(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int
flush_count(struct space_map *sm, uint64_t block)
{
	struct btree tree = sm_count_tree(sm);
	struct le32 value;
	uint64_t count;
	int r;

	if (!u64map_get(&sm->changed_counts, block, &count))
		return 0;
	value = le32_make((uint32_t)count);
	if (count)
		r = btree_insert(&tree, &sm->count_root, block, &value, NULL);
	else
		r = btree_remove(&tree, &sm->count_root, block);
	if (r == -ENODATA) /* rose to 3 and fell again since the last flush */
		r = 0;
	if (!r)
		u64map_remove(&sm->changed_counts, block);
	return r;
}

static int
flush_counts(struct space_map *sm)
{
	size_t nr = sm->changed_counts.nr;
	uint64_t *blocks, count;
	size_t pos = 0, i = 0;
	int r = 0;

	if (!nr)
		return 0;
	blocks = reallocarray(NULL, nr, sizeof(*blocks));
	if (!blocks)
		return -ENOMEM;
	while (u64map_next(&sm->changed_counts, &pos, &blocks[i], &count))
		if (++i == nr)
			break;
	qsort(blocks, nr, sizeof(*blocks), compare_keys);
	for (i = 0; i < nr && !r; i++)
		r = flush_count(sm, blocks[i]);
	free(blocks);
	return r;
}

/* About a millisecond's worth. */
#define COUNTS_TO_SETTLE 1024U

int
sm_settle_counts(struct space_map *sm)
{
	return sm->changed_counts.nr >= COUNTS_TO_SETTLE ? flush_counts(sm) : 0;
}

static int
flush_data(struct space_map *sm)
{
	struct btree index = sm_index_tree(sm);
	int r = flush_counts(sm);

	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
		struct sm_chunk *c = &sm->chunks[i];
		struct disk_index_entry entry;

		if (!c->dirty)
			continue;
		r = place_chunk(sm, c);
		if (!r)
			r = fill_chunk(sm, c);
		if (r)
			break;
		entry = chunk_to_disk(c);
		r = btree_insert(&index, &sm->bitmap_root, i, &entry, NULL);
	}
	return r;
}

static int
store_index(struct space_map *sm, struct block *b)
{
	struct disk_index *index = b->data;
	int r = 0;

	memset(index->entries, 0, sizeof(index->entries));
	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
		struct sm_chunk *c = &sm->chunks[i];

		if (c->placed)
			r = fill_chunk(sm, c);
		index->entries[i] = chunk_to_disk(c);
	}
	return r;
}

static int
flush_metadata(struct space_map *sm)
{
	struct block *index;
	bool shared, again;
	int r = txn_shadow(sm->txn, sm->bitmap_root, BLOCK_INDEX, &index, &shared);

	if (r)
		return r;
	sm->bitmap_root = index->nr;
	do {
		again = false;
		r = flush_counts(sm);
		for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
			struct sm_chunk *c = &sm->chunks[i];

			if (c->dirty && !c->placed) {
				r = place_chunk(sm, c);
				again = true;
			}
		}
	} while (!r && (again || sm->changed_counts.nr));
	if (!r)
		r = store_index(sm, index);
	bc_put(index);
	return r;
}

int
sm_flush(struct space_map *sm, struct disk_sm_root *root)
{
	int r = sm->kind == SM_METADATA ? flush_metadata(sm) : flush_data(sm);

	*root = (struct disk_sm_root){
		.nr_blocks = le64_make(sm->nr_blocks),
		.nr_allocated = le64_make(sm->nr_allocated),
		.bitmap_root = le64_make(sm->bitmap_root),
		.ref_count_root = le64_make(sm->count_root),
	};
	return r;
}

void
sm_freeze(struct space_map *sm)
{
	assert(!sm->freed_frozen.nr);
	sm->freed_frozen = sm->freed_open;
	memset(&sm->freed_open, 0, sizeof(sm->freed_open));
	sm_drops_clear(&sm->dropped_frozen);
	sm->dropped_frozen = sm->dropped_open;
	memset(&sm->dropped_open, 0, sizeof(sm->dropped_open));
}

int
sm_durable(struct space_map *sm, struct runs *freed)
{
	sm_drops_clear(&sm->dropped_frozen);
	/* What is behind a fence stays busy. */
	runs_clip(&sm->freed_frozen, sm->fence);
	if (freed)
		return runs_move(freed, &sm->freed_frozen);
	for (size_t i = 0; i < sm->freed_frozen.nr; i++)
		sm_unreserve(sm, sm->freed_frozen.v[i].start, sm->freed_frozen.v[i].len);
	runs_clear(&sm->freed_frozen);
	return 0;
}
