/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Removal (format sheet, S 4.5): one pass from the root down, in which the children of a node are
 * balanced before one of them is entered. So a node that is entered, unless it is the root, holds
 * more than the least it must, and what is taken from it never has to be made good further up.
 *
 * A range goes in such passes too, but each takes what it can: a child that lies in the range as a
 * whole is dropped as one, and if others share it, without even copying it; of a leaf at the
 * edge of the range, all entries in the range. In both cases the node keeps its minimum; what
 * that leaves behind is moved by the balancing of the next pass.
 */
#include <config.h>

#include "pdata/btree.h"

#include <errno.h>
#include <string.h>

#include "pdata/btree_node.h"

/* Let go of S, a node that has no entries any more, and free it. */
static int
free_step(const struct btree *t, struct btree_step *s)
{
	uint64_t nr = s->block->nr;

	btree_step_put(s);
	return txn_dec(t->txn, nr);
}

/*
 * S, a root, has one child: take its contents over, and with them the place of the child. Where
 * others still use the child, what it points to has one more user.
 */
static int
take_over_child(const struct btree *t, struct btree_step *s)
{
	struct disk_node *n = step_node(s);
	struct btree_step child;
	uint64_t nr;
	uint32_t count;
	int r;

	r = btree_step_child(t, s, 0, &child);
	if (r)
		return r;

	nr = child.block->nr;
	node_copy(n, step_node(&child));
	btree_step_put(&child);
	s->depth++; /* so that a ring of such nodes comes to an end */

	r = txn_count(t->txn, nr, &count);
	if (!r && count > 1)
		r = btree_inc_pointees(t, n);
	return r ? r : txn_dec(t->txn, nr);
}

/* Balance A and B, children I and I + 1; B may be freed. */
static int
balance_two(const struct btree *t, const struct btree_step *parent, unsigned i,
	    struct btree_step *a, struct btree_step *b)
{
	struct disk_node *nodes[2] = {step_node(a), step_node(b)};
	unsigned total = node_nr(nodes[0]) + node_nr(nodes[1]);
	unsigned want[2] = {total, 0};

	if (total < 2 * (node_min(nodes[0]) + 1)) {
		node_spread(nodes, want, 2);
		node_erase(step_node(parent), i + 1, 1);
		return free_step(t, b);
	}

	want[0] = total / 2;
	want[1] = total - want[0];
	node_spread(nodes, want, 2);
	node_set_key(step_node(parent), i + 1, node_key(nodes[1], 0));
	return 0;
}

/* Balance A, C and B, children I to I + 2; C, and then B, may be freed. */
static int
balance_three(const struct btree *t, const struct btree_step *parent, unsigned i,
	      struct btree_step *a, struct btree_step *c, struct btree_step *b)
{
	struct disk_node *p = step_node(parent);
	struct disk_node *nodes[3] = {step_node(a), step_node(c), step_node(b)};
	unsigned in_two = node_nr(nodes[0]) + node_nr(nodes[1]);
	unsigned total = in_two + node_nr(nodes[2]);
	unsigned third = total / 3, max = node_max(nodes[0]);
	unsigned want[3];
	int r;

	if (total < 4 * node_min(nodes[0]) + 1) {
		want[0] = in_two < max ? in_two : max;
		want[1] = 0;
		want[2] = total - want[0];
		node_spread(nodes, want, 3);
		node_erase(p, i + 1, 1);
		node_set_key(p, i + 1, node_key(nodes[2], 0));
		r = free_step(t, c);
		return r ? r : balance_two(t, parent, i, a, b);
	}

	want[0] = total % 3 ? third + 1 : third;
	want[2] = third;
	want[1] = total - want[0] - want[2];
	node_spread(nodes, want, 3);
	node_set_key(p, i + 1, node_key(nodes[1], 0));
	node_set_key(p, i + 2, node_key(nodes[2], 0));
	return 0;
}

