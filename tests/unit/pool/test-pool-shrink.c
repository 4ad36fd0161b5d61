/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shrinking a pool with much that is shared, and what the commits in between would leave after a crash.
 *
 * meta_durable() and pool_end_change() are wrapped, to look at each commit, and to have one after each change; and
 * pool_copy_data(), to do something between copying blocks and changing their mappings.
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
#include "unit/pool/shrink.h"
#include "util/msg.h"

#define BLOCK 65536ULL

static const struct pool_caller caller = {.mode = 0700};

static struct {
	bool always; /* a commit after each change */
	bool committing;
	unsigned nr; /* of commits */
	void (*look)(void); /* at what a crash now would leave */
	void (*copied)(void); /* called once, when blocks have been copied */
	int copy_error; /* of copying from now on */
} watch;

int __real_meta_durable(struct thin_meta *m, struct runs *freed);
int __wrap_meta_durable(struct thin_meta *m, struct runs *freed);
void __real_pool_end_change(struct pool *p);
void __wrap_pool_end_change(struct pool *p);

int
__wrap_meta_durable(struct thin_meta *m, struct runs *freed)
{
	watch.nr++;
	return __real_meta_durable(m, freed);
}

void
__wrap_pool_end_change(struct pool *p)
{
	__real_pool_end_change(p);
	if (!watch.always || watch.committing)
		return;
	watch.committing = true;
	cr_assert_eq(pool_sync_wait(p, NULL), 0);
	watch.committing = false;
	if (watch.look)
		watch.look();
}

int __real_pool_copy_data(struct pool *p, uint64_t from, uint64_t to, uint64_t len);
int __wrap_pool_copy_data(struct pool *p, uint64_t from, uint64_t to, uint64_t len);

int
__wrap_pool_copy_data(struct pool *p, uint64_t from, uint64_t to, uint64_t len)
{
	int r = watch.copy_error ? watch.copy_error : __real_pool_copy_data(p, from, to, len);
	void (*copied)(void) = watch.copied;

	watch.copied = NULL;
	if (copied)
		copied();
	return r;
}

/* --- the pool --- */

#define NR_BLOCKS 300U /* of a volume: several leaves */
#define NR_SNAPSHOTS 5U
#define POOL_BLOCKS 2000U
#define FILLER_BLOCKS 900U
#define SMALL 850U /* blocks that are enough for all of it */

struct fixture {
	struct kept_image data, meta;
	struct pool *p;
};

static struct fixture *looked_at;

static struct pool *
open_over(struct kept_image *data, struct kept_image *meta, bool read_only)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct pool *p;

	options.commit_interval_ms = 0;
	options.skip_block_zeroing = true; /* no place must look like a hole that is to be copied as such */
	options.read_only = read_only;
	cr_assert_eq(pool_open_images(&data->image, &meta->image, &options, &p), 0);
	return p;
}

static struct vol *
find(struct pool *p, const char *snapshot, const char *name)
{
	struct voldir *dir = pool_top(p);
	struct vol *v;

	if (snapshot)
		cr_assert_eq(pool_lookup_snapshot(p, snapshot, &dir), 0);
	cr_assert_eq(pool_lookup(p, dir, name, &v), 0);
	if (snapshot)
		voldir_put(dir);
	return v;
}

static void
put_text(struct pool *p, const char *name, uint64_t block, unsigned version)
{
	struct vol *v = find(p, NULL, name);
	char text[32];

	snprintf(text, sizeof(text), "block %u version %u", (unsigned)block, version);
	cr_assert_eq(vol_write(v, text, sizeof(text), block * BLOCK), (ssize_t)sizeof(text));
	vol_put(v);
}

static void
check_text(struct pool *p, const char *snapshot, const char *name, uint64_t block, unsigned version)
{
	struct vol *v = find(p, snapshot, name);
	char text[32], is[32];

	snprintf(text, sizeof(text), "block %u version %u", (unsigned)block, version);
	cr_assert_eq(vol_read(v, is, sizeof(is), block * BLOCK), (ssize_t)sizeof(is));
	cr_assert_str_eq(is, text, "%s/%s", snapshot ? snapshot : "", name);
	vol_put(v);
}

/* Version s of block i was written before snapshot s when i % 7 < 3 or s is 0. */
static unsigned
version_at(unsigned snapshot, uint64_t block)
{
	return block % 7 < 3 ? snapshot : 0;
}

