/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What reaches the images when blocks are given back, and when what is zero is written: after which commit,
 * before what, and how little of it. All that is done to both images is logged in one order.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "io/image_fault.h"
#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "pool/pool_internal.h"
#include "unit/audit.h"
#include "util/msg.h"

#define BLOCK 65536ULL
#define NR_BLOCKS 2000U
#define MAX_EVENTS 4096U
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO FALLOC_FL_ZERO_RANGE
#define ZERO_KEEP (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

static const struct pool_caller caller = {.mode = 0600};

struct event {
	bool of_data;
	enum image_op op;
	uint64_t offset, len;
	uint64_t used, free; /* a discard: data blocks meanwhile; free: can be handed out */
};

struct test {
	struct image *data, *meta;
	struct pool *p;
	struct event log[MAX_EVENTS];
	size_t nr_log;
	bool looks; /* the pool is open: it can be asked */
};

static struct test t;

static void
ignore(const char *text)
{
	(void)text;
}

/* That this does not hang says that no lock of the metadata is held exclusive. */
static struct meta_info
look(void)
{
	struct meta_info info;

	rwlock_rdlock(&t.p->meta_lock);
	meta_get_info(t.p->tm, &info);
	rwlock_unlock(&t.p->meta_lock);
	return info;
}

static void
log_event(bool of_data, const struct image_event *event)
{
	struct meta_info info = {0};

	cr_assert_lt(t.nr_log, MAX_EVENTS);
	if (event->op == IMAGE_OP_DISCARD && t.looks)
		info = look();
	t.log[t.nr_log++] = (struct event){of_data, event->op, event->offset, event->len,
					   info.used_data_blocks, info.free_data_blocks};
}

static void
log_data(void *arg, const struct image_event *event)
{
	(void)arg;
	log_event(true, event);
}

static void
log_meta(void *arg, const struct image_event *event)
{
	(void)arg;
	log_event(false, event);
}

static void
begin(const struct pool_options *options)
{
	struct pool_options o = *options;
	struct image *data, *meta;

	memset(&t, 0, sizeof(t));
	msg_set_sink(ignore);
	cr_assert_eq(image_open_memory("data", NR_BLOCKS * BLOCK, &data), 0);
	cr_assert_eq(image_open_memory("meta", 1024 * METADATA_BLOCK_SIZE, &meta), 0);
	cr_assert_eq(meta_format(meta, BLOCK / 512, NR_BLOCKS), 0);
	cr_assert_eq(image_fault_wrap(data, &t.data), 0);
	cr_assert_eq(image_fault_wrap(meta, &t.meta), 0);
	image_fault_observe(t.data, log_data, NULL);
	image_fault_observe(t.meta, log_meta, NULL);
	o.commit_interval_ms = 0;
	cr_assert_eq(pool_open_images(t.data, t.meta, &o, &t.p), 0);
	t.looks = true;
}

static void
begin_default(void)
{
	struct pool_options o = POOL_OPTIONS_DEFAULT;

	begin(&o);
}

static void
commit(void)
{
	cr_assert_eq(pool_sync_wait(t.p, NULL), 0);
}

static void
end(void)
{
	commit();
	cr_assert(audit_image(t.meta, AUDIT_ALL));
	t.looks = false;
	cr_assert_eq(pool_close(t.p), 0);
}

/* A volume of that many blocks, held. */
static struct vol *
create(const char *name, uint64_t nr_blocks)
{
	struct vol *v;

	cr_assert_eq(pool_create(t.p, pool_top(t.p), name, &caller, &v), 0);
	cr_assert_eq(vol_truncate(v, nr_blocks * BLOCK), 0);
	return v;
}

static void
write_bytes(struct vol *v, uint64_t offset, uint64_t len)
{
	static char bytes[BLOCK];

	memset(bytes, 'x', sizeof(bytes));
	for (; len; offset += sizeof(bytes), len -= len < BLOCK ? len : BLOCK)
		cr_assert_gt(vol_write(v, bytes, len < BLOCK ? len : BLOCK, offset), 0);
}

static void
expect_bytes(struct vol *v, uint64_t begin, uint64_t end, char wanted)
{
	static char bytes[4096];

	for (; begin < end; begin += sizeof(bytes)) {
		size_t n = end - begin < sizeof(bytes) ? end - begin : sizeof(bytes);

		cr_assert_eq(vol_read(v, bytes, n, begin), (ssize_t)n);
		for (size_t i = 0; i < n; i++)
			cr_assert_eq(bytes[i], wanted, "at %llu", (unsigned long long)(begin + i));
	}
}

