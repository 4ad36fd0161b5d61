/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/block_cache.h"
#include "pdata/check.h"
#include "pdata/space_map_internal.h"
#include "pdata/superblock.h"
#include "pdata/thin_meta_internal.h"
#include "unit/pdata/meta_fixture.h"
#include "unit/random.h"

static void
read_superblock(struct fixture *f, struct superblock *sb)
{
	cr_assert_eq(superblock_read(&f->img.image, true, sb), 0);
}

static uint64_t
mapped(struct fixture *f, uint32_t id)
{
	struct thin_dev *d;
	struct dev_info info;

	cr_assert_eq(dev_open(f->m, id, &d), 0);
	dev_get_info(d, &info);
	dev_close(d);
	return info.mapped_blocks;
}

Test(thin_meta, a_new_pool_lies_where_the_kernel_puts_it)
{
	struct disk_index index;
	struct superblock sb;
	struct fixture f;

	fixture_make(&f, 2048, 1024);
	read_superblock(&f, &sb);
	cr_assert_eq(le64_get(sb.metadata_sm_root.bitmap_root), 1);
	cr_assert_eq(le64_get(sb.metadata_sm_root.ref_count_root), 2);
	cr_assert_eq(image_read(&f.img.image, &index, sizeof(index), METADATA_BLOCK_SIZE), 0);
	cr_assert_eq(le64_get(index.entries[0].blocknr), 3);
	cr_assert_eq(le64_get(sb.data_sm_root.bitmap_root), 4);
	cr_assert_eq(le64_get(sb.data_sm_root.ref_count_root), 5);
	cr_assert_eq(sb.data_mapping_root, 6);
	cr_assert_eq(sb.device_details_root, 7);
	cr_assert_eq(le64_get(sb.metadata_sm_root.nr_blocks), 2048);
	cr_assert_eq(le64_get(sb.data_sm_root.nr_blocks), 1024);
	cr_assert_eq(sb.metadata_nr_blocks, 2048);
	cr_assert(audit_image(f.img.inner, AUDIT_ALL));
	fixture_free(&f);
}

Test(thin_meta, devices_come_and_go)
{
	struct fixture f;
	struct thin_dev *d;

	fixture_make(&f, 1024, 1000);
	cr_assert_eq(meta_create_thin(f.m, 1), 0);
	cr_assert_eq(meta_create_thin(f.m, 1), -EEXIST);
	cr_assert_eq(meta_create_thin(f.m, DEV_ID_MAX), 0);
	cr_assert_eq(meta_create_thin(f.m, DEV_ID_MAX + 1), -EINVAL);
	cr_assert_eq(meta_create_snap(f.m, 2, 7), -ENODATA);
	cr_assert_eq(meta_create_snap(f.m, 1, DEV_ID_MAX), -EEXIST);
	cr_assert_eq(fixture_map(&f, 1, 5, 300), 300);
	cr_assert_eq(meta_tick(f.m), 0);
	cr_assert_eq(meta_create_snap(f.m, 2, 1), 0);
	fixture_commit(&f);
	cr_assert_eq(mapped(&f, 2), 300);
	cr_assert_eq(fixture_map(&f, 1, 0, 20), 20);
	fixture_commit(&f);

	cr_assert_eq(dev_open(f.m, 1, &d), 0);
	cr_assert_eq(meta_delete_thin(f.m, 1), -EBUSY);
	dev_close(d);
	cr_assert_eq(meta_delete_thin(f.m, 1), 0);
	cr_assert_eq(meta_delete_thin(f.m, 1), -ENODATA);
	fixture_commit(&f);
	fixture_reopen(&f);
	cr_assert_eq(mapped(&f, 2), 300);
	cr_assert_eq(dev_open(f.m, 1, &d), -ENODATA);
	fixture_free(&f);
}

Test(thin_meta, two_snapshots_in_one_transaction_share_rightly)
{
	struct fixture f;

	fixture_make(&f, 1024, 4000);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	cr_assert_eq(fixture_map(&f, 0, 0, 700), 700);
	for (uint32_t id = 1; id < 6; id++) {
		cr_assert_eq(meta_tick(f.m), 0);
		cr_assert_eq(meta_create_snap(f.m, id, id - 1), 0);
		cr_assert_eq(fixture_map(&f, id - 1, id * 100, 30), 30);
	}
	fixture_commit(&f);
	cr_assert_eq(meta_delete_thin(f.m, 2), 0);
	fixture_commit(&f);
	fixture_free(&f);
}

