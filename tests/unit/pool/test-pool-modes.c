/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The modes of a pool (format sheet, S 12): what is answered in each, how it comes into it and out of it. Where the
 * answers are not the kernel's, doc/durability.md says why.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

#include "io/image_fault.h"
#include "pdata/thin_meta.h"
#include "pool/pool.h"
#include "pool/report.h"
#include "unit/kept_image.h"
#include "util/msg.h"

#define BLOCK 65536ULL
#define META_BLOCK 4096ULL
#define DATA_BLOCKS 400U
#define META_BLOCKS 90U
#define MAPPED 8U /* blocks of "own", and of "shared" */

struct fixture {
	struct kept_image data, meta; /* over images that fail when told to */
	struct pool *p;
};

static const struct pool_caller caller = {.mode = 0700};

static void
ignore(const char *text)
{
	(void)text;
}

static void
open_pool(struct fixture *f)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;

	options.commit_interval_ms = 0; /* no threads */
	options.skip_block_zeroing = true;
	cr_assert_eq(pool_open_images(&f->data.image, &f->meta.image, &options, &f->p), 0);
}

static void
make_image(struct kept_image *k, const char *name, uint64_t size)
{
	struct image *memory, *fault;

	cr_assert_eq(image_open_memory(name, size, &memory), 0);
	cr_assert_eq(image_fault_wrap(memory, &fault), 0);
	kept_image_init(k, fault);
}

static struct vol *
find(struct fixture *f, const char *name)
{
	struct vol *v;

	cr_assert_eq(pool_lookup(f->p, pool_top(f->p), name, &v), 0, "no '%s'", name);
	return v;
}

static int
write_block(struct fixture *f, const char *name, uint64_t block)
{
	struct vol *v = find(f, name);
	ssize_t n = vol_write(v, "new", 3, block * BLOCK);

	vol_put(v);
	return n < 0 ? (int)n : 0;
}

static int
read_block(struct fixture *f, const char *name, uint64_t block)
{
	struct vol *v = find(f, name);
	char bytes[3];
	ssize_t n = vol_read(v, bytes, sizeof(bytes), block * BLOCK);

	vol_put(v);
	return n < 0 ? (int)n : 0;
}

static int
create(struct fixture *f, const char *name)
{
	struct vol *v;
	int r = pool_create(f->p, pool_top(f->p), name, &caller, &v);

	if (!r)
		vol_put(v);
	return r;
}

static void
make_volume(struct fixture *f, const char *name, unsigned nr)
{
	struct vol *v;

	cr_assert_eq(create(f, name), 0);
	v = find(f, name);
	cr_assert_eq(vol_truncate(v, 100000 * BLOCK), 0);
	vol_put(v);
	for (unsigned i = 0; i < nr; i++)
		cr_assert_eq(write_block(f, name, i), 0);
}

/* A pool with a volume of its own blocks, one that shares all with a snapshot, and some that are there to go. */
static void
open_fixture(struct fixture *f)
{
	msg_set_sink(ignore);
	make_image(&f->data, "data", DATA_BLOCKS * BLOCK);
	make_image(&f->meta, "meta", META_BLOCKS * META_BLOCK);
	cr_assert_eq(meta_format(&f->meta.image, 128, DATA_BLOCKS), 0);
	open_pool(f);
	make_volume(f, "shared", MAPPED);
	cr_assert_eq(pool_snapshot(f->p, "snap", &caller), 0);
	make_volume(f, "own", MAPPED);
	make_volume(f, "ballast", 20);
	make_volume(f, "filler", 0);
	cr_assert_eq(pool_sync_wait(f->p, NULL), 0);
	cr_assert_eq(pool_get_mode(f->p), POOL_WRITE);
}

static void
close_fixture(struct fixture *f)
{
	image_fault_clear(f->data.inner);
	image_fault_clear(f->meta.inner);
	pool_close(f->p);
	kept_image_free(&f->data);
	kept_image_free(&f->meta);
}

/* --- into each mode --- */

static void
enter_write(struct fixture *f)
{
	(void)f;
}

static void
enter_out_of_data(struct fixture *f)
{
	uint64_t block = 0;

	while (!write_block(f, "filler", block))
		block++;
	cr_assert_gt(block, 300);
}

/* A block in each of many leaves, and the leaves copied for snapshots. */
static void
enter_out_of_metadata(struct fixture *f)
{
	char name[24];

	for (unsigned i = 0; pool_get_mode(f->p) != POOL_OUT_OF_METADATA_SPACE; i++) {
		cr_assert_lt(i, 10000);
		write_block(f, "filler", i * 7919ULL % 100000);
		snprintf(name, sizeof(name), "filler@%u", i);
		if (i % 16 == 0)
			pool_snapshot(f->p, name, &caller);
	}
}

