/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * btree_node: one node of a B-tree, and steps from node to node (format sheet, S 4.1). For the
 * btree_ files only.
 *
 * The node_ functions work on one node, or move entries between nodes of one level. They trust
 * the header of the node, so a node from an image comes through a step first, which checks it.
 *
 * A step is a held node together with what is known about it from above: how deep it is, and
 * which keys it may hold. A child whose keys are outside its parent's interval is refused, so no
 * node can be met twice in one walk, whatever the pointers in an image say.
 *
 * Locking and errors: as btree.h.
 */
#ifndef THINFS_PDATA_BTREE_NODE_H
#define THINFS_PDATA_BTREE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "pdata/btree.h"
#include "pdata/format.h"

/* The value of an internal node: a block number. */
#define NODE_CHILD_SIZE 8U
/* node_spread() takes this many nodes at most. */
#define NODE_SPREAD_MAX 3U

static inline unsigned
node_nr(const struct disk_node *n)
{
	return le32_get(n->nr_entries);
}

static inline unsigned
node_max(const struct disk_node *n)
{
	return le32_get(n->max_entries);
}

/* What every node but a root must hold. */
static inline unsigned
node_min(const struct disk_node *n)
{
	return node_max(n) / 3;
}

static inline bool
node_is_leaf(const struct disk_node *n)
{
	return le32_get(n->header.flags) == NODE_LEAF;
}

static inline bool
node_is_full(const struct disk_node *n)
{
	return node_nr(n) >= node_max(n);
}

static inline uint64_t
node_key(const struct disk_node *n, unsigned i)
{
	return le64_get(n->keys[i]);
}

static inline void
node_set_key(struct disk_node *n, unsigned i, uint64_t key)
{
	n->keys[i] = le64_make(key);
}

/* The values lie behind room for max_entries keys, not behind the last key. */
static inline void *
node_value(const struct disk_node *n, unsigned i)
{
	return (uint8_t *)&n->keys[node_max(n)] + (size_t)i * le32_get(n->value_size);
}

/* Internal nodes only. */
uint64_t node_child(const struct disk_node *n, unsigned i);
void node_set_child(struct disk_node *n, unsigned i, uint64_t child);

/* How many entries fit in a node, rounded down to a multiple of 3 (S 4.1). */
unsigned node_max_for(uint32_t value_size);

/* Make N an empty node; its block number and checksum are the cache's affair and stay. */
void node_init(struct disk_node *n, uint32_t flags, uint32_t value_size);
/* Make TO what FROM is, but for block number and checksum. */
void node_copy(struct disk_node *to, const struct disk_node *from);

/* The greatest index with a key <= KEY; -1 when all keys are higher. */
int node_find(const struct disk_node *n, uint64_t key);
/* The same, but it must be the key itself: -1 when it is not there. */
int node_find_exact(const struct disk_node *n, uint64_t key);

/* Put an entry in at index I of a node that is not full. */
void node_insert(struct disk_node *n, unsigned i, uint64_t key, const void *value);
void node_insert_child(struct disk_node *n, unsigned i, uint64_t key, uint64_t child);
/* Take NR entries from index I on out. What they referred to is the caller's affair. */
void node_erase(struct disk_node *n, unsigned i, unsigned nr);

/*
 * Share the entries of NR neighbours out anew, in order, so that node i holds WANT[i] of them.
 * The nodes are of one level and the sums are equal.
 */
void node_spread(struct disk_node *const *nodes, const unsigned *want, unsigned nr);

/* A node on the way down. */
struct btree_step {
	struct block *block; /* held; NULL: none */
	uint64_t first, last; /* keys it may hold, both inclusive */
	unsigned depth; /* of the root: 0 */
};

static inline struct disk_node *
step_node(const struct btree_step *s)
{
	return s->block->data;
}

/* Let go of the node, if any. */
void btree_step_put(struct btree_step *s);

/* Hold a root, or child I of PARENT, for reading. On failure nothing is held in *S. */
int btree_step_root(const struct btree *t, uint64_t root, struct btree_step *s);
int btree_step_child(const struct btree *t, const struct btree_step *parent, unsigned i,
		     struct btree_step *s);

/* The same for changing: shadowed, with references added, and the pointer to it set anew. */
int btree_shadow_root(const struct btree *t, uint64_t *root, struct btree_step *s);
int btree_shadow_child(const struct btree *t, const struct btree_step *parent, unsigned i,
		       struct btree_step *s);

/* The keys that child I may hold, both inclusive. */
void btree_child_range(const struct btree_step *parent, unsigned i, uint64_t *first,
		       uint64_t *last);

/* Hold a new, empty node, counted once. */
int btree_new_node(const struct btree *t, uint32_t flags, uint32_t value_size,
		   struct block **out);

/* Add a reference for all that N points to: a copy of it has been made. */
int btree_inc_pointees(const struct btree *t, const struct disk_node *n);

/* -EUCLEAN with a message unless A and B are both leaves or both internal. */
int btree_check_same_level(const struct btree *t, const struct btree_step *a,
			   const struct btree_step *b);

/* Drop one reference of child I of PARENT, and of what is below where nobody else uses it. */
int btree_delete_child(const struct btree *t, const struct btree_step *parent, unsigned i);

#endif
