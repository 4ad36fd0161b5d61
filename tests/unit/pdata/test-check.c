/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The check says of each damage what it is, and believes nothing; a repair mends what can be mended and
 * touches nothing else (test-check-cuts.c: as a whole or not at all). tests/interop/check.sh holds it against other checkers.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/image_fault.h"
#include "pdata/btree_node.h"
#include "pdata/sm_chunk.h"
#include "unit/pdata/check_fixture.h"
#include "unit/random.h"
#include "util/msg.h"

/* --- saying what is wrong --- */

static void
expect_said(struct fixture *f, const char *text, const char *what)
{
	struct said s;

	check(&f->img.image, &s);
	cr_assert(strstr(s.text, text), "%s: wanted '%s', it says:\n%s", what, text, s.text);
}

Test(check, clean_pool_is_clean)
{
	struct fixture f;
	struct said s;

	make_pool(&f);
	check(&f.img.image, &s);
	cr_assert(all_well(&s.result), "%s", s.text);
	cr_assert_eq(s.result.nr_devices, 6);
	cr_assert_eq(s.result.nr_mappings, 6 * 600);
	fixture_free(&f);
}

Test(check, says_what_is_wrong_with_counts)
{
	struct fixture f;
	struct said s;

	make_pool(&f);
	set_count(&f, true, 3990, 1);
	set_count(&f, true, 3991, 1);
	set_count(&f, true, 3995, 2);
	set_count(&f, false, 0, 2);
	set_count(&f, false, 150, 1);
	expect_said(&f, "l data 3990+2: leaked", "a leak");
	expect_said(&f, "e data 3995+1: reference count 2 instead of 0", "too high");
	expect_said(&f, "e meta 0+1: reference count 2 instead of 1", "the superblock's");
	expect_said(&f, "l meta 150+1: leaked", "a leak of metadata");
	expect_said(&f, "nr_allocated of the data space map", "a wrong sum");
	check(&f.img.image, &s);
	cr_assert_eq(s.result.leaked_data, 2);
	cr_assert_eq(s.result.leaked_metadata, 1);
	cr_assert_eq(s.result.nr_errors, 2);
	cr_assert_eq(s.result.nr_unmendable, 0);
	set_count(&f, true, NR_DATA + 5, 1);
	expect_said(&f, "counts past the end of the data device", "past the end");
	fixture_free(&f);
}

/* A node of mappings, at NR, with one child that is CHILD, for keys from KEY on. */
static void
make_parent(struct fixture *f, uint64_t nr, uint64_t key, uint64_t child)
{
	uint64_t block[METADATA_BLOCK_SIZE / 8] = {0};
	struct disk_node *n = (void *)block;

	node_init(n, NODE_INTERNAL, NODE_CHILD_SIZE);
	node_insert_child(n, 0, key, child);
	put_block(f, nr, BLOCK_NODE, n);
}

static void
make_chain_link(struct fixture *f, uint64_t nr, uint64_t child)
{
	make_parent(f, nr, 0, child);
}

/* Let the first device's mappings begin at block ROOT. */
static void
set_root(struct fixture *f, uint64_t root)
{
	struct superblock sb = superblock_of(f);
	uint64_t block[METADATA_BLOCK_SIZE / 8];

	get_block(f, sb.data_mapping_root, block);
	*(struct le64 *)node_value((struct disk_node *)(void *)block, 0) = le64_make(root);
	put_block(f, sb.data_mapping_root, BLOCK_NODE, block);
}

Test(check, trees_that_cannot_be_are_told)
{
	uint64_t block[METADATA_BLOCK_SIZE / 8], mappings;
	struct superblock sb;
	struct fixture f;

	make_pool(&f);
	sb = superblock_of(&f);
	get_block(&f, sb.data_mapping_root, block);
	mappings = node_child((const struct disk_node *)(const void *)block, 0);
	/* What lies behind block 120 is free. */
	make_chain_link(&f, 120, 120);
	set_root(&f, 120);
	expect_said(&f, "e meta 120+1: node of the mappings of device 0: a node below it points back to it "
		    "(not mendable)", "a circle");
	for (uint64_t i = 121; i < 150; i++)
		make_chain_link(&f, i, i + 1);
	set_root(&f, 121);
	expect_said(&f, "the tree is too deep", "a chain");
	make_chain_link(&f, 120, sb.device_details_root);
	set_root(&f, 120);
	expect_said(&f, "it is also used as a node of the details", "two uses");
	make_parent(&f, 120, 1000000, mappings);
	expect_said(&f, "where only 1000000 to 18446744073709551615 belong", "keys that are not its parent's");
	make_chain_link(&f, 120, 1ULL << 60);
	expect_said(&f, "there are only 160 metadata blocks", "outside");
	set_root(&f, 0);
	expect_said(&f, "it is also used as superblock", "the superblock");
	fixture_free(&f);
}