static void
enter_read_only(struct fixture *f)
{
	cr_assert_eq(write_block(f, "filler", 0), 0);
	image_fault_set(f->meta.inner, IMAGE_OP_FLUSH, 1, EIO, false);
	cr_assert_eq(pool_sync_wait(f->p, NULL), -EIO);
	image_fault_clear(f->meta.inner);
}

static void
enter_fail(struct fixture *f)
{
	cr_assert_eq(write_block(f, "filler", 0), 0);
	image_fault_set(f->meta.inner, IMAGE_OP_FLUSH, 1, EIO, true);
	image_fault_set(f->meta.inner, IMAGE_OP_READ, 1, EIO, true);
	cr_assert_eq(pool_sync_wait(f->p, NULL), -EIO);
	image_fault_clear(f->meta.inner);
}

static const struct {
	enum pool_mode mode;
	void (*enter)(struct fixture *f);
	const char *word, *kernel_word;
} modes[] = {
	{POOL_WRITE, enter_write, "rw", "rw"},
	{POOL_OUT_OF_DATA_SPACE, enter_out_of_data, "out_of_data_space", "out_of_data_space"},
	{POOL_OUT_OF_METADATA_SPACE, enter_out_of_metadata, "out_of_metadata_space", "ro"},
	{POOL_READ_ONLY, enter_read_only, "ro", "ro"},
	{POOL_FAIL, enter_fail, "fail", "Fail"},
};

#define NR_MODES (sizeof(modes) / sizeof(modes[0]))

/* --- what is answered --- */

static int
read_mapped(struct fixture *f)
{
	return read_block(f, "own", 1);
}

static int
read_hole(struct fixture *f)
{
	return read_block(f, "own", 5000);
}

static int
overwrite(struct fixture *f)
{
	return write_block(f, "own", 1);
}

static int
write_hole(struct fixture *f)
{
	return write_block(f, "own", 90000);
}

static int
write_shared(struct fixture *f)
{
	return write_block(f, "shared", 1);
}

static int
discard(struct fixture *f)
{
	struct vol *v = find(f, "own");
	int r = vol_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * BLOCK, BLOCK);

	vol_put(v);
	return r;
}

static int
shrink(struct fixture *f)
{
	struct vol *v = find(f, "own");
	int r = vol_truncate(v, 4 * BLOCK);

	vol_put(v);
	return r;
}

static int
create_new(struct fixture *f)
{
	return create(f, "new");
}

static int
snapshot(struct fixture *f)
{
	return pool_snapshot(f->p, "another", &caller);
}

static int
change_mode(struct fixture *f)
{
	struct vol *v = find(f, "own");
	struct vol_attr attr = {.mode = 0640};
	int r = vol_setattr(v, VOL_SET_MODE, &attr);

	vol_put(v);
	return r;
}

static int
remove_volume(struct fixture *f)
{
	return pool_unlink(f->p, pool_top(f->p), "ballast");
}

static int
remove_snapshot(struct fixture *f)
{
	return pool_remove_snapshot(f->p, "snap");
}

static int
sync_all(struct fixture *f)
{
	return pool_sync_wait(f->p, NULL);
}

/* Each answer in a pool of its own: write, out of data space, out of metadata space, read-only, fail. */
static const struct {
	const char *name;
	int (*fn)(struct fixture *f);
	int answer[NR_MODES];
} operations[] = {
	{"read mapped", read_mapped, {0, 0, 0, 0, -EIO}},
	{"read a hole", read_hole, {0, 0, 0, 0, -EIO}},
	{"overwrite", overwrite, {0, 0, 0, 0, -EIO}},
	{"write to a hole", write_hole, {0, -ENOSPC, -ENOSPC, -EIO, -EIO}},
	{"write to a shared block", write_shared, {0, -ENOSPC, -ENOSPC, -EIO, -EIO}},
	{"discard", discard, {0, 0, 0, -EIO, -EIO}},
	{"shrink", shrink, {0, 0, 0, -EIO, -EIO}},
	{"create", create_new, {0, 0, -ENOSPC, -EIO, -EIO}},
	{"snapshot", snapshot, {0, 0, -ENOSPC, -EIO, -EIO}},
	{"change an attribute", change_mode, {0, 0, -ENOSPC, -EIO, -EIO}},
	{"remove a volume", remove_volume, {0, 0, 0, -EIO, -EIO}},
	{"remove a snapshot", remove_snapshot, {0, 0, 0, -EIO, -EIO}},
	{"sync", sync_all, {0, 0, 0, -EIO, -EIO}},
};

