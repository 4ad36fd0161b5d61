/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pools of all sizes whose metadata are filled to the last block that volumes may have: they still overwrite,
 * discard, delete and commit, are never read-only or failed, and are as good as new when they are empty.
 *
 * THINFS_TEST_SEED repeats one run, THINFS_TEST_LONG=1 tries more sizes and seeds.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "pool/pool.h"
#include "unit/audit.h"
#include "unit/kept_image.h"
#include "unit/random.h"
#include "util/msg.h"

#define BLOCK 65536ULL
#define VOLUME_BLOCKS 20000U
#define MAX_VOLUMES 12U
#define MAX_SNAPSHOTS 60U

struct trial {
	struct random_source rs;
	uint64_t seed;
	uint64_t meta_blocks;
	struct kept_image data, meta;
	struct pool *p;
	bool volume[MAX_VOLUMES]; /* "vN" exists */
	bool snapshot[MAX_SNAPSHOTS]; /* "sN" exists */
	uint64_t used_at_first; /* metadata blocks */
	unsigned refused; /* discards */
};

static void
ignore(const char *text)
{
	(void)text;
}

/* It must have worked, or there was no space for it: whether it has. */
static bool
done(struct trial *t, int r, const char *what)
{
	enum pool_mode mode = pool_get_mode(t->p);

	cr_assert(!r || r == -ENOSPC, "%llu blocks, seed %llu: %s: %s", (unsigned long long)t->meta_blocks,
		  (unsigned long long)t->seed, what, strerror(-r));
	cr_assert(mode <= POOL_OUT_OF_METADATA_SPACE, "%llu blocks, seed %llu: mode %s after %s",
		  (unsigned long long)t->meta_blocks, (unsigned long long)t->seed,
		  pool_mode_name(mode), what);
	return !r;
}

static void
name_of(char *name, char kind, unsigned i)
{
	snprintf(name, 8, "%c%u", kind, i);
}

static struct vol *
look_up(struct trial *t, unsigned i)
{
	struct vol *v;
	char name[8];

	name_of(name, 'v', i);
	cr_assert_eq(pool_lookup(t->p, pool_top(t->p), name, &v), 0);
	return v;
}

static unsigned
any(struct trial *t, const bool *exists, unsigned nr)
{
	unsigned start = (unsigned)random_below(&t->rs, nr);

	for (unsigned i = 0; i < nr; i++)
		if (exists[(start + i) % nr])
			return (start + i) % nr;
	return nr;
}

/* --- operations --- */

static bool
create(struct trial *t)
{
	struct pool_caller caller = {.mode = 0600};
	unsigned i = (unsigned)random_below(&t->rs, MAX_VOLUMES);
	struct vol *v;
	char name[8];
	int r;

	if (t->volume[i])
		return true;
	name_of(name, 'v', i);
	r = pool_create(t->p, pool_top(t->p), name, &caller, &v);
	if (!done(t, r, "create"))
		return false;
	t->volume[i] = true;
	r = vol_truncate(v, VOLUME_BLOCKS * BLOCK);
	vol_put(v);
	return done(t, r, "truncate");
}

static bool
write_some(struct trial *t)
{
	unsigned i = any(t, t->volume, MAX_VOLUMES);
	uint64_t at = random_below(&t->rs, VOLUME_BLOCKS), nr = 1;
	bool all = true;
	struct vol *v;

	if (i == MAX_VOLUMES)
		return create(t);
	if (random_below(&t->rs, 30) == 0)
		nr = 1 + random_below(&t->rs, 40);
	v = look_up(t, i);
	for (uint64_t k = 0; k < nr && all && at + k < VOLUME_BLOCKS; k++) {
		ssize_t n = vol_write(v, "x", 1, (at + k) * BLOCK);

		all = done(t, n < 0 ? (int)n : 0, "write");
	}
	vol_put(v);
	return all;
}

