/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "pdata/btree_node.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/msg.h"

/* --- one node --- */

uint64_t
node_child(const struct disk_node *n, unsigned i)
{
	struct le64 v;

	memcpy(&v, node_value(n, i), sizeof(v));
	return le64_get(v);
}

void
node_set_child(struct disk_node *n, unsigned i, uint64_t child)
{
	struct le64 v = le64_make(child);

	memcpy(node_value(n, i), &v, sizeof(v));
}

unsigned
node_max_for(uint32_t value_size)
{
	unsigned fit = (METADATA_BLOCK_SIZE - sizeof(struct disk_node)) / (8 + value_size);

	return fit / 3 * 3;
}

void
node_init(struct disk_node *n, uint32_t flags, uint32_t value_size)
{
	n->header.flags = le32_make(flags);
	n->nr_entries = le32_make(0);
	n->max_entries = le32_make(node_max_for(value_size));
	n->value_size = le32_make(value_size);
	n->padding = le32_make(0);
	/* Nothing of a former life may reach the disk. */
	memset(n->keys, 0, METADATA_BLOCK_SIZE - sizeof(*n));
}

void
node_copy(struct disk_node *to, const struct disk_node *from)
{
	struct disk_header header = to->header;

	header.flags = from->header.flags;
	memcpy(to, from, METADATA_BLOCK_SIZE);
	to->header = header;
}

int
node_find(const struct disk_node *n, uint64_t key)
{
	int low, high = (int)node_nr(n);

	/*
	 * Keys ascend and differ, so none behind keys[key - keys[0]] can be KEY; in a leaf without holes it is just
	 * there. Looking there first, and at the end, where volumes grow, saves a search through memory that is
	 * mostly not in the processor's cache; both ends have been looked at by step_check().
	 */
	if (!high || key < node_key(n, 0))
		return -1;
	if (key >= node_key(n, (unsigned)high - 1))
		return high - 1;
	low = 0;
	if (key - node_key(n, 0) < (uint64_t)high) {
		high = (int)(key - node_key(n, 0));
		if (node_key(n, (unsigned)high) == key)
			return high;
	}

	/* keys[low] <= key < keys[high] */
	while (high - low > 1) {
		int mid = low + (high - low) / 2;

		if (node_key(n, (unsigned)mid) <= key)
			low = mid;
		else
			high = mid;
	}

	return low;
}

int
node_find_exact(const struct disk_node *n, uint64_t key)
{
	int i = node_find(n, key);

	return i >= 0 && node_key(n, (unsigned)i) == key ? i : -1;
}

void
node_insert(struct disk_node *n, unsigned i, uint64_t key, const void *value)
{
	unsigned nr = node_nr(n);
	size_t size = le32_get(n->value_size);

	assert(i <= nr && nr < node_max(n));

	memmove(&n->keys[i + 1], &n->keys[i], (nr - i) * sizeof(n->keys[0]));
	memmove(node_value(n, i + 1), node_value(n, i), (nr - i) * size);
	node_set_key(n, i, key);
	memcpy(node_value(n, i), value, size);
	n->nr_entries = le32_make(nr + 1);
}

void
node_insert_child(struct disk_node *n, unsigned i, uint64_t key, uint64_t child)
{
	struct le64 v = le64_make(child);

	node_insert(n, i, key, &v);
}

void
node_erase(struct disk_node *n, unsigned i, unsigned nr)
{
	unsigned rest, old = node_nr(n);
	size_t size = le32_get(n->value_size);

	assert(i <= old && nr <= old - i);

	rest = old - i - nr;
	memmove(&n->keys[i], &n->keys[i + nr], rest * sizeof(n->keys[0]));
	memmove(node_value(n, i), node_value(n, i + nr), rest * size);
	n->nr_entries = le32_make(old - nr);
}

void
node_spread(struct disk_node *const *nodes, const unsigned *want, unsigned nr)
{
	/* All entries pass through here: which of them overlap whose slots is then no question. */
	struct le64 keys[NODE_SPREAD_MAX * METADATA_BLOCK_SIZE / 8];
	uint8_t values[NODE_SPREAD_MAX * METADATA_BLOCK_SIZE];
	size_t size = le32_get(nodes[0]->value_size), total = 0, at = 0;
	bool moves = false;

	assert(nr <= NODE_SPREAD_MAX);

	for (unsigned i = 0; i < nr; i++)
		moves = moves || node_nr(nodes[i]) != want[i];
	if (!moves)
		return;

	for (unsigned i = 0; i < nr; i++) {
		memcpy(&keys[total], nodes[i]->keys, node_nr(nodes[i]) * sizeof(keys[0]));
		memcpy(&values[total * size], node_value(nodes[i], 0), node_nr(nodes[i]) * size);
		total += node_nr(nodes[i]);
	}

	for (unsigned i = 0; i < nr; i++) {
		assert(want[i] <= node_max(nodes[i]) && at + want[i] <= total);
		memcpy(nodes[i]->keys, &keys[at], want[i] * sizeof(keys[0]));
		memcpy(node_value(nodes[i], 0), &values[at * size], want[i] * size);
		nodes[i]->nr_entries = le32_make(want[i]);
		at += want[i];
	}
	assert(at == total);
}