Test(pool_modes, each_operation_is_answered_as_its_mode_says)
{
	for (size_t m = 0; m < NR_MODES; m++) {
		for (size_t o = 0; o < sizeof(operations) / sizeof(operations[0]); o++) {
			struct fixture f;
			int r;

			open_fixture(&f);
			modes[m].enter(&f);
			cr_assert_eq(pool_get_mode(f.p), modes[m].mode, "%s instead of %s",
				     pool_mode_name(pool_get_mode(f.p)), modes[m].word);
			r = operations[o].fn(&f);
			cr_assert_eq(r, operations[o].answer[m], "%s in mode %s: %d", operations[o].name,
				     modes[m].word, r);
			/* And what was done can be committed. */
			if (modes[m].mode < POOL_READ_ONLY)
				cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
			close_fixture(&f);
		}
	}
}

Test(pool_modes, the_status_has_the_word_of_the_mode)
{
	for (size_t m = 0; m < NR_MODES; m++) {
		struct fixture f;
		json_t *status;
		const char *line;

		open_fixture(&f);
		modes[m].enter(&f);
		status = report_status(f.p);
		cr_assert_str_eq(json_string_value(json_object_get(status, "mode")), modes[m].word);
		line = json_string_value(json_object_get(status, "status_line"));
		cr_assert_not_null(strstr(line, modes[m].kernel_word), "%s: %s", modes[m].word, line);
		json_decref(status);
		close_fixture(&f);
	}
}

/* --- out of each mode --- */

Test(pool_modes, out_of_data_space_ends_when_something_is_removed)
{
	struct fixture f;

	open_fixture(&f);
	enter_out_of_data(&f);
	cr_assert_eq(write_hole(&f), -ENOSPC);
	cr_assert_eq(remove_volume(&f), 0);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	cr_assert_eq(pool_get_mode(f.p), POOL_WRITE);
	cr_assert_eq(write_hole(&f), 0);
	close_fixture(&f);
}

Test(pool_modes, a_commit_is_made_before_data_space_is_said_to_be_out)
{
	struct fixture f;

	open_fixture(&f);
	enter_out_of_data(&f);
	cr_assert_eq(remove_volume(&f), 0);
	/* What was freed is free after a commit only; the writer makes it. */
	cr_assert_eq(write_hole(&f), 0);
	cr_assert_eq(pool_get_mode(f.p), POOL_WRITE);
	close_fixture(&f);
}

Test(pool_modes, out_of_data_space_ends_when_the_image_grows)
{
	struct pool_status st;
	struct fixture f;

	open_fixture(&f);
	enter_out_of_data(&f);
	cr_assert_eq(image_resize(&f.data.image, 2 * DATA_BLOCKS * BLOCK), 0);
	cr_assert_eq(pool_adopt_growth(f.p), 0);
	cr_assert_eq(pool_get_mode(f.p), POOL_WRITE);
	cr_assert_eq(write_hole(&f), 0);
	/* A writer finds it out by itself, too. */
	for (unsigned i = 0; i < DATA_BLOCKS; i++)
		write_block(&f, "filler", 1000 + i);
	cr_assert_eq(pool_get_mode(f.p), POOL_OUT_OF_DATA_SPACE);
	cr_assert_eq(image_resize(&f.data.image, 3 * DATA_BLOCKS * BLOCK), 0);
	cr_assert_eq(write_block(&f, "own", 80000), 0);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	cr_assert_eq(pool_close(f.p), 0);
	open_pool(&f);
	pool_get_status(f.p, &st);
	cr_assert_eq(st.data_blocks, 3 * DATA_BLOCKS);
	cr_assert_eq(st.mode, POOL_WRITE);
	close_fixture(&f);
}

Test(pool_modes, out_of_metadata_space_ends_when_the_image_grows)
{
	struct fixture f;

	open_fixture(&f);
	enter_out_of_metadata(&f);
	cr_assert_eq(write_hole(&f), -ENOSPC);
	cr_assert_eq(image_resize(&f.meta.image, 300 * META_BLOCK), 0);
	cr_assert_eq(write_hole(&f), 0);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	cr_assert_eq(pool_get_mode(f.p), POOL_WRITE);
	close_fixture(&f);
}

Test(pool_modes, out_of_metadata_space_ends_when_something_is_removed)
{
	struct fixture f;
	char name[24];

	open_fixture(&f);
	enter_out_of_metadata(&f);
	for (unsigned i = 0; i < 10000; i += 16) {
		snprintf(name, sizeof(name), "filler@%u", i);
		pool_remove_snapshot(f.p, name);
	}
	cr_assert_eq(pool_unlink(f.p, pool_top(f.p), "filler"), 0);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	cr_assert_eq(pool_get_mode(f.p), POOL_WRITE);
	cr_assert_eq(write_hole(&f), 0);
	close_fixture(&f);
}

