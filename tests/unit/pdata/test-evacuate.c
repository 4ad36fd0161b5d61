/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a search remembers of nodes must not outlive them. The rest is proved through the pool:
 * tests/unit/pool/test-pool-resize.c, test-pool-shrink.c.
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
#define LOW 50U /* where it can go */

/* Two devices of one block each, and that of the first must go. */
struct pool {
	struct image *img;
	struct thin_meta *m;
	struct thin_dev *one, *two;
	struct evacuation *e;
};

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

static struct pool
open_pool(void)
{
	struct pool p;

	cr_assert_eq(image_open_memory("meta", META_BLOCKS * METADATA_BLOCK_SIZE, &p.img), 0);
	cr_assert_eq(meta_format(p.img, 128, DATA_BLOCKS), 0);
	cr_assert_eq(meta_open(p.img, 1 << 20, false, &p.m), 0);
	cr_assert_eq(meta_create_thin(p.m, 1), 0);
	cr_assert_eq(meta_create_thin(p.m, 2), 0);
	cr_assert_eq(dev_open(p.m, 1, &p.one), 0);
	cr_assert_eq(dev_open(p.m, 2, &p.two), 0);
	map(p.m, p.one, HIGH);
	map(p.m, p.two, 0);
	commit(p.m);
	cr_assert_eq(evacuation_begin(p.m, FIRST, 1, &p.e), 0);
	return p;
}

/* Nothing is left of what must go, durably. */
static void
close_shrunk(struct pool *p)
{
	uint64_t used, pending;

	cr_assert_eq(evacuation_left(p->e, &used, &pending), 0);
	cr_assert_eq(used + pending, 0);
	cr_assert_eq(evacuation_shrink(p->e), 0);
	evacuation_end(p->e);
	commit(p->m);
	dev_close(p->one);
	dev_close(p->two);
	meta_close(p->m);
	cr_assert(audit_image(p->img, AUDIT_ALL));
	image_close(p->img);
}

/* Whether device ID has a mapping that must go. */
static bool
is_found(struct pool *p, uint32_t id)
{
	struct evacuation_place at = {0};
	struct evacuee found[8];
	bool seen = false;
	unsigned nr;
	uint32_t dev;

	while (!at.end) {
		cr_assert_eq(evacuation_find(p->e, &at, &dev, found, 8, &nr), 0);
		seen |= nr && dev == id;
	}
	return seen;
}

/* Device 2 has the block of device 1 that must go, at VBLOCK. */
static void
share(struct pool *p, uint64_t vblock)
{
	cr_assert_eq(dev_share(p->one, 0, p->two, vblock, 1), 0);
}

static void
unshare(struct pool *p, uint64_t vblock)
{
	uint64_t next;

	cr_assert_eq(dev_unmap(p->two, vblock, vblock + 1, 1, META_TO_UNMAP, &next), 0);
}

static struct u64map
make_moves(struct pool *p)
{
	struct u64map moves = {0};
	uint64_t to, got;

	cr_assert_eq(meta_reserve_data(p->m, LOW, 1, &to, &got), 0);
	cr_assert_eq(u64map_set(&moves, HIGH, to), 0);
	return moves;
}

Test(evacuate, a_number_that_is_used_again_is_another_node)
{
	struct pool p = open_pool();
	struct u64map moves;

	for (unsigned i = 0; i < 5 * META_BLOCKS; i++) {
		cr_assert(is_found(&p, 1));
		cr_assert(!is_found(&p, 2));
		/* So that nodes of a kind do not get the same numbers again and again. */
		for (unsigned j = 0; j < i % 3; j++) {
			share(&p, 8 + j);
			unshare(&p, 8 + j);
			commit(p.m);
		}
		share(&p, 7);
		commit(p.m);
		cr_assert(is_found(&p, 2), "missed the %u. time", i);
		unshare(&p, 7);
		commit(p.m);
	}
	cr_assert_eq(evacuation_shrink(p.e), -EAGAIN);
	moves = make_moves(&p);
	cr_assert_eq(evacuation_move(p.e, &moves), 0);
	u64map_clear(&moves);
	cr_assert_eq(evacuation_shrink(p.e), -EAGAIN); /* a crash would bring it back */
	commit(p.m);
	close_shrunk(&p);
}

static void
prepare(struct pool *p, const struct u64map *moves)
{
	struct evacuation_place at = {0};

	while (!at.end)
		cr_assert_eq(evacuation_prepare(p->e, moves, &at), 0);
}

static void
move(struct pool *p, struct u64map *moves)
{
	cr_assert_eq(evacuation_move(p->e, moves), 0);
	u64map_clear(moves);
	commit(p->m);
	cr_assert(!is_found(p, 1) && !is_found(p, 2));
}

/* What has come to a block that moves after that was prepared, in nodes with numbers of others. */
static void
move_after_changes(unsigned nr_changes)
{
	struct pool p = open_pool();
	struct u64map moves = make_moves(&p);

	prepare(&p, &moves);
	for (unsigned i = 0; i < nr_changes; i++) {
		share(&p, 7);
		commit(p.m);
		if (i + 1 == nr_changes)
			break;
		unshare(&p, 7);
		commit(p.m);
	}
	move(&p, &moves);
	close_shrunk(&p);
}

Test(evacuate, what_changes_after_a_move_was_prepared_is_moved_too)
{
	for (unsigned nr = 0; nr < 24; nr++)
		move_after_changes(nr);
}

/* A node of the open transaction changes where it is: what was seen in it may be other by then. */
Test(evacuate, what_changes_in_the_same_transaction_is_moved_too)
{
	struct pool p = open_pool();
	struct u64map moves = make_moves(&p);

	share(&p, 7);
	unshare(&p, 7);
	prepare(&p, &moves);
	share(&p, 7);
	move(&p, &moves);
	close_shrunk(&p);
}
