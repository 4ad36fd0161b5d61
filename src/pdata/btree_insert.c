/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Insertion (format sheet, S 4.4): one pass from the root down, in which each full node gets room
 * before it is entered, so that a split never has to go back up. Which node takes what is the
 * same as in the kernel, node for node.
 */
#include <config.h>

#include "pdata/btree.h"

#include <errno.h>
#include <string.h>

#include "pdata/btree_node.h"

/* A sibling with less space than this is not worth moving entries to. */
#define SPACE_THRESHOLD 8U

/* Whether NODE must get room first. A key that is there is overwritten, which needs none. */
static bool
needs_room(const struct disk_node *n, uint64_t key)
{
	return node_is_full(n) && !(node_is_leaf(n) && node_find_exact(n, key) >= 0);
}

/* A new node of the same kind as LIKE. */
static int
new_like(const struct btree *t, const struct disk_node *like, struct block **out)
{
	return btree_new_node(t, le32_get(like->header.flags), le32_get(like->value_size), out);
}

/* The root is full: it becomes the parent of two halves. Its block stays the root. */
static int
split_root(const struct btree *t, const struct btree_step *root)
{
	struct disk_node *n = step_node(root), *halves[2];
	unsigned want[2];
	struct block *left, *right;
	int r;

	r = new_like(t, n, &left);
	if (r)
		return r;
	r = new_like(t, n, &right);
	if (r)
		goto put_left;

	halves[0] = left->data;
	halves[1] = right->data;
	want[0] = node_nr(n) / 2;
	want[1] = node_nr(n) - want[0];
	node_copy(halves[0], n);
	node_spread(halves, want, 2);

	node_init(n, NODE_INTERNAL, NODE_CHILD_SIZE);
	node_insert_child(n, 0, node_key(halves[0], 0), left->nr);
	node_insert_child(n, 1, node_key(halves[1], 0), right->nr);

	bc_put(right);
put_left:
	bc_put(left);
	return r;
}

/* Even out children I and I + 1. */
static int
share_out(const struct btree *t, const struct btree_step *parent, unsigned i)
{
	struct btree_step left, right;
	struct disk_node *nodes[2];
	unsigned want[2], total;
	int r;

	r = btree_shadow_child(t, parent, i, &left);
	if (r)
		return r;
	r = btree_shadow_child(t, parent, i + 1, &right);
	if (r)
		goto put_left;
	r = btree_check_same_level(t, &left, &right);
	if (r)
		goto put_right;

	nodes[0] = step_node(&left);
	nodes[1] = step_node(&right);
	total = node_nr(nodes[0]) + node_nr(nodes[1]);
	want[0] = total / 2;
	want[1] = total - want[0];
	node_spread(nodes, want, 2);
	node_set_key(step_node(parent), i + 1, node_key(nodes[1], 0));

put_right:
	btree_step_put(&right);
put_left:
	btree_step_put(&left);
	return r;
}

/* Move the upper half of child I to a new node after it. */
static int
split_in_two(const struct btree *t, const struct btree_step *parent, unsigned i)
{
	struct btree_step left;
	struct disk_node *nodes[2];
	struct block *right;
	unsigned want[2];
	int r;

	r = btree_shadow_child(t, parent, i, &left);
	if (r)
		return r;
	r = new_like(t, step_node(&left), &right);
	if (r)
		goto put_left;

	nodes[0] = step_node(&left);
	nodes[1] = right->data;
	want[0] = node_nr(nodes[0]) / 2;
	want[1] = node_nr(nodes[0]) - want[0];
	node_spread(nodes, want, 2);
	node_insert_child(step_node(parent), i + 1, node_key(nodes[1], 0), right->nr);

	bc_put(right);
put_left:
	btree_step_put(&left);
	return r;
}

/* Share children I - 1 and I out over themselves and a new node between them. */
static int
split_in_three(const struct btree *t, const struct btree_step *parent, unsigned i)
{
	struct btree_step left, right;
	struct disk_node *nodes[3];
	struct block *middle;
	unsigned want[3], total;
	int r;

	r = btree_shadow_child(t, parent, i - 1, &left);
	if (r)
		return r;
	r = btree_shadow_child(t, parent, i, &right);
	if (r)
		goto put_left;
	r = btree_check_same_level(t, &left, &right);
	if (r)
		goto put_right;
	r = new_like(t, step_node(&left), &middle);
	if (r)
		goto put_right;

	nodes[0] = step_node(&left);
	nodes[1] = middle->data;
	nodes[2] = step_node(&right);
	total = node_nr(nodes[0]) + node_nr(nodes[2]);
	want[0] = total / 3;
	want[1] = (total - want[0]) / 2;
	want[2] = total - want[0] - want[1];
	node_spread(nodes, want, 3);
	node_set_key(step_node(parent), i, node_key(nodes[2], 0));
	node_insert_child(step_node(parent), i, node_key(nodes[1], 0), middle->nr);

	bc_put(middle);
put_right:
	btree_step_put(&right);
put_left:
	btree_step_put(&left);
	return r;
}