static bool
snapshot(struct trial *t)
{
	struct pool_caller caller = {.mode = 0755};
	unsigned i = (unsigned)random_below(&t->rs, MAX_SNAPSHOTS);
	char name[8];

	if (t->snapshot[i])
		return true;
	name_of(name, 's', i);
	t->snapshot[i] = done(t, pool_snapshot(t->p, name, &caller), "snapshot");
	return t->snapshot[i];
}

static void
discard(struct trial *t, uint64_t max_blocks)
{
	unsigned i = any(t, t->volume, MAX_VOLUMES);
	uint64_t at = random_below(&t->rs, VOLUME_BLOCKS);
	struct vol *v;

	if (i == MAX_VOLUMES)
		return;
	v = look_up(t, i);
	t->refused += !done(t, vol_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at * BLOCK,
					     (1 + random_below(&t->rs, max_blocks)) * BLOCK), "discard");
	vol_put(v);
}

static void
commit(struct trial *t)
{
	cr_assert(done(t, pool_sync_wait(t->p, NULL), "commit"), "%llu blocks, seed %llu: no room to commit",
		  (unsigned long long)t->meta_blocks, (unsigned long long)t->seed);
}

static void
remove_one(struct trial *t)
{
	unsigned i = any(t, t->volume, MAX_VOLUMES), k = any(t, t->snapshot, MAX_SNAPSHOTS);
	char name[8];
	bool ok;

	if (i < MAX_VOLUMES && (k == MAX_SNAPSHOTS || random_below(&t->rs, 3) == 0)) {
		name_of(name, 'v', i);
		ok = done(t, pool_unlink(t->p, pool_top(t->p), name), "unlink");
		t->volume[i] = false;
	} else if (k < MAX_SNAPSHOTS) {
		name_of(name, 's', k);
		ok = done(t, pool_remove_snapshot(t->p, name), "rmdir");
		t->snapshot[k] = false;
	} else {
		return;
	}
	cr_assert(ok, "%llu blocks, seed %llu: %s cannot be removed", (unsigned long long)t->meta_blocks,
		  (unsigned long long)t->seed, name);
}

/* --- a run --- */

static void
open_pool(struct trial *t)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;

	options.commit_interval_ms = 0; /* no threads: what is not done at once, nobody does later */
	options.error_if_no_space = true;
	options.skip_block_zeroing = t->seed % 2 || t->meta_blocks > 400;
	cr_assert_eq(pool_open_images(&t->data.image, &t->meta.image, &options, &t->p), 0);
}

static void
fill(struct trial *t)
{
	for (unsigned refusals = 0; refusals < 60 || pool_get_mode(t->p) != POOL_OUT_OF_METADATA_SPACE;) {
		uint64_t op = random_below(&t->rs, 100);

		cr_assert_neq(pool_get_mode(t->p), POOL_OUT_OF_DATA_SPACE, "the test needs more data blocks");

		if (op < 84)
			refusals += !write_some(t);
		else if (op < 86)
			refusals += !create(t);
		else if (op < 91)
			refusals += !snapshot(t);
		else if (op < 93)
			discard(t, 30);
		else if (op < 94 && random_below(&t->rs, 10) == 0)
			remove_one(t);
		else
			commit(t);
	}
}

/* In a full pool: what is mapped for a volume alone can be overwritten, all can be read, and so on. */
static void
use_full(struct trial *t)
{
	struct pool_status st;
	unsigned i = any(t, t->volume, MAX_VOLUMES);
	char byte;

	if (i < MAX_VOLUMES) {
		struct vol *v = look_up(t, i);

		/* Nothing, if there was no room for its size. */
		cr_assert_geq(vol_read(v, &byte, 1, 5 * BLOCK), 0);
		vol_put(v);
	}
	for (unsigned k = 0; k < 40; k++) {
		discard(t, k % 2 ? 3 : 3000);
		if (k % 5 == 0)
			commit(t);
	}
	pool_get_status(t->p, &st);
	cr_assert(!st.needs_check);
	commit(t);
}

static bool
is_empty(struct trial *t)
{
	return any(t, t->volume, MAX_VOLUMES) == MAX_VOLUMES &&
	       any(t, t->snapshot, MAX_SNAPSHOTS) == MAX_SNAPSHOTS;
}

