/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * damage: changing metadata on their image, with right checksums; and hearing what is said about it.
 */
#ifndef THINFS_TESTS_DAMAGE_H
#define THINFS_TESTS_DAMAGE_H

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/image.h"
#include "pdata/block_cache.h"
#include "pdata/btree_node.h"
#include "pdata/format.h"
#include "pdata/superblock.h"
#include "util/msg.h"

union damage_block {
	uint8_t bytes[METADATA_BLOCK_SIZE];
	struct disk_superblock sb;
	struct disk_node node;
	struct disk_bitmap bitmap;
	struct disk_index index;
};

static inline void
damage_read(struct image *img, uint64_t nr, union damage_block *b)
{
	cr_assert_eq(image_read(img, b, sizeof(*b), nr * METADATA_BLOCK_SIZE), 0);
}

static inline void
damage_write(struct image *img, uint64_t nr, enum block_type type, union damage_block *b)
{
	cr_assert_eq(block_write_sealed(img, nr, type, b), 0);
}

/* The count of metadata block NR, 0 to 2, in its bitmap. */
static inline void
damage_set_count(struct image *img, uint64_t nr, unsigned count)
{
	unsigned shift = 2 * (nr % 32), word = (unsigned)(nr % BITMAP_ENTRIES / 32);
	uint64_t at, v;
	union damage_block b;

	damage_read(img, 0, &b);
	damage_read(img, le64_get(b.sb.metadata_sm_root.bitmap_root), &b);
	at = le64_get(b.index.entries[nr / BITMAP_ENTRIES].blocknr);
	damage_read(img, at, &b);
	v = le64_get(b.bitmap.words[word]) & ~(3ULL << shift);
	v |= (uint64_t)((count & 1) << 1 | count >> 1) << shift;
	b.bitmap.words[word] = le64_make(v);
	damage_write(img, at, BLOCK_BITMAP, &b);
}

static inline void
damage_flip(struct image *img, uint64_t nr)
{
	union damage_block b;

	damage_read(img, nr, &b);
	b.bytes[2000] ^= 0x55;
	cr_assert_eq(image_write(img, &b, sizeof(b), nr * METADATA_BLOCK_SIZE), 0);
}

/* The value of KEY in the tree of one leaf, or of the leaf, at ROOT: 8 bytes of it, to be changed. */
static inline struct le64 *
damage_value(union damage_block *leaf, uint64_t key)
{
	int i = node_find_exact(&leaf->node, key);

	cr_assert_geq(i, 0);
	return node_value(&leaf->node, (unsigned)i);
}

/* The root of device ID's tree, of a pool with few devices. */
static inline uint64_t
damage_dev_root(struct image *img, uint32_t id)
{
	union damage_block b;

	damage_read(img, 0, &b);
	damage_read(img, le64_get(b.sb.data_mapping_root), &b);
	return le64_get(*damage_value(&b, id));
}

/* --- what is said --- */

static char damage_said[4096];

static inline void
damage_listen(const char *text)
{
	snprintf(damage_said, sizeof(damage_said), "%s", text);
}

/* The last message names the number NR. */
static inline bool
damage_names(uint64_t nr)
{
	char wanted[32];
	size_t len = (size_t)snprintf(wanted, sizeof(wanted), "%" PRIu64, nr);

	for (const char *at = damage_said; (at = strstr(at, wanted)); at++)
		if ((at == damage_said || strchr(" (", at[-1])) && strchr(" ,:;)", at[len]))
			return true;
	fprintf(stderr, "# no %s in: %s\n", wanted, damage_said);
	return false;
}

#endif