static void
check_contents(struct pool *p)
{
	char name[16];

	for (unsigned s = 0; s < NR_SNAPSHOTS; s++) {
		snprintf(name, sizeof(name), "s%u", s);
		for (uint64_t i = 0; i < NR_BLOCKS; i += 5)
			check_text(p, name, "vol", i, version_at(s, i));
	}
	for (uint64_t i = 0; i < NR_BLOCKS; i += 3) {
		check_text(p, NULL, "vol", i, version_at(NR_SNAPSHOTS - 1, i));
		check_text(p, NULL, "copy", i, version_at(NR_SNAPSHOTS - 1, i));
	}
}

static void
make_image(struct kept_image *k, const char *name, uint64_t size)
{
	struct image *memory;

	cr_assert_eq(image_open_memory(name, size, &memory), 0);
	kept_image_init(k, memory);
}

static struct vol *
make_volume(struct pool *p, const char *name)
{
	struct vol *v;

	cr_assert_eq(pool_create(p, pool_top(p), name, &caller, &v), 0);
	cr_assert_eq(vol_truncate(v, NR_BLOCKS * BLOCK), 0);
	return v;
}

/* What is to be moved lies at the end: all before it was filled by a volume that is no more. */
static void
open_fixture(struct fixture *f)
{
	struct vol *v, *copy, *filler;
	char name[16];

	msg_set_sink(ignore);
	make_image(&f->data, "data", POOL_BLOCKS * BLOCK);
	make_image(&f->meta, "meta", 1024 * METADATA_BLOCK_SIZE);
	cr_assert_eq(meta_format(&f->meta.image, BLOCK / SECTOR_SIZE, POOL_BLOCKS), 0);
	f->p = open_over(&f->data, &f->meta, false);
	filler = make_volume(f->p, "filler");
	cr_assert_eq(vol_fallocate(filler, 0, 0, FILLER_BLOCKS * BLOCK), 0);
	v = make_volume(f->p, "vol");
	for (unsigned s = 0; s < NR_SNAPSHOTS; s++) {
		for (uint64_t i = 0; i < NR_BLOCKS; i++)
			if (!s || i % 7 < 3)
				put_text(f->p, "vol", i, s);
		snprintf(name, sizeof(name), "s%u", s);
		cr_assert_eq(pool_snapshot_some(f->p, name, (const char *[]){"vol"}, 1, &caller), 0);
		if (!s) {
			cr_assert_eq(vol_truncate(filler, 0), 0);
			cr_assert_eq(pool_sync_wait(f->p, NULL), 0);
		}
	}
	copy = make_volume(f->p, "copy");
	cr_assert_eq(vol_copy_range(v, 0, copy, 0, NR_BLOCKS * BLOCK), (ssize_t)(NR_BLOCKS * BLOCK));
	vol_put(copy);
	vol_put(filler);
	vol_put(v);
	cr_assert_eq(pool_sync_wait(f->p, NULL), 0);
}

static void
close_fixture(struct fixture *f)
{
	cr_assert_eq(pool_close(f->p), 0);
	cr_assert(audit_image(f->meta.inner, AUDIT_ALL));
	kept_image_free(&f->data);
	kept_image_free(&f->meta);
}

Test(pool_shrink, what_is_shared_stays_shared)
{
	struct pool_status before, after;
	uint64_t possible;
	struct fixture f;

	open_fixture(&f);
	pool_get_status(f.p, &before);
	cr_assert_eq(shrink(f.p, 10, &possible), -ENOSPC);
	cr_assert_lt(possible / BLOCK, before.data_used + 10);
	cr_assert_eq(shrink(f.p, possible / BLOCK, &possible), 0);
	pool_get_status(f.p, &after);
	cr_expect_leq(after.data_used, before.data_used);
	cr_expect_leq(after.meta_used, before.meta_used + 2, "%llu metadata blocks, %llu before",
		      (unsigned long long)after.meta_used, (unsigned long long)before.meta_used);
	check_contents(f.p);
	cr_assert_eq(pool_resize(f.p, POOL_BLOCKS * BLOCK, 0), 0);
	check_contents(f.p);
	close_fixture(&f);
}