/* Balance child I with its neighbours. PARENT has two children or more; some may go. */
static int
balance(const struct btree *t, const struct btree_step *parent, unsigned i)
{
	struct btree_step s[3] = {{0}};
	unsigned nr = node_nr(step_node(parent));
	unsigned first = i ? i - 1 : 0;
	unsigned last = i + 1 < nr ? i + 1 : i;
	unsigned n = last - first + 1;
	int r = 0;

	for (unsigned k = 0; k < n && !r; k++) {
		r = btree_shadow_child(t, parent, first + k, &s[k]);
		if (!r)
			r = btree_check_same_level(t, &s[0], &s[k]);
	}

	if (!r && n == 2)
		r = balance_two(t, parent, first, &s[0], &s[1]);
	else if (!r)
		r = balance_three(t, parent, first, &s[0], &s[1], &s[2]);

	for (unsigned k = 0; k < n; k++)
		btree_step_put(&s[k]);
	return r;
}

/* From S, an internal node, towards the leaf for KEY; -ENODATA when KEY is below all keys. */
static int
step_down_for_remove(const struct btree *t, struct btree_step *s, uint64_t key)
{
	struct disk_node *n = step_node(s);
	struct btree_step child;
	int i, r;

	if (node_nr(n) == 1)
		return take_over_child(t, s);

	i = node_find(n, key);
	if (i < 0)
		return -ENODATA;
	r = balance(t, s, (unsigned)i);
	if (r)
		return r;

	/* Balancing has raised keys of children to their first ones, but the first child's. */
	r = btree_shadow_child(t, s, (unsigned)node_find(n, key), &child);
	if (r)
		return r;

	btree_step_put(s);
	*s = child;
	return 0;
}

/* Take NR entries from index I on out of a leaf, and drop their values. */
static int
remove_entries(const struct btree *t, const struct btree_step *leaf, unsigned i, unsigned nr)
{
	struct disk_node *n = step_node(leaf);
	int r = 0;

	if (t->type->dec)
		r = t->type->dec(t->context, node_value(n, i), nr);
	if (!r)
		node_erase(n, i, nr);
	return r;
}

int
btree_remove(const struct btree *t, uint64_t *root, uint64_t key)
{
	struct btree_step s;
	int i, r;

	r = btree_shadow_root(t, root, &s);
	if (r)
		return r;

	while (!r && !node_is_leaf(step_node(&s)))
		r = step_down_for_remove(t, &s, key);
	if (!r) {
		i = node_find_exact(step_node(&s), key);
		r = i < 0 ? -ENODATA : remove_entries(t, &s, (unsigned)i, 1);
	}

	btree_step_put(&s);
	return r;
}

/* --- ranges --- */

/* What is still to be removed. */
struct removal {
	uint64_t first, last; /* keys, both inclusive */
	uint64_t left; /* entries that may still go */
	uint64_t removed;
};

/* Add the entries below S to *nr, but look no further once it is above MAX. */
static int
count_entries(const struct btree *t, const struct btree_step *s, uint64_t max, uint64_t *nr)
{
	const struct disk_node *n = step_node(s);
	struct btree_step child;
	int r = 0;

	if (node_is_leaf(n)) {
		*nr += node_nr(n);
		return 0;
	}

	for (unsigned i = 0; i < node_nr(n) && !r && *nr <= max; i++) {
		r = btree_step_child(t, s, i, &child);
		if (r)
			break;
		r = count_entries(t, &child, max, nr);
		btree_step_put(&child);
	}
	return r;
}

/* Drop child I of S as a whole if it has no more entries than may go; *dropped tells. */
static int
drop_child(const struct btree *t, const struct btree_step *s, unsigned i, struct removal *rm,
	   bool *dropped)
{
	struct btree_step child;
	uint64_t nr = 0;
	int r;

	*dropped = false;
	r = btree_step_child(t, s, i, &child);
	if (r)
		return r;

	r = count_entries(t, &child, rm->left, &nr);
	btree_step_put(&child);
	if (r || nr > rm->left)
		return r;

	r = btree_delete_child(t, s, i);
	if (r)
		return r;

	node_erase(step_node(s), i, 1);
	rm->left -= nr;
	rm->removed += nr;
	*dropped = true;
	return 0;
}

