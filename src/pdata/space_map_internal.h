/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the space maps share.
 */
#ifndef THINFS_PDATA_SPACE_MAP_INTERNAL_H
#define THINFS_PDATA_SPACE_MAP_INTERNAL_H

#include "pdata/btree.h"
#include "pdata/sm_chunk.h"
#include "pdata/space_map.h"
#include "util/lock.h"
#include "util/u64map.h"

/* Blocks that have lost a user but not the last one, in a transaction. */
struct sm_drops {
	struct u64map blocks;
	bool any; /* too many to know them: it may be any block */
};

struct space_map {
	struct txn *txn;
	enum space_map_kind kind;
	bool damaged; /* its index could not be read: there are no chunks to look at */
	uint64_t nr_blocks;
	uint64_t nr_allocated;
	uint64_t nr_held; /* busy without a count: freed and not yet durable, or reserved */
	uint64_t fence; /* no block from here on is handed out; UINT64_MAX: none */
	uint64_t cursor; /* where the search without a goal goes on */
	uint64_t bitmap_root; /* metadata: the index block; data: root of the bitmap tree */
	uint64_t count_root;
	struct sm_chunk *chunks;
	uint64_t nr_chunks;
	uint64_t nr_dirty; /* chunks */
	struct u64map changed_counts; /* counts >= 3 since the last flush; 0: no longer >= 3 */
	struct runs freed_open;
	struct runs freed_frozen;
	struct sm_drops dropped_open;
	struct sm_drops dropped_frozen;
	struct mutex load_lock; /* loading a chunk under the shared metadata lock; reads blocks */
};

/* The data map's index, and either map's counts of 3 and more. */
struct btree sm_index_tree(struct space_map *sm);
struct btree sm_count_tree(struct space_map *sm);

uint64_t sm_chunks_for(uint64_t nr_blocks);
/* How many blocks of the map a chunk describes. */
uint32_t sm_entries_in(const struct space_map *sm, uint64_t chunk);
/* The chunk, loaded. */
int sm_get_chunk(struct space_map *sm, uint64_t index, struct sm_chunk **out);
void sm_mark_dirty(struct space_map *sm, struct sm_chunk *c);
void sm_drops_clear(struct sm_drops *d);

#endif
