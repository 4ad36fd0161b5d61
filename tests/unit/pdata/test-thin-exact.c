/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is said to have for itself, against tables of who has what: now, in the transaction that is on its
 * way, in the last commit, and in a held metadata snapshot. What is said to be its own may be overwritten in place, so
 * it must be so in all of them; and after a commit, all that is its own must be said to be.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unit/pdata/meta_fixture.h"
#include "unit/random.h"

#define NR_SLOTS 5U
#define NR_VBLOCKS 1200U /* several leaves */
#define NR_DATA 12000U
#define MAX_RUNS 24U

/* Numbers of devices are not used again, so that one that was removed is another one. */
struct state {
	uint32_t id[NR_SLOTS]; /* 0: no device */
	uint32_t map[NR_SLOTS][NR_VBLOCKS]; /* data block + 1, or 0 */
};

struct model {
	struct fixture f;
	struct random_source rs;
	struct state now, frozen, committed, held;
	bool is_frozen, is_held, settled;
	uint32_t next_id;
	unsigned step;
	uint64_t said; /* to be a device's own */
	uint64_t renewed;
};

/* --- who has what --- */

/* How many entries but (ID, V) point to DBLOCK. */
static unsigned
others(const struct state *s, uint32_t id, unsigned v, uint32_t dblock)
{
	unsigned n = 0;

	for (unsigned slot = 0; slot < NR_SLOTS; slot++)
		for (unsigned k = 0; s->id[slot] && k < NR_VBLOCKS; k++)
			n += s->map[slot][k] == dblock + 1 && (s->id[slot] != id || k != v);
	return n;
}

static bool
is_own(const struct model *t, uint32_t id, unsigned v, uint32_t dblock)
{
	return !others(&t->now, id, v, dblock) && !others(&t->committed, id, v, dblock) &&
	       (!t->is_frozen || !others(&t->frozen, id, v, dblock));
}

/* A held snapshot has the trees of all devices. */
static bool
is_held(const struct model *t, uint32_t dblock)
{
	return t->is_held && others(&t->held, 0, 0, dblock);
}

static void
check_block(struct model *t, uint32_t id, unsigned v, uint32_t dblock, const struct map_run *run)
{
	bool own = is_own(t, id, v, dblock), held = is_held(t, dblock);

	if (!run->shared)
		cr_assert(own && !(run->aged && held), "step %u: block %u of device %u is not its own", t->step,
			  v, id);
	else if (t->settled)
		cr_assert(!own || held, "step %u: block %u of device %u is its own", t->step, v, id);
	t->said += run->aged;
}

/* A stretch of one device; the cutting must lose nothing. */
static void
check_some(struct model *t)
{
	unsigned slot = (unsigned)random_below(&t->rs, NR_SLOTS);
	uint64_t v = random_below(&t->rs, NR_VBLOCKS), end = v + 1 + random_below(&t->rs, 24);
	struct map_run runs[MAX_RUNS];
	struct thin_dev *d;
	unsigned nr;

	if (!t->now.id[slot])
		return;
	cr_assert_eq(dev_open(t->f.m, t->now.id[slot], &d), 0);
	cr_assert_eq(dev_map(d, v, end - v, runs, 1 + (unsigned)random_below(&t->rs, MAX_RUNS), &nr), 0);
	cr_assert_eq(dev_sort_out_shared(d, runs, MAX_RUNS, &nr), 0);
	for (unsigned i = 0; i < nr; i++) {
		cr_assert_eq(runs[i].vblock, v);
		for (uint64_t k = 0; k < runs[i].len; k++, v++) {
			uint64_t dblock = runs[i].dblock + k;

			if (runs[i].dblock == MAP_HOLE)
				dblock = UINT64_MAX;
			cr_assert(v >= NR_VBLOCKS || t->now.map[slot][v] == (uint32_t)(dblock + 1));
			if (runs[i].dblock != MAP_HOLE)
				check_block(t, t->now.id[slot], (unsigned)v, (uint32_t)dblock, &runs[i]);
		}
		if (runs[i].aged && random_below(&t->rs, 2)) {
			cr_assert_eq(dev_renew(d, runs[i].vblock, runs[i].dblock, runs[i].len), 0);
			t->renewed += runs[i].len;
		}
	}
	dev_close(d);
}

/* --- changing --- */

static void
map_some(struct model *t, struct thin_dev *d, unsigned slot)
{
	uint64_t v = random_below(&t->rs, NR_VBLOCKS), dblock, got;
	uint64_t len = 1 + random_below(&t->rs, random_below(&t->rs, 4) ? 4 : 300);

	if (len > NR_VBLOCKS - v)
		len = NR_VBLOCKS - v;
	if (meta_reserve_data(t->f.m, random_below(&t->rs, NR_DATA), len, &dblock, &got))
		return;
	cr_assert_eq(dev_insert(d, v, dblock, got), 0);
	for (uint64_t k = 0; k < got; k++)
		t->now.map[slot][v + k] = (uint32_t)(dblock + k + 1);
}

static void
unmap_some(struct model *t, struct thin_dev *d, unsigned slot)
{
	uint64_t v = random_below(&t->rs, NR_VBLOCKS), next;
	uint64_t end = v + 1 + random_below(&t->rs, random_below(&t->rs, 6) ? 5 : NR_VBLOCKS);

	cr_assert_eq(dev_unmap(d, v, end, NR_VBLOCKS, META_TO_DELETE, &next), 0);
	cr_assert_eq(next, end);
	for (; v < end && v < NR_VBLOCKS; v++)
		t->now.map[slot][v] = 0;
}

