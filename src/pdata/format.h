/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format: dm-thin's metadata, version 2, as it lies on disk (format sheet, S 1-8).
 *
 * Block numbers are of 4096-byte metadata blocks unless they say "data block". Nothing here is in
 * host byte order.
 */
#ifndef THINFS_PDATA_FORMAT_H
#define THINFS_PDATA_FORMAT_H

#include <assert.h>
#include <stdint.h>

#include "util/le.h"

#define METADATA_BLOCK_SIZE 4096U
#define SECTOR_SIZE 512U

/* S 1 */
#define DATA_BLOCK_MIN_SECTORS 128U
#define DATA_BLOCK_MAX_SECTORS 2097152U
#define DEV_ID_MAX 16777215U
#define MAPPING_TIME_BITS 24
#define MAPPING_TIME_MAX ((1U << MAPPING_TIME_BITS) - 1)
#define DATA_BLOCKS_MAX (1ULL << 40)

/* S 6: blocks per bitmap, bitmaps of the metadata space map. */
#define BITMAP_ENTRIES 16320U
#define METADATA_BITMAPS_MAX 255U
#define METADATA_BLOCKS_MAX ((uint64_t)METADATA_BITMAPS_MAX * BITMAP_ENTRIES)

#define SUPERBLOCK_LOCATION 0
#define SUPERBLOCK_MAGIC 27022010ULL
#define SUPERBLOCK_VERSION 2U
#define SUPERBLOCK_NEEDS_CHECK 1U

/* S 2: XORed into the checksum, so that a block verifies as one type only. */
#define CSUM_XOR_SUPERBLOCK 160774U
#define CSUM_XOR_NODE 121107U
#define CSUM_XOR_BITMAP 240779U
#define CSUM_XOR_INDEX 160478U

/* How every metadata block begins (S 2). */
struct disk_header {
	struct le32 csum;
	struct le32 flags;
	struct le64 blocknr;
};

/* S 6.1; lies in 128 bytes of the superblock, the rest zero. */
struct disk_sm_root {
	struct le64 nr_blocks;
	struct le64 nr_allocated;
	struct le64 bitmap_root;
	struct le64 ref_count_root;
};

#define DISK_SM_ROOT_SPACE 128U

/* S 3 */
struct disk_superblock {
	struct disk_header header;
	uint8_t uuid[16];
	struct le64 magic;
	struct le32 version;
	struct le32 time;
	struct le64 trans_id;
	struct le64 held_root;
	union {
		struct disk_sm_root data_sm_root;
		uint8_t data_sm_space[DISK_SM_ROOT_SPACE];
	};
	union {
		struct disk_sm_root metadata_sm_root;
		uint8_t metadata_sm_space[DISK_SM_ROOT_SPACE];
	};
	struct le64 data_mapping_root;
	struct le64 device_details_root;
	struct le32 data_block_size; /* sectors */
	struct le32 metadata_block_size; /* sectors */
	struct le64 metadata_nr_blocks; /* at format time */
	struct le32 compat_flags;
	struct le32 compat_ro_flags;
	struct le32 incompat_flags;
	uint8_t unused[3732];
} __attribute__((packed));

/* S 4.1 */
#define NODE_INTERNAL 1U
#define NODE_LEAF 2U

struct disk_node {
	struct disk_header header; /* flags: exactly one of the two above */
	struct le32 nr_entries;
	struct le32 max_entries;
	struct le32 value_size;
	struct le32 padding;
	struct le64 keys[]; /* max_entries of them, then the values */
};

/* S 6.3 */
struct disk_index_entry {
	struct le64 blocknr;
	struct le32 nr_free;
	struct le32 none_free_before;
};

/* S 6.2 */
struct disk_bitmap {
	struct le32 csum;
	struct le32 unused;
	struct le64 blocknr;
	struct le64 words[510];
};

struct disk_index {
	struct le32 csum;
	struct le32 padding;
	struct le64 blocknr;
	struct disk_index_entry entries[METADATA_BITMAPS_MAX];
};

/* S 5.2 */
struct disk_details {
	struct le64 mapped_blocks;
	struct le64 transaction_id;
	struct le32 creation_time;
	struct le32 snapshotted_time;
};

static_assert(sizeof(struct disk_superblock) == METADATA_BLOCK_SIZE, "superblock");
static_assert(sizeof(struct disk_bitmap) == METADATA_BLOCK_SIZE, "bitmap");
static_assert(sizeof(struct disk_index) == METADATA_BLOCK_SIZE, "index");
static_assert(sizeof(struct disk_node) == 32, "node");
static_assert(sizeof(struct disk_index_entry) == 16, "index entry");
static_assert(sizeof(struct disk_details) == 24, "details");

#endif
