/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The check says of each damage what it is, believes nothing, and a repair is there as a whole or
 * not at all. tests/interop/check.sh holds it against other checkers.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/image_fault.h"
#include "pdata/block_cache.h"
#include "pdata/btree_node.h"
#include "pdata/check.h"
#include "pdata/sm_chunk.h"
#include "pdata/superblock.h"
#include "unit/pdata/meta_fixture.h"
#include "unit/random.h"
#include "util/msg.h"

#define NR_BLOCKS 160U
#define NR_DATA 4000U

static void
ignore(const char *text)
{
	(void)text;
}

/* --- what was said --- */

struct said {
	char text[20000];
	struct check_result result;
};

static void
hear(void *arg, const struct check_problem *p)
{
	struct said *s = arg;
	size_t n = strlen(s->text);

	snprintf(s->text + n, sizeof(s->text) - n, "%c %s %llu+%llu: %s%s\n", "wle"[p->severity],
		 p->of_data ? "data" : "meta", (unsigned long long)p->block, (unsigned long long)p->nr,
		 p->what, p->mendable ? "" : " (not mendable)");
}

static void
check(struct image *img, struct said *s)
{
	s->text[0] = '\0';
	cr_assert_eq(meta_check(img, hear, s, &s->result), 0);
}

static bool
all_well(const struct check_result *r)
{
	return !r->nr_errors && !r->nr_warnings && !r->leaked_metadata && !r->leaked_data &&
	       !r->needs_check && !r->partial;
}

/* --- a pool, and damage to it --- */

/* Devices that share in part; mappings of two levels; counts of 3 and more in both maps. */
static void
make_pool(struct fixture *f)
{
	fixture_make(f, NR_BLOCKS, NR_DATA);
	cr_assert_eq(meta_create_thin(f->m, 0), 0);
	cr_assert_eq(fixture_map(f, 0, 0, 600), 600);
	for (uint32_t id = 1; id < 6; id++) {
		cr_assert_eq(meta_tick(f->m), 0);
		cr_assert_eq(meta_create_snap(f->m, id, 0), 0);
		cr_assert_eq(fixture_map(f, 0, id, 1), 1);
		cr_assert_eq(meta_commit(f->m, NULL), 0);
	}
	fixture_commit(f);
	meta_close(f->m);
	f->m = NULL;
	msg_set_sink(ignore);
}

static struct superblock
superblock_of(struct fixture *f)
{
	struct superblock sb;

	cr_assert_eq(superblock_read(&f->img.image, true, &sb), 0);
	return sb;
}

static void
get_block(struct fixture *f, uint64_t nr, void *data)
{
	cr_assert_eq(image_read(&f->img.image, data, METADATA_BLOCK_SIZE, nr * METADATA_BLOCK_SIZE), 0);
}

static void
put_block(struct fixture *f, uint64_t nr, enum block_type type, void *data)
{
	cr_assert_eq(block_write_sealed(&f->img.image, nr, type, data), 0);
}

static uint64_t
bitmap_of(struct fixture *f, bool of_data)
{
	struct superblock sb = superblock_of(f);
	uint64_t block[METADATA_BLOCK_SIZE / 8];
	const struct disk_index *index = (const void *)block;
	const struct disk_node *leaf = (const void *)block;

	get_block(f, le64_get((of_data ? sb.data_sm_root : sb.metadata_sm_root).bitmap_root), block);
	if (of_data)
		return le64_get(((const struct disk_index_entry *)node_value(leaf, 0))->blocknr);
	return le64_get(index->entries[0].blocknr);
}

/* 0 to 3 */
static void
set_count(struct fixture *f, bool of_data, uint32_t entry, unsigned count)
{
	uint64_t nr = bitmap_of(f, of_data);
	struct disk_bitmap d;
	uint64_t word, shift = 2 * (entry % 32);

	get_block(f, nr, &d);
	word = le64_get(d.words[entry / 32]) & ~(3ULL << shift);
	d.words[entry / 32] = le64_make(word | (uint64_t)((count & 1) << 1 | count >> 1) << shift);
	put_block(f, nr, BLOCK_BITMAP, &d);
}

static void
flip(struct fixture *f, uint64_t nr)
{
	uint8_t byte;

	cr_assert_eq(image_read(&f->img.image, &byte, 1, nr * METADATA_BLOCK_SIZE + 99), 0);
	byte = (uint8_t)~byte;
	cr_assert_eq(image_write(&f->img.image, &byte, 1, nr * METADATA_BLOCK_SIZE + 99), 0);
}

static void
set_needs_check(struct fixture *f)
{
	struct disk_superblock d;

	get_block(f, 0, &d);
	d.header.flags = le32_make(SUPERBLOCK_NEEDS_CHECK);
	put_block(f, 0, BLOCK_SUPERBLOCK, &d);
}

/* Device ID's details say one mapped block more than there are. */
static void
set_wrong_details(struct fixture *f, unsigned id)
{
	struct superblock sb = superblock_of(f);
	uint64_t block[METADATA_BLOCK_SIZE / 8];
	struct disk_details *d;

	get_block(f, sb.device_details_root, block);
	d = node_value((struct disk_node *)(void *)block, id);
	d->mapped_blocks = le64_make(le64_get(d->mapped_blocks) + 1);
	put_block(f, sb.device_details_root, BLOCK_NODE, block);
}

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

static void
damage_counts(struct fixture *f)
{
	set_count(f, true, 0, 0);
	set_count(f, true, 3990, 1);
	set_count(f, false, 0, 0);
	set_count(f, false, 150, 1);
	set_needs_check(f);
}

static void
damage_maps(struct fixture *f)
{
	struct superblock sb = superblock_of(f);

	flip(f, le64_get(sb.data_sm_root.ref_count_root));
	flip(f, bitmap_of(f, true));
	flip(f, bitmap_of(f, false));
}

static void
damage_details(struct fixture *f)
{
	set_wrong_details(f, 0);
	set_wrong_details(f, 5);
}

static void
damage_flag(struct fixture *f)
{
	set_needs_check(f);
}

static void (*const damages[])(struct fixture *f) = {
	damage_counts, damage_maps, damage_details, damage_flag,
};

#define NR_DAMAGES (sizeof(damages) / sizeof(damages[0]))

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

/* --- cuts and failures --- */

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

Test(check, power_cut_during_repair_leaves_old_or_new)
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

Test(check, repair_after_a_kill_first_makes_the_last_commit_sure)
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

Test(check, failed_write_or_flush_during_repair_leaves_old_or_new)
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