static void
share_some(struct model *t, struct thin_dev *d, unsigned slot)
{
	unsigned to = (unsigned)random_below(&t->rs, NR_SLOTS);
	uint64_t nr = 1 + random_below(&t->rs, 60);
	uint64_t src = random_below(&t->rs, NR_VBLOCKS - nr), dst = random_below(&t->rs, NR_VBLOCKS - nr);
	struct thin_dev *other;

	if (!t->now.id[to] || (to == slot && src < dst + nr && dst < src + nr))
		return;
	cr_assert_eq(dev_open(t->f.m, t->now.id[to], &other), 0);
	cr_assert_eq(dev_share(d, src, other, dst, nr), 0);
	memcpy(&t->now.map[to][dst], &t->now.map[slot][src], nr * sizeof(t->now.map[0][0]));
	dev_close(other);
}

static void
make_dev(struct model *t, unsigned slot)
{
	unsigned origin = (unsigned)random_below(&t->rs, NR_SLOTS);
	uint32_t id = t->next_id++;

	if (t->now.id[origin]) {
		cr_assert_eq(meta_tick(t->f.m), 0);
		cr_assert_eq(meta_create_snap(t->f.m, id, t->now.id[origin]), 0);
		memcpy(t->now.map[slot], t->now.map[origin], sizeof(t->now.map[slot]));
	} else {
		cr_assert_eq(meta_create_thin(t->f.m, id), 0);
	}
	t->now.id[slot] = id;
}

static void
remove_dev(struct model *t, unsigned slot)
{
	uint64_t left;
	struct thin_dev *d;

	if (random_below(&t->rs, 2)) {
		cr_assert_eq(dev_open(t->f.m, t->now.id[slot], &d), 0);
		cr_assert_eq(dev_shed(d, 1 + random_below(&t->rs, 500), &left), 0);
		dev_close(d);
	}
	cr_assert_eq(meta_delete_thin(t->f.m, t->now.id[slot]), 0);
	t->now.id[slot] = 0;
	memset(t->now.map[slot], 0, sizeof(t->now.map[slot]));
}

static void
change(struct model *t)
{
	unsigned slot = (unsigned)random_below(&t->rs, NR_SLOTS);
	uint64_t what = random_below(&t->rs, 20);
	struct thin_dev *d;

	t->settled = false;
	if (!t->now.id[slot]) {
		make_dev(t, slot);
		return;
	}
	if (what < 2) {
		remove_dev(t, slot);
		return;
	}
	cr_assert_eq(dev_open(t->f.m, t->now.id[slot], &d), 0);
	if (what < 5)
		share_some(t, d, slot);
	else if (what < 10)
		unmap_some(t, d, slot);
	else
		map_some(t, d, slot);
	dev_close(d);
}

/* --- committing --- */

static void
finish(struct model *t)
{
	if (!t->is_frozen)
		return;
	cr_assert_eq(meta_write(t->f.m), 0);
	cr_assert_eq(meta_durable(t->f.m, NULL), 0);
	t->committed = t->frozen;
	t->is_frozen = false;
}

static void
begin(struct model *t)
{
	finish(t);
	if (!meta_has_changes(t->f.m))
		return;
	cr_assert_eq(meta_freeze(t->f.m), 0);
	t->frozen = t->now;
	t->is_frozen = true;
}

static void
commit(struct model *t)
{
	begin(t);
	finish(t);
	t->settled = true;
}

static void
hold_or_release(struct model *t)
{
	commit(t);
	if (t->is_held) {
		cr_assert_eq(meta_release_snap(t->f.m), 0);
		t->is_held = false;
	} else {
		cr_assert_eq(meta_reserve_snap(t->f.m), 0);
		t->held = t->now;
		t->is_held = true;
	}
	commit(t);
}

static void
go_back(struct model *t)
{
	finish(t);
	t->now = t->committed;
	cr_assert_eq(meta_abort(t->f.m), 0);
}

static void
step(struct model *t)
{
	switch (random_below(&t->rs, 60)) {
	case 0 ... 1:
		commit(t);
		break;
	case 2 ... 4:
		begin(t);
		break;
	case 5 ... 6:
		finish(t);
		break;
	case 7:
		if (!random_below(&t->rs, 4))
			hold_or_release(t);
		break;
	case 8:
		go_back(t);
		break;
	case 9 ... 25:
		change(t);
		break;
	default:
		check_some(t);
	}
}

Test(thin_exact, what_is_a_devices_own_agrees_with_tables)
{
	struct model *t = calloc(1, sizeof(*t));

	t->rs = random_start("what_is_a_devices_own_agrees_with_tables");
	t->next_id = 1;
	fixture_make(&t->f, 4096, NR_DATA);
	for (t->step = 1; t->step <= 60000; t->step++) {
		step(t);
		if (t->step % 6000)
			continue;
		commit(t);
		fixture_commit(&t->f);
	}
	cr_assert_gt(t->said, 1000, "only %llu", (unsigned long long)t->said);
	cr_assert_gt(t->renewed, 500);
	fixture_free(&t->f);
	free(t);
}
