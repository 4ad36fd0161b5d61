/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "btree_model.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/format.h"

#define NR_DATA (1U << 20)

unsigned
forest_below(struct forest *f, unsigned bound)
{
	return (unsigned)random_below(&f->random, bound);
}

/* --- values: the number of a data block, then a filler --- */

uint32_t
model_value_id(const void *value)
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
		uint32_t id = model_value_id((const uint8_t *)values + i * f->type.size);

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
	return model_value_id(a) == model_value_id(b);
}

void
model_make_value(const struct forest *f, uint32_t id, uint8_t filler, uint8_t *value)
{
	struct le32 v = le32_make(id);

	memset(value, filler, f->type.size);
	memcpy(value, &v, sizeof(v));
}

/* --- forests --- */

uint64_t
forest_key(const struct forest *f, unsigned i)
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

void
forest_open(struct forest *f, uint32_t value_size, unsigned universe)
{
	static const uint64_t strides[] = {1, 3, 1ULL << 40};
	uint64_t root;

	memset(f, 0, sizeof(*f));
	f->random = random_start("btree");
	f->fake = fake_open(FOREST_BLOCKS);
	f->type = (struct btree_value_type){
		.name = "test",
		.size = value_size,
		.inc = inc_values,
		.dec = dec_values,
		.equal = same_id,
	};
	f->bt = (struct btree){.txn = fake_txn(f->fake), .type = &f->type, .context = f};
	f->universe = universe;
	f->stride = strides[forest_below(f, 3)];
	f->data_counts = calloc(NR_DATA, sizeof(*f->data_counts));
	cr_assert_not_null(f->data_counts);

	cr_assert_eq(btree_empty(&f->bt, &root), 0);
	add_tree(f, root, NULL);
}

void
forest_delete(struct forest *f, unsigned which)
{
	struct model *m = &f->trees[which];

	cr_assert_eq(btree_delete(&f->bt, m->root), 0);
	cr_assert_eq(fake_held(f->fake), 0);
	free(m->ids);
	free(m->fillers);
	*m = f->trees[--f->nr_trees];
}

void
forest_snapshot(struct forest *f, unsigned which)
{
	cr_assert_eq(txn_inc(f->bt.txn, f->trees[which].root), 0);
	add_tree(f, f->trees[which].root, &f->trees[which]);
}

void
forest_drop(struct forest *f)
{
	for (unsigned i = 0; i < f->nr_trees; i++) {
		free(f->trees[i].ids);
		free(f->trees[i].fillers);
	}
	free(f->data_counts);
	fake_close(f->fake);
}

void
forest_close(struct forest *f)
{
	while (f->nr_trees)
		forest_delete(f, forest_below(f, f->nr_trees));

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

static void
check_entry(struct check *c, uint64_t key, const uint8_t *value)
{
	struct forest *f = c->f;
	uint8_t wanted[BTREE_MAX_VALUE_SIZE];

	while (c->at < f->universe && !c->m->ids[c->at])
		c->at++;
	cr_assert(c->at < f->universe, "too many entries");
	cr_assert(key == forest_key(f, c->at), "key %" PRIu64 " in the place of %" PRIu64, key,
		  forest_key(f, c->at));
	model_make_value(f, c->m->ids[c->at], c->m->fillers[c->at], wanted);
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
			c->data_counts[model_value_id(value)] += !known;
		} else {
			c->counts[get64(value)] += !known;
			check_node(c, get64(value), depth + 1, key, end);
		}
	}
}

void
forest_check(struct forest *f)
{
	struct check c = {.f = f};

	c.counts = calloc(FOREST_BLOCKS, sizeof(*c.counts));
	c.data_counts = calloc(NR_DATA, sizeof(*c.data_counts));
	c.seen = calloc(FOREST_BLOCKS, 1);
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

	for (unsigned i = 0; i < FOREST_BLOCKS; i++)
		cr_assert(c.counts[i] == fake_count(f->fake, i), "block %u: count %u, not %u", i,
			  fake_count(f->fake, i), c.counts[i]);
	cr_assert(!memcmp(c.data_counts, f->data_counts, NR_DATA * sizeof(*c.data_counts)));
	cr_assert_eq(fake_held(f->fake), 0);
	fake_check_committed(f->fake);
	free(c.counts);
	free(c.data_counts);
	free(c.seen);
}

uint8_t *
forest_child(struct forest *f, const uint8_t *p, unsigned i)
{
	return fake_data(f->fake, (unsigned)get64(p + 32 + 8 * 252 + 8 * i));
}

int
forest_depth(struct forest *f, uint64_t root)
{
	const uint8_t *n = fake_data(f->fake, (unsigned)root);
	int depth = 1;

	for (; get32(n + 4) == 1; depth++)
		n = fake_data(f->fake, (unsigned)get64(n + 32 + 8 * 252));
	return depth;
}

/* --- steps, done to a tree and to its model --- */

void
forest_insert(struct forest *f, struct model *m, unsigned i)
{
	bool is_new = m->ids[i], again = m->ids[i] && !forest_below(f, 4);
	uint8_t value[BTREE_MAX_VALUE_SIZE];
	uint32_t id = again ? m->ids[i] : ++f->next_id;

	cr_assert(id < NR_DATA);
	/* The reference that is handed over; the one of an equal value is there already. */
	f->data_counts[id] += !again;
	m->fillers[i] = (uint8_t)forest_below(f, 256);
	model_make_value(f, id, m->fillers[i], value);
	cr_assert_eq(btree_insert(&f->bt, &m->root, forest_key(f, i), value, &is_new), 0);
	cr_assert_eq(is_new, m->ids[i] == 0);
	m->ids[i] = id;
}

