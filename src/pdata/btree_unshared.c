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
	btree_enter_fn enter; /* or NULL: what has one reference */
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

/* AGAIN: this way to the node was taken before, up to w->begin. */
static int
may_enter(const struct walk *w, uint64_t nr, bool again, bool *enter)
{
	uint32_t count;
	int r = txn_count(w->t->txn, nr, &count);

	if (r)
		return r;
	if (count <= 1 || !w->enter) {
		*enter = count <= 1;
		return 0;
	}
	return w->enter(w->arg, nr, count, again, enter);
}

static int
visit_leaf(struct walk *w, const struct btree_step *s)
{
	const struct disk_node *n = step_node(s);
	uint64_t last = 0;
	bool any = false;
	int r = 0;

	for (unsigned i = 0; i < node_nr(n) && !r; i++) {
		if (node_key(n, i) < w->begin)
			continue;
		last = node_key(n, i);
		any = true;
		r = w->fn(w->arg, last, node_value(n, i));
	}
	if (r || !any || --w->leaves_left || last == UINT64_MAX)
		return r;
	w->next = last + 1;
	w->more = true;
	return 1;
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
		bool enter;

		r = may_enter(w, node_child(n, (unsigned)i), node_key(n, (unsigned)i) < w->begin, &enter);
		if (r || !enter)
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
		       btree_enter_fn enter, btree_visit_fn fn, void *arg, uint64_t *next, bool *more)
{
	struct walk w = {.t = t, .begin = begin, .leaves_left = max_leaves, .enter = enter, .fn = fn,
			 .arg = arg};
	struct btree_step s;
	bool own;
	int r = may_enter(&w, root, begin > 0, &own);

	*more = false;
	if (r || !own)
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
