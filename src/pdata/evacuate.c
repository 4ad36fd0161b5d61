/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "pdata/evacuate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/btree_node.h"
#include "pdata/thin_meta_internal.h"
#include "util/minmax.h"

/* Entries of a leaf of the devices' trees at least: so many share a way (S 4.1). */
#define DEVS_A_LEAF 42U

/* Read in one search. */
#define NODES_AT_ONCE 256U

struct evacuation {
	struct thin_meta *m;
	uint64_t first; /* data blocks from here on must go */
	uint64_t *known; /* two bits a metadata block, of committed nodes: what follows */
	uint64_t nr_known;
	struct u64map passed; /* nodes that are not spared, as far as they have been looked at for what moves next */
};

/* The node leads to none that must go; or to none of those that move next. */
#define SETTLED 1U
#define SPARED 2U
#define ALL_SPARED 0xAAAAAAAAAAAAAAAAULL

static bool
is_known(const struct evacuation *e, uint64_t nr, unsigned what)
{
	return nr < e->nr_known && e->known[nr / 32] >> 2 * (nr % 32) & what;
}

static void
set_known(struct evacuation *e, uint64_t nr, unsigned what)
{
	if (nr < e->nr_known)
		e->known[nr / 32] |= (uint64_t)what << 2 * (nr % 32);
}

static bool
is_settled(const struct evacuation *e, uint64_t nr)
{
	return is_known(e, nr, SETTLED);
}

static void
settle(struct evacuation *e, uint64_t nr)
{
	set_known(e, nr, SETTLED);
}

/* Something else moves next. */
static void
spare_none(struct evacuation *e)
{
	for (uint64_t i = 0; i <= e->nr_known / 32; i++)
		e->known[i] &= ~ALL_SPARED;
	u64map_clear(&e->passed);
}

static uint64_t
dblock_of(const void *value)
{
	const struct le64 *v = value;

	return le64_get(*v) >> MAPPING_TIME_BITS;
}

int
evacuation_begin(struct thin_meta *m, uint64_t first, uint64_t kept, struct evacuation **out)
{
	struct evacuation *e;
	struct sm_split split;
	int r = meta_begin_change(m);

	if (r)
		return r;
	if (m->sb.held_root)
		return -EBUSY;
	if (first >= sm_nr_blocks(m->data_sm))
		return -EINVAL;
	r = sm_split_at(m->data_sm, first, &split);
	if (!r && split.free_before < split.used_behind + split.held_behind + kept)
		r = -ENOSPC;
	if (r)
		return r;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->m = m;
	e->first = first;
	e->nr_known = bc_nr_blocks(m->bc);
	e->known = calloc(e->nr_known / 32 + 1, sizeof(*e->known));
	r = e->known ? sm_fence(m->data_sm, first) : -ENOMEM;
	if (r) {
		free(e->known);
		free(e);
		return r;
	}
	m->txn.known = e->known;
	m->txn.nr_known = e->nr_known;
	*out = e;
	return 0;
}

void
evacuation_end(struct evacuation *e)
{
	e->m->txn.known = NULL;
	e->m->txn.nr_known = 0;
	if (e->m->data_sm)
		sm_unfence(e->m->data_sm);
	u64map_clear(&e->passed);
	free(e->known);
	free(e);
}

/* An abort makes another map, without the fence, and reuses the numbers of nodes. */
static int
check(const struct evacuation *e)
{
	const struct thin_meta *m = e->m;

	return m->broken || !m->data_sm || sm_get_fence(m->data_sm) != e->first ? -EIO : 0;
}

int
evacuation_left(struct evacuation *e, uint64_t *used, uint64_t *pending)
{
	int r = check(e);

	return r ? r : sm_behind_fence(e->m->data_sm, used, pending);
}

/* --- what moves --- */

/* Most blocks need no search: what moves at once lies together, as a rule. */
struct movers {
	const struct u64map *moves;
	uint64_t lowest, highest;
};

static struct movers
movers_of(const struct u64map *moves)
{
	struct movers mv = {.moves = moves, .lowest = UINT64_MAX};
	uint64_t from, unused;
	size_t pos = 0;

	while (u64map_next(moves, &pos, &from, &unused)) {
		mv.lowest = min_u64(mv.lowest, from);
		mv.highest = max_u64(mv.highest, from);
	}
	return mv;
}

