/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of check share.
 *
 * Functions that return int return 0 whatever they found in the image, and negative errno when the
 * check cannot go on (-ENOMEM).
 */
#ifndef THINFS_PDATA_CHECK_INTERNAL_H
#define THINFS_PDATA_CHECK_INTERNAL_H

#include "pdata/block_cache.h"
#include "pdata/btree.h"
#include "pdata/check.h"
#include "pdata/format.h"
#include "pdata/sm_counts.h"
#include "pdata/superblock.h"

/* What a metadata block is there for. One block has one use. */
enum block_use {
	USE_NONE,
	USE_SUPERBLOCK,
	USE_TOP,
	USE_MAPPINGS,
	USE_DETAILS,
	/* From here on: what a repair makes anew. */
	USE_METADATA_INDEX,
	USE_DATA_INDEX,
	USE_METADATA_COUNTS,
	USE_DATA_COUNTS,
	USE_BITMAP,
};

/* A metadata block that was met. Of a node, what is known of the tree from there down. */
struct seen_block {
	uint64_t first, last; /* the least and the greatest key; first > last: no keys */
	uint64_t nr_entries; /* of the leaves */
	uint8_t use; /* enum block_use */
	uint8_t height; /* of a leaf: 1; 0: the walk is below it */
	bool broken; /* not as it should be, and said so: nothing below it is known */
	bool incomplete; /* something below it is broken */
	bool underfull; /* may only be a root */
	bool told; /* that it is one and no root */
};

/* A device whose details say a wrong number of mapped blocks. */
struct wrong_details {
	uint64_t id;
	struct disk_details right;
};

struct check {
	struct image *img;
	check_fn fn;
	void *arg;
	struct check_result result;
	struct superblock sb;
	uint64_t nr_blocks; /* of metadata, as their space map says */
	uint64_t nr_data_blocks;
	struct seen_block *seen; /* one for each metadata block */
	struct sm_counts metadata, data; /* what the counts must be */
	struct sm_counts trees; /* the same of metadata, without what the space maps themselves use */
	bool trees_lost; /* not all metadata blocks of the devices are known */
	bool mappings_lost; /* not all mappings are */
	bool maps_lost; /* not all blocks of the space maps are known */
	struct wrong_details *wrong;
	size_t nr_wrong, cap_wrong;
	uint8_t *nodes; /* a block for each level of a tree */
};

/* The whole check; check_end() is needed whatever this returns. */
int check_run(struct check *c, struct image *img, check_fn fn, void *arg);
void check_end(struct check *c);

/* --- reporting --- */

#define CHECK_TEXT_MAX 256

void check_problem(struct check *c, const struct check_problem *p, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* An error of one metadata block. Mendable if it is part of a space map. */
void check_error(struct check *c, enum block_use use, uint64_t block, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
const char *check_use_name(enum block_use use);

/* --- blocks --- */

/* Something points to the block. Outside the device: nothing is counted. */
int check_count(struct check *c, uint64_t block);
/* Take a block that is no node for a use: false, and said so, when it is outside, or has a use. */
bool check_claim(struct check *c, uint64_t block, enum block_use use);
/* Read and verify; false, and said so, when it is not what it should be. */
bool check_read(struct check *c, uint64_t block, enum block_use use, enum block_type type, void *data);
/* What USE belongs to cannot be known in full. */
void check_lose(struct check *c, enum block_use use);

/* --- trees --- */

struct tree_walk {
	struct check *c;
	enum block_use use;
	uint32_t value_size;
	bool every_leaf; /* those that another tree has shown before, too */
	char name[64]; /* for messages: "details", "mappings of device 5" */
	/* FIRST: this leaf has not been met before. */
	int (*leaf)(struct tree_walk *w, uint64_t block, const struct disk_node *n, bool first);
	void *arg;
};

/* *out: what is known of the root; NULL: it is broken. The pointer to the root is counted by the caller. */
int check_walk(struct tree_walk *w, uint64_t root, const struct seen_block **out);

/* --- the parts --- */

/* The trees of devices of the live pool, or with HELD of the metadata snapshot. */
int check_devices(struct check *c, const struct superblock *sb, bool held);

struct map_check {
	struct check *c;
	bool of_data;
	const char *name;
	enum block_use index_use, counts_use;
	uint64_t nr_blocks, nr_allocated, bitmap_root, count_root;
	const struct sm_counts *wanted;
	struct u64map large; /* counts in its tree; those that a bitmap asks for are taken out */
	bool large_lost; /* the tree is not whole */
	struct disk_index_entry *index;
	uint64_t nr_bitmaps;
};

/* Read both space maps' trees and indexes, then hold each bitmap against what must be in it. */
int check_maps(struct check *c);
int check_bitmaps(struct map_check *m);

#endif
