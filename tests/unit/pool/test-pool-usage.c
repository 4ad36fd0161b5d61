/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What removing volumes would give back is what it does give back: any of them, and any several together,
 * however they share blocks and nodes.
 *
 * THINFS_TEST_SEED repeats one run.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/pool.h"
#include "unit/random.h"
#include "util/msg.h"

#define BLOCK 65536ULL
#define DATA_BLOCKS 4096U
#define META_BYTES (24ULL << 20)
#define VOLUME_BLOCKS 40000U
#define MAX_VOLUMES 10U
#define ROUNDS 12U

static const struct pool_caller caller = {.mode = 0644};

struct trial {
	struct random_source rs;
	struct pool *p;
	bool there[MAX_VOLUMES]; /* volume "vN" */
};

static void
ignore(const char *text)
{
	(void)text;
}

static char *
name_of(unsigned i)
{
	static char name[8];

	snprintf(name, sizeof(name), "v%u", i);
	return name;
}

static struct vol *
look_up(struct trial *t, unsigned i)
{
	struct vol *v;

	cr_assert_eq(pool_lookup(t->p, pool_top(t->p), name_of(i), &v), 0);
	return v;
}

static unsigned
any(struct trial *t)
{
	unsigned i = (unsigned)random_below(&t->rs, MAX_VOLUMES);

	while (!t->there[i])
		i = (i + 1) % MAX_VOLUMES;
	return i;
}

/* Records of the catalog are in a block of their own for each 32 ids. */
static uint64_t
catalog_blocks(struct trial *t)
{
	bool has[1024] = {false};
	uint64_t nr = 0;

	for (unsigned i = 0; i < MAX_VOLUMES; i++) {
		struct vol_attr a;
		struct vol *v;

		if (!t->there[i])
			continue;
		v = look_up(t, i);
		cr_assert_eq(vol_getattr(v, &a), 0);
		vol_put(v);
		nr += !has[a.id / 32];
		has[a.id / 32] = true;
	}
	return nr;
}

/* By volumes. */
static uint64_t
used(struct trial *t)
{
	struct pool_status st;

	/* The second has the blocks that the first one replaced. */
	cr_assert_eq(pool_sync_wait(t->p, NULL), 0);
	cr_assert_eq(pool_sync_wait(t->p, NULL), 0);
	pool_get_status(t->p, &st);
	return (st.data_used - catalog_blocks(t)) * st.block_bytes;
}

static void
write_some(struct trial *t, unsigned i)
{
	uint64_t at = random_below(&t->rs, VOLUME_BLOCKS - 200), nr = 1 + random_below(&t->rs, 200);
	struct vol *v = look_up(t, i);

	/* Each block, or every second one. */
	for (uint64_t b = 0, step = 1 + random_below(&t->rs, 2); b < nr; b += step) {
		ssize_t n = vol_write(v, "x", 1, (at + b) * BLOCK);

		cr_assert(n == 1 || n == -ENOSPC);
	}
	vol_put(v);
}

/* To another place, or of another one: then blocks are there twice. */
static void
copy_some(struct trial *t, unsigned i)
{
	uint64_t half = VOLUME_BLOCKS / 2, nr = 1 + random_below(&t->rs, half);
	uint64_t src = random_below(&t->rs, half - nr + 1), dst = half + random_below(&t->rs, half - nr + 1);
	struct vol *from = look_up(t, any(t)), *to = look_up(t, i);

	if (random_below(&t->rs, 2)) {
		uint64_t other = src;

		src = dst;
		dst = other;
	}
	cr_assert_geq(vol_copy_range(from, src * BLOCK, to, dst * BLOCK, nr * BLOCK), 0);
	vol_put(from);
	vol_put(to);
}

static void
make(struct trial *t, unsigned i)
{
	unsigned other = any(t);
	struct vol *v;

	if (random_below(&t->rs, 3)) {
		v = look_up(t, other);
		cr_assert_eq(pool_clone(t->p, v, name_of(i), &caller), 0);
	} else {
		cr_assert_eq(pool_create(t->p, pool_top(t->p), name_of(i), &caller, &v), 0);
		cr_assert_eq(vol_truncate(v, VOLUME_BLOCKS * BLOCK), 0);
	}
	vol_put(v);
	t->there[i] = true;
}

static void
fill(struct trial *t)
{
	for (unsigned i = 1; i < MAX_VOLUMES; i++) {
		if (!t->there[i])
			make(t, i);
		for (unsigned n = 0; n < 3; n++) {
			write_some(t, any(t));
			if (random_below(&t->rs, 3) == 0)
				copy_some(t, any(t));
		}
	}
}

