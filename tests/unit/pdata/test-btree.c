/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees are compared with a plain array of what they should hold, and after some steps each time
 * everything that S 4.2 and S 8 demand is checked, by code that knows the layout but none of the
 * functions under test. THINFS_TEST_SEED repeats a run.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_txn.h"
#include "pdata/btree.h"
#include "pdata/format.h"
#include "unit/random.h"
#include "util/msg.h"

#define MAX_TREES 6
#define NR_BLOCKS 16384U
#define NR_DATA (1U << 20)

static const uint32_t value_sizes[] = {4, 8, 16, 24};
#define NR_VALUE_SIZES (sizeof(value_sizes) / sizeof(value_sizes[0]))

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
	struct model trees[MAX_TREES];
	unsigned nr_trees;
	uint32_t *data_counts;
	uint32_t next_id;
	struct random_source random;
};

static unsigned
below(struct forest *f, unsigned bound)
{
	return (unsigned)random_below(&f->random, bound);
}

/* --- values: the number of a data block, then a filler --- */

static uint32_t
value_id(const void *value)
{
	struct le32 v;

	memcpy(&v, value, sizeof(v));
	return le32_get(v);
}

static int
count_values(void *context, const void *values, unsigned nr, int by)
{
	struct forest *f = context;

	cr_assert(nr > 0);
	for (unsigned i = 0; i < nr; i++) {
		uint32_t id = value_id((const uint8_t *)values + i * f->type.size);

		cr_assert(id && id < NR_DATA && f->data_counts[id] > 0);
		f->data_counts[id] += (uint32_t)by;
	}
	return 0;
}

static int
inc_values(void *context, const void *values, unsigned nr)
{
	return count_values(context, values, nr, 1);
}

static int
dec_values(void *context, const void *values, unsigned nr)
{
	return count_values(context, values, nr, -1);
}

static bool
same_id(void *context, const void *a, const void *b)
{
	(void)context;
	return value_id(a) == value_id(b);
}

static void
make_value(const struct forest *f, uint32_t id, uint8_t filler, uint8_t *value)
{
	struct le32 v = le32_make(id);

	memset(value, filler, f->type.size);
	memcpy(value, &v, sizeof(v));
}

/* --- forests --- */

static uint64_t
key_of(const struct forest *f, unsigned i)
{
	return i + 1 == f->universe ? UINT64_MAX : i * f->stride;
}

static struct model *
add_tree(struct forest *f, uint64_t root, const struct model *like)
{
	struct model *m = &f->trees[f->nr_trees++];

	m->root = root;
	m->ids = calloc(f->universe, sizeof(*m->ids));
	m->fillers = calloc(f->universe, sizeof(*m->fillers));
	cr_assert(m->ids && m->fillers);
	if (like) {
		memcpy(m->ids, like->ids, f->universe * sizeof(*m->ids));
		memcpy(m->fillers, like->fillers, f->universe * sizeof(*m->fillers));
	}
	return m;
}

static void
swallow(const char *text)
{
	(void)text;
}

static void
forest_open(struct forest *f, uint32_t value_size, unsigned universe)
{
	static const uint64_t strides[] = {1, 3, 1ULL << 40};
	uint64_t root;

	memset(f, 0, sizeof(*f));
	f->random = random_start("btree");
	f->fake = fake_open(NR_BLOCKS);
	f->type = (struct btree_value_type){
		.name = "test",
		.size = value_size,
		.inc = inc_values,
		.dec = dec_values,
		.equal = same_id,
	};
	f->bt = (struct btree){.txn = fake_txn(f->fake), .type = &f->type, .context = f};
	f->universe = universe;
	f->stride = strides[below(f, 3)];
	f->data_counts = calloc(NR_DATA, sizeof(*f->data_counts));
	cr_assert_not_null(f->data_counts);

	cr_assert_eq(btree_empty(&f->bt, &root), 0);
	add_tree(f, root, NULL);
}

static void
delete_tree(struct forest *f, unsigned which)
{
	struct model *m = &f->trees[which];

	cr_assert_eq(btree_delete(&f->bt, m->root), 0);
	cr_assert_eq(fake_held(f->fake), 0);
	free(m->ids);
	free(m->fillers);
	*m = f->trees[--f->nr_trees];
}

static void
snapshot(struct forest *f, unsigned which)
{
	cr_assert_eq(txn_inc(f->bt.txn, f->trees[which].root), 0);
	add_tree(f, f->trees[which].root, &f->trees[which]);
}

/* Free the memory only: after an error the trees are not whole. */
static void
forest_drop(struct forest *f)
{
	for (unsigned i = 0; i < f->nr_trees; i++) {
		free(f->trees[i].ids);
		free(f->trees[i].fillers);
	}
	free(f->data_counts);
	fake_close(f->fake);
}

static void
forest_close(struct forest *f)
{
	while (f->nr_trees)
		delete_tree(f, below(f, f->nr_trees));

	cr_assert_eq(fake_allocated(f->fake), 0);
	for (unsigned i = 0; i < NR_DATA; i++)
		cr_assert_eq(f->data_counts[i], 0, "data block %u leaks", i);
	fake_check_committed(f->fake);
	forest_drop(f);
}

