/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Metadata with right checksums that lie about who owns a block: each lie ends in -EUCLEAN with the number of the
 * block, no block that is known to be in use is written over, and what can be read is read.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

#include "pdata/thin_meta_internal.h"
#include "unit/damage.h"
#include "unit/pdata/meta_fixture.h"

TestSuite(thin_meta_lies, .timeout = 120);

#define NR_BLOCKS 256U
#define NR_DATA_BLOCKS 2000U
#define NR_MAPPED 600U

/* Devices 0 and 1, each with a tree of two levels of its own. Closed. */
static struct image *
make_pool(struct fixture *f)
{
	msg_set_sink(damage_listen);
	damage_said[0] = '\0';
	fixture_make(f, NR_BLOCKS, NR_DATA_BLOCKS);
	for (uint32_t id = 0; id < 2; id++) {
		cr_assert_eq(meta_create_thin(f->m, id), 0);
		cr_assert_eq(fixture_map(f, id, 0, NR_MAPPED), NR_MAPPED);
	}
	fixture_commit(f);
	meta_close(f->m);
	f->m = NULL;
	return &f->img.image;
}

static int
open_it(struct fixture *f, bool read_only)
{
	meta_close(f->m);
	f->m = NULL;
	return meta_open(&f->img.image, FIXTURE_CACHE, read_only, &f->m);
}

/* Read all mappings of a device. */
static int
walk(struct fixture *f, uint32_t id)
{
	struct map_run runs[NR_MAPPED];
	struct thin_dev *d;
	unsigned nr;
	int r = dev_open(f->m, id, &d);

	if (r)
		return r;
	r = dev_map(d, 0, NR_MAPPED, runs, NR_MAPPED, &nr);
	dev_close(d);
	return r;
}

/* Map a block of ID anew: copies its leaf, and takes a data block. */
static int
rewrite(struct fixture *f, uint32_t id, uint64_t vblock)
{
	uint64_t dblock, got;
	struct thin_dev *d;
	int r = dev_open(f->m, id, &d);

	if (r)
		return r;
	r = meta_reserve_data(f->m, 0, 1, &dblock, &got);
	if (!r)
		r = dev_insert(d, vblock, dblock, 1);
	dev_close(d);
	return r;
}

/* Write and commit until something goes wrong; -ETIME: nothing does. */
static int
rewrite_until_failure(struct fixture *f, uint32_t id)
{
	for (unsigned i = 0; i < 400; i++) {
		int r = rewrite(f, id, i % NR_MAPPED);

		if (!r)
			r = meta_commit(f->m, NULL);
		if (r)
			return r;
	}
	return -ETIME;
}

/* --- pointers --- */

Test(thin_meta_lies, a_child_that_is_no_node_is_named)
{
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block sb, good, b;
	uint64_t root = damage_dev_root(img, 0), wrong[7];

	damage_read(img, 0, &sb);
	damage_read(img, le64_get(sb.sb.metadata_sm_root.bitmap_root), &b);
	damage_read(img, root, &good);
	cr_assert(!node_is_leaf(&good.node));
	wrong[0] = root; /* a ring */
	wrong[1] = 0; /* the superblock */
	wrong[2] = le64_get(sb.sb.metadata_sm_root.bitmap_root);
	wrong[3] = le64_get(b.index.entries[0].blocknr);
	wrong[4] = NR_BLOCKS;
	wrong[5] = le64_get(sb.sb.device_details_root);
	wrong[6] = node_child(&good.node, 1); /* the child beside it: two parents */
	for (unsigned i = 0; i < 7; i++) {
		b = good;
		node_set_child(&b.node, 0, wrong[i]);
		damage_write(img, root, BLOCK_NODE, &b);
		for (int read_only = 0; read_only < 2; read_only++) {
			cr_assert_eq(open_it(&f, read_only), 0);
			cr_assert_eq(walk(&f, 0), -EUCLEAN, "child %u", i);
			cr_assert(damage_names(wrong[i]), "child %u", i);
			cr_assert_eq(walk(&f, 1), 0, "the other device cannot be read");
		}
	}
	fixture_free(&f);
}

