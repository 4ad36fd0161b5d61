/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One B-tree of a seed, of any kind, with lies in its nodes: looked at and changed by the functions of
 * btree.h themselves.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "fuzz/edits.h"
#include "pdata/btree_node.h"
#include "pdata/space_map_internal.h"
#include "pdata/thin_meta_internal.h"

#define MAX_OPS 24U
#define CACHE_BYTES (1U << 20)

struct subject {
	struct seed *s;
	struct thin_meta *m;
	struct btree tree;
	uint64_t root;
	unsigned kind;
};

enum { TREE_MAPPING, TREE_TOP, TREE_DETAILS, TREE_INDEX, TREE_DATA_COUNTS, TREE_META_COUNTS, TREES };

/* Take hold of the tree; -ENODATA: there is none such. */
static int
choose_tree(struct subject *t, struct fuzz_input *in)
{
	struct thin_meta *m = t->m;
	struct btree top = meta_top_tree(m);
	struct le64 root;
	int r;

	t->kind = fuzz_u8(in) % TREES;
	switch (t->kind) {
	case TREE_MAPPING:
		t->tree = meta_mapping_tree(m);
		if (!t->s->nr_devs)
			return -ENODATA;
		r = btree_lookup(&top, m->sb.data_mapping_root, t->s->devs[fuzz_u8(in) % t->s->nr_devs],
				 &root);
		t->root = r ? 0 : le64_get(root);
		return r;
	case TREE_TOP:
		t->tree = top;
		t->root = m->sb.data_mapping_root;
		break;
	case TREE_DETAILS:
		t->tree = meta_details_tree(m);
		t->root = m->sb.device_details_root;
		break;
	case TREE_INDEX:
		t->tree = sm_index_tree(m->data_sm);
		t->root = m->data_sm->bitmap_root;
		break;
	case TREE_DATA_COUNTS:
		t->tree = sm_count_tree(m->data_sm);
		t->root = m->data_sm->count_root;
		break;
	default:
		t->tree = sm_count_tree(m->meta_sm);
		t->root = m->meta_sm->count_root;
	}
	return 0;
}

/* A value that may be inserted: with the reference that the tree then has. */
static int
make_value(struct subject *t, struct fuzz_input *in, uint8_t *value)
{
	struct btree mappings = meta_mapping_tree(t->m);
	uint64_t dblock, got, root;
	struct le64 v = {0};
	int r = 0;

	memset(value, 0, BTREE_MAX_VALUE_SIZE);
	if (t->kind == TREE_MAPPING) {
		r = sm_reserve(t->m->data_sm, fuzz_u8(in), 1, &dblock, &got);
		if (!r)
			r = sm_inc(t->m->data_sm, dblock);
		v = le64_make(r ? 0 : dblock << MAPPING_TIME_BITS);
	} else if (t->kind == TREE_TOP) {
		r = btree_empty(&mappings, &root);
		v = le64_make(r ? 0 : root);
	} else {
		v = le64_make(edits_number(t->s, in, 0));
	}
	memcpy(value, &v, sizeof(v));
	return r;
}

static int
count_entry(void *arg, uint64_t key, const void *value)
{
	uint64_t *last = arg;

	(void)value;
	if (last[0]++ && key <= last[1])
		fuzz_fail("keys are met in the wrong order");
	last[1] = key;
	return last[0] >= 20000;
}

static int
look(struct subject *t, unsigned op, uint64_t key)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE];
	uint64_t found, last[2] = {0};
	struct btree_shape shape;
	struct btree_cost cost;
	int r;

	switch (op) {
	case 0:
		return btree_lookup(&t->tree, t->root, key, value);
	case 1:
		r = btree_lookup_next(&t->tree, t->root, key, &found, value);
		if (!r && found < key)
			fuzz_fail("the next key is lower");
		return r;
	case 2:
		return btree_lookup_last(&t->tree, t->root, &found, value);
	case 3:
		return btree_iterate(&t->tree, t->root, key, count_entry, last);
	case 4:
		return btree_get_shape(&t->tree, t->root, &shape);
	default:
		return btree_remove_cost(&t->tree, t->root, key, &cost);
	}
}