/* --- the checks --- */

struct check {
	struct forest *f;
	uint32_t *counts; /* expected, of nodes */
	uint32_t *data_counts;
	uint8_t *seen;
	const struct model *m;
	unsigned at; /* index of the next key */
	int leaf_depth; /* -1: no leaf met yet */
};

static uint32_t
get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t
get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void
check_entry(struct check *c, uint64_t key, const uint8_t *value)
{
	struct forest *f = c->f;
	uint8_t wanted[BTREE_MAX_VALUE_SIZE];

	while (c->at < f->universe && !c->m->ids[c->at])
		c->at++;
	cr_assert(c->at < f->universe, "too many entries");
	cr_assert(key == key_of(f, c->at), "key %" PRIu64 " in the place of %" PRIu64, key,
		  key_of(f, c->at));
	make_value(f, c->m->ids[c->at], c->m->fillers[c->at], wanted);
	cr_assert(!memcmp(value, wanted, f->type.size), "wrong value of key %" PRIu64, key);
	c->at++;
}

/* FIRST and LAST: keys it may hold, inclusive. */
static void
check_node(struct check *c, uint64_t nr, int depth, uint64_t first, uint64_t last)
{
	const uint8_t *n = fake_data(c->f->fake, (unsigned)nr);
	bool leaf = get32(n + 4) == 2, known = c->seen[nr];
	uint32_t entries = get32(n + 16), max = get32(n + 20), size = get32(n + 24);
	uint32_t right_size = leaf ? c->f->type.size : 8;

	c->seen[nr] = 1;
	cr_assert(fake_count(c->f->fake, (unsigned)nr) > 0);
	cr_assert(leaf || get32(n + 4) == 1);
	cr_assert_eq(size, right_size);
	cr_assert_eq(max, 4064 / (8 + right_size) / 3 * 3);
	cr_assert(entries <= max && (leaf || entries));
	cr_assert(!depth || entries >= max / 3, "block %" PRIu64 " has only %u", nr, entries);
	if (leaf) {
		cr_assert(c->leaf_depth < 0 || c->leaf_depth == depth);
		c->leaf_depth = depth;
	}

	for (uint32_t i = 0; i < entries; i++) {
		uint64_t key = get64(n + 32 + 8 * i);
		const uint8_t *value = n + 32 + 8 * max + size * i;
		uint64_t end = i + 1 < entries ? get64(n + 40 + 8 * i) - 1 : last;

		cr_assert(key >= first && key <= last);
		cr_assert(i + 1 == entries || key < get64(n + 40 + 8 * i));
		if (leaf) {
			check_entry(c, key, value);
			c->data_counts[value_id(value)] += !known;
		} else {
			c->counts[get64(value)] += !known;
			check_node(c, get64(value), depth + 1, key, end);
		}
	}
}

static void
check_all(struct forest *f)
{
	struct check c = {.f = f};

	c.counts = calloc(NR_BLOCKS, sizeof(*c.counts));
	c.data_counts = calloc(NR_DATA, sizeof(*c.data_counts));
	c.seen = calloc(NR_BLOCKS, 1);
	cr_assert(c.counts && c.data_counts && c.seen);

	for (unsigned i = 0; i < f->nr_trees; i++) {
		c.m = &f->trees[i];
		c.at = 0;
		c.leaf_depth = -1;
		c.counts[c.m->root]++;
		check_node(&c, c.m->root, 0, 0, UINT64_MAX);
		while (c.at < f->universe)
			cr_assert_eq(c.m->ids[c.at++], 0, "an entry is missing");
	}

	for (unsigned i = 0; i < NR_BLOCKS; i++)
		cr_assert(c.counts[i] == fake_count(f->fake, i), "block %u: count %u, not %u", i,
			  fake_count(f->fake, i), c.counts[i]);
	cr_assert(!memcmp(c.data_counts, f->data_counts, NR_DATA * sizeof(*c.data_counts)));
	cr_assert_eq(fake_held(f->fake), 0);
	fake_check_committed(f->fake);
	free(c.counts);
	free(c.data_counts);
	free(c.seen);
}

/* Child I of the node P. */
static uint8_t *
child_of(struct forest *f, const uint8_t *p, unsigned i)
{
	return fake_data(f->fake, (unsigned)get64(p + 32 + 8 * 252 + 8 * i));
}

static int
depth_of(struct forest *f, uint64_t root)
{
	const uint8_t *n = fake_data(f->fake, (unsigned)root);
	int depth = 1;

	for (; get32(n + 4) == 1; depth++)
		n = fake_data(f->fake, (unsigned)get64(n + 32 + 8 * 252));
	return depth;
}

/* --- steps, done to a tree and to its model --- */

