/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees are compared with a plain array of what they should hold, and after some steps each time
 * everything that S 4.2 and S 8 demand is checked: see btree_model.h. THINFS_TEST_SEED repeats a run.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "btree_model.h"

static const uint32_t value_sizes[] = {4, 8, 16, 24};
#define NR_VALUE_SIZES (sizeof(value_sizes) / sizeof(value_sizes[0]))

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
		forest_check(&f);
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
		unsigned k = forest_below(f, i + 1), other = order[k];

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
			forest_insert(&f, &f.trees[0], order[i]);
			if (i % (universe / 4) == 0)
				forest_check(&f);
		}
		fake_commit(f.fake);
		in_order(&f, order, k % 3);
		for (unsigned i = 0; i < universe; i++) {
			forest_remove(&f, &f.trees[0], order[i]);
			if (i % (universe / 4) == 0 || i + 300 == universe)
				forest_check(&f);
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
	forest_fill(&f, prefill);
	forest_check(&f);
	for (unsigned i = 0; i < steps; i++) {
		forest_step(&f, i / (steps / 4) % 2 == 0);
		if (i % 25 == 0)
			forest_check(&f);
	}
	forest_check(&f);
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
	forest_fill(&f, 33000);
	cr_assert_eq(forest_depth(&f, f.trees[0].root), 3);
	forest_snapshot(&f, 0);
	fake_commit(f.fake);
	in_order(&f, order, 2);
	for (unsigned i = 0; i < 33000; i++) {
		forest_remove(&f, &f.trees[0], order[i]);
		if (i % 3000 == 0)
			forest_check(&f);
	}
	cr_assert_eq(forest_depth(&f, f.trees[0].root), 1);
	forest_check(&f);
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
		cr_assert_eq(get32(forest_child(f, root, i) + 16), sizes[i], "leaf %u", i);
}

/* Taken from the metadata that a kernel wrote. */
Test(btree, ascending_keys_fill_leaves_as_the_kernel_does)
{
	static const unsigned sizes[] = {248, 248, 248, 248, 248, 248, 248,
					 248, 248, 248, 248, 126, 146};
	struct forest f;

	forest_open(&f, 8, 3001);
	forest_fill(&f, 3000);
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
		forest_insert(&f, &f.trees[0], 2 * i);
	for (unsigned i = 0; i < 5; i++)
		forest_insert(&f, &f.trees[0], 2 * (3 * 248 + i) + 1);
	assert_leaf_sizes(&f, split, 14);
	forest_check(&f);
	forest_close(&f);
}

Test(btree, full_leaf_beside_a_shared_one_is_split_alone)
{
	static const unsigned before[] = {126, 127}, after[] = {126, 126, 127};
	struct forest f;
	unsigned blocks;

	forest_open(&f, 8, 1000);
	forest_fill(&f, 253);
	assert_leaf_sizes(&f, before, 2);
	forest_snapshot(&f, 0);
	blocks = fake_handed_out(f.fake);
	for (unsigned i = 253; i < 379; i++)
		forest_insert(&f, &f.trees[0], i);
	assert_leaf_sizes(&f, after, 3);
	/* the root, the right leaf, its new half; the left leaf is still everybody's */
	cr_assert_eq(fake_handed_out(f.fake) - blocks, 3);
	forest_check(&f);
	forest_close(&f);
}