static void
empty(struct trial *t)
{
	struct pool_status st;

	while (!is_empty(t)) {
		remove_one(t);
		if (random_below(&t->rs, 3) == 0)
			commit(t);
	}
	commit(t);
	commit(t);
	pool_get_status(t->p, &st);
	cr_assert_eq(st.mode, POOL_WRITE, "seed %llu: %s", (unsigned long long)t->seed,
		     pool_mode_name(st.mode));
	cr_assert_eq(st.nr_volumes + st.nr_snapshots, 0);
	/* The catalog, and the trees of the maps. */
	cr_assert_leq(st.data_used, 3, "seed %llu: %llu data blocks left", (unsigned long long)t->seed,
		      (unsigned long long)st.data_used);
	cr_assert_leq(st.meta_used, t->used_at_first + 6, "seed %llu: %llu metadata blocks left", (unsigned long long)t->seed,
		      (unsigned long long)st.meta_used);
}

static void
run(uint64_t meta_blocks, uint64_t data_blocks, uint64_t seed)
{
	struct trial t = {.rs = {seed}, .seed = seed, .meta_blocks = meta_blocks};
	struct image *data, *meta;
	struct pool_status st;

	cr_assert_eq(image_open_memory("data", data_blocks * BLOCK, &data), 0);
	cr_assert_eq(image_open_memory("meta", meta_blocks * METADATA_BLOCK_SIZE, &meta), 0);
	kept_image_init(&t.data, data);
	kept_image_init(&t.meta, meta);
	cr_assert_eq(meta_format(&t.meta.image, 128, data_blocks), 0);
	open_pool(&t);
	pool_get_status(t.p, &st);
	t.used_at_first = st.meta_used;
	for (unsigned round = 0; round < 2; round++) {
		fill(&t);
		pool_get_status(t.p, &st);
		cr_assert(st.nr_volumes, "%llu blocks, seed %llu: no room for a volume",
			  (unsigned long long)meta_blocks, (unsigned long long)seed);
		use_full(&t);
		if (round) {
			cr_assert(audit_image(t.meta.inner, AUDIT_EXACT), "seed %llu", (unsigned long long)seed);
			cr_assert_eq(pool_close(t.p), 0);
			open_pool(&t);
		}
		empty(&t);
	}
	cr_assert_eq(pool_close(t.p), 0);
	cr_assert(audit_image(t.meta.inner, AUDIT_ALL), "seed %llu", (unsigned long long)seed);
	fprintf(stderr, "# %llu blocks: filled to %llu, %u discards refused\n",
		(unsigned long long)meta_blocks, (unsigned long long)st.meta_used, t.refused);
	kept_image_free(&t.data);
	kept_image_free(&t.meta);
}

static bool
is_long(void)
{
	return getenv("THINFS_TEST_LONG");
}

static void
run_sizes(const char *test, const uint64_t *sizes, size_t nr)
{
	unsigned nr_seeds = is_long() && !getenv("THINFS_TEST_SEED") ? 5 : 1;

	msg_set_sink(ignore);
	for (unsigned s = 0; s < nr_seeds; s++) {
		uint64_t seed = random_start(test).state;

		for (size_t i = 0; i < nr; i++)
			run(sizes[i], 60 * sizes[i] + 1000, seed + i);
		/* And of any size, evenly in its logarithm. */
		run(64 + (seed % 7 << seed / 7 % 6), 20000, seed + nr);
	}
}

/* 86 and 171 are where the trees may be one level deeper. */
Test(pool_full, full_metadata_of_any_size_can_be_emptied)
{
	static const uint64_t sizes[] = {64, 65, 72, 96, 128, 172, 256, 83, 110, 171, 200, 333};

	run_sizes("full_metadata_of_any_size_can_be_emptied", sizes, is_long() ? 12 : 7);
}

Test(pool_full, large_full_metadata_can_be_emptied)
{
	static const uint64_t sizes[] = {700, 1024, 2048, 5000};

	run_sizes("large_full_metadata_can_be_emptied", sizes, is_long() ? 4 : 1);
}