/* One of each is said twice. */
static void
remove_some(struct trial *t)
{
	uint32_t ids[2 * MAX_VOLUMES];
	uint64_t before, said, one, alone = 0;
	struct vol_attr a;
	size_t nr = 0;
	bool gone[MAX_VOLUMES] = {false};

	before = used(t);
	for (unsigned i = 1; i < MAX_VOLUMES; i++) {
		struct vol *v;

		if (random_below(&t->rs, 2))
			continue;
		gone[i] = true;
		v = look_up(t, i);
		cr_assert_eq(vol_getattr(v, &a), 0);
		cr_assert_eq(vol_exclusive(v, &one), 0);
		alone += one;
		vol_put(v);
		ids[nr++] = a.id;
		ids[nr++] = a.id;
	}
	cr_assert_eq(pool_freed_by(t->p, ids, nr, &said), 0);
	cr_assert_geq(said, alone);
	for (unsigned i = 1; i < MAX_VOLUMES; i++) {
		if (!gone[i])
			continue;
		cr_assert_eq(pool_unlink(t->p, pool_top(t->p), name_of(i)), 0);
		t->there[i] = false;
	}
	cr_assert_eq(before - used(t), said, "%llu bytes were freed, of %llu that were said",
		     (unsigned long long)(before - used(t)), (unsigned long long)said);
}

static void
open_trial(struct trial *t)
{
	struct pool_options options = {.metadata_cache_bytes = 32ULL << 20, .skip_block_zeroing = true};
	struct image *data, *meta;
	struct vol *v;

	msg_set_sink(ignore);
	cr_assert_eq(image_open_memory("data", DATA_BLOCKS * BLOCK, &data), 0);
	cr_assert_eq(image_open_memory("meta", META_BYTES, &meta), 0);
	cr_assert_eq(pool_open_images(data, meta, &options, &t->p), 0);
	cr_assert_eq(pool_create(t->p, pool_top(t->p), name_of(0), &caller, &v), 0);
	cr_assert_eq(vol_truncate(v, VOLUME_BLOCKS * BLOCK), 0);
	vol_put(v);
	t->there[0] = true;
}

Test(pool_usage, removing_frees_what_is_said, .timeout = 120)
{
	struct trial t = {.rs = random_start("pool_usage")};

	open_trial(&t);
	for (unsigned round = 0; round < ROUNDS; round++) {
		fill(&t);
		remove_some(&t);
	}
	cr_assert_eq(pool_close(t.p), 0);
}

static uint64_t
freed_by(struct trial *t, unsigned first, unsigned nr)
{
	uint32_t ids[MAX_VOLUMES];
	uint64_t bytes;

	for (unsigned i = 0; i < nr; i++) {
		struct vol *v = look_up(t, first + i);
		struct vol_attr a;

		cr_assert_eq(vol_getattr(v, &a), 0);
		ids[i] = a.id;
		vol_put(v);
	}
	cr_assert_eq(pool_freed_by(t->p, ids, nr, &bytes), 0);
	return bytes;
}

/* A tree of hundreds of leaves, which is not looked at in one go, of clones that share all of it. */
Test(pool_usage, clones_of_a_large_volume, .timeout = 120)
{
	struct trial t = {0};
	struct vol *v;

	open_trial(&t);
	v = look_up(&t, 0);
	for (uint64_t b = 0; b < 500; b++)
		cr_assert_eq(vol_write(v, "x", 1, b * BLOCK), 1);
	for (uint64_t nr = 500; nr < 32000; nr *= 2)
		cr_assert_eq(vol_copy_range(v, 0, v, nr * BLOCK, nr * BLOCK), (ssize_t)(nr * BLOCK));
	cr_assert_eq(freed_by(&t, 0, 1), 500 * BLOCK);
	for (unsigned i = 1; i < 4; i++)
		cr_assert_eq(pool_clone(t.p, v, name_of(i), &caller), 0);
	vol_put(v);
	cr_assert_eq(freed_by(&t, 0, 1), 0);
	cr_assert_eq(freed_by(&t, 1, 3), 0);
	cr_assert_eq(freed_by(&t, 0, 4), 500 * BLOCK);
	v = look_up(&t, 2);
	cr_assert_eq(vol_write(v, "y", 1, 100 * BLOCK), 1); /* a way to the leaf of its own */
	vol_put(v);
	cr_assert_eq(freed_by(&t, 2, 1), BLOCK);
	cr_assert_eq(freed_by(&t, 0, 4), 501 * BLOCK);
	cr_assert_eq(pool_close(t.p), 0);
}

Test(pool_usage, one_that_is_not_there)
{
	struct pool_options options = {.metadata_cache_bytes = 1ULL << 20};
	struct image *data, *meta;
	struct pool *p;
	uint64_t bytes;
	uint32_t id = 7;

	cr_assert_eq(image_open_memory("data", 16 * BLOCK, &data), 0);
	cr_assert_eq(image_open_memory("meta", 1ULL << 20, &meta), 0);
	cr_assert_eq(pool_open_images(data, meta, &options, &p), 0);
	cr_assert_eq(pool_freed_by(p, &id, 1, &bytes), -ENOENT);
	cr_assert_eq(pool_freed_by(p, NULL, 0, &bytes), 0);
	cr_assert_eq(bytes, 0);
	cr_assert_eq(pool_close(p), 0);
}