static uint64_t
mapped(struct vol *v)
{
	struct vol_attr a;

	cr_assert_eq(vol_getattr(v, &a), 0);
	return a.mapped_bytes / BLOCK;
}

static void
forget(void)
{
	t.nr_log = 0;
}

/* Events of that kind since forget(); the last of them in *LAST. */
static size_t
nr_events(bool of_data, enum image_op op, struct event *last)
{
	size_t nr = 0;

	for (size_t i = 0; i < t.nr_log; i++)
		if (t.log[i].of_data == of_data && t.log[i].op == op) {
			nr++;
			*last = t.log[i];
		}
	return nr;
}

/* Discards begin after the superblock's last write has been flushed, and nothing but they comes after. */
static void
expect_discards_after_commit(void)
{
	size_t superblock = 0, first = t.nr_log;

	for (size_t i = 0; i < t.nr_log; i++) {
		const struct event *e = &t.log[i];

		if (!e->of_data && e->op == IMAGE_OP_WRITE && !e->offset)
			superblock = i;
		if (e->op == IMAGE_OP_DISCARD && first == t.nr_log)
			first = i;
	}
	cr_assert_lt(first, t.nr_log, "nothing was discarded");
	cr_assert(superblock && superblock + 1 < first && !t.log[superblock + 1].of_data &&
		  t.log[superblock + 1].op == IMAGE_OP_FLUSH);
	for (size_t i = superblock + 2; i < t.nr_log; i++)
		cr_assert(t.log[i].of_data && t.log[i].op == IMAGE_OP_DISCARD);
}

/* --- giving back --- */

Test(pool_discard, comes_after_the_commit_and_before_blocks_are_handed_out, .init = begin_default, .fini = end)
{
	struct vol *v = create("v", 200);
	struct meta_info before;
	struct event e;

	write_bytes(v, 0, 200 * BLOCK);
	commit();
	forget();
	before = look();
	cr_assert_eq(vol_fallocate(v, PUNCH, 10 * BLOCK, 100 * BLOCK), 0);
	cr_assert_eq(nr_events(true, IMAGE_OP_DISCARD, &e), 0, "before the commit");
	commit();
	expect_discards_after_commit();
	cr_assert_eq(nr_events(true, IMAGE_OP_DISCARD, &e), 1, "in one piece");
	cr_assert_eq(e.len, 100 * BLOCK);
	/* At that time they are nobody's, but not to be had either. */
	cr_assert_eq(e.used, before.used_data_blocks - 100);
	cr_assert_eq(e.free, before.free_data_blocks);
	cr_assert_eq(look().free_data_blocks, before.free_data_blocks + 100);
	vol_put(v);
}

Test(pool_discard, is_one_range_whatever_had_it, .init = begin_default, .fini = end)
{
	struct vol *a = create("a", 600), *b = create("b", 600);
	struct event e;

	/* Block by block in turn; what lies between two of one volume's is the other's. */
	for (unsigned i = 0; i < 300; i++) {
		write_bytes(a, i * 2 * BLOCK, BLOCK);
		write_bytes(b, (599 - i * 2) * BLOCK, BLOCK);
	}
	commit();
	vol_put(a);
	vol_put(b);
	forget();
	cr_assert_eq(pool_unlink(t.p, pool_top(t.p), "a"), 0);
	cr_assert_eq(pool_unlink(t.p, pool_top(t.p), "b"), 0);
	commit();
	expect_discards_after_commit();
	/* The catalog's blocks come to it, and may lie in between. */
	cr_assert_leq(nr_events(true, IMAGE_OP_DISCARD, &e), 3);
}

Test(pool_discard, leaves_what_others_share, .init = begin_default, .fini = end)
{
	struct vol *v = create("v", 20);
	struct event e;

	write_bytes(v, 0, 20 * BLOCK);
	cr_assert_eq(pool_snapshot(t.p, "s", &caller), 0);
	commit();
	write_bytes(v, 0, 2 * BLOCK);
	commit();
	forget();
	cr_assert_eq(vol_fallocate(v, PUNCH, 0, 20 * BLOCK), 0);
	commit();
	for (size_t i = 0; i < t.nr_log; i++)
		if (t.log[i].op == IMAGE_OP_DISCARD)
			cr_assert_leq(t.log[i].len, 3 * BLOCK); /* two of its own, one of the catalog's */
	cr_assert_eq(mapped(v), 0);
	forget();
	cr_assert_eq(pool_remove_snapshot(t.p, "s"), 0);
	commit();
	expect_discards_after_commit();
	cr_assert_geq(nr_events(true, IMAGE_OP_DISCARD, &e), 1);
	vol_put(v);
}

