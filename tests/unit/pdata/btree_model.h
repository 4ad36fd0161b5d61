/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * btree_model: trees, and plain arrays of what they should hold.
 *
 * A forest is some trees that share nodes, in a fake_txn. Steps are done to a tree and to its model;
 * they fail the test if the two give different answers. forest_check() checks everything that S 4.2
 * and S 8 demand, by code that knows the layout but none of the functions under test.
 * THINFS_TEST_SEED repeats a run.
 */
#ifndef THINFS_TESTS_BTREE_MODEL_H
#define THINFS_TESTS_BTREE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "fake_txn.h"
#include "pdata/btree.h"
#include "unit/random.h"

#define FOREST_MAX_TREES 6
#define FOREST_BLOCKS 16384U

/* What a tree should hold: by index of a key, the data block its value names and the rest of it. */
struct model {
	uint64_t root;
	uint32_t *ids; /* 0: no entry */
	uint8_t *fillers;
};

struct forest {
	struct fake_txn *fake;
	struct btree_value_type type;
	struct btree bt;
	unsigned universe; /* number of keys */
	uint64_t stride; /* key = index * stride, but the last key is the last there is */
	struct model trees[FOREST_MAX_TREES];
	unsigned nr_trees;
	uint32_t *data_counts;
	uint32_t next_id;
	struct random_source random;
};

/* Numbers as they are in a node. */
static inline uint32_t
get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t
get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* Values: the number of a data block, then a filler. */
uint32_t model_value_id(const void *value);
void model_make_value(const struct forest *f, uint32_t id, uint8_t filler, uint8_t *value);

/* One empty tree. */
void forest_open(struct forest *f, uint32_t value_size, unsigned universe);
/* Delete all trees; fail the test if anything leaks. */
void forest_close(struct forest *f);
/* Free the memory only: after an error the trees are not whole. */
void forest_drop(struct forest *f);

unsigned forest_below(struct forest *f, unsigned bound);
uint64_t forest_key(const struct forest *f, unsigned i);
/* Child I of the node P. */
uint8_t *forest_child(struct forest *f, const uint8_t *p, unsigned i);
/* Levels of a tree. */
int forest_depth(struct forest *f, uint64_t root);
/* Check all nodes, entries and counts. */
void forest_check(struct forest *f);

/* Whole trees; the last one takes the number of a deleted one. */
void forest_snapshot(struct forest *f, unsigned which);
void forest_delete(struct forest *f, unsigned which);

/* Steps; entries go by the index of their key. */
void forest_insert(struct forest *f, struct model *m, unsigned i);
void forest_remove(struct forest *f, struct model *m, unsigned i);
void forest_remove_range(struct forest *f, struct model *m, unsigned begin, unsigned end, uint64_t max);
void forest_remove_first(struct forest *f, struct model *m, uint64_t max);
void forest_shadow_path(struct forest *f, struct model *m, unsigned i);
/* Insert the first NR keys into the first tree. */
void forest_fill(struct forest *f, unsigned nr);
/* One step of a random run. GROW: insert more than is removed. */
void forest_step(struct forest *f, bool grow);

/*
 * Take out of the model what is gone from the tree, in [BEGIN, END): how many. A range may be removed
 * in any order: what is gone is looked for entry by entry.
 */
uint64_t model_resync(struct forest *f, struct model *m, unsigned begin, unsigned end);

#endif