static void
do_insert(struct forest *f, struct model *m, unsigned i)
{
	bool is_new = m->ids[i], again = m->ids[i] && !below(f, 4);
	uint8_t value[BTREE_MAX_VALUE_SIZE];
	uint32_t id = again ? m->ids[i] : ++f->next_id;

	cr_assert(id < NR_DATA);
	/* The reference that is handed over; the one of an equal value is there already. */
	f->data_counts[id] += !again;
	m->fillers[i] = (uint8_t)below(f, 256);
	make_value(f, id, m->fillers[i], value);
	cr_assert_eq(btree_insert(&f->bt, &m->root, key_of(f, i), value, &is_new), 0);
	cr_assert_eq(is_new, m->ids[i] == 0);
	m->ids[i] = id;
}

static void
do_remove(struct forest *f, struct model *m, unsigned i)
{
	int r = btree_remove(&f->bt, &m->root, key_of(f, i));

	cr_assert_eq(r, m->ids[i] ? 0 : -ENODATA);
	m->ids[i] = 0;
}

/* Take entries with indices in [BEGIN, END) and keys < NEXT out of the model: how many. */
static uint64_t
model_remove(struct forest *f, struct model *m, unsigned begin, unsigned end, uint64_t next)
{
	uint64_t nr = 0;

	for (unsigned i = begin; i < end && key_of(f, i) < next; i++) {
		nr += m->ids[i] != 0;
		m->ids[i] = 0;
	}
	return nr;
}

/* The range may be removed in any order: what is gone is looked for entry by entry. */
static uint64_t
model_resync(struct forest *f, struct model *m, unsigned begin, unsigned end)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE];
	uint64_t nr = 0;

	for (unsigned i = begin; i < end; i++) {
		if (!m->ids[i] || !btree_lookup(&f->bt, m->root, key_of(f, i), value))
			continue;
		m->ids[i] = 0;
		nr++;
	}
	return nr;
}

static void
do_remove_range(struct forest *f, struct model *m, unsigned begin, unsigned end, uint64_t max)
{
	uint64_t removed, next, last = end < f->universe ? key_of(f, end) : UINT64_MAX, nr;
	int r = btree_remove_range(&f->bt, &m->root, key_of(f, begin), last, max, &removed, &next);

	cr_assert_eq(r, 0);
	cr_assert(removed <= max && next <= last);
	if (end == f->universe)
		end--; /* the last key of all is never below an end */
	nr = model_remove(f, m, begin, end, next);
	nr += model_resync(f, m, begin, end);
	cr_assert_eq(removed, nr);
	cr_assert(next == last || removed == max);
}

static void
do_remove_first(struct forest *f, struct model *m, uint64_t max)
{
	uint64_t removed;
	bool empty = true;

	cr_assert_eq(btree_remove_first(&f->bt, &m->root, max, &removed), 0);
	cr_assert(removed <= max);
	cr_assert_eq(model_resync(f, m, 0, f->universe), removed);
	for (unsigned i = 0; i < f->universe; i++)
		empty = empty && !m->ids[i];
	cr_assert(removed || empty);
}

static void
do_shadow_path(struct forest *f, struct model *m, unsigned i)
{
	uint64_t key = key_of(f, i), nr;
	int r = btree_shadow_path(&f->bt, &m->root, key);

	cr_assert_eq(r, m->ids[i] ? 0 : -ENODATA);
	for (nr = m->root; !r;) {
		const uint8_t *n = fake_data(f->fake, (unsigned)nr);
		uint32_t k = 0;

		cr_assert_eq(fake_count(f->fake, (unsigned)nr), 1);
		if (get32(n + 4) == 2)
			break;
		while (k + 1 < get32(n + 16) && get64(n + 32 + 8 * (k + 1)) <= key)
			k++;
		nr = get64(n + 32 + 8 * 252 + 8 * k);
	}
}

static void
do_lookups(struct forest *f, const struct model *m, unsigned i)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE], wanted[BTREE_MAX_VALUE_SIZE];
	unsigned next = i, last = f->universe;
	uint64_t found;
	int r = btree_lookup(&f->bt, m->root, key_of(f, i), value);

	cr_assert_eq(r, m->ids[i] ? 0 : -ENODATA);
	make_value(f, m->ids[i], m->fillers[i], wanted);
	cr_assert(r || !memcmp(value, wanted, f->type.size));

	while (next < f->universe && !m->ids[next])
		next++;
	r = btree_lookup_next(&f->bt, m->root, key_of(f, i), &found, value);
	cr_assert_eq(r, next < f->universe ? 0 : -ENODATA);
	if (!r) {
		make_value(f, m->ids[next], m->fillers[next], wanted);
		cr_assert_eq(found, key_of(f, next));
		cr_assert(!memcmp(value, wanted, f->type.size));
	}

	while (last && !m->ids[last - 1])
		last--;
	r = btree_lookup_last(&f->bt, m->root, &found, value);
	cr_assert_eq(r, last ? 0 : -ENODATA);
	if (!r) {
		make_value(f, m->ids[last - 1], m->fillers[last - 1], wanted);
		cr_assert_eq(found, key_of(f, last - 1));
		cr_assert(!memcmp(value, wanted, f->type.size));
	}
}