static int
insert(struct subject *t, struct fuzz_input *in, uint64_t key)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE], found[BTREE_MAX_VALUE_SIZE];
	int r = make_value(t, in, value);

	if (!r)
		r = btree_insert(&t->tree, &t->root, key, value, NULL);
	if (r)
		return r;
	r = btree_lookup(&t->tree, t->root, key, found);
	if (r == -ENODATA || (!r && memcmp(value, found, t->tree.type->size)))
		fuzz_fail("what was inserted is not there");
	return r;
}

static int
remove_one(struct subject *t, uint64_t key)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE];
	int r = btree_remove(&t->tree, &t->root, key);

	if (!r && !btree_lookup(&t->tree, t->root, key, value))
		fuzz_fail("what was removed is still there");
	return r == -ENODATA ? 0 : r;
}

static int
remove_range(struct subject *t, struct fuzz_input *in, uint64_t key)
{
	uint64_t end = key + fuzz_u16(in), max = fuzz_u16(in), removed, next = 0, found;
	int r = btree_remove_range(&t->tree, &t->root, key, end, max, &removed, &next);

	if (r)
		return r;
	if (removed > max)
		fuzz_fail("more was removed than might go");
	r = btree_lookup_next(&t->tree, t->root, key, &found, NULL);
	if (!r && key < end && found < next)
		fuzz_fail("the range is not empty");
	return r == -ENODATA ? 0 : r;
}

/* What may be removed in one pass, from the next key on. */
static int
remove_some(struct subject *t, struct fuzz_input *in, uint64_t key)
{
	uint64_t first, removed = 0, max = 1 + (uint64_t)fuzz_u16(in);
	int r = btree_lookup_next(&t->tree, t->root, key, &first, NULL);

	if (r)
		return r == -ENODATA ? 0 : r;
	r = btree_remove_some(&t->tree, &t->root, first, UINT64_MAX, max, &removed);
	if (!r && (!removed || removed > max))
		fuzz_fail("%llu removed, of 1 to %llu", (unsigned long long)removed, (unsigned long long)max);
	return r;
}

/* 0: go on. */
static int
change(struct subject *t, struct fuzz_input *in, unsigned op, uint64_t key)
{
	uint64_t removed;
	int r;

	switch (op) {
	case 6:
	case 7:
	case 8:
		return insert(t, in, key);
	case 9:
	case 10:
		return remove_one(t, key);
	case 11:
		return remove_range(t, in, key);
	case 12:
		return btree_remove_first(&t->tree, &t->root, fuzz_u16(in), &removed);
	case 13:
		return remove_some(t, in, key);
	case 14:
		r = btree_shadow_path(&t->tree, &t->root, key);
		return r == -ENODATA ? 0 : r;
	default:
		r = btree_delete(&t->tree, t->root);
		return r ? r : 1;
	}
}

static void
operate(struct subject *t, struct fuzz_input *in)
{
	for (unsigned i = 0; i < MAX_OPS && in->left; i++) {
		unsigned op = fuzz_u8(in) % 16;
		uint64_t key = edits_number(t->s, in, 0);

		if (op < 6)
			fuzz_result(look(t, op, key));
		else if (fuzz_result(change(t, in, op, key)))
			break;
	}
}

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct subject t = {.s = NULL};

	fuzz_begin();
	t.s = seeds_get(fuzz_u8(&in));
	edits_apply(t.s, &in, EDIT(SEED_TOP) | EDIT(SEED_MAPPING) | EDIT(SEED_DETAILS) | EDIT(SEED_INDEX_TREE) |
		    EDIT(SEED_COUNTS));
	if (fuzz_result(meta_open(&t.s->meta->image, CACHE_BYTES, false, &t.m)))
		return;
	if (!fuzz_result(choose_tree(&t, &in))) {
		operate(&t, &in);
		/* Nothing was written: it is as it was. */
		if (meta_abort(t.m))
			fuzz_fail("what could be opened cannot be gone back to");
	}
	meta_close(t.m);
}

const struct fuzz_target fuzz_btree = {"btree", seeds_load, run};