Test(thin_meta, a_device_is_shed_step_by_step)
{
	struct fixture f;
	struct thin_dev *d;
	uint64_t left = 1;

	fixture_make(&f, 2048, 20000);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	cr_assert_eq(fixture_map(&f, 0, 0, 9000), 9000);
	cr_assert_eq(meta_tick(f.m), 0);
	cr_assert_eq(meta_create_snap(f.m, 1, 0), 0);
	cr_assert_eq(fixture_map(&f, 1, 4000, 500), 500);
	fixture_commit(&f);
	cr_assert_eq(dev_open(f.m, 1, &d), 0);
	for (unsigned i = 0; i < 100 && left; i++) {
		cr_assert_eq(dev_shed(d, 1000, &left), 0);
		fixture_commit(&f);
	}
	cr_assert_eq(left, 0);
	dev_close(d);
	cr_assert_eq(meta_delete_thin(f.m, 1), 0);
	fixture_commit(&f);
	cr_assert_eq(mapped(&f, 0), 9000);
	fixture_free(&f);
}

/*
 * As going back to a snapshot does, which cannot stop half-way. The pool is so large, and the volume's blocks may lie in
 * so many bitmaps, that dropping them would take more metadata blocks than there are.
 */
Test(thin_meta, deleting_what_another_device_shares_as_a_whole_takes_no_space)
{
	const uint64_t bitmaps = 4000;
	struct meta_info before, after;
	struct check_result found;
	struct fixture f;

	fixture_make(&f, bitmaps + 4112, bitmaps * BITMAP_ENTRIES);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	for (uint64_t done = 0; done < 4800; done += 60)
		cr_assert_eq(fixture_map(&f, 0, done, 60), 60);
	cr_assert_eq(meta_commit(f.m, NULL), 0);
	cr_assert_eq(meta_delete_thin(f.m, 0), -ENOSPC);
	cr_assert_eq(meta_tick(f.m), 0);
	cr_assert_eq(meta_create_snap(f.m, 1, 0), 0);
	cr_assert_eq(meta_delete_thin(f.m, 0), 0);
	cr_assert_eq(meta_create_snap(f.m, 0, 1), 0);
	cr_assert_eq(meta_commit(f.m, NULL), 0);
	meta_get_info(f.m, &before);
	cr_assert_eq(meta_delete_thin(f.m, 0), 0);
	cr_assert_eq(meta_commit(f.m, NULL), 0);
	cr_assert_eq(meta_check(&f.img.image, NULL, NULL, &found), 0);
	cr_assert(!found.nr_errors && !found.leaked_metadata && !found.leaked_data);
	meta_get_info(f.m, &after);
	cr_assert_eq(after.free_data_blocks, before.free_data_blocks);
	fixture_free(&f);
}

Test(thin_meta, the_transaction_id_is_compared_and_set)
{
	struct meta_info info;
	struct fixture f;

	fixture_make(&f, 1024, 100);
	cr_assert_eq(meta_set_transaction_id(f.m, 1, 2), -EINVAL);
	cr_assert_eq(meta_set_transaction_id(f.m, 0, 7), 0);
	cr_assert_eq(meta_set_needs_check(f.m, true), 0);
	fixture_commit(&f);
	fixture_reopen(&f);
	meta_get_info(f.m, &info);
	cr_assert_eq(info.trans_id, 7);
	cr_assert(info.needs_check);
	fixture_free(&f);
}

Test(thin_meta, a_metadata_snapshot_keeps_what_it_shows)
{
	struct meta_info info;
	struct fixture f;

	fixture_make(&f, 1024, 4000);
	cr_assert_eq(meta_release_snap(f.m), -EINVAL);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	cr_assert_eq(meta_create_thin(f.m, 1), 0);
	cr_assert_eq(meta_reserve_snap(f.m), -EBUSY);
	cr_assert_eq(fixture_map(&f, 0, 0, 600), 600);
	fixture_commit(&f);
	cr_assert_eq(meta_reserve_snap(f.m), 0);
	cr_assert_eq(meta_reserve_snap(f.m), -EBUSY);
	fixture_commit(&f);
	cr_assert_eq(fixture_map(&f, 0, 100, 10), 10);
	cr_assert_eq(fixture_map(&f, 1, 0, 10), 10);
	fixture_commit(&f);
	cr_assert_eq(meta_delete_thin(f.m, 0), 0);
	fixture_commit(&f);
	fixture_reopen(&f);
	meta_get_info(f.m, &info);
	cr_assert_neq(info.held_root, 0);
	cr_assert_eq(info.used_data_blocks, 610);
	cr_assert_eq(meta_release_snap(f.m), 0);
	fixture_commit(&f);
	meta_get_info(f.m, &info);
	cr_assert_eq(info.held_root, 0);
	cr_assert_eq(info.used_data_blocks, 10);
	fixture_free(&f);
}