static bool
leaf_moves(const struct movers *mv, const struct disk_node *n)
{
	uint64_t unused;

	for (unsigned i = 0; i < node_nr(n); i++) {
		uint64_t dblock = dblock_of(node_value(n, i));

		if (dblock >= mv->lowest && dblock <= mv->highest && u64map_get(mv->moves, dblock, &unused))
			return true;
	}
	return false;
}

/* --- searching --- */

struct search {
	struct evacuation *e;
	struct btree tree;
	uint32_t snapshotted_time;
	uint64_t begin; /* keys below have been passed */
	unsigned nodes_left;
	struct evacuee *found;
	unsigned max, nr;
	uint64_t next; /* where to go on after it was stopped */
	const struct movers *movers; /* find nothing, but spare the nodes that lead to none of these; or NULL */
};

/* 1: stopped */
static int
search_leaf(struct search *s, const struct btree_step *step)
{
	const struct disk_node *n = step_node(step);
	bool none = true;

	for (unsigned i = 0; i < node_nr(n); i++) {
		const struct le64 *v = node_value(n, i);
		uint64_t dblock = dblock_of(v), key = node_key(n, i);

		if (dblock < s->e->first)
			continue;
		none = false;
		if (key < s->begin)
			continue;
		if (s->nr == s->max) {
			s->next = key;
			return 1;
		}
		s->found[s->nr++] = (struct evacuee){
			key, dblock, s->snapshotted_time > (le64_get(*v) & MAPPING_TIME_MAX)};
	}
	if (none && !bc_is_dirty(step->block))
		settle(s->e, step->block->nr);
	return 0;
}

static bool
all_children_known(const struct search *s, const struct disk_node *n, unsigned what)
{
	for (unsigned i = 0; i < node_nr(n); i++)
		if (!is_known(s->e, node_child(n, i), what))
			return false;
	return true;
}

/* Node NR need not be looked at (again). That its number may stand for another one by now does no harm. */
static bool
may_pass(const struct search *s, uint64_t nr)
{
	uint64_t unused;

	if (!s->movers)
		return is_settled(s->e, nr);
	return is_known(s->e, nr, SETTLED | SPARED) || u64map_get(&s->e->passed, nr, &unused);
}

/* All of the node has been looked at. */
static int
end_node(struct search *s, const struct btree_step *step)
{
	const struct disk_node *n = step_node(step);
	unsigned what = s->movers ? SETTLED | SPARED : SETTLED;

	if (!bc_is_dirty(step->block) && (node_is_leaf(n) ? !leaf_moves(s->movers, n) : all_children_known(s, n, what)))
		set_known(s->e, step->block->nr, s->movers ? SPARED : SETTLED);
	else if (s->movers)
		return u64map_set(&s->e->passed, step->block->nr, 0);
	return 0;
}

static int
search_node(struct search *s, const struct btree_step *step)
{
	const struct disk_node *n = step_node(step);
	int i = node_find(n, s->begin), r = 0;

	if (node_is_leaf(n))
		return s->movers ? end_node(s, step) : search_leaf(s, step);
	for (i = i < 0 ? 0 : i; !r && i < (int)node_nr(n); i++) {
		struct btree_step child;

		if (may_pass(s, node_child(n, (unsigned)i)))
			continue;
		if (!s->nodes_left) {
			s->next = max_u64(s->begin, node_key(n, (unsigned)i));
			return 1;
		}
		s->nodes_left--;
		r = btree_step_child(&s->tree, step, (unsigned)i, &child);
		if (r)
			break;
		r = search_node(s, &child);
		btree_step_put(&child);
	}
	return r ? r : end_node(s, step);
}

static int
search_dev(struct search *s, uint32_t id)
{
	struct btree_step root;
	struct dev_info info;
	uint64_t nr;
	int r = meta_peek_dev(s->e->m, id, &info, &nr);

	s->nodes_left -= s->nodes_left != 0; /* devices without anything take time, too */
	if (r || may_pass(s, nr))
		return r;
	s->snapshotted_time = info.snapshotted_time;
	r = btree_step_root(&s->tree, nr, &root);
	if (r)
		return r;
	r = search_node(s, &root);
	btree_step_put(&root);
	return r;
}

