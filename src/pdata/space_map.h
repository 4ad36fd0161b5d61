/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * space_map: who owns each block, and how many owners it has (format sheet, S 6).
 *
 * There are two in a pool, of the metadata device and of the data device; they differ only in
 * where the index of bitmaps is kept. Block numbers are of the device that the map is about.
 *
 * Counts change in memory: the bitmaps that are in use are kept as they will be written, counts
 * of 3 and more that changed are in a table. sm_flush() writes both into the open transaction,
 * once, when it is frozen; so no change of a count allocates anything, and the metadata map's
 * regress (S 7.2) is a short loop in one place. sm_settle_counts() keeps that table short.
 *
 * A block is *busy* when it may not be handed out: counted, freed in a transaction that is not
 * durable yet (the last commit may still need it, S 6.6), or reserved. A reservation is known to
 * memory only: data can be written to its place before anything points there, and a crash
 * leaks nothing.
 *
 * Memory: about 6 KiB per 16320 blocks of the bitmaps that were touched since opening.
 *
 * Locking: none inside. sm_count() and the sm_nr_ functions need the metadata lock shared, the
 * rest exclusive - sm_count() may load a bitmap, which a small lock inside serialises.
 * Errors: negative errno. -ENOSPC: no free block. -EUCLEAN: the image contradicts itself.
 */
#ifndef THINFS_PDATA_SPACE_MAP_H
#define THINFS_PDATA_SPACE_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "pdata/format.h"
#include "pdata/sm_counts.h"
#include "pdata/txn.h"
#include "util/runs.h"

struct space_map;

enum space_map_kind {
	SM_METADATA,
	SM_DATA,
};

/* An empty map of NR_BLOCKS blocks, to be flushed. SM_METADATA: sets t->sm and counts block 0. Format order as S 7.3. */
int sm_create(struct txn *t, enum space_map_kind kind, uint64_t nr_blocks, struct space_map **out);
/*
 * A map with the counts in COUNTS, which may be of fewer blocks than NR_BLOCKS, made of new blocks, to be flushed: for repair.
 * No block that IN_USE counts is handed out before the map is closed: the last commit needs it. SM_METADATA: sets t->sm.
 */
int sm_create_counted(struct txn *t, enum space_map_kind kind, uint64_t nr_blocks,
		      const struct sm_counts *counts, const struct sm_counts *in_use,
		      struct space_map **out);
/* The map that ROOT describes. SM_METADATA: sets t->sm. */
int sm_open(struct txn *t, enum space_map_kind kind, const struct disk_sm_root *root,
	    struct space_map **out);
/*
 * The same for one who only wants to read the pool: if the index cannot be read, which a message tells, the
 * sizes are still known, and every count is -EUCLEAN.
 */
int sm_open_for_reading(struct txn *t, enum space_map_kind kind, const struct disk_sm_root *root,
			struct space_map **out);
void sm_close(struct space_map *sm);
/* Whether the tree of large counts is there, so that its damage is found before anything is written. */
int sm_check_counts(struct space_map *sm);

/*
 * Load the bitmaps from FIRST_CHUNK (of BITMAP_ENTRIES blocks) on, so that nothing depends on the
 * hints in their index entries, which tools get wrong (S 6.5). FIRST_CHUNK 0: nr_allocated is
 * counted anew, too.
 */
int sm_recount(struct space_map *sm, uint64_t first_chunk);

/*
 * Call FN for each metadata block that the map is known to consist of without reading one, its roots and bitmaps, until it
 * returns non-zero, which is then returned.
 */
int sm_for_each_own_block(const struct space_map *sm, int (*fn)(void *arg, uint64_t block), void *arg);

uint64_t sm_nr_blocks(const struct space_map *sm);
/* Blocks with a count. */
uint64_t sm_nr_allocated(const struct space_map *sm);
/* Blocks that can be handed out now. */
uint64_t sm_nr_free(const struct space_map *sm);
/* Blocks that become free when the transactions under way are durable. */
uint64_t sm_nr_pending(const struct space_map *sm);