Test(btree, overwriting_drops_the_old_value_unless_it_is_equal)
{
	struct forest f;
	uint8_t value[8];
	bool inserted = true;

	forest_open(&f, 8, 100);
	f.data_counts[7] = f.data_counts[8] = 1;
	model_make_value(&f, 7, 1, value);
	cr_assert_eq(btree_insert(&f.bt, &f.trees[0].root, 5, value, NULL), 0);
	model_make_value(&f, 7, 2, value);
	cr_assert_eq(btree_insert(&f.bt, &f.trees[0].root, 5, value, &inserted), 0);
	cr_assert(!inserted && f.data_counts[7] == 1);
	cr_assert_eq(btree_lookup(&f.bt, f.trees[0].root, 5, value), 0);
	cr_assert_eq(value[7], 2);
	model_make_value(&f, 8, 2, value);
	cr_assert_eq(btree_insert(&f.bt, &f.trees[0].root, 5, value, &inserted), 0);
	cr_assert(!inserted && f.data_counts[7] == 0 && f.data_counts[8] == 1);

	/* a type that says nothing of equality never drops */
	f.type.equal = NULL;
	f.data_counts[9] = 1;
	model_make_value(&f, 9, 2, value);
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
	cr_assert_eq(key, forest_key(w->f, w->at));
	cr_assert_eq(model_value_id(value), m->ids[w->at]);
	return w->at++ == w->stop ? 77 : 0;
}

Test(btree, iterate_gives_each_entry_from_begin_on_until_told_to_stop)
{
	struct forest f;

	forest_open(&f, 16, 5000);
	forest_fill(&f, 5000);
	for (unsigned i = 0; i < 5000; i += 3)
		forest_remove(&f, &f.trees[0], i);
	for (unsigned i = 0; i < 4990; i += 97) {
		struct walk w = {.f = &f, .at = i, .stop = 10000};

		cr_assert_eq(btree_iterate(&f.bt, f.trees[0].root, forest_key(&f, i), walk_entry, &w),
			     0);
		cr_assert_eq(w.at, 5000);
		w = (struct walk){.f = &f, .at = i, .stop = i + 2 - (i + 2) % 3 % 2};
		w.stop += w.stop % 3 == 0;
		cr_assert_eq(btree_iterate(&f.bt, f.trees[0].root, forest_key(&f, i), walk_entry, &w),
			     77);
		cr_assert_eq(w.at, w.stop + 1);
	}
	forest_close(&f);
}

Test(btree, shadow_path_makes_overwriting_free)
{
	struct forest f;
	unsigned before;

	forest_open(&f, 8, 3000);
	forest_fill(&f, 3000);
	fake_commit(f.fake);
	before = fake_handed_out(f.fake);
	forest_shadow_path(&f, &f.trees[0], 1000);
	cr_assert_eq(fake_handed_out(f.fake), before + 2);
	forest_shadow_path(&f, &f.trees[0], 1000);
	forest_insert(&f, &f.trees[0], 1000);
	cr_assert_eq(fake_handed_out(f.fake), before + 2);

	forest_snapshot(&f, 0);
	forest_shadow_path(&f, &f.trees[0], 1000);
	forest_insert(&f, &f.trees[0], 1000);
	cr_assert_eq(fake_handed_out(f.fake), before + 4);
	forest_check(&f);
	/* The other one has its path for itself now, but for the leaves that were not copied. */
	forest_shadow_path(&f, &f.trees[1], 1000);
	cr_assert_eq(fake_handed_out(f.fake), before + 4);
	forest_close(&f);
}

Test(btree, range_in_a_shared_tree_is_dropped_without_copying_its_leaves)
{
	for (unsigned k = 0; k < NR_VALUE_SIZES; k++) {
		struct forest f;
		unsigned before;

		forest_open(&f, value_sizes[k], 66000);
		forest_fill(&f, 66000);
		forest_snapshot(&f, 0);
		fake_commit(f.fake);
		before = fake_handed_out(f.fake);
		forest_remove_range(&f, &f.trees[0], 3333, 61234, UINT64_MAX);
		cr_assert(fake_handed_out(f.fake) - before <= 20, "%u blocks",
			  fake_handed_out(f.fake) - before);
		forest_check(&f);
		forest_remove_range(&f, &f.trees[0], 0, 66000, UINT64_MAX);
		forest_remove(&f, &f.trees[0], 65999);
		cr_assert_eq(forest_depth(&f, f.trees[0].root), 1);
		forest_check(&f);
		forest_close(&f);
	}
}