/* Go on at *AT until something is found, or as many nodes as may be have been read. */
static int
search_some(struct search *s, struct evacuation_place *at, uint32_t *dev)
{
	struct thin_meta *m = s->e->m;
	struct btree details = meta_details_tree(m);
	int r = check(s->e);

	s->tree = meta_mapping_tree(m);
	s->nodes_left = NODES_AT_ONCE;
	while (!r && !s->nr && s->nodes_left) {
		uint64_t id;

		r = btree_lookup_next(&details, m->sb.device_details_root, at->dev, &id, NULL);
		if (r == -ENODATA) {
			at->end = true;
			return 0;
		}
		if (r)
			return r;
		s->begin = id == at->dev ? at->vblock : 0;
		*dev = (uint32_t)id;
		r = search_dev(s, *dev);
		*at = r > 0 ? (struct evacuation_place){.dev = id, .vblock = s->next}
			    : (struct evacuation_place){.dev = id + 1};
	}
	return r < 0 ? r : 0;
}

int
evacuation_find(struct evacuation *e, struct evacuation_place *at, uint32_t *dev,
		struct evacuee *found, unsigned max, unsigned *nr)
{
	struct search s = {.e = e, .found = found, .max = max};
	int r = search_some(&s, at, dev);

	*nr = s.nr;
	return r;
}

int
evacuation_prepare(struct evacuation *e, const struct u64map *moves, struct evacuation_place *at)
{
	struct movers movers = movers_of(moves);
	struct search s = {.e = e, .movers = &movers};
	uint32_t dev;

	if (!at->dev && !at->vblock)
		spare_none(e);
	return search_some(&s, at, &dev);
}

/* --- moving --- */

/* What is known of a node while blocks move; else it has got that number. */
#define PLAN_LEAVE UINT64_MAX
#define PLAN_CHANGE (UINT64_MAX - 1)

struct relocation {
	struct evacuation *e;
	struct btree tree;
	const struct u64map *moves;
	struct movers movers;
	struct u64map plan; /* node -> the above */
	uint64_t nr_copies; /* of committed nodes */
	uint32_t *devs;
	size_t nr_devs, cap_devs;
	uint64_t nr_all_devs;
};

static int plan_node(struct relocation *rel, const struct btree_step *step, bool *changes);

static int
plan_children(struct relocation *rel, const struct btree_step *step, bool *changes)
{
	const struct disk_node *n = step_node(step);
	int r = 0;

	for (unsigned i = 0; i < node_nr(n) && !r; i++) {
		uint64_t nr = node_child(n, i), known;
		struct btree_step child;
		bool one = false;

		if (is_known(rel->e, nr, SETTLED | SPARED))
			continue;
		if (u64map_get(&rel->plan, nr, &known)) {
			*changes |= known == PLAN_CHANGE;
			continue;
		}
		r = btree_step_child(&rel->tree, step, i, &child);
		if (r)
			break;
		r = plan_node(rel, &child, &one);
		btree_step_put(&child);
		*changes |= one;
	}
	return r;
}

/* Find out which nodes change, each once, and change none. */
static int
plan_node(struct relocation *rel, const struct btree_step *step, bool *changes)
{
	const struct disk_node *n = step_node(step);
	int r = 0;

	*changes = false;
	if (!node_is_leaf(n))
		r = plan_children(rel, step, changes);
	else
		*changes = leaf_moves(&rel->movers, n);
	if (r)
		return r;
	rel->nr_copies += *changes && !bc_is_dirty(step->block);
	return u64map_set(&rel->plan, step->block->nr, *changes ? PLAN_CHANGE : PLAN_LEAVE);
}

static int
add_dev(struct relocation *rel, uint32_t id)
{
	if (rel->nr_devs == rel->cap_devs) {
		size_t cap = rel->cap_devs ? 2 * rel->cap_devs : 64;
		uint32_t *devs = reallocarray(rel->devs, cap, sizeof(*devs));

		if (!devs)
			return -ENOMEM;
		rel->devs = devs;
		rel->cap_devs = cap;
	}
	rel->devs[rel->nr_devs++] = id;
	return 0;
}

static int
plan_dev(void *arg, uint32_t id, uint64_t nr)
{
	struct relocation *rel = arg;
	struct btree_step root;
	uint64_t known;
	bool changes = false;
	int r;

	rel->nr_all_devs++;
	if (is_known(rel->e, nr, SETTLED | SPARED))
		return 0;
	if (!u64map_get(&rel->plan, nr, &known)) {
		r = btree_step_root(&rel->tree, nr, &root);
		if (r)
			return r;
		r = plan_node(rel, &root, &changes);
		btree_step_put(&root);
		if (r)
			return r;
	} else {
		changes = known == PLAN_CHANGE;
	}
	return changes ? add_dev(rel, id) : 0;
}