/* A burst of insertions or removals at one place, upwards or downwards or all over the tree. */
static void
burst(struct forest *f, struct model *m, bool insert)
{
	unsigned nr = 1 + below(f, 400), kind = below(f, 3), i = below(f, f->universe);

	while (nr--) {
		if (insert)
			do_insert(f, m, i);
		else
			do_remove(f, m, i);

		if (kind == 0)
			i = below(f, f->universe);
		else
			i = (i + (kind == 1 ? 1 : f->universe - 1)) % f->universe;
	}
}

static void
random_range(struct forest *f, struct model *m)
{
	unsigned begin = below(f, f->universe);
	unsigned len = 1 + below(f, below(f, 2) ? 500 : f->universe / 2);
	unsigned end = begin + len < f->universe ? begin + len : f->universe;
	uint64_t max = below(f, 3) ? UINT64_MAX : below(f, 1000);

	do_remove_range(f, m, begin, end, max);
}

/* One step of a random run. GROW: insert more than is removed. */
static void
random_step(struct forest *f, bool grow)
{
	unsigned which = below(f, f->nr_trees), what = below(f, 100);
	struct model *m = &f->trees[which];

	if (what < 40)
		burst(f, m, grow);
	else if (what < 50)
		burst(f, m, !grow);
	else if (what < 70)
		do_lookups(f, m, below(f, f->universe));
	else if (what < 78)
		do_shadow_path(f, m, below(f, f->universe));
	else if (what < 84)
		fake_commit(f->fake);
	else if (what < 90 && f->nr_trees < MAX_TREES)
		snapshot(f, which);
	else if (what < 93 && f->nr_trees > 1)
		delete_tree(f, which);
	else if (what < 98 && (!grow || !below(f, 4)))
		random_range(f, m);
	else if (what == 99 && !grow)
		do_remove_first(f, m, 1 + below(f, 3000));
	cr_assert_eq(fake_held(f->fake), 0);
}

static void
fill(struct forest *f, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		do_insert(f, &f->trees[0], i);
}

/* --- tests --- */

TestSuite(btree, .timeout = 120);

Test(btree, empty_tree_is_one_leaf_as_on_disk)
{
	for (unsigned k = 0; k < NR_VALUE_SIZES; k++) {
		static const uint32_t max[] = {336, 252, 168, 126};
		struct forest f;
		const uint8_t *n;
		uint8_t value[BTREE_MAX_VALUE_SIZE];
		uint64_t found, removed, next;

		forest_open(&f, value_sizes[k], 10);
		n = fake_data(f.fake, (unsigned)f.trees[0].root);
		cr_assert_eq(get32(n + 4), 2);
		cr_assert_eq(get32(n + 16), 0);
		cr_assert_eq(get32(n + 20), max[k]);
		cr_assert_eq(get32(n + 24), value_sizes[k]);

		cr_assert_eq(btree_lookup(&f.bt, f.trees[0].root, 0, value), -ENODATA);
		cr_assert_eq(btree_lookup_next(&f.bt, f.trees[0].root, 0, &found, value),
			     -ENODATA);
		cr_assert_eq(btree_lookup_last(&f.bt, f.trees[0].root, &found, NULL), -ENODATA);
		cr_assert_eq(btree_remove(&f.bt, &f.trees[0].root, 0), -ENODATA);
		cr_assert_eq(btree_remove_first(&f.bt, &f.trees[0].root, 9, &removed), 0);
		cr_assert_eq(removed, 0);
		cr_assert_eq(btree_remove_range(&f.bt, &f.trees[0].root, 5, 9, 9, &removed, &next),
			     0);
		cr_assert(removed == 0 && next == 9);
		check_all(&f);
		forest_close(&f);
	}
}

/* Insert all keys in an order, then remove them in another; 0: up, 1: down, 2: shuffled. */
static void
in_order(struct forest *f, unsigned *order, int kind)
{
	for (unsigned i = 0; i < f->universe; i++)
		order[i] = kind == 1 ? f->universe - 1 - i : i;
	for (unsigned i = f->universe - 1; kind == 2 && i > 0; i--) {
		unsigned k = below(f, i + 1), other = order[k];

		order[k] = order[i];
		order[i] = other;
	}
}

static void
run_orders(uint32_t value_size, unsigned universe)
{
	unsigned *order = calloc(universe, sizeof(*order));

	for (int k = 0; k < 9; k++) {
		struct forest f;

		forest_open(&f, value_size, universe);
		in_order(&f, order, k / 3);
		for (unsigned i = 0; i < universe; i++) {
			do_insert(&f, &f.trees[0], order[i]);
			if (i % (universe / 4) == 0)
				check_all(&f);
		}
		fake_commit(f.fake);
		in_order(&f, order, k % 3);
		for (unsigned i = 0; i < universe; i++) {
			do_remove(&f, &f.trees[0], order[i]);
			if (i % (universe / 4) == 0 || i + 300 == universe)
				check_all(&f);
		}
		cr_assert_eq(fake_allocated(f.fake), 1);
		forest_close(&f);
	}
	free(order);
}

Test(btree, all_orders_of_inserting_and_removing_keep_the_invariants)
{
	for (unsigned k = 0; k < NR_VALUE_SIZES; k++)
		run_orders(value_sizes[k], 3000);
}