Test(check, a_bitmap_that_is_something_else_is_told)
{
	struct disk_index index;
	struct superblock sb;
	struct fixture f;

	make_pool(&f);
	sb = superblock_of(&f);
	get_block(&f, le64_get(sb.metadata_sm_root.bitmap_root), &index);
	index.entries[0].blocknr = le64_make(bitmap_of(&f, true));
	put_block(&f, le64_get(sb.metadata_sm_root.bitmap_root), BLOCK_INDEX, &index);
	expect_said(&f, "it is also used as bitmap of a space map", "a bitmap of both maps");
	index.entries[0].blocknr = le64_make(sb.device_details_root);
	put_block(&f, le64_get(sb.metadata_sm_root.bitmap_root), BLOCK_INDEX, &index);
	expect_said(&f, "it is also used as a node of the details", "a node");
	fixture_free(&f);
}

/* --- mending --- */

static void
repair(struct fixture *f, struct repair_result *r)
{
	cr_assert_eq(meta_repair(&f->img.image, NULL, NULL, r), 0);
}

Test(check, what_can_be_mended_is_mended)
{
	for (size_t i = 0; i < NR_DAMAGES; i++) {
		struct repair_result r;
		struct superblock before, after;
		struct fixture f;

		make_pool(&f);
		damages[i](&f);
		before = superblock_of(&f);
		repair(&f, &r);
		cr_assert_eq(r.outcome, REPAIR_DONE);
		cr_assert_eq(r.cleared_needs_check, before.needs_check);
		cr_assert_eq(r.mended_details, damages[i] == damage_details ? 2 : 0);
		cr_assert_eq(r.grown_to, 0);
		after = superblock_of(&f);
		cr_assert_eq(after.data_mapping_root, before.data_mapping_root);
		cr_assert_eq(after.needs_check, false);
		cr_assert(audit_image(f.img.inner, AUDIT_ALL));
		repair(&f, &r);
		cr_assert_eq(r.outcome, REPAIR_NOTHING_TO_DO);
		/* And it can be written to. */
		fixture_reopen(&f);
		cr_assert_eq(fixture_map(&f, 1, 1000, 50), 50);
		fixture_commit(&f);
		fixture_free(&f);
	}
}

static void
expect_untouched(struct fixture *f, enum repair_outcome outcome)
{
	struct repair_result r;
	uint64_t size;
	char *before = kept_image_copy(&f->img, &size), *after;

	repair(f, &r);
	cr_assert_eq(r.outcome, outcome);
	after = kept_image_copy(&f->img, &size);
	cr_assert(!memcmp(before, after, size));
	free(before);
	free(after);
}

Test(check, what_cannot_be_mended_is_left_alone)
{
	struct superblock sb;
	struct fixture f;

	make_pool(&f);
	sb = superblock_of(&f);
	expect_untouched(&f, REPAIR_NOTHING_TO_DO);
	flip(&f, sb.device_details_root);
	damage_counts(&f);
	expect_untouched(&f, REPAIR_IMPOSSIBLE);
	flip(&f, sb.device_details_root);
	flip(&f, sb.data_mapping_root);
	expect_untouched(&f, REPAIR_IMPOSSIBLE);
	flip(&f, sb.data_mapping_root);
	flip(&f, 0);
	expect_untouched(&f, REPAIR_IMPOSSIBLE);
	fixture_free(&f);
}