int sm_count(struct space_map *sm, uint64_t block, uint32_t *count);
/* -EUCLEAN: the block is outside the map, or its count would leave 32 bits, or go below 0. */
int sm_inc(struct space_map *sm, uint64_t block);
int sm_dec(struct space_map *sm, uint64_t block);

/*
 * Whether BLOCK has lost a user other than the last one in a transaction that is not durable: then the last commit has
 * more users of it than its count tells. Says so of a few blocks more, never of fewer. Of the metadata map, it is only
 * known whether there is any such block, by sm_dropped_any().
 */
bool sm_was_dropped(const struct space_map *sm, uint64_t block);
/* Say so of all blocks, until the open transaction is durable. */
void sm_dropped_any(struct space_map *sm);

/* Hand out one block with count 1. */
int sm_alloc(struct space_map *sm, uint64_t *block);

/*
 * Reserve up to WANT adjacent free blocks, at or after GOAL where possible: [*start, *start + *got).
 * Each then gets its first sm_inc(), or goes back with sm_unreserve().
 */
int sm_reserve(struct space_map *sm, uint64_t goal, uint64_t want, uint64_t *start, uint64_t *got);
void sm_unreserve(struct space_map *sm, uint64_t start, uint64_t nr);

/* New blocks at the end. Shrinking is -EINVAL. */
int sm_grow(struct space_map *sm, uint64_t nr_blocks);

/*
 * What there is from FIRST on (behind) and before it: blocks with a count, blocks that are busy without one, free ones. Loads the bitmaps
 * behind.
 */
struct sm_split {
	uint64_t used_behind, held_behind, free_before;
};
int sm_split_at(struct space_map *sm, uint64_t first, struct sm_split *split);

/*
 * Shrinking the data map (sm_shrink.c). A fence before it: no block from FIRST on is handed out any more, and those that are given
 * back or become free are not either. In memory only.
 */
int sm_fence(struct space_map *sm, uint64_t first);
/* Nothing reserved may be left behind it. Those that wait for a transaction to be durable still do. */
void sm_unfence(struct space_map *sm);
/* Where it is; UINT64_MAX: there is none. */
uint64_t sm_get_fence(const struct space_map *sm);
/* Blocks behind the fence that have a count, or that a transaction which is not durable has freed. */
int sm_behind_fence(struct space_map *sm, uint64_t *used, uint64_t *pending);
/* Make the map end at the fence. The caller has found nothing behind it. */
int sm_shrink(struct space_map *sm);
/* Blocks of metadata that this may take, and free, at most. */
void sm_shrink_cost(const struct space_map *sm, uint64_t *taken, uint64_t *freed);

/*
 * When many counts of 3 and more have changed, bring them into the open transaction now, so that sm_flush() never finds
 * millions to do in one hold of the metadata lock. Takes no block that sm_flush_cost() has not counted. Not from within an
 * operation on a tree.
 */
int sm_settle_counts(struct space_map *sm);

/*
 * Bring all changes into the open transaction. The data map first, then the metadata map; after
 * that one nothing may be allocated before the transaction is frozen. ROOT: for the superblock.
 */
int sm_flush(struct space_map *sm, struct disk_sm_root *root);

/* The open transaction is frozen: blocks freed in it wait for sm_durable(). */
void sm_freeze(struct space_map *sm);

/*
 * The frozen transaction is durable. The blocks freed in it go to FREED, still busy, for the
 * caller to punch and then to sm_unreserve(); with FREED NULL they are free at once.
 */
int sm_durable(struct space_map *sm, struct runs *freed);

/* Counts that may change before the map is flushed. */
struct sm_change {
	uint64_t up; /* of blocks in use: rise */
	uint64_t down; /* fall */
	uint64_t taken; /* of free blocks: become 1 */
};

/* How many metadata blocks sm_flush() may have to allocate at most, if CHANGE happens before it. */
uint64_t sm_flush_cost(struct space_map *sm, const struct sm_change *change);

#endif
