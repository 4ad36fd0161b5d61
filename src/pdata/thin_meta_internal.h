/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of thin_meta share.
 *
 * The root of a device that changed is kept in memory and goes into the top-level tree when the
 * transaction is frozen. That is safe because dev_touch() has copied the way to its entry before:
 * no metadata snapshot shares the leaf that holds the old root.
 */
#ifndef THINFS_PDATA_THIN_META_INTERNAL_H
#define THINFS_PDATA_THIN_META_INTERNAL_H

#include <bsd/sys/queue.h>

#include "pdata/block_cache.h"
#include "pdata/btree.h"
#include "pdata/format.h"
#include "pdata/space_map.h"
#include "pdata/superblock.h"
#include "pdata/thin_meta.h"
#include "pdata/txn.h"
#include "util/u64map.h"

struct thin_dev {
	struct thin_meta *meta;
	uint32_t id;
	unsigned opens;
	bool changed; /* details or root differ from the trees' */
	bool gone; /* deleted, or not there any more after an abort */
	uint64_t changed_in; /* transaction of the last change */
	uint64_t root;
	struct dev_info info;
	TAILQ_ENTRY(thin_dev) link;
};

TAILQ_HEAD(thin_dev_list, thin_dev);

struct thin_meta {
	struct image *img;
	size_t cache_bytes;
	bool read_only;
	bool broken; /* a change failed half-way: only meta_abort() helps */
	bool in_doubt; /* a superblock was not flushed, and it is what meta_abort() went back to: the disk may have the one before */
	bool changed; /* the open transaction has changes */
	uint64_t pinned; /* a data block that is no device's own; MAP_HOLE: none */
	struct block_cache *bc;
	struct txn txn;
	struct space_map *meta_sm;
	struct space_map *data_sm;
	struct superblock sb; /* as the open transaction would write it, but for the maps' roots */
	void *frozen_sb; /* of the transaction on its way, METADATA_BLOCK_SIZE bytes */
	/* A superblock was written, and not flushed. Of who commits, without a lock: so not beside what others read with one. */
	bool unflushed;
	uint64_t open_txn;
	struct thin_dev_list devs; /* in memory: open or changed */
	struct u64map dev_by_id; /* id -> struct thin_dev */
};

/* Trees over this metadata; the top-level tree's values own subtrees, TOP_SET is for replacing a root that was handed on. */
struct btree meta_mapping_tree(struct thin_meta *m);
struct btree meta_top_tree(struct thin_meta *m);
struct btree meta_top_set_tree(struct thin_meta *m);
struct btree meta_details_tree(struct thin_meta *m);

/* Both maps as the superblock M->sb describes them. */
int meta_open_maps(struct thin_meta *m);
void meta_close_maps(struct thin_meta *m);

/* --- meta_space.c; -ENOSPC: there is no room for it and for the commit after it --- */

uint64_t meta_kernel_reserve(const struct thin_meta *m); /* S 12 */
/* One btree_remove_some() at KEY of at most MAX mappings. O(depth). */
int meta_require_removal(struct thin_dev *d, uint64_t key, uint64_t max, enum meta_purpose purpose);
/* meta_delete_thin() */
int meta_require_deletion(struct thin_dev *d);
/* That many more blocks. */
int meta_require_growth(struct thin_meta *m, uint64_t data_blocks, uint64_t meta_blocks);

/* Copying NODES of the trees of NR_DEVS devices, to let BLOCKS data blocks be at another place. */
int meta_require_relocation(struct thin_meta *m, uint64_t nodes, uint64_t nr_devs, uint64_t blocks);
/* sm_shrink() of the data map. */
int meta_require_shrink(struct thin_meta *m);

/* A change may begin: -EROFS, or -EIO after one that failed. */
int meta_begin_change(struct thin_meta *m);
/* Pass on R; a failed change breaks the transaction. */
int meta_end_change(struct thin_meta *m, int r);

/* The device in memory, read if it was not there: -ENODATA. Exclusive. */
int meta_load_dev(struct thin_meta *m, uint32_t id, struct thin_dev **out);
/* What the open transaction has of a device, without loading it. Shared. */
int meta_peek_dev(struct thin_meta *m, uint32_t id, struct dev_info *info, uint64_t *root);
/* Call FN for each device with the root that the open transaction has of it, until it returns non-zero. Shared. */
int meta_for_each_root(struct thin_meta *m, int (*fn)(void *arg, uint32_t id, uint64_t root), void *arg);

/* Bring the roots and details of all changed devices into the trees. */
int meta_flush_devs(struct thin_meta *m);
/* Read all devices in memory anew, after an abort. */
int meta_reload_devs(struct thin_meta *m);
void meta_free_devs(struct thin_meta *m);

/*
 * Before the device's mappings change: own the ways to its entries, so that writing them when the transaction is frozen
 * allocates nothing, and mark it changed.
 */
int dev_touch(struct thin_dev *d);

#endif
