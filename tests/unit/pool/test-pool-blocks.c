/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which data blocks a volume gets, and when it gets new ones.
 *
 * What is no longer shared is overwritten in place: n who share cost n - 1 copies. Shown in a pool that is full, where
 * no copy can be made; and that nobody sees another's bytes in a crash before the one who shared it is durably gone.
 *
 * Volumes that are written at the same time have their blocks together.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "pool/pool.h"
#include "unit/audit.h"
#include "unit/kept_image.h"
#include "util/msg.h"

#define BLOCK 65536ULL
#define NR 20U /* blocks of a volume */
#define FEW 200U /* data blocks */

static const struct pool_caller caller = {.mode = 0600};

struct test {
	struct kept_image data, meta;
	struct pool *p;
};

static void
ignore(const char *text)
{
	(void)text;
}

static void
open_pool(struct test *t)
{
	struct pool_options o = POOL_OPTIONS_DEFAULT;

	o.commit_interval_ms = 0;
	cr_assert_eq(pool_open_images(&t->data.image, &t->meta.image, &o, &t->p), 0);
}

static void
begin(struct test *t, uint64_t nr_data_blocks)
{
	struct image *data, *meta;

	msg_set_sink(ignore);
	cr_assert_eq(image_open_memory("data", nr_data_blocks * BLOCK, &data), 0);
	cr_assert_eq(image_open_memory("meta", 1024 * METADATA_BLOCK_SIZE, &meta), 0);
	kept_image_init(&t->data, data);
	kept_image_init(&t->meta, meta);
	cr_assert_eq(meta_format(&t->meta.image, 128, nr_data_blocks), 0);
	open_pool(t);
}

static void
end(struct test *t)
{
	cr_assert_eq(pool_close(t->p), 0);
	cr_assert(audit_image(t->meta.inner, AUDIT_ALL));
	kept_image_free(&t->data);
	kept_image_free(&t->meta);
}

static struct vol *
look_up(struct test *t, const char *name)
{
	struct vol *v;

	cr_assert_eq(pool_lookup(t->p, pool_top(t->p), name, &v), 0);
	return v;
}

static int
write_blocks(struct test *t, const char *name, char fill, unsigned from, unsigned nr)
{
	struct vol *v = look_up(t, name);
	char *buf = malloc(BLOCK);
	int r = 0;

	memset(buf, fill, BLOCK);
	for (unsigned i = from; i < from + nr && !r; i++) {
		ssize_t n = vol_write(v, buf, BLOCK / 2, i * BLOCK + 512);

		r = n < 0 ? (int)n : 0;
	}
	free(buf);
	vol_put(v);
	return r;
}

static void
expect_blocks(struct test *t, const char *name, char fill, unsigned from, unsigned nr)
{
	struct vol *v = look_up(t, name);
	char buf[512];

	for (unsigned i = from; i < from + nr; i++) {
		cr_assert_eq(vol_read(v, buf, sizeof(buf), i * BLOCK + 512), (ssize_t)sizeof(buf));
		cr_assert(buf[0] == fill && buf[511] == fill, "%s, block %u: %c, not %c", name, i, buf[0], fill);
	}
	vol_put(v);
}

static void
create(struct test *t, const char *name)
{
	struct vol *v;

	cr_assert_eq(pool_create(t->p, pool_top(t->p), name, &caller, &v), 0);
	cr_assert_eq(vol_truncate(v, 1000 * BLOCK), 0);
	vol_put(v);
}

static void
clone(struct test *t, const char *from, const char *name)
{
	struct vol *v = look_up(t, from);

	cr_assert_eq(pool_clone(t->p, v, name, &caller), 0);
	vol_put(v);
}

static void
commit(struct test *t)
{
	cr_assert_eq(pool_sync_wait(t->p, NULL), 0);
}

/* Until no block is free. */
static void
fill(struct test *t)
{
	create(t, "filler");
	while (!write_blocks(t, "filler", 'f', 0, 1000))
		;
	commit(t);
	cr_assert_eq(write_blocks(t, "filler", 'f', 999, 1), -ENOSPC);
}