/* The images as they are, opened as another pool. */
static void
look_with(void (*check)(struct pool *p))
{
	struct kept_image data, meta;
	uint64_t data_size, meta_size;
	char *bytes[2] = {kept_image_copy(&looked_at->data, &data_size),
			  kept_image_copy(&looked_at->meta, &meta_size)};
	struct pool *p;

	make_image(&data, "data", data_size);
	make_image(&meta, "meta", meta_size);
	kept_image_restore(&data, bytes[0], data_size);
	kept_image_restore(&meta, bytes[1], meta_size);
	cr_assert(audit_check(meta.inner, AUDIT_EXACT));
	p = open_over(&data, &meta, true);
	check(p);
	cr_assert_eq(pool_close(p), 0);
	kept_image_free(&data);
	kept_image_free(&meta);
	free(bytes[0]);
	free(bytes[1]);
}

static void
look(void)
{
	look_with(check_contents);
}

Test(pool_shrink, each_commit_on_the_way_is_a_pool_with_the_same_contents)
{
	struct fixture f;
	uint64_t possible;

	open_fixture(&f);
	looked_at = &f;
	watch.nr = 0;
	watch.look = look;
	watch.always = true;
	cr_assert_eq(shrink(f.p, SMALL, &possible), 0, "%llu", (unsigned long long)possible / BLOCK);
	watch.always = false;
	watch.look = NULL;
	cr_assert_gt(watch.nr, 4);
	check_contents(f.p);
	close_fixture(&f);
}

/* In the middle, a snapshot of all is taken, and what had to go is copied once more. */
static void
snapshot_midway(void)
{
	struct vol *again;

	if (watch.nr < 3)
		return;
	watch.look = NULL;
	watch.always = false;
	cr_assert_eq(pool_snapshot(looked_at->p, "midway", &caller), 0);
	again = make_volume(looked_at->p, "again");
	cr_assert_eq(vol_copy_range(find(looked_at->p, NULL, "vol"), 0, again, 0, NR_BLOCKS * BLOCK),
		     (ssize_t)(NR_BLOCKS * BLOCK));
	vol_put(again);
}

Test(pool_shrink, snapshots_and_copies_may_be_made_meanwhile)
{
	struct fixture f;
	uint64_t possible;
	struct vol *v;

	open_fixture(&f);
	looked_at = &f;
	watch.nr = 0;
	watch.look = snapshot_midway;
	watch.always = true;
	cr_assert_eq(shrink(f.p, SMALL, &possible), 0);
	cr_assert_null(watch.look);
	check_contents(f.p);
	for (uint64_t i = 0; i < NR_BLOCKS; i++) {
		check_text(f.p, NULL, "again", i, version_at(NR_SNAPSHOTS - 1, i));
		check_text(f.p, "midway", "vol", i, version_at(NR_SNAPSHOTS - 1, i));
	}
	v = find(f.p, NULL, "vol");
	vol_put(v);
	vol_put(v); /* snapshot_midway's */
	close_fixture(&f);
}

/* Snapshots and copies go, so that each block is the volume's alone. */
static void
leave_only_the_volume(struct fixture *f)
{
	struct vol *copy = find(f->p, NULL, "copy");
	char name[16];

	for (unsigned s = 0; s < NR_SNAPSHOTS; s++) {
		snprintf(name, sizeof(name), "s%u", s);
		cr_assert_eq(pool_remove_snapshot(f->p, name), 0);
	}
	cr_assert_eq(vol_truncate(copy, 0), 0);
	vol_put(copy);
	cr_assert_eq(pool_sync_wait(f->p, NULL), 0);
}

static void
write_to_all(void)
{
	for (uint64_t i = 0; i < NR_BLOCKS; i++)
		put_text(looked_at->p, "vol", i, 77);
}

Test(pool_shrink, what_was_shared_once_may_be_written_while_it_is_being_moved)
{
	struct fixture f;
	uint64_t possible;

	open_fixture(&f);
	looked_at = &f;
	leave_only_the_volume(&f);
	watch.copied = write_to_all;
	cr_assert_eq(shrink(f.p, SMALL, &possible), 0);
	cr_assert_null(watch.copied);
	for (uint64_t i = 0; i < NR_BLOCKS; i++)
		check_text(f.p, NULL, "vol", i, 77);
	close_fixture(&f);
}