static void
run_random(uint32_t value_size, unsigned universe, unsigned prefill, unsigned steps)
{
	struct forest f;

	forest_open(&f, value_size, universe);
	fill(&f, prefill);
	check_all(&f);
	for (unsigned i = 0; i < steps; i++) {
		random_step(&f, i / (steps / 4) % 2 == 0);
		if (i % 25 == 0)
			check_all(&f);
	}
	check_all(&f);
	forest_close(&f);
}

Test(btree, random_steps_on_snapshots_4)
{
	run_random(4, 8000, 0, 1500);
}

Test(btree, random_steps_on_snapshots_8)
{
	run_random(8, 8000, 0, 1500);
}

Test(btree, random_steps_on_snapshots_16)
{
	run_random(16, 8000, 0, 1500);
}

Test(btree, random_steps_on_snapshots_24)
{
	run_random(24, 8000, 0, 1500);
}

Test(btree, random_steps_on_three_levels)
{
	run_random(24, 33000, 33000, 300);
	run_random(8, 66000, 66000, 150);
}

Test(btree, removing_singly_shrinks_three_levels_to_one)
{
	struct forest f;
	unsigned *order = calloc(33000, sizeof(*order));

	forest_open(&f, 24, 33000);
	fill(&f, 33000);
	cr_assert_eq(depth_of(&f, f.trees[0].root), 3);
	snapshot(&f, 0);
	fake_commit(f.fake);
	in_order(&f, order, 2);
	for (unsigned i = 0; i < 33000; i++) {
		do_remove(&f, &f.trees[0], order[i]);
		if (i % 3000 == 0)
			check_all(&f);
	}
	cr_assert_eq(depth_of(&f, f.trees[0].root), 1);
	check_all(&f);
	free(order);
	forest_close(&f);
}

/* How many entries the children of a tree's root hold. */
static void
assert_leaf_sizes(struct forest *f, const unsigned *sizes, unsigned nr)
{
	const uint8_t *root = fake_data(f->fake, (unsigned)f->trees[0].root);

	cr_assert_eq(get32(root + 4), 1);
	cr_assert_eq(get32(root + 16), nr);
	for (unsigned i = 0; i < nr; i++)
		cr_assert_eq(get32(child_of(f, root, i) + 16), sizes[i], "leaf %u", i);
}

/* Taken from the metadata that a kernel wrote. */
Test(btree, ascending_keys_fill_leaves_as_the_kernel_does)
{
	static const unsigned sizes[] = {248, 248, 248, 248, 248, 248, 248,
					 248, 248, 248, 248, 126, 146};
	struct forest f;

	forest_open(&f, 8, 3001);
	fill(&f, 3000);
	assert_leaf_sizes(&f, sizes, 13);
	forest_close(&f);
}

Test(btree, full_leaf_between_full_ones_is_split_with_its_left_neighbour)
{
	static const unsigned split[] = {248, 248, 166, 168, 167, 248, 248,
					 248, 248, 248, 248, 248, 126, 146};
	struct forest f;

	forest_open(&f, 8, 6001);
	for (unsigned i = 0; i < 3000; i++)
		do_insert(&f, &f.trees[0], 2 * i);
	for (unsigned i = 0; i < 5; i++)
		do_insert(&f, &f.trees[0], 2 * (3 * 248 + i) + 1);
	assert_leaf_sizes(&f, split, 14);
	check_all(&f);
	forest_close(&f);
}

Test(btree, full_leaf_beside_a_shared_one_is_split_alone)
{
	static const unsigned before[] = {126, 127}, after[] = {126, 126, 127};
	struct forest f;
	unsigned blocks;

	forest_open(&f, 8, 1000);
	fill(&f, 253);
	assert_leaf_sizes(&f, before, 2);
	snapshot(&f, 0);
	blocks = fake_handed_out(f.fake);
	for (unsigned i = 253; i < 379; i++)
		do_insert(&f, &f.trees[0], i);
	assert_leaf_sizes(&f, after, 3);
	/* the root, the right leaf, its new half; the left leaf is still everybody's */
	cr_assert_eq(fake_handed_out(f.fake) - blocks, 3);
	check_all(&f);
	forest_close(&f);
}

Test(btree, overwriting_drops_the_old_value_unless_it_is_equal)
{
	struct forest f;
	uint8_t value[8];
	bool inserted = true;

	forest_open(&f, 8, 100);
	f.data_counts[7] = f.data_counts[8] = 1;
	make_value(&f, 7, 1, value);
	cr_assert_eq(btree_insert(&f.bt, &f.trees[0].root, 5, value, NULL), 0);
	make_value(&f, 7, 2, value);
	cr_assert_eq(btree_insert(&f.bt, &f.trees[0].root, 5, value, &inserted), 0);
	cr_assert(!inserted && f.data_counts[7] == 1);
	cr_assert_eq(btree_lookup(&f.bt, f.trees[0].root, 5, value), 0);
	cr_assert_eq(value[7], 2);
	make_value(&f, 8, 2, value);
	cr_assert_eq(btree_insert(&f.bt, &f.trees[0].root, 5, value, &inserted), 0);
	cr_assert(!inserted && f.data_counts[7] == 0 && f.data_counts[8] == 1);

	/* a type that says nothing of equality never drops */
	f.type.equal = NULL;
	f.data_counts[9] = 1;
	make_value(&f, 9, 2, value);
	cr_assert_eq(btree_insert(&f.bt, &f.trees[0].root, 5, value, NULL), 0);
	cr_assert_eq(f.data_counts[8], 1);
	f.data_counts[8] = 0;
	forest_close(&f);
}

