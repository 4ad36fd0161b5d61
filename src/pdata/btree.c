/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading, and deleting whole trees; btree_insert.c and btree_remove.c change them.
 */
#include <config.h>

#include "pdata/btree.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "pdata/btree_node.h"
#include "util/msg.h"

int
btree_empty(const struct btree *t, uint64_t *root)
{
	struct block *b;
	int r = btree_new_node(t, NODE_LEAF, t->type->size, &b);

	if (r)
		return r;

	*root = b->nr;
	bc_put(b);
	return 0;
}

/* Replace S, which is let go, by its child I. */
static int
step_down(const struct btree *t, struct btree_step *s, unsigned i)
{
	struct btree_step child;
	int r = btree_step_child(t, s, i, &child);

	btree_step_put(s);
	if (!r)
		*s = child;
	return r;
}

int
btree_lookup(const struct btree *t, uint64_t root, uint64_t key, void *value)
{
	struct btree_step s;
	int i, r;

	r = btree_step_root(t, root, &s);
	while (!r && !node_is_leaf(step_node(&s))) {
		i = node_find(step_node(&s), key);
		if (i < 0) {
			btree_step_put(&s);
			return -ENODATA;
		}
		r = step_down(t, &s, (unsigned)i);
	}
	if (r)
		return r;

	i = node_find_exact(step_node(&s), key);
	if (i >= 0)
		memcpy(value, node_value(step_node(&s), (unsigned)i), t->type->size);
	btree_step_put(&s);
	return i >= 0 ? 0 : -ENODATA;
}

int
btree_lookup_last(const struct btree *t, uint64_t root, uint64_t *found, void *value)
{
	struct btree_step s;
	unsigned nr;
	int r;

	r = btree_step_root(t, root, &s);
	while (!r && !node_is_leaf(step_node(&s)))
		r = step_down(t, &s, node_nr(step_node(&s)) - 1);
	if (r)
		return r;

	nr = node_nr(step_node(&s));
	if (nr) {
		*found = node_key(step_node(&s), nr - 1);
		if (value)
			memcpy(value, node_value(step_node(&s), nr - 1), t->type->size);
	}
	btree_step_put(&s);
	return nr ? 0 : -ENODATA;
}

static int
visit_leaf(const struct btree_step *s, uint64_t begin, btree_visit_fn fn, void *arg)
{
	const struct disk_node *n = step_node(s);
	int i = node_find(n, begin), r = 0;

	if (i < 0 || node_key(n, (unsigned)i) < begin)
		i++;
	for (; !r && i < (int)node_nr(n); i++)
		r = fn(arg, node_key(n, (unsigned)i), node_value(n, (unsigned)i));
	return r;
}

static int
visit(const struct btree *t, const struct btree_step *s, uint64_t begin, btree_visit_fn fn,
      void *arg)
{
	const struct disk_node *n = step_node(s);
	struct btree_step child;
	int i, r = 0;

	if (node_is_leaf(n))
		return visit_leaf(s, begin, fn, arg);

	i = node_find(n, begin);
	for (i = i < 0 ? 0 : i; !r && i < (int)node_nr(n); i++) {
		r = btree_step_child(t, s, (unsigned)i, &child);
		if (r)
			break;
		r = visit(t, &child, begin, fn, arg);
		btree_step_put(&child);
	}
	return r;
}

int
btree_iterate(const struct btree *t, uint64_t root, uint64_t begin, btree_visit_fn fn, void *arg)
{
	struct btree_step s;
	int r = btree_step_root(t, root, &s);

	if (r)
		return r;

	r = visit(t, &s, begin, fn, arg);
	btree_step_put(&s);
	return r;
}

struct next_search {
	uint64_t key;
	void *value; /* may be NULL */
	uint32_t size;
};

static int
take_first(void *arg, uint64_t key, const void *value)
{
	struct next_search *next = arg;

	next->key = key;
	if (next->value)
		memcpy(next->value, value, next->size);
	return 1;
}

int
btree_lookup_next(const struct btree *t, uint64_t root, uint64_t key, uint64_t *found, void *value)
{
	struct next_search next = {.value = value, .size = t->type->size};
	int r = btree_iterate(t, root, key, take_first, &next);

	if (r < 0)
		return r;
	if (!r)
		return -ENODATA;

	*found = next.key;
	return 0;
}

/*
 * Give up the reference of block NR that one pointer held. If it was the last one, *last is set and
 * nothing has changed yet: the caller deals with what is below before it drops the block.
 */
static int
drop_unless_last(const struct btree *t, uint64_t nr, bool *last)
{
	uint32_t count;
	int r = txn_count(t->txn, nr, &count);

	if (r)
		return r;
	if (!count) {
		msg_error("%s: %s tree: block %" PRIu64 ": in use but not counted; check it with "
			  "'thinfs check'", bc_name(t->txn->bc), t->type->name, nr);
		return -EUCLEAN;
	}

	*last = count == 1;
	return *last ? 0 : txn_leave(t->txn, nr);
}

/* Drop all that S points to, then S itself, which is let go. */
static int
delete_step(const struct btree *t, struct btree_step *s)
{
	const struct disk_node *n = step_node(s);
	uint64_t nr = s->block->nr;
	int r = 0;

	if (!node_is_leaf(n)) {
		for (unsigned i = 0; i < node_nr(n) && !r; i++)
			r = btree_delete_child(t, s, i);
	} else if (t->type->dec && node_nr(n)) {
		r = t->type->dec(t->context, node_value(n, 0), node_nr(n));
	}

	btree_step_put(s);
	return r ? r : txn_dec(t->txn, nr);
}

int
btree_delete_child(const struct btree *t, const struct btree_step *parent, unsigned i)
{
	struct btree_step s;
	bool last;
	int r = drop_unless_last(t, node_child(step_node(parent), i), &last);

	if (r || !last)
		return r;

	r = btree_step_child(t, parent, i, &s);
	return r ? r : delete_step(t, &s);
}

int
btree_delete(const struct btree *t, uint64_t root)
{
	struct btree_step s;
	bool last;
	int r = drop_unless_last(t, root, &last);

	if (r || !last)
		return r;

	r = btree_step_root(t, root, &s);
	return r ? r : delete_step(t, &s);
}