static int
change_leaf(struct relocation *rel, struct disk_node *n)
{
	struct space_map *sm = rel->e->m->data_sm;
	int r = 0;

	for (unsigned i = 0; i < node_nr(n) && !r; i++) {
		struct le64 *v = node_value(n, i);
		uint64_t from = dblock_of(v), to;

		if (!u64map_get(rel->moves, from, &to))
			continue;
		*v = le64_make(to << MAPPING_TIME_BITS | (le64_get(*v) & MAPPING_TIME_MAX));
		r = sm_inc(sm, to);
		if (!r)
			r = sm_dec(sm, from);
	}
	return r;
}

static int change_node(struct relocation *rel, uint64_t nr, uint64_t *now);

static int
change_children(struct relocation *rel, struct disk_node *n)
{
	int r = 0;

	for (unsigned i = 0; i < node_nr(n) && !r; i++) {
		uint64_t child = node_child(n, i), now;

		r = change_node(rel, child, &now);
		if (!r && now != child)
			node_set_child(n, i, now);
	}
	return r;
}

/* All that pointed to OLD will point to its copy: so it has as many references. */
static int
hand_over_references(struct txn *t, uint64_t old, uint64_t copy)
{
	uint32_t count;
	int r = txn_count(t, old, &count);

	for (uint32_t i = 0; i < count && !r; i++) {
		if (i)
			r = txn_inc(t, copy);
		if (!r)
			r = txn_dec(t, old);
	}
	return r;
}

/* Change node NR and what is below as planned; it is at *NOW then. */
static int
change_node(struct relocation *rel, uint64_t nr, uint64_t *now)
{
	struct txn *t = rel->tree.txn;
	struct block *b, *copy = NULL;
	struct disk_node *n;
	uint64_t known;
	int r;

	*now = nr;
	if (!u64map_get(&rel->plan, nr, &known) || known == PLAN_LEAVE)
		return 0;
	if (known != PLAN_CHANGE) {
		*now = known;
		return 0;
	}
	r = txn_read(t, nr, BLOCK_NODE, &b);
	if (r)
		return r;
	if (!bc_is_dirty(b)) {
		r = txn_new(t, BLOCK_NODE, &copy);
		if (!r)
			memcpy(copy->data, b->data, METADATA_BLOCK_SIZE);
		bc_put(b);
		if (r)
			return r;
		b = copy;
	}
	*now = b->nr;
	n = b->data;
	r = node_is_leaf(n) ? change_leaf(rel, n) : change_children(rel, n);
	bc_put(b);
	if (!r && copy)
		r = hand_over_references(t, nr, *now);
	/* The key is there: nothing is allocated. */
	return r ? r : u64map_set(&rel->plan, nr, *now);
}

/* A device that is told to be changed is committed before an fsync of it returns: what is written in place now is at the new place. */
static int
change_dev(struct relocation *rel, uint32_t id)
{
	struct thin_dev *d;
	int r = meta_load_dev(rel->e->m, id, &d);

	if (!r)
		r = dev_touch(d);
	return r ? r : change_node(rel, d->root, &d->root);
}

int
evacuation_move(struct evacuation *e, const struct u64map *moves)
{
	struct thin_meta *m = e->m;
	struct relocation rel = {
		.e = e, .tree = meta_mapping_tree(m), .moves = moves, .movers = movers_of(moves)};
	int r = check(e);

	if (!r && m->sb.held_root)
		r = -EBUSY;
	if (!r)
		r = meta_for_each_root(m, plan_dev, &rel);
	if (!r)
		r = meta_require_relocation(m, rel.nr_copies,
					    min_u64(rel.nr_devs, rel.nr_all_devs / DEVS_A_LEAF + 1), moves->nr);
	if (!r) {
		for (size_t i = 0; i < rel.nr_devs && !r; i++)
			r = change_dev(&rel, rel.devs[i]);
		r = meta_end_change(m, r);
	}
	if (r != -ENOSPC) /* which is tried again */
		spare_none(e);
	u64map_clear(&rel.plan);
	free(rel.devs);
	return r;
}

/* --- the end --- */

int
evacuation_shrink(struct evacuation *e)
{
	struct thin_meta *m = e->m;
	uint64_t used, pending;
	int r = check(e);

	if (!r)
		r = sm_behind_fence(m->data_sm, &used, &pending);
	if (!r && (used || pending))
		r = -EAGAIN;
	if (!r)
		r = meta_require_shrink(m);
	return r ? r : meta_end_change(m, sm_shrink(m->data_sm));
}
