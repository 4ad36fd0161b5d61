/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * seeds: sound pools to begin with, and what their metadata blocks are.
 *
 * Most were made by the kernel (tests/data). The last, made here, has names: a thinfs catalog.
 */
#ifndef THINFS_TESTS_SEEDS_H
#define THINFS_TESTS_SEEDS_H

#include "fuzz/cow_image.h"
#include "pdata/block_cache.h"

enum seed_class {
	SEED_SUPERBLOCK,
	SEED_TOP, /* nodes of the top-level mapping tree */
	SEED_MAPPING, /* nodes of devices' trees */
	SEED_DETAILS,
	SEED_INDEX, /* of the metadata map: one block */
	SEED_INDEX_TREE, /* of the data map */
	SEED_COUNTS, /* nodes of both count trees */
	SEED_META_BITMAP,
	SEED_DATA_BITMAP,
	SEED_CLASSES,
};

#define SEED_BLOCKS_MAX 256U
#define SEED_DEVS_MAX 16U

struct seed {
	const char *name;
	struct cow_image *meta, *data;
	struct {
		uint32_t nr;
		uint32_t v[SEED_BLOCKS_MAX];
	} blocks[SEED_CLASSES];
	uint32_t devs[SEED_DEVS_MAX]; /* ids */
	unsigned nr_devs;
	uint64_t records[SEED_DEVS_MAX]; /* of the catalog: offsets in the data image */
	unsigned nr_records;
};

/* Load them all; 0, or -1 after a message. */
int seeds_load(void);
unsigned seeds_nr(void);
struct seed *seeds_get(unsigned i); /* modulo their number, as it was loaded */

enum block_type seed_block_type(enum seed_class class);

#endif