static uint32_t
id_of(struct test *t, const char *name)
{
	struct vol_attr attr;
	struct vol *v = look_up(t, name);

	cr_assert_eq(vol_getattr(v, &attr), 0);
	vol_put(v);
	return attr.id;
}

/* The kernel, too, sees by their time that the first NR blocks are the device's own. */
static void
expect_own(struct test *t, uint32_t id, unsigned nr)
{
	struct map_run run;
	struct thin_meta *m;
	struct thin_dev *d;
	unsigned nr_runs;

	cr_assert_eq(meta_open(&t->meta.image, 1 << 20, true, &m), 0);
	cr_assert_eq(dev_open(m, id, &d), 0);
	for (unsigned i = 0; i < nr; i++) {
		cr_assert_eq(dev_map(d, i, 1, &run, 1, &nr_runs), 0);
		cr_assert(run.dblock != MAP_HOLE && !run.shared, "block %u", i);
	}
	dev_close(d);
	meta_close(m);
}

Test(pool_blocks, the_last_who_shares_copies_nothing)
{
	struct test t;
	uint64_t before;
	uint32_t id;

	begin(&t, FEW);
	create(&t, "a");
	cr_assert_eq(write_blocks(&t, "a", 'a', 0, NR), 0);
	clone(&t, "a", "b");
	clone(&t, "a", "c");
	commit(&t);
	cr_assert_eq(write_blocks(&t, "b", 'b', 0, NR), 0);
	cr_assert_eq(write_blocks(&t, "a", 'A', 0, NR - 1), 0);
	fill(&t);
	/* All but the last block of C is its own. */
	cr_assert_eq(write_blocks(&t, "c", 'c', 0, NR - 1), 0);
	cr_assert_eq(write_blocks(&t, "c", 'c', NR - 1, 1), -ENOSPC);
	commit(&t);
	/* And again, which by then changes no mapping. */
	before = t.meta.nr_flushes;
	cr_assert_eq(write_blocks(&t, "c", 'C', 0, NR - 1), 0);
	commit(&t);
	cr_assert_eq(t.meta.nr_flushes, before);
	expect_blocks(&t, "a", 'A', 0, NR - 1);
	expect_blocks(&t, "a", 'a', NR - 1, 1);
	expect_blocks(&t, "b", 'b', 0, NR);
	expect_blocks(&t, "c", 'C', 0, NR - 1);
	id = id_of(&t, "c");
	cr_assert_eq(pool_close(t.p), 0);
	expect_own(&t, id, NR - 1);
	open_pool(&t);
	end(&t);
}

Test(pool_blocks, a_snapshot_that_is_gone_costs_no_copies)
{
	struct test t;

	begin(&t, FEW);
	create(&t, "a");
	cr_assert_eq(write_blocks(&t, "a", 'a', 0, NR), 0);
	cr_assert_eq(pool_snapshot(t.p, "monday", &caller), 0);
	fill(&t);
	cr_assert_eq(write_blocks(&t, "a", 'b', 0, 1), -ENOSPC);
	cr_assert_eq(pool_remove_snapshot(t.p, "monday"), 0);
	for (unsigned i = 0; i < 3; i++)
		commit(&t);
	cr_assert_eq(write_blocks(&t, "a", 'b', 0, NR), 0);
	expect_blocks(&t, "a", 'b', 0, NR);
	end(&t);
}