/* What cannot be read may be readable tomorrow. */
Test(check, read_errors_are_no_damage)
{
	struct image *memory, *faulty;
	struct repair_result r;
	struct fixture f;
	char *bytes;
	uint64_t size, nr_reads;

	make_pool(&f);
	damage_counts(&f);
	bytes = kept_image_copy(&f.img, &size);
	cr_assert_eq(image_open_memory("meta", size, &memory), 0);
	cr_assert_eq(image_fault_wrap(memory, &faulty), 0);
	cr_assert_eq(image_write(faulty, bytes, size, 0), 0);
	cr_assert_eq(meta_check(faulty, NULL, NULL, &r.before), 0);
	nr_reads = image_fault_count(faulty, IMAGE_OP_READ);
	for (uint64_t i = 1; i <= nr_reads; i++) {
		image_fault_set(faulty, IMAGE_OP_READ, i, EIO, false);
		cr_assert_eq(meta_repair(faulty, NULL, NULL, &r), 0);
		cr_assert(r.before.unreadable && r.outcome == REPAIR_IMPOSSIBLE, "read %llu",
			  (unsigned long long)i);
	}
	cr_assert_eq(image_fault_count(faulty, IMAGE_OP_WRITE), 1);
	image_close(faulty);
	free(bytes);
	fixture_free(&f);
}

/* Metadata so full that there is no room for the same again. */
Test(check, without_room_nothing_happens_until_there_is)
{
	struct repair_result r;
	struct fixture f;
	struct said s;
	uint64_t size = 75 * METADATA_BLOCK_SIZE;

	fixture_make(&f, 75, 25ULL * BITMAP_ENTRIES);
	for (uint32_t id = 0; id < 14; id++)
		cr_assert_eq(meta_create_thin(f.m, id), 0);
	fixture_commit(&f);
	meta_close(f.m);
	f.m = NULL;
	msg_set_sink(ignore);
	set_count(&f, true, 7, 1);
	expect_untouched(&f, REPAIR_NO_SPACE);
	cr_assert_eq(image_resize(&f.img.image, 2 * size), 0);
	repair(&f, &r);
	cr_assert_eq(r.outcome, REPAIR_DONE);
	cr_assert_eq(r.grown_to, 150);
	check(&f.img.image, &s);
	cr_assert(all_well(&s.result), "%s", s.text);
	cr_assert(audit_image(f.img.inner, AUDIT_ALL));
	fixture_free(&f);
}

/* --- anything at all --- */

/* Make a block something that verifies, with random contents that are likely to lead elsewhere. */
static void
scramble(struct fixture *f, struct random_source *rs, uint64_t nr)
{
	uint64_t block[METADATA_BLOCK_SIZE / 8];
	struct disk_node *n = (void *)block;
	enum block_type type = BLOCK_NODE;

	get_block(f, nr, block);
	switch (random_below(rs, 4)) {
	case 0: /* an internal node of blocks there are */
		node_init(n, NODE_INTERNAL, NODE_CHILD_SIZE);
		for (unsigned i = 0; i < 1 + random_below(rs, 252); i++)
			if (!node_is_full(n))
				node_insert_child(n, node_nr(n), i * random_below(rs, 3) + i,
						  random_below(rs, NR_BLOCKS + 1));
		break;
	case 1:
		type = (enum block_type)random_below(rs, 4);
		for (unsigned i = 2; i < METADATA_BLOCK_SIZE / 8; i++)
			block[i] = random_below(rs, NR_BLOCKS) << 8 * random_below(rs, 5);
		break;
	case 2:
		type = (enum block_type)random_below(rs, 4);
		block[2 + random_below(rs, 40)] = random_u64(rs);
		break;
	default:
		block[2 + random_below(rs, METADATA_BLOCK_SIZE / 8 - 2)] ^= 1ULL << random_below(rs, 64);
	}
	put_block(f, nr, type, block);
}

Test(check, any_bytes_end_in_an_answer, .timeout = 120)
{
	struct random_source rs = random_start("any_bytes_end_in_an_answer");
	unsigned nr_mended = 0;
	struct fixture f;
	uint64_t size;
	char *bytes;

	make_pool(&f);
	bytes = kept_image_copy(&f.img, &size);
	for (unsigned i = 0; i < 1500; i++) {
		struct repair_result r;
		struct said s;

		kept_image_restore(&f.img, bytes, size);
		for (uint64_t n = 1 + random_below(&rs, i % 3 ? 2 : NR_BLOCKS); n; n--)
			scramble(&f, &rs, 1 + random_below(&rs, NR_BLOCKS - 1));
		check(&f.img.image, &s);
		repair(&f, &r);
		cr_assert(r.outcome != REPAIR_NOTHING_TO_DO || all_well(&s.result));
		if (r.outcome != REPAIR_DONE)
			continue;
		check(&f.img.image, &s);
		cr_assert(all_well(&s.result), "%s", s.text);
		nr_mended++;
	}
	cr_assert(nr_mended > 0);
	free(bytes);
	fixture_free(&f);
}