/* Passes over some keys of a tree that is shared, or half copied, or not shared: *nodes of all of them. */
static void
check_removal_costs(struct forest *f, unsigned step, unsigned max, uint64_t *nodes)
{
	for (unsigned i = 0; i < 300; i++) {
		struct btree_cost cost;
		uint64_t key, removed;
		unsigned before;

		if (i % 50 == 0) {
			if (f->nr_trees > 1)
				forest_delete(f, 1);
			if (i % 100 == 0)
				forest_snapshot(f, 0);
		}
		if (i % step == 0)
			fake_commit(f->fake);
		if (btree_lookup_next(&f->bt, f->trees[0].root, forest_below(f, f->universe), &key, NULL))
			continue;
		cr_assert_eq(btree_remove_cost(&f->bt, f->trees[0].root, key, &cost), 0);
		before = fake_handed_out(f->fake);
		cr_assert_eq(btree_remove_some(&f->bt, &f->trees[0].root, key, UINT64_MAX,
					       1 + forest_below(f, max), &removed), 0);
		cr_assert(removed > 0);
		cr_assert_leq(fake_handed_out(f->fake) - before, cost.nodes);
		cr_assert_leq(cost.nodes, 1 + 3 * 2);
		*nodes += cost.nodes;
	}
}

Test(btree, a_removal_takes_no_more_than_its_cost)
{
	static const unsigned sizes[] = {150, 900, 20000, 60000};

	for (unsigned k = 0; k < 8; k++) {
		struct forest f;
		uint64_t nodes = 0;

		forest_open(&f, k % 2 ? 24 : 8, sizes[k / 2]);
		f.stride = 1;
		forest_fill(&f, sizes[k / 2]);
		check_removal_costs(&f, 1 + k % 3 * 7, k < 4 ? 3 : 300, &nodes);
		cr_assert(nodes > 0);
		model_resync(&f, &f.trees[0], 0, f.universe);
		forest_check(&f);
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
		forest_fill(&f, 66000);
		for (unsigned i = 0; i < 60 && key < 60000; i++) {
			if (f.nr_trees > 1)
				forest_delete(&f, 1);
			forest_snapshot(&f, 0);
			fake_commit(f.fake);
			before = fake_handed_out(f.fake);
			cr_assert_eq(btree_remove_range(&f.bt, &f.trees[0].root, key, 60000,
							steps[k], &removed, &next),
				     0);
			cr_assert(removed == steps[k] || next == 60000);
			model_resync(&f, &f.trees[0], (unsigned)key, 60000);
			cr_assert(fake_handed_out(f.fake) - before <=
				  3 * BTREE_MAX_DEPTH + steps[k] / 84);
			forest_check(&f);
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
		forest_fill(&f, (unsigned)left);
		for (unsigned i = 0; i < 100; i++)
			forest_remove(&f, &f.trees[0], forest_below(&f, (unsigned)left));
		forest_snapshot(&f, 0);
		for (unsigned i = 0; i < left; i += 1 + (unsigned)left / 70)
			forest_insert(&f, &f.trees[0], i);
		fake_commit(f.fake);

		for (unsigned step = 0; f.nr_trees; step++) {
			if (step % 400 < 3) {
				forest_remove_first(&f, &f.trees[0], max[k]);
				forest_check(&f);
			}
			cr_assert_eq(btree_remove_first(&f.bt, &f.trees[0].root, max[k], &removed),
				     0);
			cr_assert(removed <= max[k]);
			if (!removed) {
				model_resync(&f, &f.trees[0], 0, f.universe);
				cr_assert_eq(forest_depth(&f, f.trees[0].root), 1);
				forest_check(&f);
				forest_delete(&f, 0);
			} else if (step % 400 < 3 || step % 400 == 399) {
				model_resync(&f, &f.trees[0], 0, f.universe);
				forest_check(&f);
			}
		}
		forest_close(&f);
	}
}