/*
 * Whether child I can take entries of a full neighbour. One that others share is left alone: it
 * would have to be copied for it.
 */
static int
look_at_sibling(const struct btree *t, const struct btree_step *parent, unsigned i, bool *shared,
		bool *roomy)
{
	struct btree_step s;
	uint32_t count;
	int r;

	*roomy = false;
	r = txn_count(t->txn, node_child(step_node(parent), i), &count);
	if (r)
		return r;

	if (count > 1) {
		*shared = true;
		return 0;
	}

	r = btree_step_child(t, parent, i, &s);
	if (r)
		return r;

	*roomy = node_max(step_node(&s)) - node_nr(step_node(&s)) >= SPACE_THRESHOLD;
	btree_step_put(&s);
	return 0;
}

/* Child I is full. PARENT is not. Afterwards the child for the key is to be looked for again. */
static int
make_room(const struct btree *t, const struct btree_step *parent, unsigned i)
{
	unsigned nr = node_nr(step_node(parent));
	bool shared = false, roomy;
	int r;

	if (i > 0) {
		r = look_at_sibling(t, parent, i - 1, &shared, &roomy);
		if (r)
			return r;
		if (roomy)
			return share_out(t, parent, i - 1);
	}

	if (i + 1 < nr) {
		r = look_at_sibling(t, parent, i + 1, &shared, &roomy);
		if (r)
			return r;
		if (roomy)
			return share_out(t, parent, i);
	}

	/* At the ends keys are probably added in order: thirds would stay as empty as they are. */
	if (shared || nr <= 2 || i == 0 || i + 1 == nr)
		return split_in_two(t, parent, i);

	return split_in_three(t, parent, i);
}

/* Put KEY and VALUE into a leaf that has room for it. */
static int
insert_in_leaf(const struct btree *t, const struct btree_step *leaf, uint64_t key,
	       const void *value, bool *inserted)
{
	const struct btree_value_type *type = t->type;
	struct disk_node *n = step_node(leaf);
	int i = node_find(n, key), r = 0;
	void *old;

	*inserted = i < 0 || node_key(n, (unsigned)i) != key;
	if (*inserted) {
		node_insert(n, (unsigned)(i + 1), key, value);
		return 0;
	}

	old = node_value(n, (unsigned)i);
	if (type->equal && type->dec && !type->equal(t->context, old, value))
		r = type->dec(t->context, old, 1);
	if (!r)
		memcpy(old, value, type->size);
	return r;
}

/* From S, an internal node with room, to the leaf for KEY, which then has room. */
static int
step_down_for_insert(const struct btree *t, struct btree_step *s, uint64_t key)
{
	struct disk_node *n = step_node(s);
	struct btree_step child;
	bool full;
	int i, r;

	for (;;) {
		i = node_find(n, key);
		if (i < 0) {
			node_set_key(n, 0, key);
			i = 0;
		}

		r = btree_shadow_child(t, s, (unsigned)i, &child);
		if (r)
			return r;
		full = needs_room(step_node(&child), key);
		if (!full)
			break;

		btree_step_put(&child);
		r = make_room(t, s, (unsigned)i);
		if (r)
			return r;
	}

	btree_step_put(s);
	*s = child;
	return 0;
}

int
btree_insert(const struct btree *t, uint64_t *root, uint64_t key, const void *value, bool *inserted)
{
	struct btree_step s;
	bool is_new = false;
	int r;

	r = btree_shadow_root(t, root, &s);
	if (r)
		return r;

	if (needs_room(step_node(&s), key))
		r = split_root(t, &s);
	while (!r && !node_is_leaf(step_node(&s)))
		r = step_down_for_insert(t, &s, key);
	if (!r)
		r = insert_in_leaf(t, &s, key, value, &is_new);

	btree_step_put(&s);
	if (!r && inserted)
		*inserted = is_new;
	return r;
}

int
btree_shadow_path(const struct btree *t, uint64_t *root, uint64_t key)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE];
	struct btree_step s, child;
	int i, r;

	r = btree_lookup(t, *root, key, value);
	if (!r)
		r = btree_shadow_root(t, root, &s);
	if (r)
		return r;

	while (!node_is_leaf(step_node(&s))) {
		/* Not below the first key: the lookup found the way. */
		i = node_find(step_node(&s), key);
		r = btree_shadow_child(t, &s, (unsigned)i, &child);
		if (r)
			break;
		btree_step_put(&s);
		s = child;
	}

	btree_step_put(&s);
	return r;
}