/* Fill, punch, remove, fill again: whether the blocks come back to the pool, and the image is let alone. */
static void
try_without_passdown(const struct pool_options *o)
{
	struct event e;
	struct vol *v;

	begin(o);
	for (unsigned i = 0; i < 3; i++) {
		v = create("v", NR_BLOCKS - 20);
		write_bytes(v, 0, (NR_BLOCKS - 20) * BLOCK);
		commit();
		vol_put(v);
		cr_assert_eq(pool_unlink(t.p, pool_top(t.p), "v"), 0);
		commit();
		forget();
	}
	v = create("v", 20);
	write_bytes(v, 0, 20 * BLOCK);
	commit();
	cr_assert_eq(vol_fallocate(v, PUNCH, 0, 10 * BLOCK), o->ignore_discard ? -EOPNOTSUPP : 0);
	cr_assert_eq(mapped(v), o->ignore_discard ? 20U : 10U);
	expect_bytes(v, 0, 10 * BLOCK, o->ignore_discard ? 'x' : 0);
	commit();
	cr_assert_eq(nr_events(true, IMAGE_OP_DISCARD, &e) + nr_events(true, IMAGE_OP_PUNCH, &e), 0);
	vol_put(v);
	end();
}

Test(pool_discard, is_not_passed_down_when_told_so)
{
	struct pool_options o = POOL_OPTIONS_DEFAULT;

	o.no_discard_passdown = true;
	try_without_passdown(&o);
}

Test(pool_discard, is_refused_and_changes_nothing_with_ignore_discard)
{
	struct pool_options o = POOL_OPTIONS_DEFAULT;

	o.ignore_discard = true;
	try_without_passdown(&o);
}

Test(pool_discard, that_the_disk_refuses_costs_its_space_only, .init = begin_default, .fini = end)
{
	struct vol *v = create("v", 500);
	struct pool_status before, after;

	write_bytes(v, 0, 500 * BLOCK);
	commit();
	pool_get_status(t.p, &before);
	image_fault_set(t.data, IMAGE_OP_DISCARD, 1, EIO, true);
	cr_assert_eq(vol_fallocate(v, PUNCH, 0, 500 * BLOCK), 0);
	commit();
	pool_get_status(t.p, &after);
	cr_assert_eq(after.data_available, before.data_available + 500);
	/* In such a block the rest is not taken for zeros. */
	for (unsigned i = 0; i < 500; i++)
		write_bytes(v, i * BLOCK + 512, 512);
	for (unsigned i = 0; i < 500; i++) {
		expect_bytes(v, i * BLOCK, i * BLOCK + 512, 0);
		expect_bytes(v, i * BLOCK + 1024, (i + 1) * BLOCK, 0);
	}
	vol_put(v);
}

/* --- what is zero --- */

Test(pool_discard, a_first_write_into_a_hole_is_just_that, .init = begin_default, .fini = end)
{
	struct vol *v = create("v", 20);
	struct event e;

	commit();
	forget();
	write_bytes(v, 3 * BLOCK + 5120, 4096);
	cr_assert_eq(nr_events(true, IMAGE_OP_WRITE, &e), 1);
	cr_assert_eq(e.len, 4096);
	cr_assert_eq(nr_events(true, IMAGE_OP_PUNCH, &e), 0);
	expect_bytes(v, 3 * BLOCK, 3 * BLOCK + 5120, 0);
	expect_bytes(v, 3 * BLOCK + 5120, 3 * BLOCK + 9216, 'x');
	expect_bytes(v, 3 * BLOCK + 9216, 5 * BLOCK, 0);
	vol_put(v);
}

