/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A repair is there as a whole or not at all, wherever power is cut or an image fails. */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/image_fault.h"
#include "unit/pdata/check_fixture.h"
#include "unit/random.h"

struct event {
	bool is_flush;
	uint64_t offset, len;
	uint8_t *data;
};

struct events {
	struct event v[512];
	size_t nr;
};

static void
record(void *arg, const struct image_event *e)
{
	struct events *log = arg;
	struct event *to = &log->v[log->nr++];

	cr_assert_lt(log->nr, 512);
	*to = (struct event){.is_flush = e->op == IMAGE_OP_FLUSH, .offset = e->offset, .len = e->len};
	if (to->is_flush)
		return;
	cr_assert_eq(e->op, IMAGE_OP_WRITE);
	to->data = malloc(e->len);
	memcpy(to->data, e->data, e->len);
}

/* What power off before event CUT may leave: KEEP percent of the sectors that were not flushed. */
static void
build_state(struct events *log, size_t cut, unsigned keep, struct random_source *rs, char *bytes)
{
	size_t sure = 0;

	for (size_t i = 0; i < cut; i++)
		if (log->v[i].is_flush)
			sure = i;
	for (size_t i = 0; i < cut; i++) {
		const struct event *e = &log->v[i];

		for (uint64_t at = 0; !e->is_flush && at < e->len; at += SECTOR_SIZE)
			if (i < sure || random_below(rs, 100) < keep)
				memcpy(bytes + e->offset + at, e->data + at, SECTOR_SIZE);
	}
}

static bool
same_result(const struct check_result *a, const struct check_result *b)
{
	return a->nr_errors == b->nr_errors && a->nr_warnings == b->nr_warnings &&
	       a->leaked_data == b->leaked_data && a->leaked_metadata == b->leaked_metadata &&
	       a->needs_check == b->needs_check && a->partial == b->partial;
}

/* Old, with all that was wrong and nothing else, or new. */
static void
expect_old_or_new(struct image *img, const struct superblock *old_sb, const struct said *old,
		  unsigned *nr_new)
{
	struct superblock sb;
	struct said now;

	check(img, &now);
	cr_assert(all_well(&now.result) || (same_result(&now.result, &old->result) &&
					    !strcmp(now.text, old->text)),
		  "before:\n%sthen:\n%s", old->text, now.text);
	cr_assert_eq(superblock_read(img, true, &sb), 0);
	cr_assert(!old_sb || sb.data_mapping_root == old_sb->data_mapping_root);
	*nr_new += all_well(&now.result);
}

/* STALE: the superblock of the commit before, which the disk may still have when the repair begins. */
static void
cut_everywhere(struct fixture *f, const void *stale, struct random_source *rs)
{
	static const unsigned keeps[] = {0, 100, 10, 30, 50, 50, 70, 90};
	struct superblock sb = superblock_of(f);
	struct events log = {.nr = 0};
	struct image *memory, *watched;
	struct repair_result r;
	struct said old;
	unsigned nr_new = 0, nr_new_before = 0, nr_last = 0, nr_states = 0;
	uint64_t size;
	char *bytes = kept_image_copy(&f->img, &size), *state = malloc(size);

	check(&f->img.image, &old);
	cr_assert_eq(image_open_memory("meta", size, &memory), 0);
	cr_assert_eq(image_write(memory, bytes, size, 0), 0);
	cr_assert_eq(image_fault_wrap(memory, &watched), 0);
	image_fault_observe(watched, record, &log);
	cr_assert_eq(meta_repair(watched, NULL, NULL, &r), 0);
	cr_assert_eq(r.outcome, REPAIR_DONE);
	image_close(watched);
	for (size_t cut = 0; cut <= log.nr; cut++)
		for (size_t k = 0; k < sizeof(keeps) / sizeof(keeps[0]); k++) {
			memcpy(state, bytes, size);
			if (stale)
				memcpy(state, stale, METADATA_BLOCK_SIZE);
			build_state(&log, cut, keeps[k], rs, state);
			kept_image_restore(&f->img, state, size);
			expect_old_or_new(&f->img.image, stale ? NULL : &sb, &old, &nr_new);
			nr_states++;
			/* What was said to be done is durable. */
			if (cut == log.nr)
				nr_last++;
			else
				nr_new_before = nr_new;
		}
	cr_assert_eq(nr_new - nr_new_before, nr_last);
	cr_assert(nr_new < nr_states);
	for (size_t i = 0; i < log.nr; i++)
		free(log.v[i].data);
	free(bytes);
	free(state);
}

Test(check_cuts, power_cut_during_repair_leaves_old_or_new)
{
	struct random_source rs = random_start("power_cut_during_repair_leaves_old_or_new");

	for (size_t i = 0; i < NR_DAMAGES; i++) {
		struct fixture f;

		make_pool(&f);
		damages[i](&f);
		cut_everywhere(&f, NULL, &rs);
		fixture_free(&f);
	}
}

Test(check_cuts, repair_after_a_kill_first_makes_the_last_commit_sure)
{
	struct random_source rs = random_start("repair_after_a_kill_first_makes_the_last_commit_sure");
	uint64_t stale[METADATA_BLOCK_SIZE / 8];
	struct fixture f;

	make_pool(&f);
	fixture_reopen(&f);
	for (unsigned i = 0; i < 10; i++) {
		cr_assert_eq(fixture_map(&f, 2, 1000 + 100 * i, 20), 20);
		cr_assert_eq(meta_commit(f.m, NULL), 0);
	}
	get_block(&f, 0, stale);
	cr_assert_eq(fixture_map(&f, 2, 5000, 20), 20);
	cr_assert_eq(meta_commit(f.m, NULL), 0);
	meta_close(f.m);
	f.m = NULL;
	damage_counts(&f);
	cut_everywhere(&f, stale, &rs);
	fixture_free(&f);
}

Test(check_cuts, failed_write_or_flush_during_repair_leaves_old_or_new)
{
	for (size_t i = 0; i < 2 * NR_DAMAGES; i++) {
		enum image_op op = i < NR_DAMAGES ? IMAGE_OP_WRITE : IMAGE_OP_FLUSH;
		struct superblock sb;
		struct fixture f;
		struct said old;
		unsigned nr_new = 0;
		uint64_t size, nth = 0;
		char *bytes;
		int r;

		make_pool(&f);
		damages[i % NR_DAMAGES](&f);
		sb = superblock_of(&f);
		check(&f.img.image, &old);
		bytes = kept_image_copy(&f.img, &size);
		do {
			struct image *memory, *faulty;
			struct repair_result result;

			cr_assert_eq(image_open_memory("meta", size, &memory), 0);
			cr_assert_eq(image_write(memory, bytes, size, 0), 0);
			cr_assert_eq(image_fault_wrap(memory, &faulty), 0);
			image_fault_set(faulty, op, ++nth, EIO, true);
			r = meta_repair(faulty, NULL, NULL, &result);
			cr_assert(r == 0 || r == -EIO);
			cr_assert(!r || result.outcome != REPAIR_DONE);
			image_fault_clear(faulty);
			expect_old_or_new(faulty, &sb, &old, &nr_new);
			image_close(faulty);
		} while (r);
		cr_assert(nth > 2 && nr_new > 0);
		free(bytes);
		fixture_free(&f);
	}
}
