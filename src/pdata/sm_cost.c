/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sm_cost: how many metadata blocks writing a space map down will take (sm_flush.c), at most.
 *
 * Too little here, and a transaction cannot be committed; too much, and small pools refuse what they could do.
 */
#include <config.h>

#include "pdata/space_map_internal.h"
#include "util/minmax.h"

/* Entries of a leaf of the count tree: at most, at least, and what is left to fill of one that was split (S 4.1, S 4.4). */
#define COUNT_LEAF_MAX 336U
#define COUNT_LEAF_MIN 112U
#define COUNT_LEAF_SPLIT 112U

#define INDEX_LEAF_MAX 168U
#define INDEX_LEAF_MIN 56U
#define FANOUT_MIN 84U

/* Internal nodes above TOUCHED of LEAVES leaves. A root that is split gives two. */
static uint64_t
nodes_above(uint64_t leaves, uint64_t touched)
{
	uint64_t nr = 2;

	for (uint64_t level = leaves / FANOUT_MIN; level; level /= FANOUT_MIN)
		nr += min_u64(level, touched);
	return nr + 1;
}

/* For counts of three and more. */
static uint64_t
count_tree_cost(struct space_map *sm, const struct sm_change *change)
{
	struct btree tree = sm_count_tree(sm);
	uint64_t most = sm->nr_allocated / COUNT_LEAF_MIN + 1; /* leaves, when all counts are that large */
	uint64_t rising = min_u64(sm->changed_counts.nr + change->up, sm->nr_allocated);
	uint64_t changing = min_u64(rising + change->down, sm->nr_allocated);
	struct btree_shape shape = {.depth = 3};
	uint64_t leaves, touched, split;
	int r = btree_get_shape(&tree, sm->count_root, &shape);

	if (!r && shape.depth == 1 && !shape.root_entries && !rising)
		return 0;
	if (!changing)
		return 0;
	if (!r && shape.depth == 1 && shape.root_entries + rising <= COUNT_LEAF_MAX)
		return 1;
	leaves = !r && shape.depth == 1 ? 1 : !r && shape.depth == 2 ? shape.root_entries : most;
	/* Each change may be in a leaf of its own, which may be full; a removal balances it with two others. */
	touched = min_u64(3 * changing, leaves);
	split = min_u64(min_u64(rising, leaves) + rising / COUNT_LEAF_SPLIT + 1, most);
	return touched + split + nodes_above(leaves + split, touched + split);
}

/* Chunks that have no bitmap block yet are at the end: the device has grown. */
static uint64_t
new_chunks(const struct space_map *sm)
{
	uint64_t nr = 0;

	while (nr < sm->nr_chunks && !sm->chunks[sm->nr_chunks - 1 - nr].blocknr)
		nr++;
	return nr;
}

/* Bitmaps of the data map, and the leaves of its index. */
static uint64_t
bitmap_cost(struct space_map *sm, const struct sm_change *change)
{
	uint64_t changes = change->up + change->down + change->taken;
	uint64_t bitmaps = sm->nr_dirty + min_u64(changes, sm->nr_chunks - sm->nr_dirty);
	uint64_t added = new_chunks(sm), touched, leaves;

	if (!bitmaps)
		return 0;
	if (sm->nr_chunks <= INDEX_LEAF_MIN) /* as a tree of one leaf it was made, and that holds thrice as many */
		return bitmaps + 1;
	leaves = sm->nr_chunks / INDEX_LEAF_MIN + 1;
	touched = min_u64(bitmaps, leaves);
	if (added)
		touched += added / INDEX_LEAF_MIN + 2;
	return bitmaps + touched + nodes_above(leaves, touched);
}

uint64_t
sm_flush_cost(struct space_map *sm, const struct sm_change *change)
{
	uint64_t counts = count_tree_cost(sm, change);

	/* Flushing the metadata map makes more of its bitmaps dirty; there are few. */
	return counts + (sm->kind == SM_METADATA ? 1 + sm->nr_chunks : bitmap_cost(sm, change));
}
