/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a search remembers of nodes must not outlive them. The rest is proved through the pool:
 * tests/unit/pool/test-pool-resize.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

#include "pdata/evacuate.h"
#include "pdata/format.h"
#include "unit/audit.h"

#define META_BLOCKS 64U /* so few that numbers are used again soon */
#define DATA_BLOCKS 200U
#define FIRST 100U /* data block that must go */
#define HIGH 120U /* one of those, of device 1 */

static void
commit(struct thin_meta *m)
{
	cr_assert_eq(meta_commit(m, NULL), 0);
}

static void
map(struct thin_meta *m, struct thin_dev *d, uint64_t goal)
{
	uint64_t dblock, got;

	cr_assert_eq(meta_reserve_data(m, goal, 1, &dblock, &got), 0);
	cr_assert_eq(dblock, goal);
	cr_assert_eq(dev_insert(d, 0, dblock, 1), 0);
}

/* Whether device ID has a mapping that must go. */
static bool
is_found(struct evacuation *e, uint32_t id)
{
	struct evacuation_place at = {0};
	struct evacuee found[8];
	bool seen = false;
	unsigned nr;
	uint32_t dev;

	while (!at.end) {
		cr_assert_eq(evacuation_find(e, &at, &dev, found, 8, &nr), 0);
		seen |= nr && dev == id;
	}
	return seen;
}

Test(evacuate, a_number_that_is_used_again_is_another_node)
{
	struct evacuation *e;
	struct thin_dev *one, *two;
	struct u64map moves = {0};
	struct thin_meta *m;
	struct image *img;
	uint64_t next, used, pending, to, got;

	cr_assert_eq(image_open_memory("meta", META_BLOCKS * METADATA_BLOCK_SIZE, &img), 0);
	cr_assert_eq(meta_format(img, 128, DATA_BLOCKS), 0);
	cr_assert_eq(meta_open(img, 1 << 20, false, &m), 0);
	cr_assert_eq(meta_create_thin(m, 1), 0);
	cr_assert_eq(meta_create_thin(m, 2), 0);
	cr_assert_eq(dev_open(m, 1, &one), 0);
	cr_assert_eq(dev_open(m, 2, &two), 0);
	map(m, one, HIGH);
	map(m, two, 0);
	commit(m);
	cr_assert_eq(evacuation_begin(m, FIRST, 1, &e), 0);
	for (unsigned i = 0; i < 5 * META_BLOCKS; i++) {
		cr_assert(is_found(e, 1));
		cr_assert(!is_found(e, 2));
		/* So that nodes of a kind do not get the same numbers again and again. */
		for (unsigned j = 0; j < i % 3; j++) {
			cr_assert_eq(dev_share(one, 0, two, 8 + j, 1), 0);
			cr_assert_eq(dev_unmap(two, 8 + j, 9 + j, 1, META_TO_UNMAP, &next), 0);
			commit(m);
		}
		cr_assert_eq(dev_share(one, 0, two, 7, 1), 0);
		commit(m);
		cr_assert(is_found(e, 2), "missed the %u. time", i);
		cr_assert_eq(dev_unmap(two, 7, 8, 1, META_TO_UNMAP, &next), 0);
		commit(m);
	}
	cr_assert_eq(evacuation_shrink(e), -EAGAIN);
	cr_assert_eq(meta_reserve_data(m, 50, 1, &to, &got), 0);
	cr_assert_eq(u64map_set(&moves, HIGH, to), 0);
	cr_assert_eq(evacuation_move(e, &moves), 0);
	u64map_clear(&moves);
	cr_assert_eq(evacuation_shrink(e), -EAGAIN); /* a crash would bring it back */
	commit(m);
	cr_assert_eq(evacuation_left(e, &used, &pending), 0);
	cr_assert_eq(used + pending, 0);
	cr_assert_eq(evacuation_shrink(e), 0);
	evacuation_end(e);
	commit(m);
	dev_close(one);
	dev_close(two);
	meta_close(m);
	cr_assert(audit_image(img, AUDIT_ALL));
	image_close(img);
}

static void
prepare(struct evacuation *e, const struct u64map *moves)
{
	struct evacuation_place at = {0};

	while (!at.end)
		cr_assert_eq(evacuation_prepare(e, moves, &at), 0);
}

/* What has come to a block that moves after that was prepared, in nodes with numbers of others. */
static void
move_after_changes(unsigned nr_changes)
{
	struct evacuation *e;
	struct thin_dev *one, *two;
	struct u64map moves = {0};
	struct thin_meta *m;
	struct image *img;
	uint64_t next, used, pending, to, got;

	cr_assert_eq(image_open_memory("meta", META_BLOCKS * METADATA_BLOCK_SIZE, &img), 0);
	cr_assert_eq(meta_format(img, 128, DATA_BLOCKS), 0);
	cr_assert_eq(meta_open(img, 1 << 20, false, &m), 0);
	cr_assert_eq(meta_create_thin(m, 1), 0);
	cr_assert_eq(meta_create_thin(m, 2), 0);
	cr_assert_eq(dev_open(m, 1, &one), 0);
	cr_assert_eq(dev_open(m, 2, &two), 0);
	map(m, one, HIGH);
	map(m, two, 0);
	commit(m);
	cr_assert_eq(evacuation_begin(m, FIRST, 1, &e), 0);
	cr_assert_eq(meta_reserve_data(m, 50, 1, &to, &got), 0);
	cr_assert_eq(u64map_set(&moves, HIGH, to), 0);
	prepare(e, &moves);
	for (unsigned i = 0; i < nr_changes; i++) {
		cr_assert_eq(dev_share(one, 0, two, 7, 1), 0);
		commit(m);
		if (i + 1 == nr_changes)
			break;
		cr_assert_eq(dev_unmap(two, 7, 8, 1, META_TO_UNMAP, &next), 0);
		commit(m);
	}
	cr_assert_eq(evacuation_move(e, &moves), 0);
	u64map_clear(&moves);
	commit(m);
	cr_assert_eq(evacuation_left(e, &used, &pending), 0);
	cr_assert_eq(used, 0, "missed after %u changes", nr_changes);
	cr_assert(!is_found(e, 1) && !is_found(e, 2));
	cr_assert_eq(evacuation_shrink(e), 0);
	evacuation_end(e);
	commit(m);
	dev_close(one);
	dev_close(two);
	meta_close(m);
	cr_assert(audit_image(img, AUDIT_ALL));
	image_close(img);
}

Test(evacuate, what_changes_after_a_move_was_prepared_is_moved_too)
{
	for (unsigned nr = 0; nr < 24; nr++)
		move_after_changes(nr);
}
