/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/block_cache.h"
#include "pdata/space_map.h"
#include "unit/random.h"
#include "util/msg.h"

#define META_BLOCKS 4096U
#define MODEL_MAX 60000U

/* A data map on a metadata map of its own, and what it should say. */
struct maps {
	struct image *img;
	struct txn txn;
	struct space_map *meta, *data;
	struct disk_sm_root meta_root, data_root;
	uint32_t *counts, *committed; /* MODEL_MAX */
	bool *reserved;
	uint64_t nr_blocks;
};

static void
maps_open(struct maps *t, uint64_t nr_blocks)
{
	memset(t, 0, sizeof(*t));
	t->counts = calloc(MODEL_MAX, sizeof(*t->counts));
	t->committed = calloc(MODEL_MAX, sizeof(*t->committed));
	t->reserved = calloc(MODEL_MAX, sizeof(*t->reserved));
	t->nr_blocks = nr_blocks;
	cr_assert_eq(image_open_memory("meta", META_BLOCKS * METADATA_BLOCK_SIZE, &t->img), 0);
	cr_assert_eq(bc_open(t->img, META_BLOCKS, 1 << 20, &t->txn.bc), 0);
	cr_assert_eq(sm_create(&t->txn, SM_METADATA, META_BLOCKS, &t->meta), 0);
	cr_assert_eq(sm_create(&t->txn, SM_DATA, nr_blocks, &t->data), 0);
}

static void
maps_close(struct maps *t)
{
	sm_close(t->data);
	sm_close(t->meta);
	bc_close(t->txn.bc);
	image_close(t->img);
	free(t->counts);
	free(t->committed);
	free(t->reserved);
}

/* Commit; FREED as for sm_durable(). */
static void
commit(struct maps *t, struct runs *freed)
{
	cr_assert_eq(sm_flush(t->data, &t->data_root), 0);
	cr_assert_eq(sm_flush(t->meta, &t->meta_root), 0);
	bc_freeze(t->txn.bc);
	sm_freeze(t->data);
	sm_freeze(t->meta);
	cr_assert_eq(bc_write(t->txn.bc), 0);
	bc_thaw(t->txn.bc);
	cr_assert_eq(sm_durable(t->meta, NULL), 0);
	cr_assert_eq(sm_durable(t->data, freed), 0);
	memcpy(t->committed, t->counts, MODEL_MAX * sizeof(*t->counts));
}

/* Read the maps anew, past the cache; reservations are gone. */
static void
reopen(struct maps *t)
{
	sm_close(t->data);
	sm_close(t->meta);
	bc_drop_all(t->txn.bc);
	cr_assert_eq(sm_open(&t->txn, SM_METADATA, &t->meta_root, &t->meta), 0);
	cr_assert_eq(sm_open(&t->txn, SM_DATA, &t->data_root, &t->data), 0);
	memset(t->reserved, 0, MODEL_MAX * sizeof(*t->reserved));
}

static void
compare(struct maps *t)
{
	uint64_t allocated = 0;

	for (uint64_t b = 0; b < t->nr_blocks; b++) {
		uint32_t count;

		cr_assert_eq(sm_count(t->data, b, &count), 0);
		cr_assert_eq(count, t->counts[b], "block %llu has count %u, not %u",
			     (unsigned long long)b, count, t->counts[b]);
		allocated += count > 0;
	}
	cr_assert_eq(sm_nr_blocks(t->data), t->nr_blocks);
	cr_assert_eq(sm_nr_allocated(t->data), allocated);
}

static void
check_may_be_handed_out(struct maps *t, uint64_t b)
{
	cr_assert_lt(b, t->nr_blocks);
	cr_assert_eq(t->counts[b], 0, "block %llu is in use", (unsigned long long)b);
	cr_assert_eq(t->committed[b], 0, "block %llu was in use at the last commit",
		     (unsigned long long)b);
	cr_assert(!t->reserved[b], "block %llu is reserved", (unsigned long long)b);
}

/* --- random operations --- */

static void
step_reserve(struct maps *t, struct random_source *rs)
{
	uint64_t start, got;

	if (sm_reserve(t->data, random_below(rs, t->nr_blocks), 1 + random_below(rs, 50), &start, &got))
		return;
	for (uint64_t b = start; b < start + got; b++) {
		check_may_be_handed_out(t, b);
		t->reserved[b] = true;
	}
	if (random_below(rs, 4) == 0)
		return; /* for later, or for nobody */
	for (uint64_t b = start; b < start + got; b++) {
		t->reserved[b] = false;
		if (random_below(rs, 5)) {
			cr_assert_eq(sm_inc(t->data, b), 0);
			t->counts[b] = 1;
		} else {
			sm_unreserve(t->data, b, 1);
		}
	}
}

/* Counts go up to hundreds, and back and forth between 2 and 3. */
static void
step_count(struct maps *t, struct random_source *rs)
{
	uint64_t b = random_below(rs, random_below(rs, 2) ? 100 : t->nr_blocks);
	unsigned n = random_below(rs, 20) ? 1 + (unsigned)random_below(rs, 3) : 300;
	bool up = random_below(rs, 2);

	if (!t->counts[b])
		return;
	for (unsigned i = 0; i < n && (up || t->counts[b]); i++) {
		cr_assert_eq((up ? sm_inc : sm_dec)(t->data, b), 0);
		t->counts[b] += up ? 1 : -1U;
	}
}

