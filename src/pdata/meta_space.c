/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * meta_space: whether there is metadata space for a change and for the commit after it.
 *
 * A change is refused before it begins if it might not fit: one that runs out of blocks half-way takes the
 * whole transaction with it. What may still be done when little is left:
 *
 *	free blocks	adding	unmapping	deleting	committing
 *	any amount	yes	yes		yes		yes
 *	reserve		-	yes		yes		yes
 *	a part of it	-	-		yes		yes
 *
 * Unmapping part of a volume copies nodes that snapshots share, so it may take more than it gives; then it stops
 * where deleting a whole device could no longer be done. Deleting gives more than it takes. What was begun can
 * always be committed: nothing is allocated then that was not counted here.
 *
 * The bounds are those of the trees as they are now: of a device's tree the deepest that the blocks in use
 * could make. Where the bound says no, unmapping and deleting look at the nodes that they would really touch.
 */
#include <config.h>

#include <errno.h>

#include "pdata/thin_meta_internal.h"
#include "util/minmax.h"

#define RESERVE_MAX_BLOCKS 4096U

#define INTERNAL_MAX 252U /* entries of an internal node, and of a mapping leaf: S 4.1 */
#define INTERNAL_MIN 84U
#define TOP_LEAF_MAX 252U
#define DETAILS_LEAF_MAX 126U

/* Mappings that one path may stand for (thin_meta.h). */
#define MAPPINGS_A_PATH 64U

uint64_t
meta_kernel_reserve(const struct thin_meta *m)
{
	return min_u64(sm_nr_blocks(m->meta_sm) / 10, RESERVE_MAX_BLOCKS);
}

/* The deepest tree that can be made of the blocks in use: every level has 84 times the one above. */
static unsigned
max_depth(struct thin_meta *m)
{
	uint64_t nr = sm_nr_allocated(m->meta_sm);
	unsigned depth = 2;

	while (nr >= INTERNAL_MIN) {
		nr /= INTERNAL_MIN;
		depth++;
	}
	return depth;
}

/* At each level below the root: the node, a sibling to share out with, and a new one; or two siblings to balance with. */
static uint64_t
path_cost(unsigned depth)
{
	return 1 + 3ULL * (depth - 1);
}

/* A tree of devices: overwriting entries of PATHS leaves, inserting NEW adjacent ones. */
static uint64_t
dev_tree_cost(const struct btree *t, uint64_t root, unsigned leaf_max, uint64_t paths, uint64_t new_devs)
{
	struct btree_shape shape;

	if (btree_get_shape(t, root, &shape))
		shape = (struct btree_shape){.depth = 4, .root_entries = INTERNAL_MAX};
	if (shape.depth == 1 && shape.root_entries + new_devs <= leaf_max)
		return 1;
	/* New leaves are a third full at least; the root may split. */
	paths += new_devs / (leaf_max / 3) + !!new_devs;
	return paths * path_cost(shape.depth) + 2;
}

static uint64_t
dev_trees_cost(struct thin_meta *m, uint64_t paths, uint64_t new_devs)
{
	struct btree top = meta_top_tree(m), details = meta_details_tree(m);

	return dev_tree_cost(&top, m->sb.data_mapping_root, TOP_LEAF_MAX, paths, new_devs) +
	       dev_tree_cost(&details, m->sb.device_details_root, DETAILS_LEAF_MAX, paths, new_devs);
}

/* What a change takes, at most. */
struct need {
	uint64_t nodes; /* of the trees of devices and mappings */
	struct sm_change data, meta;
};

static uint64_t
blocks_for(struct thin_meta *m, const struct need *need)
{
	struct sm_change meta = need->meta;

	meta.down += need->nodes; /* for each node that is copied, the old one */
	return need->nodes + sm_flush_cost(m->data_sm, &need->data) + sm_flush_cost(m->meta_sm, &meta);
}

static struct need
need_to_add(struct thin_meta *m, uint64_t paths, uint64_t new_devs)
{
	unsigned depth = max_depth(m);
	uint64_t mappings = paths * MAPPINGS_A_PATH;

	return (struct need){
		.nodes = paths * path_cost(depth) + dev_trees_cost(m, paths, new_devs),
		/* A shared leaf is copied, and blocks replaced. */
		.data = {.up = paths * INTERNAL_MAX, .down = mappings, .taken = mappings},
		.meta = {.up = (paths * (depth - 1) + 1) * INTERNAL_MAX},
	};
}

/* The least piece of unmapping, with the catalog's block that changes with it. */
static struct need
need_to_unmap(struct thin_meta *m)
{
	unsigned depth = max_depth(m);

	return (struct need){
		.nodes = 2 * path_cost(depth) + dev_trees_cost(m, 2, 0),
		.data = {.up = 3 * INTERNAL_MAX, .down = INTERNAL_MAX + 1, .taken = 1},
		.meta = {.up = (3ULL * (depth - 2) + 1) * INTERNAL_MAX},
	};
}

/*
 * The same of deleting: no leaf of the device's tree need be copied, for leaves can go whole. Of a snapshot, with a
 * device that keeps its directory.
 */