Test(thin_meta_lies, a_mapping_outside_the_data_image_is_named)
{
	static const uint64_t wrong[] = {NR_DATA_BLOCKS, 1ULL << 39, (1ULL << 40) - 1};
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block root, leaf;
	uint64_t leaf_nr;

	damage_read(img, damage_dev_root(img, 0), &root);
	leaf_nr = node_child(&root.node, 0);
	for (unsigned i = 0; i < 3; i++) {
		damage_read(img, leaf_nr, &leaf);
		*damage_value(&leaf, 7) = le64_make(wrong[i] << MAPPING_TIME_BITS);
		damage_write(img, leaf_nr, BLOCK_NODE, &leaf);
		cr_assert_eq(open_it(&f, true), 0);
		cr_assert_eq(walk(&f, 0), -EUCLEAN);
		cr_assert(damage_names(wrong[i]));
		cr_assert_eq(walk(&f, 1), 0);
		/* Nor is a count of it changed. */
		cr_assert_eq(open_it(&f, false), 0);
		cr_assert_eq(rewrite(&f, 0, 7), -EUCLEAN);
		cr_assert(damage_names(wrong[i]));
	}
	fixture_free(&f);
}

/* --- counts that are too low --- */

Test(thin_meta_lies, the_maps_own_blocks_must_be_counted)
{
	uint64_t own[9];
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block sb, b;

	damage_read(img, 0, &sb);
	own[0] = 0;
	own[1] = le64_get(sb.sb.data_mapping_root);
	own[2] = le64_get(sb.sb.device_details_root);
	own[3] = le64_get(sb.sb.metadata_sm_root.bitmap_root);
	own[4] = le64_get(sb.sb.metadata_sm_root.ref_count_root);
	own[5] = le64_get(sb.sb.data_sm_root.bitmap_root);
	own[6] = le64_get(sb.sb.data_sm_root.ref_count_root);
	damage_read(img, own[3], &b);
	own[7] = le64_get(b.index.entries[0].blocknr);
	damage_read(img, own[5], &b);
	own[8] = le64_get(*damage_value(&b, 0));
	for (unsigned i = 0; i < 9; i++) {
		damage_set_count(img, own[i], 0);
		cr_assert_eq(open_it(&f, false), -EUCLEAN, "block %u of them", i);
		cr_assert(damage_names(own[i]));
		cr_assert_eq(open_it(&f, true), 0);
		cr_assert_eq(walk(&f, 0), 0);
		damage_set_count(img, own[i], 1);
	}
	cr_assert_eq(open_it(&f, false), 0);
	fixture_free(&f);
}

Test(thin_meta_lies, a_node_that_was_read_is_not_written_over)
{
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block root, before, after;
	uint64_t leaf;

	damage_read(img, damage_dev_root(img, 1), &root);
	leaf = node_child(&root.node, 1);
	damage_read(img, leaf, &before);
	damage_set_count(img, leaf, 0);
	cr_assert_eq(open_it(&f, false), 0);
	cr_assert_eq(walk(&f, 1), 0);
	/* By another device: the lie is met when the block is to be handed out. */
	cr_assert_eq(rewrite_until_failure(&f, 0), -EUCLEAN);
	cr_assert(damage_names(leaf));
	damage_read(img, leaf, &after);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0, "it was written over");
	cr_assert_eq(open_it(&f, true), 0);
	cr_assert_eq(walk(&f, 0), 0);
	cr_assert_eq(walk(&f, 1), 0);
	fixture_free(&f);
}

Test(thin_meta_lies, a_node_that_is_free_cannot_be_changed)
{
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block root;
	uint64_t leaf;

	damage_read(img, damage_dev_root(img, 1), &root);
	leaf = node_child(&root.node, 0);
	damage_set_count(img, leaf, 0);
	cr_assert_eq(open_it(&f, false), 0);
	cr_assert_eq(rewrite(&f, 1, 5), -EUCLEAN);
	cr_assert(damage_names(leaf));
	cr_assert_eq(meta_delete_thin(f.m, 0), -EIO, "a change after one that failed");
	cr_assert_eq(meta_abort(f.m), 0);
	cr_assert_eq(walk(&f, 1), 0);
	fixture_free(&f);
}