struct walk {
	struct forest *f;
	unsigned at, stop;
};

static int
walk_entry(void *arg, uint64_t key, const void *value)
{
	struct walk *w = arg;
	const struct model *m = &w->f->trees[0];

	while (!m->ids[w->at])
		w->at++;
	cr_assert_eq(key, key_of(w->f, w->at));
	cr_assert_eq(value_id(value), m->ids[w->at]);
	return w->at++ == w->stop ? 77 : 0;
}

Test(btree, iterate_gives_each_entry_from_begin_on_until_told_to_stop)
{
	struct forest f;

	forest_open(&f, 16, 5000);
	fill(&f, 5000);
	for (unsigned i = 0; i < 5000; i += 3)
		do_remove(&f, &f.trees[0], i);
	for (unsigned i = 0; i < 4990; i += 97) {
		struct walk w = {.f = &f, .at = i, .stop = 10000};

		cr_assert_eq(btree_iterate(&f.bt, f.trees[0].root, key_of(&f, i), walk_entry, &w),
			     0);
		cr_assert_eq(w.at, 5000);
		w = (struct walk){.f = &f, .at = i, .stop = i + 2 - (i + 2) % 3 % 2};
		w.stop += w.stop % 3 == 0;
		cr_assert_eq(btree_iterate(&f.bt, f.trees[0].root, key_of(&f, i), walk_entry, &w),
			     77);
		cr_assert_eq(w.at, w.stop + 1);
	}
	forest_close(&f);
}

Test(btree, shadow_path_leaves_what_is_not_shared_alone)
{
	struct forest f;
	unsigned before;

	forest_open(&f, 8, 3000);
	fill(&f, 3000);
	fake_commit(f.fake);
	before = fake_handed_out(f.fake);
	do_shadow_path(&f, &f.trees[0], 1000);
	cr_assert_eq(fake_handed_out(f.fake), before);

	snapshot(&f, 0);
	do_shadow_path(&f, &f.trees[0], 1000);
	cr_assert_eq(fake_handed_out(f.fake), before + 2);
	check_all(&f);
	/* The other one has its path for itself now, but for the leaves that were not copied. */
	do_shadow_path(&f, &f.trees[1], 1000);
	cr_assert_eq(fake_handed_out(f.fake), before + 2);
	forest_close(&f);
}

Test(btree, range_in_a_shared_tree_is_dropped_without_copying_its_leaves)
{
	for (unsigned k = 0; k < NR_VALUE_SIZES; k++) {
		struct forest f;
		unsigned before;

		forest_open(&f, value_sizes[k], 66000);
		fill(&f, 66000);
		snapshot(&f, 0);
		fake_commit(f.fake);
		before = fake_handed_out(f.fake);
		do_remove_range(&f, &f.trees[0], 3333, 61234, UINT64_MAX);
		cr_assert(fake_handed_out(f.fake) - before <= 20, "%u blocks",
			  fake_handed_out(f.fake) - before);
		check_all(&f);
		do_remove_range(&f, &f.trees[0], 0, 66000, UINT64_MAX);
		do_remove(&f, &f.trees[0], 65999);
		cr_assert_eq(depth_of(&f, f.trees[0].root), 1);
		check_all(&f);
		forest_close(&f);
	}
}

/* What thin_meta's callers count on when they ask for space beforehand. */
Test(btree, bounded_range_needs_few_new_blocks)
{
	/* the fourth: as many as are in twelve leaves, so that nothing balances after their end */
	static const uint64_t steps[] = {1, 10, 100, 12 * 248, 3000};

	for (unsigned k = 0; k < 5; k++) {
		struct forest f;
		uint64_t key = 5000, next, removed;
		unsigned before;

		forest_open(&f, 8, 66000);
		f.stride = 1;
		fill(&f, 66000);
		for (unsigned i = 0; i < 60 && key < 60000; i++) {
			if (f.nr_trees > 1)
				delete_tree(&f, 1);
			snapshot(&f, 0);
			fake_commit(f.fake);
			before = fake_handed_out(f.fake);
			cr_assert_eq(btree_remove_range(&f.bt, &f.trees[0].root, key, 60000,
							steps[k], &removed, &next),
				     0);
			cr_assert(removed == steps[k] || next == 60000);
			model_resync(&f, &f.trees[0], (unsigned)key, 60000);
			cr_assert(fake_handed_out(f.fake) - before <=
				  BTREE_MAX_NEW_BLOCKS + steps[k] / 84);
			check_all(&f);
			key = next;
		}
		forest_close(&f);
	}
}

