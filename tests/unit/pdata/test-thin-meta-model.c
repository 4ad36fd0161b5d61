/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random changes of devices with thousands of mappings, against arrays; trees of two levels, split,
 * merged and shared.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unit/pdata/meta_fixture.h"
#include "unit/random.h"

#define NR_DEVS 6U
#define NR_VBLOCKS 6000U
#define NR_DATA 30000U
#define MAX_RUNS 16U

/* map[v]: data block + 1, or 0. */
struct state {
	bool exists[NR_DEVS];
	uint32_t map[NR_DEVS][NR_VBLOCKS];
};

struct model {
	struct fixture f;
	struct random_source rs;
	struct state now, committed;
	unsigned step;
};

static struct thin_dev *
open_dev(struct model *t, uint32_t id)
{
	struct thin_dev *d;

	cr_assert_eq(dev_open(t->f.m, id, &d), 0, "step %u", t->step);
	return d;
}

/* --- comparing --- */

static void
compare_range(struct model *t, struct thin_dev *d, uint32_t id, uint64_t v, uint64_t end)
{
	while (v < end) {
		struct map_run runs[MAX_RUNS];
		unsigned nr;

		cr_assert_eq(dev_map(d, v, end - v, runs, MAX_RUNS, &nr), 0);
		cr_assert_gt(nr, 0);
		for (unsigned i = 0; i < nr; i++) {
			cr_assert_eq(runs[i].vblock, v);
			for (uint64_t k = 0; k < runs[i].len; k++, v++) {
				uint64_t is = runs[i].dblock == MAP_HOLE ? 0 : runs[i].dblock + k + 1;

				cr_assert_eq(is, t->now.map[id][v],
					     "step %u, device %u, block %llu: %llu, not %u", t->step, id,
					     (unsigned long long)v, (unsigned long long)is,
					     t->now.map[id][v]);
			}
		}
	}
	cr_assert_eq(v, end);
}

static void
compare_all(struct model *t)
{
	for (uint32_t id = 0; id < NR_DEVS; id++) {
		struct dev_info info;
		struct thin_dev *d;
		uint64_t mapped = 0;

		if (!t->now.exists[id]) {
			cr_assert_eq(dev_open(t->f.m, id, &d), -ENODATA);
			continue;
		}
		d = open_dev(t, id);
		compare_range(t, d, id, 0, NR_VBLOCKS);
		for (unsigned v = 0; v < NR_VBLOCKS; v++)
			mapped += t->now.map[id][v] != 0;
		dev_get_info(d, &info);
		cr_assert_eq(info.mapped_blocks, mapped);
		dev_close(d);
	}
}

/* --- changing --- */

static void
map_some(struct model *t, uint32_t id)
{
	static const uint64_t lengths[] = {1, 1, 1, 5, 100, 1500};
	uint64_t v = random_below(&t->rs, NR_VBLOCKS);
	uint64_t len = 1 + random_below(&t->rs, lengths[random_below(&t->rs, 6)]);
	struct thin_dev *d = open_dev(t, id);

	if (len > NR_VBLOCKS - v)
		len = NR_VBLOCKS - v;
	while (len) {
		uint64_t dblock, got;

		if (meta_reserve_data(t->f.m, random_below(&t->rs, NR_DATA), len, &dblock, &got))
			break;
		cr_assert_eq(dev_insert(d, v, dblock, got), 0);
		for (uint64_t k = 0; k < got; k++)
			t->now.map[id][v + k] = (uint32_t)(dblock + k + 1);
		v += got;
		len -= got;
	}
	dev_close(d);
}

static void
unmap_some(struct model *t, uint32_t id)
{
	uint64_t begin = random_below(&t->rs, NR_VBLOCKS), next;
	uint64_t end = begin + 1 + random_below(&t->rs, random_below(&t->rs, 2) ? 50 : NR_VBLOCKS);
	uint64_t max = 1 + random_below(&t->rs, 3000);
	struct thin_dev *d = open_dev(t, id);

	cr_assert_eq(dev_unmap(d, begin, end, max, META_TO_DELETE, &next), 0);
	cr_assert_leq(next, end);
	/* All before NEXT are gone; of the rest some may be. */
	for (uint64_t v = begin; v < end && v < NR_VBLOCKS; v++) {
		struct map_run run;
		unsigned nr;

		if (v >= next) {
			cr_assert_eq(dev_map(d, v, 1, &run, 1, &nr), 0);
			if (run.dblock != MAP_HOLE)
				continue;
		}
		t->now.map[id][v] = 0;
	}
	dev_close(d);
}

static void
remove_dev(struct model *t, uint32_t id)
{
	uint64_t left = 1;
	struct thin_dev *d;

	if (random_below(&t->rs, 2)) {
		d = open_dev(t, id);
		while (left)
			cr_assert_eq(dev_shed(d, 1 + random_below(&t->rs, 2000), &left), 0);
		dev_close(d);
	}
	cr_assert_eq(meta_delete_thin(t->f.m, id), 0);
	t->now.exists[id] = false;
	memset(t->now.map[id], 0, sizeof(t->now.map[id]));
}

static void
make_dev(struct model *t, uint32_t id)
{
	uint32_t origin = (uint32_t)random_below(&t->rs, NR_DEVS);

	if (t->now.exists[origin]) {
		cr_assert_eq(meta_tick(t->f.m), 0);
		cr_assert_eq(meta_create_snap(t->f.m, id, origin), 0);
		memcpy(t->now.map[id], t->now.map[origin], sizeof(t->now.map[id]));
	} else {
		cr_assert_eq(meta_create_thin(t->f.m, id), 0);
	}
	t->now.exists[id] = true;
}

static void
go_back(struct model *t)
{
	t->now = t->committed;
	if (random_below(&t->rs, 2))
		cr_assert_eq(meta_abort(t->f.m), 0);
	else
		fixture_reopen(&t->f);
	compare_all(t);
}

static void
step(struct model *t)
{
	uint32_t id = (uint32_t)random_below(&t->rs, NR_DEVS);

	switch (random_below(&t->rs, 100)) {
	case 0 ... 9:
		cr_assert_eq(meta_commit(t->f.m, NULL), 0);
		t->committed = t->now;
		break;
	case 10:
		go_back(t);
		break;
	case 11 ... 14:
		if (t->now.exists[id])
			remove_dev(t, id);
		break;
	case 15 ... 49:
		if (t->now.exists[id])
			unmap_some(t, id);
		else
			make_dev(t, id);
		break;
	default:
		if (t->now.exists[id])
			map_some(t, id);
	}
}

Test(thin_meta_model, random_changes_agree_with_arrays_and_audit_clean)
{
	struct model *t = calloc(1, sizeof(*t));

	t->rs = random_start("random_changes_agree_with_arrays_and_audit_clean");
	fixture_make(&t->f, 4096, NR_DATA);
	for (t->step = 1; t->step <= 6000; t->step++) {
		step(t);
		if (t->step % 400)
			continue;
		compare_all(t);
		fixture_commit(&t->f);
		t->committed = t->now;
	}
	fixture_reopen(&t->f);
	compare_all(t);
	fixture_free(&t->f);
	free(t);
}