static struct need
need_to_delete(struct thin_meta *m)
{
	unsigned depth = max_depth(m);

	return (struct need){
		.nodes = path_cost(depth) + path_cost(depth - 1) + dev_trees_cost(m, 3, 1),
		.data = {.up = INTERNAL_MAX, .down = INTERNAL_MAX + 1, .taken = 1},
		.meta = {.up = 3ULL * (depth - 1) * INTERNAL_MAX, .down = INTERNAL_MAX},
	};
}

/* What a change must leave. */
static uint64_t
kept(struct thin_meta *m, enum meta_purpose purpose)
{
	struct need delete = need_to_delete(m), unmap = need_to_unmap(m);
	uint64_t nr = 0;

	if (purpose != META_TO_DELETE)
		nr = blocks_for(m, &delete);
	if (purpose == META_TO_ADD)
		nr = max_u64(nr + blocks_for(m, &unmap), meta_kernel_reserve(m));
	return nr;
}

static int
check(struct thin_meta *m, const struct need *need, enum meta_purpose purpose)
{
	if (m->broken)
		return -EIO;
	return sm_nr_free(m->meta_sm) >= blocks_for(m, need) + kept(m, purpose) ? 0 : -ENOSPC;
}

int
meta_require(struct thin_meta *m, unsigned paths, unsigned new_devs, enum meta_purpose purpose)
{
	struct need need = need_to_add(m, paths, new_devs);

	return check(m, &need, purpose);
}

uint64_t
meta_out_of_reach(struct thin_meta *m)
{
	struct need least = need_to_add(m, 1, 0);

	return min_u64(blocks_for(m, &least) + kept(m, META_TO_ADD), sm_nr_blocks(m->meta_sm));
}

int
meta_require_removal(struct thin_dev *d, uint64_t key, uint64_t max, enum meta_purpose purpose)
{
	struct thin_meta *m = d->meta;
	struct btree mappings = meta_mapping_tree(m);
	struct btree_cost cost;
	struct need need = {0};
	int r = btree_remove_cost(&mappings, d->root, key, &cost);

	if (r)
		return r;
	need.nodes = cost.nodes + (d->changed ? 0 : dev_trees_cost(m, 1, 0));
	need.data = (struct sm_change){.up = cost.values, .down = max};
	/* What is dropped, and a leaf of the devices' tree that is copied from a metadata snapshot. */
	need.meta = (struct sm_change){.up = cost.children + TOP_LEAF_MAX, .down = max / INTERNAL_MIN + 3};
	if (m->sb.held_root == 0)
		need.meta.up = cost.children;
	/* Where nothing is shared, a commit gives back at least what this takes. */
	if (!cost.values && !cost.children)
		purpose = META_TO_DELETE;
	return check(m, &need, purpose);
}

int
meta_require_deletion(struct thin_dev *d)
{
	struct thin_meta *m = d->meta;
	struct btree top = meta_top_tree(m), details = meta_details_tree(m);
	struct btree_cost of_top, of_details;
	struct need need = {0};
	bool shared = false;
	int r = btree_remove_cost(&top, m->sb.data_mapping_root, d->id, &of_top);

	if (!r)
		r = btree_remove_cost(&details, m->sb.device_details_root, d->id, &of_details);
	if (!r)
		r = dev_root_is_shared(d, &shared);
	if (r)
		return r;
	need.nodes = of_top.nodes + of_details.nodes;
	need.meta.up = of_top.values + of_top.children + of_details.children;
	need.meta.down = 4;
	/* Of a tree that another device has as a whole, nothing goes. */
	if (!shared) {
		need.data.down = d->info.mapped_blocks;
		need.meta.down += d->info.mapped_blocks / INTERNAL_MIN * 2;
	}
	return check(m, &need, META_TO_DELETE);
}

int
meta_require_growth(struct thin_meta *m, uint64_t data_blocks, uint64_t meta_blocks)
{
	/* Bitmaps, and in the data map's index their leaves, with some that are split. */
	uint64_t bitmaps = data_blocks / BITMAP_ENTRIES + !!data_blocks;
	uint64_t nr = bitmaps + bitmaps / 56 + 4;
	static const struct need nothing;

	if (m->broken)
		return -EIO;
	if (!data_blocks)
		nr = meta_blocks / BITMAP_ENTRIES + 1;
	return sm_nr_free(m->meta_sm) + meta_blocks >= blocks_for(m, &nothing) + nr ? 0 : -ENOSPC;
}

int
meta_require_relocation(struct thin_meta *m, uint64_t nodes, uint64_t nr_devs, uint64_t blocks)
{
	struct need need = {
		.nodes = nodes + dev_trees_cost(m, nr_devs, 0),
		.data = {.up = blocks, .down = blocks, .taken = blocks},
		.meta = {.up = nodes}, /* copies are shared by as many as what they are copies of */
	};

	/* In the end it gives back what it takes. */
	return check(m, &need, META_TO_UNMAP);
}

int
meta_require_shrink(struct thin_meta *m)
{
	struct need need = {0};

	sm_shrink_cost(m->data_sm, &need.nodes, &need.meta.down);
	return check(m, &need, META_TO_UNMAP);
}