/* Of two parents with one count, the one that goes on reading keeps the block as it is. */
Test(thin_meta_lies, a_node_with_two_parents_and_one_count_is_not_written_over)
{
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block root, mine, before, after;
	uint64_t leaf;

	damage_read(img, damage_dev_root(img, 0), &root);
	leaf = node_child(&root.node, 0);
	damage_read(img, damage_dev_root(img, 1), &mine);
	node_set_child(&mine.node, 0, leaf);
	damage_write(img, damage_dev_root(img, 1), BLOCK_NODE, &mine);
	damage_read(img, leaf, &before);
	cr_assert_eq(open_it(&f, false), 0);
	cr_assert_eq(rewrite(&f, 0, 3), 0); /* gives the leaf up */
	cr_assert_eq(walk(&f, 1), 0);
	cr_assert_eq(meta_commit(f.m, NULL), 0);
	cr_assert_eq(rewrite_until_failure(&f, 0), -EUCLEAN);
	cr_assert(damage_names(leaf));
	damage_read(img, leaf, &after);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0, "it was written over");
	fixture_free(&f);
}

/* Both may read it; who gives it up last is told. What is written in place meanwhile, both see: as in the kernel. */
Test(thin_meta_lies, a_data_block_of_two_devices_with_one_count_is_named_when_it_goes_twice)
{
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block root, leaf;
	uint64_t theirs, mine, dblock;

	damage_read(img, damage_dev_root(img, 0), &root);
	theirs = node_child(&root.node, 0);
	damage_read(img, theirs, &leaf);
	dblock = le64_get(*damage_value(&leaf, 0)) >> MAPPING_TIME_BITS;
	damage_read(img, damage_dev_root(img, 1), &root);
	mine = node_child(&root.node, 0);
	damage_read(img, mine, &leaf);
	*damage_value(&leaf, 0) = le64_make(dblock << MAPPING_TIME_BITS);
	damage_write(img, mine, BLOCK_NODE, &leaf);
	cr_assert_eq(open_it(&f, false), 0);
	cr_assert_eq(walk(&f, 0), 0);
	cr_assert_eq(walk(&f, 1), 0);
	cr_assert_eq(rewrite(&f, 0, 0), 0);
	cr_assert_eq(rewrite(&f, 1, 0), -EUCLEAN);
	cr_assert(damage_names(dblock));
	fixture_free(&f);
}

/* --- sums --- */

Test(thin_meta_lies, a_wrong_number_of_mapped_blocks_does_not_keep_a_device)
{
	static const uint64_t wrong[] = {0, 3, 1ULL << 40, UINT64_MAX};

	for (unsigned i = 0; i < 4; i++) {
		struct fixture f;
		struct image *img = make_pool(&f);
		union damage_block sb, b;
		struct dev_info info;
		struct thin_dev *d;
		uint64_t left = 1;

		damage_read(img, 0, &sb);
		damage_read(img, le64_get(sb.sb.device_details_root), &b);
		*damage_value(&b, 0) = le64_make(wrong[i]);
		damage_write(img, le64_get(sb.sb.device_details_root), BLOCK_NODE, &b);
		cr_assert_eq(open_it(&f, false), 0);
		cr_assert_eq(dev_open(f.m, 0, &d), 0);
		for (unsigned k = 0; k < 20; k++)
			cr_assert_eq(dev_shed(d, 100, &left), 0);
		cr_assert_eq(left, 0, "%" PRIu64 " of %" PRIu64, left, wrong[i]);
		dev_get_info(d, &info);
		cr_assert_eq(info.mapped_blocks, 0);
		dev_close(d);
		cr_assert_eq(meta_delete_thin(f.m, 0), 0);
		fixture_commit(&f);
		fixture_free(&f);
	}
}

/* --- reading without a space map --- */

Test(thin_meta_lies, without_its_space_maps_a_pool_can_be_read)
{
	struct fixture f;
	struct image *img = make_pool(&f);
	union damage_block sb;
	uint64_t index[2];

	damage_read(img, 0, &sb);
	index[0] = le64_get(sb.sb.metadata_sm_root.bitmap_root);
	index[1] = le64_get(sb.sb.data_sm_root.bitmap_root);
	for (unsigned i = 0; i < 2; i++) {
		damage_flip(img, index[i]);
		cr_assert_eq(open_it(&f, false), -EUCLEAN);
		cr_assert(damage_names(index[i]));
		cr_assert_eq(open_it(&f, true), 0);
		cr_assert(damage_names(index[i]));
		cr_assert_eq(walk(&f, 0), 0);
		cr_assert_eq(walk(&f, 1), 0);
		damage_flip(img, index[i]);
	}
	fixture_free(&f);
}