Test(thin_meta, both_devices_grow_across_bitmaps)
{
	static const uint64_t data[] = {100, 16319, 16320, 16321, 50000, 1500000};
	static const uint64_t meta[] = {200, 16319, 16320, 16321, 40960};
	struct meta_info info;
	struct fixture f;

	fixture_make(&f, 100, 50);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	fixture_commit(&f);
	cr_assert_eq(meta_grow_data(f.m, 49), -EINVAL);
	cr_assert_eq(meta_grow_metadata(f.m, 99), -EINVAL);
	for (unsigned i = 0; i < sizeof(meta) / sizeof(meta[0]); i++) {
		cr_assert_eq(image_resize(&f.img.image, meta[i] * METADATA_BLOCK_SIZE), 0);
		cr_assert_eq(meta_grow_metadata(f.m, meta[i]), 0);
		cr_assert_gt(fixture_map(&f, 0, i * 10, 5), 0);
		fixture_commit(&f);
	}
	for (unsigned i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
		cr_assert_eq(meta_grow_data(f.m, data[i]), 0);
		cr_assert_eq(fixture_map(&f, 0, 1000 + i * 10, 5), 5);
		fixture_commit(&f);
	}
	fixture_reopen(&f);
	meta_get_info(f.m, &info);
	cr_assert_eq(info.nr_data_blocks, 1500000);
	cr_assert_eq(info.nr_meta_blocks, 40960);
	fixture_free(&f);
}

Test(thin_meta, a_full_metadata_device_grows)
{
	struct fixture f;
	uint64_t n = 0;

	fixture_make(&f, 200, 100000);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	while (fixture_map(&f, 0, n * 1000, 1))
		n++;
	fixture_commit(&f);
	cr_assert_eq(image_resize(&f.img.image, 20000ULL * METADATA_BLOCK_SIZE), 0);
	cr_assert_eq(meta_grow_metadata(f.m, 20000), 0);
	fixture_commit(&f);
	cr_assert_eq(fixture_map(&f, 0, n * 1000, 1), 1);
	fixture_commit(&f);
	fixture_free(&f);
}

Test(thin_meta, an_abort_goes_back_to_the_last_commit)
{
	struct fixture f;
	struct thin_dev *d, *gone;
	struct meta_info before, after;
	struct dev_info info;

	fixture_make(&f, 1024, 4000);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	cr_assert_eq(fixture_map(&f, 0, 0, 500), 500);
	fixture_commit(&f);
	meta_get_info(f.m, &before);
	cr_assert_eq(dev_open(f.m, 0, &d), 0);
	cr_assert_eq(meta_create_thin(f.m, 1), 0);
	cr_assert_eq(dev_open(f.m, 1, &gone), 0);
	cr_assert_eq(fixture_map(&f, 0, 0, 100), 100);
	cr_assert_eq(fixture_map(&f, 1, 0, 100), 100);
	cr_assert_eq(meta_grow_data(f.m, 20000), 0);
	cr_assert_eq(meta_abort(f.m), 0);
	meta_get_info(f.m, &after);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	dev_get_info(d, &info);
	cr_assert_eq(info.mapped_blocks, 500);
	cr_assert_eq(dev_insert(gone, 0, 0, 1), -ENODATA);
	cr_assert_eq(fixture_map(&f, 0, 1000, 7), 7);
	dev_close(gone);
	cr_assert_eq(meta_create_thin(f.m, 1), 0);
	fixture_commit(&f);
	dev_close(d);
	cr_assert_eq(mapped(&f, 0), 507);
	cr_assert_eq(mapped(&f, 1), 0);
	fixture_free(&f);
}

