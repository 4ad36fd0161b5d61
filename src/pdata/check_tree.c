/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_tree: one B-tree (format sheet, S 4).
 *
 * A node that was met before, by another way or in another tree, is judged by what is known of it,
 * so that shared subtrees cost nothing. Where every leaf is wanted they are walked again; then
 * the work is bounded by the intervals of keys: no node that has keys fits two places of one tree.
 */
#include <config.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "pdata/btree_node.h"
#include "pdata/check_internal.h"

/* Where a node was found. */
struct place {
	unsigned depth; /* of the root: 0 */
	uint64_t first, last; /* keys it may hold, both inclusive */
};

static int visit(struct tree_walk *w, uint64_t nr, struct place at, struct seen_block **out);

static void node_error(struct tree_walk *w, uint64_t nr, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void
node_error(struct tree_walk *w, uint64_t nr, const char *fmt, ...)
{
	char text[CHECK_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	check_error(w->c, w->use, nr, "node of the %s: %s", w->name, text);
}

/* The node is well by itself; *broken: nothing more can be learnt from it. */
static void
check_node(struct tree_walk *w, uint64_t nr, const struct disk_node *n, bool *broken)
{
	uint32_t size = node_is_leaf(n) ? w->value_size : NODE_CHILD_SIZE;

	*broken = le32_get(n->value_size) != size;
	if (*broken)
		node_error(w, nr, "values of %" PRIu32 " bytes instead of %" PRIu32,
			   le32_get(n->value_size), size);
	else if (node_max(n) != node_max_for(size))
		node_error(w, nr, "max_entries is %u instead of %u", node_max(n), node_max_for(size));
}

static bool
keys_fit(uint64_t first, uint64_t last, const struct place *at)
{
	return first > last || (first >= at->first && last <= at->last);
}

static void
tell_misfit(struct tree_walk *w, uint64_t nr, uint64_t first, uint64_t last, const struct place *at)
{
	node_error(w, nr, "keys %" PRIu64 " to %" PRIu64 " where only %" PRIu64 " to %" PRIu64
		   " belong", first, last, at->first, at->last);
	check_lose(w->c, w->use);
}

static int
count_children(struct tree_walk *w, const struct disk_node *n)
{
	int r = 0;

	for (unsigned i = 0; i < node_nr(n) && !r; i++)
		r = check_count(w->c, node_child(n, i));
	return r;
}

/* Take over what is known of a child of the node NR. */
static void
add_child(struct tree_walk *w, uint64_t nr, struct seen_block *s, const struct seen_block *child,
	  uint8_t *height)
{
	if (!child || child->incomplete)
		s->incomplete = true;
	if (!child)
		return;
	if (!child->incomplete) {
		if (*height && child->height != *height)
			node_error(w, nr, "its children are of different depths");
		*height = child->height;
	}
	s->nr_entries += child->nr_entries;
	if (child->first <= child->last && child->last > s->last)
		s->last = child->last;
}

static int
visit_children(struct tree_walk *w, uint64_t nr, const struct disk_node *n, struct place at,
	       struct seen_block *s)
{
	unsigned nr_children = node_nr(n);
	uint8_t height = 0;
	int r = 0;

	for (unsigned i = 0; i < nr_children && !r; i++) {
		struct place below = {
			.depth = at.depth + 1,
			.first = node_key(n, i),
			.last = i + 1 < nr_children ? node_key(n, i + 1) - 1 : at.last,
		};
		struct seen_block *child;

		r = visit(w, node_child(n, i), below, &child);
		if (!r)
			add_child(w, nr, s, child, &height);
	}
	s->height = (uint8_t)(height + 1);
	return r;
}

/* Read the node and go down. FRESH: for the first time; otherwise it is known to be well. */
static int
enter(struct tree_walk *w, uint64_t nr, struct place at, struct seen_block *s, bool fresh)
{
	uint8_t *data = w->c->nodes + (size_t)at.depth * METADATA_BLOCK_SIZE;
	const struct disk_node *n = (const void *)data;
	unsigned nr_entries;
	int r;

	s->broken = !check_read(w->c, nr, w->use, BLOCK_NODE, data);
	if (!s->broken && fresh)
		check_node(w, nr, n, &s->broken);
	if (s->broken)
		return 0;
	nr_entries = node_nr(n);
	s->first = nr_entries ? node_key(n, 0) : 1;
	s->last = nr_entries ? node_key(n, nr_entries - 1) : 0;
	s->underfull = nr_entries < node_min(n);
	if (!keys_fit(s->first, s->last, &at)) {
		tell_misfit(w, nr, s->first, s->last, &at);
		s->broken = true;
		return 0;
	}
	s->nr_entries = 0;
	if (node_is_leaf(n)) {
		s->height = 1;
		s->nr_entries = nr_entries;
		return w->leaf(w, nr, n, fresh);
	}
	r = fresh ? count_children(w, n) : 0;
	s->height = 0;
	return r ? r : visit_children(w, nr, n, at, s);
}

/* What the block is known as does not fit here: false, and said so. */
static bool
may_be_here(struct tree_walk *w, uint64_t nr, const struct place *at)
{
	const struct seen_block *s = &w->c->seen[nr];

	if (s->use != w->use)
		node_error(w, nr, "it is also used as %s", check_use_name(s->use));
	else if (!s->broken && !s->height)
		node_error(w, nr, "a node below it points back to it");
	else if (!s->broken && at->depth + s->height > BTREE_MAX_DEPTH)
		node_error(w, nr, "the tree is too deep");
	else if (!s->broken && !keys_fit(s->first, s->last, at))
		tell_misfit(w, nr, s->first, s->last, at);
	else if (!s->broken)
		return true;
	return false;
}

/* *out: what is known of the block; NULL: it is broken, or does not belong here. */
static int
visit(struct tree_walk *w, uint64_t nr, struct place at, struct seen_block **out)
{
	struct check *c = w->c;
	struct seen_block *s;
	bool fresh;
	int r = 0;

	*out = NULL;
	if (nr >= c->nr_blocks) {
		node_error(w, nr, "there are only %" PRIu64 " metadata blocks", c->nr_blocks);
		check_lose(c, w->use);
		return 0;
	}
	s = &c->seen[nr];
	fresh = s->use == USE_NONE;
	if (at.depth >= BTREE_MAX_DEPTH && fresh) {
		node_error(w, nr, "the tree is too deep");
		check_lose(c, w->use);
		return 0;
	}
	if (!fresh && !may_be_here(w, nr, &at)) {
		check_lose(c, w->use);
		return 0;
	}
	s->use = (uint8_t)w->use;
	if (fresh || w->every_leaf)
		r = enter(w, nr, at, s, fresh);
	if (s->broken) {
		check_lose(c, w->use);
		return r;
	}
	if (s->underfull && at.depth && !s->told) {
		s->told = true;
		node_error(w, nr, "fewer entries than a third of what it has room for");
	}
	*out = s;
	return r;
}

int
check_walk(struct tree_walk *w, uint64_t root, const struct seen_block **out)
{
	struct seen_block *s;
	int r = visit(w, root, (struct place){0, 0, UINT64_MAX}, &s);

	if (out)
		*out = s;
	return r;
}
