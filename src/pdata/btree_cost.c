/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a change of a tree would cost, found out by reading only: for those who must know before they
 * begin whether there is space for it.
 */
#include <config.h>

#include "pdata/btree.h"

#include <string.h>

#include "pdata/btree_node.h"

/* Levels below S, by its first children. */
static int
levels_below(const struct btree *t, const struct btree_step *s, unsigned *levels)
{
	struct btree_step child;
	int r = 0;

	if (node_is_leaf(step_node(s)))
		return 0;
	r = btree_step_child(t, s, 0, &child);
	if (r)
		return r;
	++*levels;
	r = levels_below(t, &child, levels);
	btree_step_put(&child);
	return r;
}

int
btree_get_shape(const struct btree *t, uint64_t root, struct btree_shape *shape)
{
	struct btree_step s;
	int r = btree_step_root(t, root, &s);

	if (r)
		return r;
	shape->depth = 1;
	shape->root_entries = node_nr(step_node(&s));
	r = levels_below(t, &s, &shape->depth);
	btree_step_put(&s);
	return r;
}

/* Shadowing the node of S: *shared, on entry of what is above it, on return of it too. */
static int
add_shadow(const struct btree *t, const struct btree_step *s, bool *shared, struct btree_cost *cost)
{
	const struct disk_node *n = step_node(s);
	uint32_t count;
	int r = txn_count(t->txn, s->block->nr, &count);

	if (r)
		return r;
	/* A parent that is copied is one more that points here. */
	*shared = *shared || count > 1;
	cost->nodes += *shared || !bc_is_dirty(s->block);
	if (*shared && node_is_leaf(n))
		cost->values += node_nr(n);
	else if (*shared)
		cost->children += node_nr(n);
	return 0;
}

/* The children of S, a root, that are balanced on the way to KEY. *deeper: levels below them. */
static int
add_children(const struct btree *t, const struct btree_step *s, uint64_t key, bool shared,
	     struct btree_cost *cost, unsigned *deeper)
{
	unsigned nr = node_nr(step_node(s));
	int at = node_find(step_node(s), key);
	unsigned first = at > 0 ? (unsigned)at - 1 : 0;
	unsigned last = (unsigned)(at < 0 ? 0 : at) + 1;
	int r = 0;

	for (unsigned i = first; i <= last && i < nr && !r; i++) {
		bool child_shared = shared;
		struct btree_step child;

		r = btree_step_child(t, s, i, &child);
		if (r)
			break;
		r = add_shadow(t, &child, &child_shared, cost);
		if (!r && i == first)
			r = levels_below(t, &child, deeper);
		btree_step_put(&child);
	}
	return r;
}

int
btree_remove_cost(const struct btree *t, uint64_t root, uint64_t key, struct btree_cost *cost)
{
	struct btree_step s;
	bool shared = false;
	unsigned deeper = 0;
	int r = btree_step_root(t, root, &s);

	memset(cost, 0, sizeof(*cost));
	if (r)
		return r;
	r = add_shadow(t, &s, &shared, cost);
	if (!r && !node_is_leaf(step_node(&s)))
		r = add_children(t, &s, key, shared, cost, &deeper);
	btree_step_put(&s);
	/* Which nodes are neighbours further down depends on how these are balanced. */
	cost->nodes += 3ULL * deeper;
	if (deeper) {
		cost->values += 3ULL * node_max_for(t->type->size);
		cost->children += 3ULL * (deeper - 1) * node_max_for(NODE_CHILD_SIZE);
	}
	return r;
}