Test(pool_shrink, nothing_is_mapped_to_where_it_could_not_be_copied)
{
	struct fixture f;
	uint64_t possible;

	open_fixture(&f);
	watch.copy_error = -ENOSPC; /* of the filesystem below */
	cr_assert_eq(shrink(f.p, SMALL, &possible), -ENOSPC);
	watch.copy_error = -EIO;
	cr_assert_eq(shrink(f.p, SMALL, &possible), -EIO);
	watch.copy_error = 0;
	check_contents(f.p);
	cr_assert_eq(shrink(f.p, SMALL, &possible), 0);
	check_contents(f.p);
	close_fixture(&f);
}

static void
check_volume(struct pool *p)
{
	for (uint64_t i = 0; i < NR_BLOCKS; i++)
		check_text(p, NULL, "vol", i, version_at(NR_SNAPSHOTS - 1, i));
}

static void
look_at_volume(void)
{
	look_with(check_volume);
}

/* Right after a commit that has some at new places, these are freed again, which is in no commit. */
static void
free_what_was_moved(void)
{
	struct vol *v;

	watch.look = NULL;
	watch.always = false;
	watch.copied = look_at_volume;
	v = find(looked_at->p, NULL, "vol");
	cr_assert_eq(vol_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 200 * BLOCK), 0);
	vol_put(v);
}

Test(pool_shrink, what_was_moved_and_freed_is_not_handed_out_before_that_is_durable)
{
	struct fixture f;
	uint64_t possible;

	open_fixture(&f);
	leave_only_the_volume(&f);
	looked_at = &f;
	watch.look = free_what_was_moved;
	watch.always = true;
	cr_assert_eq(shrink(f.p, SMALL, &possible), 0);
	cr_assert_null(watch.look);
	cr_assert_null(watch.copied);
	close_fixture(&f);
}

static struct pool_shrink *cancelled;

static void
cancel(void)
{
	cancelled->cancel = true;
}

Test(pool_shrink, one_that_is_cancelled_leaves_the_pool_as_large_as_it_was)
{
	struct pool_shrink progress = {0};
	struct fixture f;
	struct pool_status before, after;
	uint64_t possible;

	open_fixture(&f);
	pool_get_status(f.p, &before);
	cancelled = &progress;
	watch.look = cancel;
	watch.always = true;
	cr_assert_eq(pool_shrink(f.p, SMALL * BLOCK, &progress, &possible), -ECANCELED);
	watch.always = false;
	watch.look = NULL;
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	pool_get_status(f.p, &after);
	cr_expect_eq(after.data_blocks, POOL_BLOCKS);
	cr_expect_leq(after.data_used, before.data_used);
	cr_expect_eq(after.data_available, before.data_available);
	check_contents(f.p);
	/* All that is free can be used. */
	for (uint64_t i = 0; i < after.data_available / 2; i++)
		put_text(f.p, "filler", i, 0);
	check_contents(f.p);
	close_fixture(&f);
}

Test(pool_shrink, a_metadata_snapshot_is_in_the_way)
{
	struct image *data, *meta_image;
	struct thin_meta *m;
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct kept_image meta;
	struct pool *p;
	uint64_t possible;

	msg_set_sink(ignore);
	options.commit_interval_ms = 0;
	make_image(&meta, "meta", 1024 * METADATA_BLOCK_SIZE);
	cr_assert_eq(image_open_memory("data", 100 * BLOCK, &data), 0);
	meta_image = &meta.image;
	cr_assert_eq(meta_format(meta_image, BLOCK / SECTOR_SIZE, 100), 0);
	cr_assert_eq(meta_open(meta_image, 1 << 20, false, &m), 0);
	cr_assert_eq(meta_reserve_snap(m), 0);
	cr_assert_eq(meta_commit(m, NULL), 0);
	meta_close(m);
	cr_assert_eq(pool_open_images(data, meta_image, &options, &p), 0);
	cr_assert_eq(shrink(p, 50, &possible), -EBUSY);
	cr_assert_eq(pool_resize(p, 50 * BLOCK, 0), -EINVAL);
	cr_assert_eq(pool_resize(p, 200 * BLOCK, 0), 0);
	cr_assert_eq(data_blocks(p), 200);
	cr_assert_eq(pool_close(p), 0);
	kept_image_free(&meta);
}
