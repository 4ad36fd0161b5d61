/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls that fail, and damaged trees: every one ends in an error, and nothing stays held.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

#include "btree_model.h"
#include "util/msg.h"

TestSuite(btree_damage, .timeout = 120);

static void
swallow(const char *text)
{
	(void)text;
}

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
	uint64_t *root = &f->trees[0].root, key = forest_key(f, i), a, b;
	uint8_t value[BTREE_MAX_VALUE_SIZE];

	model_make_value(f, 1, 1, value);
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
	model_make_value(f, 1, 1, value);
	for (unsigned i = 0; i < 3000; i++)
		btree_insert(&f->bt, &f->trees[0].root, 2 * i, value, NULL);
	p = fake_data(f->fake, (unsigned)f->trees[0].root);

	for (unsigned i = 0; i < 4; i++) {
		uint64_t key = get64(p + 32 + 8 * i);

		while (full && get32(forest_child(f, p, i) + 16) < 252) {
			btree_insert(&f->bt, &f->trees[0].root, key + 1, value, NULL);
			key += 2;
		}
		while (!full && get32(forest_child(f, p, i) + 16) > 84) {
			put32(forest_child(f, p, i) + 16, get32(forest_child(f, p, i) + 16) - 1);
			f->data_counts[1]--;
		}
	}

	if (shared)
		forest_snapshot(f, 0);
	fake_commit(f->fake);
}

/* Where operation OP is to strike: at a leaf with leaves of its kind on both sides. */
static unsigned
brittle_index(struct forest *f)
{
	return (unsigned)get64((uint8_t *)fake_data(f->fake, (unsigned)f->trees[0].root) + 40) / 2 + 10;
}

Test(btree_damage, failing_calls_are_passed_on_and_nothing_stays_held)
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
			put64(p + 32 + 8 * 252 + 8 * i, i % 2 ? FOREST_BLOCKS - 1 : 1ULL << 60);
		break_order(p, leaf);
		return true;
	default:
		return false;
	}
}

Test(btree_damage, damaged_nodes_give_euclean)
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
				p = forest_child(&f, p, at);
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

Test(btree_damage, leaves_at_unequal_depths_give_euclean)
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
		model_make_value(&f, 1, 1, value);
		r = op ? btree_remove(&f.bt, &f.trees[0].root, key)
		       : btree_insert(&f.bt, &f.trees[0].root, key + 101, value, NULL);
		cr_assert_eq(r, -EUCLEAN, "%d: %d", op, r);
		cr_assert_eq(fake_held(f.fake), 0);
		forest_drop(&f);
	}
}

Test(btree_damage, endless_descent_gives_euclean)
{
	struct forest f;
	uint64_t key = 0;
	struct block *b;

	msg_set_sink(swallow);
	for (int op = 0; op < NR_OPERATIONS; op++) {
		forest_open(&f, 8, 100);
		forest_fill(&f, 1);
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
