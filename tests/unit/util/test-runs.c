/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <string.h>

#include "unit/random.h"
#include "util/runs.h"

static void
expect_runs(const struct runs *r, const struct run *want, size_t nr)
{
	uint64_t total = 0;

	cr_assert_eq(r->nr, nr, "%zu runs", r->nr);
	for (size_t i = 0; i < nr; i++) {
		cr_assert_eq(r->v[i].start, want[i].start, "start of run %zu", i);
		cr_assert_eq(r->v[i].len, want[i].len, "length of run %zu", i);
		total += want[i].len;
	}
	cr_assert_eq(r->total, total);
}

Test(runs, adjacent_ranges_join_at_either_side)
{
	struct runs r = {0};

	runs_add(&r, 10, 5);
	runs_add(&r, 15, 5);
	runs_add(&r, 8, 2);
	expect_runs(&r, (struct run[]){{8, 12}}, 1);
	runs_add(&r, 30, 1);
	runs_add(&r, 20, 1); /* touches the first only: not looked for */
	expect_runs(&r, (struct run[]){{8, 12}, {30, 1}, {20, 1}}, 3);
	runs_normalise(&r);
	expect_runs(&r, (struct run[]){{8, 13}, {30, 1}}, 2);
	runs_clear(&r);
	expect_runs(&r, NULL, 0);
}

Test(runs, an_empty_range_adds_nothing)
{
	struct runs r = {0};

	cr_assert_eq(runs_add(&r, 10, 0), 0);
	expect_runs(&r, NULL, 0);
	runs_normalise(&r);
	runs_clear(&r);
}

Test(runs, normalising_merges_overlaps_and_counts_them_once)
{
	struct runs r = {0};

	runs_add(&r, 100, 10);
	runs_add(&r, 50, 100);
	runs_add(&r, 0, 10);
	runs_add(&r, 100, 10);
	runs_add(&r, 149, 3);
	runs_normalise(&r);
	expect_runs(&r, (struct run[]){{0, 10}, {50, 102}}, 2);
	runs_clear(&r);
}

Test(runs, the_last_number_can_be_in_a_run)
{
	struct runs r = {0};

	runs_add(&r, UINT64_MAX, 1);
	runs_add(&r, 0, 1);
	runs_add(&r, UINT64_MAX - 9, 5);
	runs_add(&r, UINT64_MAX - 4, 4);
	runs_normalise(&r);
	expect_runs(&r, (struct run[]){{0, 1}, {UINT64_MAX - 9, 10}}, 2);
	runs_clear(&r);
}

Test(runs, moving_empties_the_source_and_keeps_the_order)
{
	struct runs a = {0}, b = {0};

	runs_add(&b, 1, 1);
	runs_add(&b, 5, 1);
	cr_assert_eq(runs_move(&a, &b), 0);
	expect_runs(&b, NULL, 0);
	runs_add(&b, 9, 2);
	cr_assert_eq(runs_move(&a, &b), 0);
	cr_assert_eq(runs_move(&a, &b), 0);
	expect_runs(&a, (struct run[]){{1, 1}, {5, 1}, {9, 2}}, 3);
	expect_runs(&b, NULL, 0);
	runs_clear(&a);
}

#define MODEL_SIZE 2000

Test(runs, random_ranges_normalise_to_the_set_they_cover)
{
	struct random_source rs = random_start("runs");
	static bool model[MODEL_SIZE];

	for (int round = 0; round < 300; round++) {
		struct runs parts[2] = {{0}};
		uint64_t covered = 0, in_runs = 0;
		int nr = (int)random_below(&rs, 60);

		memset(model, 0, sizeof(model));
		for (int i = 0; i < nr; i++) {
			uint64_t len = random_below(&rs, 50);
			uint64_t start = random_below(&rs, MODEL_SIZE - len);

			cr_assert_eq(runs_add(&parts[random_below(&rs, 2)], start, len), 0);
			memset(model + start, true, len);
		}
		cr_assert_eq(runs_move(&parts[0], &parts[1]), 0);
		runs_normalise(&parts[0]);

		for (uint64_t i = 0; i < MODEL_SIZE; i++)
			covered += model[i];
		cr_assert_eq(parts[0].total, covered);
		for (size_t i = 0; i < parts[0].nr; i++) {
			struct run *run = &parts[0].v[i];

			cr_assert(run->len && (!i || run->start > run[-1].start + run[-1].len));
			for (uint64_t n = run->start; n < run->start + run->len; n++)
				cr_assert(model[n]);
			in_runs += run->len;
		}
		cr_assert_eq(in_runs, covered);
		runs_clear(&parts[0]);
	}
}