static void
expect_nothing_done(struct vol *v, int mode, uint64_t offset, uint64_t len)
{
	uint64_t before = mapped(v);
	struct event e;

	forget();
	cr_assert_eq(vol_fallocate(v, mode, offset, len), 0);
	cr_assert_eq(t.nr_log, 0);
	cr_assert_eq(mapped(v), before);
	commit();
	cr_assert_eq(nr_events(true, IMAGE_OP_WRITE, &e), 0, "mode %d", mode);
	cr_assert_eq(nr_events(false, IMAGE_OP_WRITE, &e), 0, "mode %d", mode);
}

Test(pool_discard, zeros_over_nothing_cost_nothing, .init = begin_default, .fini = end)
{
	static const int modes[] = {PUNCH, ZERO, ZERO_KEEP};
	struct vol *v = create("v", 1 << 24); /* 1 TiB */

	write_bytes(v, 100 * BLOCK, BLOCK);
	commit();
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		expect_nothing_done(v, modes[i], 0, 100 * BLOCK);
		expect_nothing_done(v, modes[i], 4097, 99 * BLOCK + 3);
		expect_nothing_done(v, modes[i], 200 * BLOCK + 1, 10);
		expect_nothing_done(v, modes[i], 101 * BLOCK, ((1ULL << 24) - 101) * BLOCK);
	}
	expect_nothing_done(v, ZERO_KEEP, (1ULL << 24) * BLOCK, 100 * BLOCK);
	vol_put(v);
}

static void
try_zeroing(int mode)
{
	struct vol *v = create("v", 40);
	struct event e;

	write_bytes(v, 0, 30 * BLOCK);
	commit();
	forget();
	/* From the middle of block 2 to 100 bytes into block 20. */
	cr_assert_eq(vol_fallocate(v, mode, 2 * BLOCK + BLOCK / 2, 17 * BLOCK + BLOCK / 2 + 100), 0);
	cr_assert_eq(mapped(v), 30 - 17);
	cr_assert_eq(nr_events(true, IMAGE_OP_WRITE, &e), 2);
	cr_assert_eq(t.log[0].len, BLOCK / 2);
	cr_assert_eq(e.len, 100);
	expect_bytes(v, 0, 2 * BLOCK + BLOCK / 2, 'x');
	expect_bytes(v, 2 * BLOCK + BLOCK / 2, 20 * BLOCK + 100, 0);
	expect_bytes(v, 20 * BLOCK + 100, 30 * BLOCK, 'x');
	commit();
	vol_put(v);
	cr_assert_eq(pool_unlink(t.p, pool_top(t.p), "v"), 0);
}

Test(pool_discard, zeros_unmap_whole_blocks, .init = begin_default, .fini = end)
{
	try_zeroing(ZERO);
	try_zeroing(ZERO_KEEP);
	try_zeroing(PUNCH);
}

Test(pool_discard, zeros_past_the_end_move_it_and_map_nothing, .init = begin_default, .fini = end)
{
	struct vol *v = create("v", 10);
	struct vol_attr a;

	cr_assert_eq(vol_fallocate(v, ZERO_KEEP, 5 * BLOCK, 100 * BLOCK), 0);
	cr_assert_eq(vol_getattr(v, &a), 0);
	cr_assert_eq(a.size, 10 * BLOCK);
	cr_assert_eq(vol_fallocate(v, ZERO, 5 * BLOCK, 100 * BLOCK + 7), 0);
	cr_assert_eq(vol_getattr(v, &a), 0);
	cr_assert_eq(a.size, 105 * BLOCK + 7);
	cr_assert_eq(a.mapped_bytes, 0);
	vol_put(v);
}

/* --- allocating --- */

Test(pool_discard, an_allocation_that_fails_keeps_what_it_has_got, .init = begin_default, .fini = end)
{
	struct vol *v = create("v", 2 * NR_BLOCKS);
	uint64_t got;

	cr_assert_eq(vol_fallocate(v, 0, 0, 2 * NR_BLOCKS * BLOCK), -ENOSPC);
	got = mapped(v);
	cr_assert(got > NR_BLOCKS - 20 && got < NR_BLOCKS);
	cr_assert_eq(vol_seek(v, 0, SEEK_HOLE), (off_t)(got * BLOCK), "from the start on");
	expect_bytes(v, 0, 20 * BLOCK, 0);
	write_bytes(v, 0, got * BLOCK);
	cr_assert_eq(vol_fallocate(v, PUNCH, 0, 2 * NR_BLOCKS * BLOCK), 0);
	cr_assert_eq(mapped(v), 0);
	vol_put(v);
}