Test(btree, remove_first_empties_shared_and_unshared_trees_step_by_step)
{
	static const uint64_t max[] = {1, 50, 5000, UINT64_MAX};

	for (unsigned k = 0; k < 4; k++) {
		struct forest f;
		uint64_t removed, left = k ? 66000 : 2000;

		forest_open(&f, 8, (unsigned)left);
		fill(&f, (unsigned)left);
		for (unsigned i = 0; i < 100; i++)
			do_remove(&f, &f.trees[0], below(&f, (unsigned)left));
		snapshot(&f, 0);
		for (unsigned i = 0; i < left; i += 1 + (unsigned)left / 70)
			do_insert(&f, &f.trees[0], i);
		fake_commit(f.fake);

		for (unsigned step = 0; f.nr_trees; step++) {
			if (step % 400 < 3) {
				do_remove_first(&f, &f.trees[0], max[k]);
				check_all(&f);
			}
			cr_assert_eq(btree_remove_first(&f.bt, &f.trees[0].root, max[k], &removed),
				     0);
			cr_assert(removed <= max[k]);
			if (!removed) {
				model_resync(&f, &f.trees[0], 0, f.universe);
				cr_assert_eq(depth_of(&f, f.trees[0].root), 1);
				check_all(&f);
				delete_tree(&f, 0);
			} else if (step % 400 < 3 || step % 400 == 399) {
				model_resync(&f, &f.trees[0], 0, f.universe);
				check_all(&f);
			}
		}
		forest_close(&f);
	}
}

/* --- errors --- */

static void
put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static void
put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

/* Do operation OP at index I: the result. */
static int
try_operation(struct forest *f, int op, unsigned i)
{
	uint64_t *root = &f->trees[0].root, key = key_of(f, i), a, b;
	uint8_t value[BTREE_MAX_VALUE_SIZE];

	make_value(f, 1, 1, value);
	switch (op) {
	case 0:
		return btree_insert(&f->bt, root, key + 1, value, NULL);
	case 1:
		return btree_remove(&f->bt, root, key);
	case 2:
		return btree_remove_range(&f->bt, root, key, UINT64_MAX, UINT64_MAX, &a, &b);
	case 3:
		return btree_remove_first(&f->bt, root, 700, &a);
	case 4:
		return btree_shadow_path(&f->bt, root, key);
	case 5:
		return btree_delete(&f->bt, *root);
	case 6:
		return btree_lookup(&f->bt, *root, key, value);
	case 7:
		return btree_lookup_next(&f->bt, *root, key, &a, value);
	default:
		return btree_lookup_last(&f->bt, *root, &a, value);
	}
}
#define NR_OPERATIONS 9

/*
 * A tree of two levels, brittle: its lower leaves cannot take one more entry, or cannot give one.
 * Its entries all name data block 1.
 */
static void
grow_brittle(struct forest *f, bool full, bool shared)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE], *p;

	forest_open(f, 8, 100000);
	f->stride = 2;
	f->data_counts[1] = 100000;
	make_value(f, 1, 1, value);
	for (unsigned i = 0; i < 3000; i++)
		btree_insert(&f->bt, &f->trees[0].root, 2 * i, value, NULL);
	p = fake_data(f->fake, (unsigned)f->trees[0].root);

	for (unsigned i = 0; i < 4; i++) {
		uint64_t key = get64(p + 32 + 8 * i);

		while (full && get32(child_of(f, p, i) + 16) < 252) {
			btree_insert(&f->bt, &f->trees[0].root, key + 1, value, NULL);
			key += 2;
		}
		while (!full && get32(child_of(f, p, i) + 16) > 84) {
			put32(child_of(f, p, i) + 16, get32(child_of(f, p, i) + 16) - 1);
			f->data_counts[1]--;
		}
	}

	if (shared)
		snapshot(f, 0);
	fake_commit(f->fake);
}

/* Where operation OP is to strike: at a leaf with leaves of its kind on both sides. */
static unsigned
brittle_index(struct forest *f)
{
	return (unsigned)get64((uint8_t *)fake_data(f->fake, (unsigned)f->trees[0].root) + 40) / 2 + 10;
}

Test(btree, failing_calls_are_passed_on_and_nothing_stays_held)
{
	for (int k = 0; k < 2 * NR_OPERATIONS; k++) {
		int op = k / 2, r = -EIO;
		unsigned n;

		for (n = 1; r == -EIO; n++) {
			struct forest f;

			grow_brittle(&f, op == 0, k % 2);
			fake_fail_at(f.fake, n);
			r = try_operation(&f, op, brittle_index(&f));
			cr_assert_eq(fake_held(f.fake), 0, "operation %d, call %u", op, n);
			fake_check_committed(f.fake);
			forest_drop(&f);
		}
		cr_assert(n > 2 && r == 0, "operation %d: %d", op, r);
	}
}

/* Give a leaf P keys that its parent does not allow. */
static void
break_order(uint8_t *p, bool leaf)
{
	if (leaf && get64(p + 32))
		put64(p + 32, 0);
	else if (leaf)
		put64(p + 32 + 8 * (get32(p + 16) - 1), UINT64_MAX);
}