Test(thin_meta, the_clock_stops_before_it_would_spill_into_block_numbers)
{
	uint8_t block[METADATA_BLOCK_SIZE];
	struct superblock sb;
	struct fixture f;

	fixture_make(&f, 1024, 100);
	read_superblock(&f, &sb);
	sb.time = MAPPING_TIME_MAX - 1;
	superblock_to_disk(&sb, 0, block);
	block_seal(0, BLOCK_SUPERBLOCK, block);
	cr_assert_eq(image_write(&f.img.image, block, sizeof(block), 0), 0);
	fixture_reopen(&f);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	cr_assert_eq(fixture_map(&f, 0, 0, 3), 3);
	cr_assert_eq(meta_tick(f.m), 0);
	cr_assert_eq(meta_create_snap(f.m, 1, 0), 0);
	cr_assert_eq(fixture_map(&f, 0, 0, 3), 3);
	cr_assert_eq(meta_tick(f.m), -EOVERFLOW);
	fixture_commit(&f);
	fixture_free(&f);
}

/* Fill a small metadata device until meta_require() says so, then delete all, with commits. */
static void
fill_and_empty(uint64_t nr_blocks, uint64_t nr_data_blocks)
{
	struct meta_info info;
	struct fixture f;
	uint32_t nr_devs = 1;
	uint64_t at = 0;

	fixture_make(&f, nr_blocks, nr_data_blocks);
	meta_get_info(f.m, &info);
	uint64_t used_before = info.used_meta_blocks;
	cr_assert_eq(meta_require(f.m, 2, 1, META_TO_ADD), 0, "an empty pool of %llu blocks can do nothing",
		     (unsigned long long)nr_blocks);
	cr_assert_eq(meta_create_thin(f.m, 0), 0);
	for (unsigned full = 0; full < 3;) {
		/* Scattered, and with snapshots whose leaves are then copied. */
		for (unsigned i = 0; i < 40; i++)
			full += !fixture_map(&f, 0, (at += 7919) % 30000, 1);
		if (!meta_require(f.m, 2, 1, META_TO_ADD) && !meta_tick(f.m)) {
			cr_assert_eq(meta_create_snap(f.m, nr_devs, 0), 0);
			nr_devs++;
		}
		cr_assert_eq(meta_commit(f.m, NULL), 0);
	}
	cr_assert(audit_image(f.img.inner, AUDIT_ALL));
	for (uint32_t id = 0; id < nr_devs; id++) {
		cr_assert_eq(meta_delete_thin(f.m, id), 0);
		cr_assert_eq(meta_commit(f.m, NULL), 0);
	}
	cr_assert(audit_image(f.img.inner, AUDIT_ALL));
	meta_get_info(f.m, &info);
	cr_assert_leq(info.used_meta_blocks, used_before + 4);
	cr_assert_eq(info.used_data_blocks, 0);
	fixture_free(&f);
}

Test(thin_meta, a_full_pool_of_512_blocks_can_be_emptied)
{
	fill_and_empty(512, 200000);
}

Test(thin_meta, a_full_pool_of_the_least_size_can_be_emptied)
{
	fill_and_empty(64, 4000); /* METADATA_BYTES_LEAST of pool/format.c */
}

/* What changes of counts wait for the transaction to be frozen, in one hold of the metadata lock. */
static void
expect_little_to_freeze(const struct fixture *f)
{
	cr_assert(f->m->data_sm->changed_counts.nr < 2048, "%zu counts wait", f->m->data_sm->changed_counts.nr);
}

#define SHARED 6000U
#define SHARERS 5U

static void
share_all(struct fixture *f, struct thin_dev *from, uint32_t id)
{
	struct thin_dev *to;

	cr_assert_eq(meta_create_thin(f->m, id), 0);
	cr_assert_eq(dev_open(f->m, id, &to), 0);
	for (unsigned i = 0; i < SHARED; i += 500) {
		cr_assert_eq(dev_share(from, i, to, i, 500), 0);
		expect_little_to_freeze(f);
	}
	dev_close(to);
}

Test(thin_meta, counts_do_not_wait_for_the_commit)
{
	struct thin_dev *d;
	struct fixture f;
	uint64_t left = SHARED;

	fixture_make(&f, 4096, 2 * SHARED);
	cr_assert_eq(meta_create_thin(f.m, 1), 0);
	cr_assert_eq(fixture_map(&f, 1, 0, SHARED), SHARED);
	cr_assert_eq(dev_open(f.m, 1, &d), 0);
	for (uint32_t id = 2; id <= SHARERS; id++)
		share_all(&f, d, id);
	fixture_commit(&f);
	fixture_commit(&f);
	while (left) {
		cr_assert_eq(dev_shed(d, 500, &left), 0);
		expect_little_to_freeze(&f);
	}
	fixture_commit(&f);
	dev_close(d);
	fixture_free(&f);
}