Test(pool_modes, waiting_ends_with_the_timeout_and_begins_again_in_write_mode)
{
	struct fixture f;

	open_fixture(&f);
	pool_stop_waiting(f.p); /* in write mode, nobody waits for the pool */
	cr_assert(pool_waits_for_space(f.p));
	enter_out_of_data(&f);
	cr_assert(pool_waits_for_space(f.p));
	pool_stop_waiting(f.p);
	cr_assert_not(pool_waits_for_space(f.p));
	cr_assert_eq(remove_volume(&f), 0);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	cr_assert_eq(pool_get_mode(f.p), POOL_WRITE);
	cr_assert(pool_waits_for_space(f.p));
	close_fixture(&f);
}

/* --- needs_check, and fail --- */

static bool
needs_check(struct fixture *f)
{
	struct pool_status st;

	pool_get_status(f->p, &st);
	return st.needs_check;
}

Test(pool_modes, needs_check_bars_write_mode_and_growing_until_it_is_cleared)
{
	struct thin_meta *m;
	struct pool_status st;
	struct fixture f;

	open_fixture(&f);
	enter_read_only(&f);
	cr_assert(needs_check(&f));
	pool_close(f.p);
	cr_assert_eq(image_resize(&f.data.image, 2 * DATA_BLOCKS * BLOCK), 0);
	open_pool(&f);
	pool_get_status(f.p, &st);
	cr_assert_eq(st.mode, POOL_READ_ONLY);
	cr_assert(st.needs_check);
	cr_assert_eq(st.data_blocks, DATA_BLOCKS);
	cr_assert_eq(read_mapped(&f), 0);
	cr_assert_eq(write_hole(&f), -EROFS);
	cr_assert_neq(pool_adopt_growth(f.p), 0);
	pool_close(f.p);

	cr_assert_eq(meta_open(&f.meta.image, 1 << 20, false, &m), 0);
	cr_assert_eq(meta_set_needs_check(m, false), 0);
	cr_assert_eq(meta_commit(m, NULL), 0);
	meta_close(m);
	open_pool(&f);
	pool_get_status(f.p, &st);
	cr_assert_eq(st.mode, POOL_WRITE);
	cr_assert_eq(st.data_blocks, 2 * DATA_BLOCKS);
	cr_assert_eq(write_hole(&f), 0);
	close_fixture(&f);
}

Test(pool_modes, the_pool_fails_only_when_the_last_commit_cannot_be_read_back)
{
	static const enum image_op ops[] = {IMAGE_OP_WRITE, IMAGE_OP_FLUSH};

	/* Each failure of a commit, from then on, so that needs_check cannot be written either. */
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned nth = 1; nth <= 2; nth++) {
			struct fixture f;

			open_fixture(&f);
			cr_assert_eq(write_block(&f, "filler", 0), 0);
			image_fault_set(f.meta.inner, ops[k], nth, EIO, true);
			cr_assert_eq(pool_sync_wait(f.p, NULL), -EIO);
			cr_assert_eq(pool_get_mode(f.p), POOL_READ_ONLY);
			cr_assert_eq(read_mapped(&f), 0);
			cr_assert_eq(overwrite(&f), 0);
			close_fixture(&f);
		}
	}
}

Test(pool_modes, read_only_and_fail_are_never_left)
{
	for (size_t m = 3; m < NR_MODES; m++) {
		struct fixture f;

		open_fixture(&f);
		modes[m].enter(&f);
		cr_assert_eq(image_resize(&f.data.image, 2 * DATA_BLOCKS * BLOCK), 0);
		cr_assert_neq(pool_adopt_growth(f.p), 0);
		cr_assert_eq(remove_volume(&f), -EIO);
		pool_sync_wait(f.p, NULL);
		cr_assert_eq(pool_get_mode(f.p), modes[m].mode);
		close_fixture(&f);
	}
}

/* What shared it in that commit would have the new bytes after a crash. */
Test(pool_modes, a_commit_in_doubt_leaves_alone_what_the_one_before_shares)
{
	struct vol *own, *copy;
	struct fixture f;

	open_fixture(&f);
	own = find(&f, "own");
	make_volume(&f, "copy", 0);
	copy = find(&f, "copy");
	cr_assert_eq(vol_copy_range(own, 0, copy, 0, BLOCK), (ssize_t)BLOCK);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	cr_assert_eq(write_block(&f, "copy", 0), 0);
	/* The superblock is written, but not flushed. */
	image_fault_set(f.meta.inner, IMAGE_OP_FLUSH, 2, EIO, true);
	cr_assert_eq(pool_sync_wait(f.p, NULL), -EIO);
	cr_assert_eq(pool_get_mode(f.p), POOL_READ_ONLY);
	cr_assert_eq(write_block(&f, "own", 0), -EIO);
	cr_assert_eq(write_block(&f, "own", 1), 0);
	vol_put(own);
	vol_put(copy);
	close_fixture(&f);
}