/* Damage the node P, a leaf or the root; false when there are no more kinds of damage. */
static bool
damage(struct forest *f, uint8_t *p, bool leaf, int kind)
{
	uint64_t root = f->trees[0].root;

	switch (kind) {
	case 0:
		put32(p + 4, 3);
		return true;
	case 1:
		put32(p + 4, 0);
		return true;
	case 2:
		put32(p + 16, 253);
		return true;
	case 3:
		put32(p + 16, 0xffffffff);
		return true;
	case 4:
		put32(p + 20, 255);
		return true;
	case 5:
		put32(p + 24, 16);
		return true;
	case 6:
		put32(p + 16, 0);
		return true;
	case 7: /* not the value size of an internal node, or of a leaf of this tree */
		put32(p + 4, leaf ? 1 : 2);
		f->type.size = leaf ? 8 : 16;
		return true;
	case 8: /* no node can be below itself */
		for (unsigned i = 0; !leaf && i < 252; i++)
			put64(p + 32 + 8 * 252 + 8 * i, root);
		break_order(p, leaf);
		return true;
	case 9: /* a block nobody has counted, or that is outside the device */
		for (unsigned i = 0; !leaf && i < 252; i++)
			put64(p + 32 + 8 * 252 + 8 * i, i % 2 ? NR_BLOCKS - 1 : 1ULL << 60);
		break_order(p, leaf);
		return true;
	default:
		return false;
	}
}

Test(btree, damaged_nodes_give_euclean)
{
	msg_set_sink(swallow);
	for (int kind = 0;; kind++) {
		for (int op = 0; op < 2 * NR_OPERATIONS; op++) {
			struct forest f;
			uint8_t *p;
			bool leaf = op >= NR_OPERATIONS;
			unsigned at = 0;
			int r;

			grow_brittle(&f, false, false);
			p = fake_data(f.fake, (unsigned)f.trees[0].root);
			if (leaf) {
				/* each operation meets this leaf first, or last */
				at = op % NR_OPERATIONS == 8 ? get32(p + 16) - 1 : 0;
				p = child_of(&f, p, at);
			}
			if (!damage(&f, p, leaf, kind)) {
				forest_drop(&f);
				return;
			}
			r = try_operation(&f, op % NR_OPERATIONS, 0);
			cr_assert_eq(r, -EUCLEAN, "damage %d, operation %d: %d", kind, op, r);
			cr_assert_eq(fake_held(f.fake), 0);
			forest_drop(&f);
		}
	}
}

Test(btree, leaves_at_unequal_depths_give_euclean)
{
	msg_set_sink(swallow);
	for (int op = 0; op < 2; op++) {
		struct forest f;
		struct block *b;
		uint8_t *p, *q, value[BTREE_MAX_VALUE_SIZE];
		uint64_t key;
		int r;

		grow_brittle(&f, op == 0, false);
		p = fake_data(f.fake, (unsigned)f.trees[0].root);
		key = get64(p + 32);
		p += 8;
		/* an internal node between the root and its second leaf */
		cr_assert_eq(txn_new(f.bt.txn, BLOCK_NODE, &b), 0);
		q = b->data;
		put32(q + 4, 1);
		put32(q + 16, 1);
		put32(q + 20, 252);
		put32(q + 24, 8);
		put64(q + 32, get64(p + 32));
		put64(q + 32 + 8 * 252, get64(p + 32 + 8 * 252));
		put64(p + 32 + 8 * 252, b->nr);
		bc_put(b);
		make_value(&f, 1, 1, value);
		r = op ? btree_remove(&f.bt, &f.trees[0].root, key)
		       : btree_insert(&f.bt, &f.trees[0].root, key + 101, value, NULL);
		cr_assert_eq(r, -EUCLEAN, "%d: %d", op, r);
		cr_assert_eq(fake_held(f.fake), 0);
		forest_drop(&f);
	}
}

Test(btree, endless_descent_gives_euclean)
{
	struct forest f;
	uint64_t key = 0;
	struct block *b;

	msg_set_sink(swallow);
	for (int op = 0; op < NR_OPERATIONS; op++) {
		forest_open(&f, 8, 100);
		fill(&f, 1);
		for (int i = 0; i < 40; i++) {
			cr_assert_eq(txn_new(f.bt.txn, BLOCK_NODE, &b), 0);
			put32((uint8_t *)b->data + 4, 1);
			put32((uint8_t *)b->data + 16, 1);
			put32((uint8_t *)b->data + 20, 252);
			put32((uint8_t *)b->data + 24, 8);
			put64((uint8_t *)b->data + 32, key);
			put64((uint8_t *)b->data + 32 + 8 * 252, f.trees[0].root);
			f.trees[0].root = b->nr;
			bc_put(b);
		}
		cr_assert_eq(try_operation(&f, op, 0), -EUCLEAN, "operation %d", op);
		cr_assert_eq(fake_held(f.fake), 0);
		forest_drop(&f);
	}
}