Test(pool_blocks, a_snapshot_that_may_come_back_is_left_alone)
{
	char *data, *meta;
	uint64_t data_bytes, meta_bytes;
	struct voldir *dir;
	struct test t;
	struct vol *v;
	char byte;

	begin(&t, FEW);
	create(&t, "a");
	cr_assert_eq(write_blocks(&t, "a", 'a', 0, NR), 0);
	cr_assert_eq(pool_snapshot(t.p, "monday", &caller), 0);
	commit(&t);
	cr_assert_eq(pool_remove_snapshot(t.p, "monday"), 0);
	cr_assert_eq(write_blocks(&t, "a", 'b', 0, NR), 0);
	/* A crash, in which all that was written is there, but no further commit. */
	data = kept_image_copy(&t.data, &data_bytes);
	meta = kept_image_copy(&t.meta, &meta_bytes);
	cr_assert_eq(pool_close(t.p), 0);
	kept_image_restore(&t.data, data, data_bytes);
	kept_image_restore(&t.meta, meta, meta_bytes);
	open_pool(&t);
	cr_assert_eq(pool_lookup_snapshot(t.p, "monday", &dir), 0);
	cr_assert_eq(pool_lookup(t.p, dir, "a", &v), 0);
	for (unsigned i = 0; i < NR; i++) {
		cr_assert_eq(vol_read(v, &byte, 1, i * BLOCK + 512), 1);
		cr_assert_eq(byte, 'a', "block %u of the snapshot is %c", i, byte);
	}
	vol_put(v);
	voldir_put(dir);
	free(data);
	free(meta);
	end(&t);
}

/* In how many stretches the first NR blocks of a device lie. */
static unsigned
nr_stretches(struct test *t, uint32_t id, unsigned nr)
{
	struct map_run runs[64];
	struct thin_meta *m;
	struct thin_dev *d;
	unsigned nr_runs;

	cr_assert_eq(meta_open(&t->meta.image, 1 << 20, true, &m), 0);
	cr_assert_eq(dev_open(m, id, &d), 0);
	cr_assert_eq(dev_map(d, 0, nr, runs, 64, &nr_runs), 0);
	dev_close(d);
	meta_close(m);
	return nr_runs;
}

Test(pool_blocks, volumes_written_at_once_do_not_alternate)
{
	static const char *const names[] = {"a", "b", "c"};
	uint32_t ids[3];
	struct test t;

	begin(&t, 100000);
	for (unsigned k = 0; k < 3; k++) {
		create(&t, names[k]);
		ids[k] = id_of(&t, names[k]);
	}
	for (unsigned i = 0; i < 900; i++)
		for (unsigned k = 0; k < 3; k++)
			cr_assert_eq(write_blocks(&t, names[k], names[k][0], i, 1), 0);
	for (unsigned k = 0; k < 3; k++)
		expect_blocks(&t, names[k], names[k][0], 0, 900);
	cr_assert_eq(pool_close(t.p), 0);
	/* 900 blocks of 64 KiB are three and a half windows of 16 MiB. */
	for (unsigned k = 0; k < 3; k++)
		cr_assert_leq(nr_stretches(&t, ids[k], 900), 5, "%u", nr_stretches(&t, ids[k], 900));
	open_pool(&t);
	end(&t);
}

/* --- giving space back --- */

static uint64_t longest_discard, discarded;

static int
measure_discard(struct image *img, uint64_t offset, uint64_t len)
{
	(void)img;
	(void)offset;
	longest_discard = len > longest_discard ? len : longest_discard;
	discarded += len;
	return 0;
}

/* A filesystem lets nobody write meanwhile. */
Test(pool_blocks, large_ranges_are_given_back_in_pieces)
{
	struct image_ops ops;
	struct test t;
	struct vol *v;

	begin(&t, 4000);
	ops = *t.data.image.ops;
	ops.discard = measure_discard;
	t.data.image.ops = &ops;
	create(&t, "v");
	v = look_up(&t, "v");
	cr_assert_eq(vol_fallocate(v, 0, 0, 3200 * BLOCK), 0);
	cr_assert_eq(pool_sync_wait(t.p, NULL), 0);
	discarded = 0;
	cr_assert_eq(vol_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 3200 * BLOCK), 0);
	cr_assert_eq(pool_sync_wait(t.p, NULL), 0);
	cr_assert(discarded >= 3200 * BLOCK, "%ju bytes", (uintmax_t)discarded);
	cr_assert(longest_discard > BLOCK && longest_discard <= 32 << 20, "%ju bytes at once", (uintmax_t)longest_discard);
	vol_put(v);
	end(&t);
}
