/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * btree: persistent B+trees with 64-bit keys and values of a fixed size (format sheet, S 4).
 *
 * A tree is known by the number of its root block. A change makes a new tree: it takes the old
 * root and gives back the new one, sharing all nodes that did not change. The caller hands over
 * its reference of the old root and gets one of the new root; it must store the new root even if
 * it is the same number.
 *
 * Every change keeps the invariants of S 4.2: ascending keys, one depth, at least max/3 entries in
 * every node but the root.
 *
 * Values are raw bytes in disk order. A tree's type says what a value refers to (S 4.7): inc is
 * called when a leaf that others share is copied, dec when a value is removed or overwritten by a
 * different one. Inserting hands over the caller's reference.
 *
 * No depth, count or pointer of a node is trusted: a descent of more than BTREE_MAX_DEPTH nodes, a
 * node with the wrong value size, a child outside the device end in -EUCLEAN with a message that
 * names the block.
 *
 * Locking: lookups and iteration need the metadata lock shared, changes exclusive.
 * Errors: negative errno. After a failed change the open transaction must be aborted, unless said
 * otherwise.
 */
#ifndef THINFS_PDATA_BTREE_H
#define THINFS_PDATA_BTREE_H

#include <stdbool.h>
#include <stdint.h>

#include "pdata/txn.h"

/* 84 entries an internal node at least: 2^64 keys are 10 levels deep. */
#define BTREE_MAX_DEPTH 16
#define BTREE_MAX_VALUE_SIZE 24

struct btree_value_type {
	const char *name; /* of the tree, for messages: "mapping", "details" */
	uint32_t size; /* bytes; 4, 8, 16 or 24 */
	/* NR values lie one after the other. NULL where values refer to nothing. */
	int (*inc)(void *context, const void *values, unsigned nr);
	int (*dec)(void *context, const void *values, unsigned nr);
	/* Whether overwriting A by B must not drop A. NULL: never drop. */
	bool (*equal)(void *context, const void *a, const void *b);
};

struct btree {
	struct txn *txn;
	const struct btree_value_type *type;
	void *context; /* for the functions of the type */
};

/* Make an empty tree: one leaf. */
int btree_empty(const struct btree *t, uint64_t *root);

/* Drop the caller's reference of a tree, and all that nobody else shares. O(unshared nodes). */
int btree_delete(const struct btree *t, uint64_t root);

/* 0, or -ENODATA when the key is not there. Value: type->size bytes. */
int btree_lookup(const struct btree *t, uint64_t root, uint64_t key, void *value);

/* The entry with the least key >= KEY; -ENODATA if there is none. VALUE may be NULL. */
int btree_lookup_next(const struct btree *t, uint64_t root, uint64_t key, uint64_t *found,
		      void *value);

/* The entry with the highest key; -ENODATA in an empty tree. VALUE may be NULL. */
int btree_lookup_last(const struct btree *t, uint64_t root, uint64_t *found, void *value);

/* What the top of a tree tells of it. */
struct btree_shape {
	unsigned depth; /* levels; 1: the root is a leaf */
	unsigned root_entries; /* depth 2: as many leaves */
};
int btree_get_shape(const struct btree *t, uint64_t root, struct btree_shape *shape);

/* What a change may need, at most. */
struct btree_cost {
	uint64_t nodes; /* blocks to allocate */
	uint64_t values; /* of leaves that are copied though others share them: a reference more for each */
	uint64_t children; /* the same for internal nodes: blocks of which the count rises */
};
/* Of btree_remove(), or btree_remove_some(), at KEY. O(depth) reads. */
int btree_remove_cost(const struct btree *t, uint64_t root, uint64_t key, struct btree_cost *cost);

/*
 * Call FN for each entry with BEGIN <= key, ascending, until it returns non-zero, which is then
 * returned; 0 at the end. FN must not change the tree. O(log n + entries passed): each leaf is
 * visited once.
 */
typedef int (*btree_visit_fn)(void *arg, uint64_t key, const void *value);
int btree_iterate(const struct btree *t, uint64_t root, uint64_t begin, btree_visit_fn fn,
		  void *arg);

/*
 * The same for the leaves that nothing else reaches: no node on the way to them has more than one reference, so deleting the
 * tree would drop what they refer to. At most MAX_LEAVES (> 0) of them, from BEGIN on; *next: where to go on, when *more.
 * Begin with 0, and go on from *next only.
 *
 * With ENTER, it decides about nodes that have several references: called for each way to one, once, and with AGAIN when a
 * further call comes that way to go on. Deleting several trees is all ways to a node, from all of them, being taken.
 */
typedef int (*btree_enter_fn)(void *arg, uint64_t node, uint32_t count, bool again, bool *enter);
int btree_iterate_unshared(const struct btree *t, uint64_t root, uint64_t begin, unsigned max_leaves,
			   btree_enter_fn enter, btree_visit_fn fn, void *arg, uint64_t *next, bool *more);

/* Whether a node on the way to KEY has more than one reference. -ENODATA: no such key. */
int btree_path_is_shared(const struct btree *t, uint64_t root, uint64_t key, bool *shared);

/* Insert or overwrite. *inserted, if wanted: the key was not there before. */
int btree_insert(const struct btree *t, uint64_t *root, uint64_t key, const void *value,
		 bool *inserted);

/*
 * Make the way to KEY and its leaf changeable without changing an entry: overwriting the value needs no
 * block after that, and what the leaf's values refer to carries a reference of its own. -ENODATA when the
 * key is not there: then nothing has changed.
 */
int btree_shadow_path(const struct btree *t, uint64_t *root, uint64_t key);

/*
 * Remove one entry; -ENODATA when it is not there: the tree is then still whole, though it may
 * be balanced anew, so *root must be stored all the same.
 */
int btree_remove(const struct btree *t, uint64_t *root, uint64_t key);

/*
 * Remove entries with BEGIN <= key < END, at most MAX_ENTRIES of them, in any order: subtrees in
 * the range are dropped as a whole, and those that others share without copying them.
 * *removed: how many. *next: all keys in [BEGIN, *next) are gone; END when done. Fewer than
 * MAX_ENTRIES are removed only when done.
 */
int btree_remove_range(const struct btree *t, uint64_t *root, uint64_t begin, uint64_t end,
		       uint64_t max_entries, uint64_t *removed, uint64_t *next);

/*
 * The same for all keys, the highest one too; for freeing a big tree step by step. MAX_ENTRIES 0
 * counts as 1. The tree is valid after each step; it is empty, one leaf, when *removed is
 * below MAX_ENTRIES.
 */
int btree_remove_first(const struct btree *t, uint64_t *root, uint64_t max_entries,
		       uint64_t *removed);

/*
 * One pass of these: some entries from KEY, which is there, up to LAST, at most MAX_ENTRIES and at least one. It costs
 * what btree_remove_cost() says.
 */
int btree_remove_some(const struct btree *t, uint64_t *root, uint64_t key, uint64_t last,
		      uint64_t max_entries, uint64_t *removed);

#endif
