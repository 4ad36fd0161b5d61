/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sm_shrink: taking blocks at the end of the data space map out of use, and then out of the map.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>

#include "pdata/space_map_internal.h"
#include "util/minmax.h"

#define INDEX_LEAF_MIN 56U

/* The entries of chunk I that are from block FIRST on. */
static void
entries_from(const struct space_map *sm, uint64_t i, uint64_t first, uint32_t *from, uint32_t *to)
{
	*from = i == first / BITMAP_ENTRIES ? first % BITMAP_ENTRIES : 0;
	*to = sm_entries_in(sm, i);
}

int
sm_split_at(struct space_map *sm, uint64_t first, struct sm_split *split)
{
	uint64_t free_behind = sm->nr_blocks - first;

	*split = (struct sm_split){0};
	for (uint64_t i = first / BITMAP_ENTRIES; i < sm->nr_chunks; i++) {
		uint32_t from, to, used, held;
		struct sm_chunk *c;
		int r = sm_get_chunk(sm, i, &c);

		if (r)
			return r;
		entries_from(sm, i, first, &from, &to);
		chunk_tell_use(c, from, to, &used, &held);
		split->used_behind += used;
		split->held_behind += held;
		free_behind -= used + held;
	}
	split->free_before = sm_nr_free(sm) - min_u64(sm_nr_free(sm), free_behind);
	return 0;
}

int
sm_fence(struct space_map *sm, uint64_t first)
{
	struct sm_split split;
	int r = sm_split_at(sm, first, &split); /* loads the bitmaps */

	assert(sm->kind == SM_DATA && first <= sm->nr_blocks);
	if (r)
		return r;
	sm->fence = first;
	for (uint64_t i = first / BITMAP_ENTRIES; i < sm->nr_chunks; i++) {
		uint32_t from, to;

		entries_from(sm, i, first, &from, &to);
		sm->nr_held += chunk_hold(&sm->chunks[i], from, to);
	}
	return 0;
}

uint64_t
sm_get_fence(const struct space_map *sm)
{
	return sm->fence;
}

/* Those of FREED from FIRST on must not be handed out. */
static void
hold_freed(struct space_map *sm, const struct runs *freed, uint64_t first)
{
	for (size_t i = 0; i < freed->nr; i++) {
		const struct run *run = &freed->v[i];

		for (uint64_t b = max_u64(run->start, first); b < run->start + run->len; b++) {
			struct sm_chunk *c = &sm->chunks[b / BITMAP_ENTRIES];

			if (chunk_is_busy(c, b % BITMAP_ENTRIES))
				continue;
			chunk_set_busy(c, b % BITMAP_ENTRIES, true);
			sm->nr_held++;
		}
	}
}

void
sm_unfence(struct space_map *sm)
{
	uint64_t first = sm->fence;

	if (first == UINT64_MAX)
		return;
	sm->fence = UINT64_MAX;
	sm_unreserve(sm, first, sm->nr_blocks - first);
	hold_freed(sm, &sm->freed_open, first);
	hold_freed(sm, &sm->freed_frozen, first);
}

static uint64_t
count_from(const struct runs *runs, uint64_t first)
{
	uint64_t nr = 0;

	for (size_t i = 0; i < runs->nr; i++) {
		const struct run *run = &runs->v[i];

		if (run->start + run->len > first)
			nr += run->start + run->len - max_u64(run->start, first);
	}
	return nr;
}

int
sm_behind_fence(struct space_map *sm, uint64_t *used, uint64_t *pending)
{
	struct sm_split split;
	int r;

	if (sm->fence == UINT64_MAX)
		return -EINVAL;
	r = sm_split_at(sm, sm->fence, &split);
	if (r)
		return r;
	*used = split.used_behind;
	*pending = count_from(&sm->freed_open, sm->fence) + count_from(&sm->freed_frozen, sm->fence);
	return 0;
}

/* Removing adjacent keys from the index touches each of its leaves once, and what they are balanced with. */
void
sm_shrink_cost(const struct space_map *sm, uint64_t *taken, uint64_t *freed)
{
	uint64_t bitmaps = sm->nr_chunks - min_u64(sm->nr_chunks, sm_chunks_for(sm->fence));

	*taken = bitmaps ? bitmaps / INDEX_LEAF_MIN + 12 : 0;
	*freed = bitmaps;
}

int
sm_shrink(struct space_map *sm)
{
	uint64_t nr_chunks = sm_chunks_for(sm->fence);
	struct btree index = sm_index_tree(sm);
	int r = 0;

	for (uint64_t i = sm->nr_chunks; i-- > nr_chunks && !r;) {
		struct sm_chunk *c = &sm->chunks[i];

		/* One that the map has grown by in this transaction is not in the index yet. */
		if (c->blocknr) {
			r = btree_remove(&index, &sm->bitmap_root, i);
			if (!r)
				r = txn_dec(sm->txn, c->blocknr);
		}
		sm->nr_dirty -= c->dirty;
		chunk_unload(c);
	}
	if (r)
		return r;
	/* What is left of the last bitmap counts as busy, as always behind the end. */
	sm->nr_held -= sm->nr_blocks - sm->fence;
	sm->nr_chunks = nr_chunks;
	sm->nr_blocks = sm->fence;
	sm->fence = UINT64_MAX;
	sm->cursor = 0;
	return 0;
}
