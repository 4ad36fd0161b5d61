/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of a tree is its own: a count tells how many pointers a node has, not how many trees reach it. So
 * that all counts on the way to an entry must be one (format sheet, trap 10).
 */
#include <config.h>

#include <errno.h>

#include "pdata/btree.h"
#include "pdata/btree_node.h"

struct walk {
	const struct btree *t;
	uint64_t begin;
	unsigned leaves_left;
	btree_visit_fn fn;
	void *arg;
	uint64_t next;
	bool more;
};

static int
is_shared(const struct btree *t, uint64_t nr, bool *shared)
{
	uint32_t count;
	int r = txn_count(t->txn, nr, &count);

	*shared = !r && count > 1;
	return r;
}

static int
visit_leaf(struct walk *w, const struct btree_step *s)
{
	const struct disk_node *n = step_node(s);
	int r = 0;

	if (!w->leaves_left) {
		w->next = s->first > w->begin ? s->first : w->begin;
		w->more = true;
		return 1;
	}
	w->leaves_left--;
	for (unsigned i = 0; i < node_nr(n) && !r; i++)
		if (node_key(n, i) >= w->begin)
			r = w->fn(w->arg, node_key(n, i), node_value(n, i));
	return r;
}

static int
visit(struct walk *w, const struct btree_step *s)
{
	const struct disk_node *n = step_node(s);
	int i = node_find(n, w->begin), r = 0;

	if (node_is_leaf(n))
		return visit_leaf(w, s);
	for (i = i < 0 ? 0 : i; !r && i < (int)node_nr(n); i++) {
		struct btree_step child;
		bool shared;

		r = is_shared(w->t, node_child(n, (unsigned)i), &shared);
		if (r || shared)
			continue;
		r = btree_step_child(w->t, s, (unsigned)i, &child);
		if (r)
			break;
		r = visit(w, &child);
		btree_step_put(&child);
	}
	return r;
}

int
btree_iterate_unshared(const struct btree *t, uint64_t root, uint64_t begin, unsigned max_leaves,
		       btree_visit_fn fn, void *arg, uint64_t *next, bool *more)
{
	struct walk w = {
		.t = t, .begin = begin, .leaves_left = max_leaves, .fn = fn, .arg = arg};
	struct btree_step s;
	bool shared;
	int r = is_shared(t, root, &shared);

	*more = false;
	if (r || shared)
		return r;
	r = btree_step_root(t, root, &s);
	if (r)
		return r;
	r = visit(&w, &s);
	btree_step_put(&s);
	*next = w.next;
	*more = w.more;
	return w.more && r > 0 ? 0 : r;
}

int
btree_path_is_shared(const struct btree *t, uint64_t root, uint64_t key, bool *shared)
{
	struct btree_step s, child;
	int r = is_shared(t, root, shared);

	if (!r && !*shared)
		r = btree_step_root(t, root, &s);
	if (r || *shared)
		return r;
	while (!node_is_leaf(step_node(&s))) {
		int i = node_find(step_node(&s), key);

		r = i < 0 ? -ENODATA : is_shared(t, node_child(step_node(&s), (unsigned)i), shared);
		if (!r && !*shared)
			r = btree_step_child(t, &s, (unsigned)i, &child);
		btree_step_put(&s);
		if (r || *shared)
			return r;
		s = child;
	}
	r = node_find_exact(step_node(&s), key) < 0 ? -ENODATA : 0;
	btree_step_put(&s);
	return r;
}