static void
step(struct maps *t, struct random_source *rs)
{
	uint64_t b;

	switch (random_below(rs, 300)) {
	case 0 ... 80:
		step_reserve(t, rs);
		break;
	case 81 ... 120:
		if (!sm_alloc(t->data, &b)) {
			check_may_be_handed_out(t, b);
			t->counts[b] = 1;
		}
		break;
	case 295 ... 298:
		commit(t, NULL);
		break;
	case 299:
		commit(t, NULL);
		reopen(t);
		compare(t);
		break;
	default:
		step_count(t, rs);
	}
}

static void
run_model(uint64_t nr_blocks, unsigned steps, const char *test)
{
	struct random_source rs = random_start(test);
	struct maps t;

	maps_open(&t, nr_blocks);
	for (unsigned i = 0; i < steps; i++)
		step(&t, &rs);
	compare(&t);
	commit(&t, NULL);
	reopen(&t);
	compare(&t);
	maps_close(&t);
}

Test(space_map, a_small_map_agrees_with_an_array)
{
	run_model(300, 20000, "a_small_map_agrees_with_an_array");
}

Test(space_map, a_map_of_three_bitmaps_agrees_with_an_array)
{
	run_model(40000, 30000, "a_map_of_three_bitmaps_agrees_with_an_array");
}

/* --- one thing at a time --- */

Test(space_map, what_is_freed_is_not_handed_out_before_it_is_durable)
{
	struct maps t;
	uint64_t b;

	maps_open(&t, 10);
	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(sm_alloc(t.data, &b), 0);
	cr_assert_eq(sm_alloc(t.data, &b), -ENOSPC);
	commit(&t, NULL);
	cr_assert_eq(sm_dec(t.data, 4), 0);
	cr_assert_eq(sm_nr_pending(t.data), 1);
	cr_assert_eq(sm_nr_free(t.data), 0);
	cr_assert_eq(sm_alloc(t.data, &b), -ENOSPC);
	commit(&t, NULL);
	cr_assert_eq(sm_nr_pending(t.data), 0);
	cr_assert_eq(sm_alloc(t.data, &b), 0);
	cr_assert_eq(b, 4);
	maps_close(&t);
}

Test(space_map, what_is_freed_is_told_and_stays_reserved_until_given_back)
{
	struct runs freed = {0};
	struct maps t;
	uint64_t b;

	maps_open(&t, 10);
	for (unsigned i = 0; i < 10; i++)
		cr_assert_eq(sm_alloc(t.data, &b), 0);
	commit(&t, NULL);
	for (b = 2; b < 6; b++)
		cr_assert_eq(sm_dec(t.data, b), 0);
	commit(&t, &freed);
	runs_normalise(&freed);
	cr_assert_eq(freed.nr, 1);
	cr_assert_eq(freed.v[0].start, 2);
	cr_assert_eq(freed.v[0].len, 4);
	cr_assert_eq(sm_alloc(t.data, &b), -ENOSPC);
	sm_unreserve(t.data, 2, 4);
	cr_assert_eq(sm_nr_free(t.data), 4);
	cr_assert_eq(sm_alloc(t.data, &b), 0);
	runs_clear(&freed);
	maps_close(&t);
}

Test(space_map, a_reservation_is_unknown_to_the_disk)
{
	uint64_t start, got;
	struct maps t;

	maps_open(&t, 1000);
	cr_assert_eq(sm_reserve(t.data, 500, 100, &start, &got), 0);
	cr_assert_eq(start, 500);
	cr_assert_eq(got, 100);
	cr_assert_eq(sm_nr_free(t.data), 900);
	commit(&t, NULL);
	reopen(&t);
	cr_assert_eq(sm_nr_free(t.data), 1000);
	maps_close(&t);
}

Test(space_map, it_grows_within_a_bitmap_and_across)
{
	static const uint64_t sizes[] = {11, 16319, 16320, 16321, 32640, 50000};
	struct maps t;

	maps_open(&t, 10);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t before = t.nr_blocks, start, got;

		t.nr_blocks = sizes[i];
		cr_assert_eq(sm_grow(t.data, sizes[i]), 0);
		cr_assert_eq(sm_grow(t.data, before), sizes[i] == before ? 0 : -EINVAL);
		cr_assert_eq(sm_reserve(t.data, sizes[i] - 1, 1, &start, &got), 0);
		cr_assert_eq(start, sizes[i] - 1);
		cr_assert_eq(sm_inc(t.data, start), 0);
		t.counts[start] = 1;
		compare(&t);
		commit(&t, NULL);
		if (i % 2)
			reopen(&t);
		compare(&t);
	}
	maps_close(&t);
}

static void
ignore(const char *text)
{
	(void)text;
}

Test(space_map, impossible_changes_are_refused)
{
	uint32_t count;
	struct maps t;

	msg_set_sink(ignore);
	maps_open(&t, 10);
	cr_assert_eq(sm_inc(t.data, 10), -EUCLEAN);
	cr_assert_eq(sm_count(t.data, UINT64_MAX, &count), -EUCLEAN);
	cr_assert_eq(sm_dec(t.data, 3), -EUCLEAN);
	cr_assert_eq(sm_inc(t.data, 3), -EUCLEAN); /* free, and not reserved */
	maps_close(&t);
}