void
forest_remove(struct forest *f, struct model *m, unsigned i)
{
	int r = btree_remove(&f->bt, &m->root, forest_key(f, i));

	cr_assert_eq(r, m->ids[i] ? 0 : -ENODATA);
	m->ids[i] = 0;
}

/* Take entries with indices in [BEGIN, END) and keys < NEXT out of the model: how many. */
static uint64_t
model_remove(struct forest *f, struct model *m, unsigned begin, unsigned end, uint64_t next)
{
	uint64_t nr = 0;

	for (unsigned i = begin; i < end && forest_key(f, i) < next; i++) {
		nr += m->ids[i] != 0;
		m->ids[i] = 0;
	}
	return nr;
}

uint64_t
model_resync(struct forest *f, struct model *m, unsigned begin, unsigned end)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE];
	uint64_t nr = 0;

	for (unsigned i = begin; i < end; i++) {
		if (!m->ids[i] || !btree_lookup(&f->bt, m->root, forest_key(f, i), value))
			continue;
		m->ids[i] = 0;
		nr++;
	}
	return nr;
}

void
forest_remove_range(struct forest *f, struct model *m, unsigned begin, unsigned end, uint64_t max)
{
	uint64_t removed, next, last = end < f->universe ? forest_key(f, end) : UINT64_MAX, nr;
	int r = btree_remove_range(&f->bt, &m->root, forest_key(f, begin), last, max, &removed,
				   &next);

	cr_assert_eq(r, 0);
	cr_assert(removed <= max && next <= last);
	if (end == f->universe)
		end--; /* the last key of all is never below an end */
	nr = model_remove(f, m, begin, end, next);
	nr += model_resync(f, m, begin, end);
	cr_assert_eq(removed, nr);
	cr_assert(next == last || removed == max);
}

void
forest_remove_first(struct forest *f, struct model *m, uint64_t max)
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

void
forest_shadow_path(struct forest *f, struct model *m, unsigned i)
{
	uint64_t key = forest_key(f, i), nr;
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
forest_lookups(struct forest *f, const struct model *m, unsigned i)
{
	uint8_t value[BTREE_MAX_VALUE_SIZE], wanted[BTREE_MAX_VALUE_SIZE];
	unsigned next = i, last = f->universe;
	uint64_t found;
	int r = btree_lookup(&f->bt, m->root, forest_key(f, i), value);

	cr_assert_eq(r, m->ids[i] ? 0 : -ENODATA);
	model_make_value(f, m->ids[i], m->fillers[i], wanted);
	cr_assert(r || !memcmp(value, wanted, f->type.size));

	while (next < f->universe && !m->ids[next])
		next++;
	r = btree_lookup_next(&f->bt, m->root, forest_key(f, i), &found, value);
	cr_assert_eq(r, next < f->universe ? 0 : -ENODATA);
	if (!r) {
		model_make_value(f, m->ids[next], m->fillers[next], wanted);
		cr_assert_eq(found, forest_key(f, next));
		cr_assert(!memcmp(value, wanted, f->type.size));
	}

	while (last && !m->ids[last - 1])
		last--;
	r = btree_lookup_last(&f->bt, m->root, &found, value);
	cr_assert_eq(r, last ? 0 : -ENODATA);
	if (!r) {
		model_make_value(f, m->ids[last - 1], m->fillers[last - 1], wanted);
		cr_assert_eq(found, forest_key(f, last - 1));
		cr_assert(!memcmp(value, wanted, f->type.size));
	}
}

/* A burst of insertions or removals at one place, upwards or downwards or all over the tree. */
static void
burst(struct forest *f, struct model *m, bool insert)
{
	unsigned nr = 1 + forest_below(f, 400), kind = forest_below(f, 3);
	unsigned i = forest_below(f, f->universe);

	while (nr--) {
		if (insert)
			forest_insert(f, m, i);
		else
			forest_remove(f, m, i);

		if (kind == 0)
			i = forest_below(f, f->universe);
		else
			i = (i + (kind == 1 ? 1 : f->universe - 1)) % f->universe;
	}
}

static void
random_range(struct forest *f, struct model *m)
{
	unsigned begin = forest_below(f, f->universe);
	unsigned len = 1 + forest_below(f, forest_below(f, 2) ? 500 : f->universe / 2);
	unsigned end = begin + len < f->universe ? begin + len : f->universe;
	uint64_t max = forest_below(f, 3) ? UINT64_MAX : forest_below(f, 1000);

	forest_remove_range(f, m, begin, end, max);
}

void
forest_step(struct forest *f, bool grow)
{
	unsigned which = forest_below(f, f->nr_trees), what = forest_below(f, 100);
	struct model *m = &f->trees[which];

	if (what < 40)
		burst(f, m, grow);
	else if (what < 50)
		burst(f, m, !grow);
	else if (what < 70)
		forest_lookups(f, m, forest_below(f, f->universe));
	else if (what < 78)
		forest_shadow_path(f, m, forest_below(f, f->universe));
	else if (what < 84)
		fake_commit(f->fake);
	else if (what < 90 && f->nr_trees < FOREST_MAX_TREES)
		forest_snapshot(f, which);
	else if (what < 93 && f->nr_trees > 1)
		forest_delete(f, which);
	else if (what < 98 && (!grow || !forest_below(f, 4)))
		random_range(f, m);
	else if (what == 99 && !grow)
		forest_remove_first(f, m, 1 + forest_below(f, 3000));
	cr_assert_eq(fake_held(f->fake), 0);
}

void
forest_fill(struct forest *f, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		forest_insert(f, &f->trees[0], i);
}
