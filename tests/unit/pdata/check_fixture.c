/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "pdata/btree_node.h"
#include "pdata/sm_chunk.h"
#include "unit/pdata/check_fixture.h"
#include "util/msg.h"

void
ignore(const char *text)
{
	(void)text;
}

/* --- what was said --- */

static void
hear(void *arg, const struct check_problem *p)
{
	struct said *s = arg;
	size_t n = strlen(s->text);

	snprintf(s->text + n, sizeof(s->text) - n, "%c %s %llu+%llu: %s%s\n", "wle"[p->severity],
		 p->of_data ? "data" : "meta", (unsigned long long)p->block, (unsigned long long)p->nr,
		 p->what, p->mendable ? "" : " (not mendable)");
}

void
check(struct image *img, struct said *s)
{
	s->text[0] = '\0';
	cr_assert_eq(meta_check(img, hear, s, &s->result), 0);
}

bool
all_well(const struct check_result *r)
{
	return !r->nr_errors && !r->nr_warnings && !r->leaked_metadata && !r->leaked_data &&
	       !r->needs_check && !r->partial;
}

/* --- a pool, and damage to it --- */

void
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

struct superblock
superblock_of(struct fixture *f)
{
	struct superblock sb;

	cr_assert_eq(superblock_read(&f->img.image, true, &sb), 0);
	return sb;
}

void
get_block(struct fixture *f, uint64_t nr, void *data)
{
	cr_assert_eq(image_read(&f->img.image, data, METADATA_BLOCK_SIZE, nr * METADATA_BLOCK_SIZE), 0);
}

void
put_block(struct fixture *f, uint64_t nr, enum block_type type, void *data)
{
	cr_assert_eq(block_write_sealed(&f->img.image, nr, type, data), 0);
}

uint64_t
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

void
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

void
flip(struct fixture *f, uint64_t nr)
{
	uint8_t byte;

	cr_assert_eq(image_read(&f->img.image, &byte, 1, nr * METADATA_BLOCK_SIZE + 99), 0);
	byte = (uint8_t)~byte;
	cr_assert_eq(image_write(&f->img.image, &byte, 1, nr * METADATA_BLOCK_SIZE + 99), 0);
}

void
set_needs_check(struct fixture *f)
{
	struct disk_superblock d;

	get_block(f, 0, &d);
	d.header.flags = le32_make(SUPERBLOCK_NEEDS_CHECK);
	put_block(f, 0, BLOCK_SUPERBLOCK, &d);
}

void
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

void
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

void
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

void (*const damages[NR_DAMAGES])(struct fixture *f) = {
	damage_counts, damage_maps, damage_details, damage_flag,
};