/* --- steps --- */

/* Say what is wrong with the node of S. */
static int
step_broken(const struct btree *t, const struct btree_step *s, const char *what)
{
	msg_error("%s: %s tree: block %" PRIu64 ": %s; check it with 'thinfs check'",
		  bc_name(t->txn->bc), t->type->name, s->block->nr, what);
	return -EUCLEAN;
}

static int
step_check(const struct btree *t, const struct btree_step *s)
{
	const struct disk_node *n = step_node(s);
	uint32_t flags = le32_get(n->header.flags);
	uint32_t size = flags == NODE_LEAF ? t->type->size : NODE_CHILD_SIZE;
	unsigned nr = node_nr(n);

	if (s->depth >= BTREE_MAX_DEPTH)
		return step_broken(t, s, "the tree is too deep");
	if (flags != NODE_LEAF && flags != NODE_INTERNAL)
		return step_broken(t, s, "neither a leaf nor an internal node");
	if (le32_get(n->value_size) != size)
		return step_broken(t, s, "wrong value size");
	if (node_max(n) != node_max_for(size))
		return step_broken(t, s, "wrong max_entries");
	if (nr > node_max(n))
		return step_broken(t, s, "nr_entries is above max_entries");
	if (!nr && (s->depth || flags == NODE_INTERNAL))
		return step_broken(t, s, "a node without entries");
	if (nr && (node_key(n, 0) < s->first || node_key(n, nr - 1) > s->last))
		return step_broken(t, s, "keys outside the interval of its parent");

	return 0;
}

void
btree_step_put(struct btree_step *s)
{
	if (s->block)
		bc_put(s->block);
	s->block = NULL;
}

static int
step_read(const struct btree *t, uint64_t nr, struct btree_step *s)
{
	int r;

	s->block = NULL;
	r = txn_read(t->txn, nr, BLOCK_NODE, &s->block);
	if (r)
		return r;

	r = step_check(t, s);
	if (r)
		btree_step_put(s);
	return r;
}

static int
step_shadow(const struct btree *t, uint64_t nr, struct btree_step *s)
{
	bool shared = false;
	int r;

	s->block = NULL;
	r = txn_shadow(t->txn, nr, BLOCK_NODE, &s->block, &shared);
	if (r)
		return r;

	r = step_check(t, s);
	if (!r && shared)
		r = btree_inc_pointees(t, step_node(s));
	if (r)
		btree_step_put(s);
	return r;
}

static void
step_init_root(struct btree_step *s)
{
	s->first = 0;
	s->last = UINT64_MAX;
	s->depth = 0;
}

static void
step_init_child(const struct btree_step *parent, unsigned i, struct btree_step *s)
{
	btree_child_range(parent, i, &s->first, &s->last);
	s->depth = parent->depth + 1;
}

int
btree_step_root(const struct btree *t, uint64_t root, struct btree_step *s)
{
	step_init_root(s);
	return step_read(t, root, s);
}

int
btree_step_child(const struct btree *t, const struct btree_step *parent, unsigned i,
		 struct btree_step *s)
{
	step_init_child(parent, i, s);
	return step_read(t, node_child(step_node(parent), i), s);
}

int
btree_shadow_root(const struct btree *t, uint64_t *root, struct btree_step *s)
{
	int r;

	step_init_root(s);
	r = step_shadow(t, *root, s);
	if (!r)
		*root = s->block->nr;
	return r;
}

int
btree_shadow_child(const struct btree *t, const struct btree_step *parent, unsigned i,
		   struct btree_step *s)
{
	int r;

	step_init_child(parent, i, s);
	r = step_shadow(t, node_child(step_node(parent), i), s);
	if (!r)
		node_set_child(step_node(parent), i, s->block->nr);
	return r;
}

void
btree_child_range(const struct btree_step *parent, unsigned i, uint64_t *first, uint64_t *last)
{
	const struct disk_node *n = step_node(parent);

	*first = node_key(n, i);
	*last = i + 1 < node_nr(n) ? node_key(n, i + 1) - 1 : parent->last;
}

int
btree_new_node(const struct btree *t, uint32_t flags, uint32_t value_size, struct block **out)
{
	int r = txn_new(t->txn, BLOCK_NODE, out);

	if (!r)
		node_init((*out)->data, flags, value_size);
	return r;
}

int
btree_inc_pointees(const struct btree *t, const struct disk_node *n)
{
	int r = 0;

	if (node_is_leaf(n)) {
		if (t->type->inc && node_nr(n))
			r = t->type->inc(t->context, node_value(n, 0), node_nr(n));
		return r;
	}

	for (unsigned i = 0; i < node_nr(n) && !r; i++)
		r = txn_inc(t->txn, node_child(n, i));
	return r;
}

int
btree_check_same_level(const struct btree *t, const struct btree_step *a,
		       const struct btree_step *b)
{
	if (node_is_leaf(step_node(a)) == node_is_leaf(step_node(b)))
		return 0;

	return step_broken(t, b, "not of the same depth as its neighbour");
}