/* Drop those children of S that lie in the range as a whole, as long as S keeps its minimum. */
static int
drop_children(const struct btree *t, const struct btree_step *s, bool is_root, struct removal *rm)
{
	struct disk_node *n = step_node(s);
	unsigned keep = is_root ? 0 : node_min(n);
	uint64_t first, last;
	bool dropped = true;
	unsigned i;
	int r = 0;

	i = (unsigned)(node_find(n, rm->first) + 1);
	if (i && node_key(n, i - 1) == rm->first)
		i--;

	while (!r && dropped && rm->left && i < node_nr(n) && node_nr(n) > keep) {
		btree_child_range(s, i, &first, &last);
		if (last > rm->last)
			break;
		r = drop_child(t, s, i, rm, &dropped);
	}

	if (!r && !node_nr(n))
		node_init(n, NODE_LEAF, t->type->size);
	return r;
}

/* Take the entries in the range out of a leaf, from KEY on, as long as it keeps its minimum. */
static int
remove_run(const struct btree *t, const struct btree_step *leaf, bool is_root, uint64_t key,
	   struct removal *rm)
{
	const struct disk_node *n = step_node(leaf);
	unsigned min = is_root ? 0 : node_min(n), spare, nr;
	int i = node_find_exact(n, key);
	int r;

	if (i < 0)
		return -ENODATA;

	/* One at least, so that a tree that came with too few in a leaf does not stop us. */
	spare = node_nr(n) > min ? node_nr(n) - min : 1;
	nr = (unsigned)(node_find(n, rm->last) + 1 - i);
	if (nr > spare)
		nr = spare;
	if (nr > rm->left)
		nr = (unsigned)rm->left;

	r = remove_entries(t, leaf, (unsigned)i, nr);
	if (!r) {
		rm->left -= nr;
		rm->removed += nr;
	}
	return r;
}

/* One pass: KEY is the lowest one in the range, and something is removed. */
static int
remove_pass(const struct btree *t, uint64_t *root, uint64_t key, struct removal *rm)
{
	uint64_t before = rm->removed;
	struct btree_step s;
	int r;

	r = btree_shadow_root(t, root, &s);
	if (r)
		return r;

	while (!r && !node_is_leaf(step_node(&s))) {
		r = drop_children(t, &s, s.block->nr == *root, rm);
		if (r || rm->removed != before)
			break;
		r = step_down_for_remove(t, &s, key);
	}
	if (!r && rm->removed == before)
		r = remove_run(t, &s, s.block->nr == *root, key, rm);

	btree_step_put(&s);
	return r;
}

int
btree_remove_some(const struct btree *t, uint64_t *root, uint64_t key, uint64_t last,
		  uint64_t max_entries, uint64_t *removed)
{
	struct removal rm = {.first = key, .last = last, .left = max_entries};
	int r = remove_pass(t, root, key, &rm);

	*removed = rm.removed;
	return r == -ENODATA ? -EUCLEAN : r; /* the key was there */
}

/*
 * Pass after pass, until nothing is left in the range (-ENODATA), or enough is removed (0; *next is
 * then the lowest key that is left).
 */
static int
remove_passes(const struct btree *t, uint64_t *root, struct removal *rm, uint64_t *next)
{
	int r;

	for (;;) {
		r = btree_lookup_next(t, *root, rm->first, next, NULL);
		if (!r && *next > rm->last)
			r = -ENODATA;
		if (r || !rm->left)
			return r;

		r = remove_pass(t, root, *next, rm);
		if (r) /* not to be taken for the end: the key was there */
			return r == -ENODATA ? -EUCLEAN : r;
	}
}

int
btree_remove_range(const struct btree *t, uint64_t *root, uint64_t begin, uint64_t end,
		   uint64_t max_entries, uint64_t *removed, uint64_t *next)
{
	struct removal rm = {.first = begin, .last = end - 1, .left = max_entries};
	int r = begin < end ? remove_passes(t, root, &rm, next) : -ENODATA;

	*removed = rm.removed;
	if (r != -ENODATA)
		return r;

	*next = end;
	return 0;
}

int
btree_remove_first(const struct btree *t, uint64_t *root, uint64_t max_entries, uint64_t *removed)
{
	struct removal rm = {.last = UINT64_MAX, .left = max_entries ? max_entries : 1};
	uint64_t next;
	int r = remove_passes(t, root, &rm, &next);

	*removed = rm.removed;
	return r == -ENODATA ? 0 : r;
}
