/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thin_meta: the metadata of a pool (format sheet, S 3, S 5, S 9).
 *
 * Thin devices by number, their mappings from virtual to data blocks, both space maps, and the
 * transaction that holds all changes since the last commit.
 *
 * Committing is in steps, so that nothing waits for a disk with a lock held:
 *   meta_freeze()   exclusive lock, no I/O but reads: closes the transaction, opens the next one
 *   meta_write_blocks(), meta_write_superblock()
 *                   no lock: blocks, flush; superblock, flush. After meta_freeze(), and before the
 *                   superblock, the caller has flushed the data image.
 *   meta_durable()  exclusive lock: blocks freed in the transaction may be used again
 * Between the first and the last only one transaction is on its way. When one fails, all memory
 * state is void: meta_abort() goes back to the last commit.
 *
 * Numbers: dev ids up to DEV_ID_MAX; vblock: a device's data block index; dblock: a block of the
 * data image.
 *
 * Locking: none inside. "shared" and "exclusive" below are the caller's metadata lock.
 * Errors: negative errno. -ENOSPC, before anything was changed, where it is said. Other errors of
 * changing functions, unless listed with them, leave the transaction unusable: abort.
 */
#ifndef THINFS_PDATA_THIN_META_H
#define THINFS_PDATA_THIN_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/image.h"
#include "util/runs.h"

struct thin_meta;

struct thin_dev; /* a device that somebody has open, or that changed in this transaction */

struct meta_info {
	uint32_t data_block_sectors;
	uint64_t trans_id;
	uint32_t time;
	uint64_t held_root; /* 0: none */
	bool needs_check;
	uint64_t nr_data_blocks, used_data_blocks, free_data_blocks, pending_data_blocks;
	uint64_t nr_meta_blocks, used_meta_blocks, free_meta_blocks; /* raw: the reserve is in free */
	uint64_t meta_reserve; /* blocks kept for commits, S 12 */
	size_t nr_dirty; /* blocks of the open transaction */
};

struct dev_info {
	uint64_t mapped_blocks;
	uint64_t transaction_id;
	uint32_t creation_time;
	uint32_t snapshotted_time;
};

/* One stretch of a device's blocks that are adjacent both ways, or a hole. */
struct map_run {
	uint64_t vblock;
	uint64_t dblock; /* MAP_HOLE: not mapped */
	uint64_t len; /* blocks, > 0 */
	bool shared; /* by the rule of time, S 5.3, unless dev_sort_out_shared() found it is not */
	bool aged; /* which it did: the mapping looks shared to others */
};

#define MAP_HOLE UINT64_MAX

/*
 * Write a new pool (S 7.3) and flush: NR_DATA_BLOCKS of DATA_BLOCK_SECTORS sectors. The metadata device is
 * used up to METADATA_BLOCKS_MAX. Block 0 is written last. -EINVAL, with a message: a size that cannot be.
 */
int meta_format(struct image *img, uint32_t data_block_sectors, uint64_t nr_data_blocks);

/* Whether block 0 is all zeros: *zero. */
int meta_is_unformatted(struct image *img, bool *zero);

/* CACHE_BYTES bounds the block cache. -EUCLEAN or -EINVAL with a message that says which field is wrong. */
int meta_open(struct image *img, size_t cache_bytes, bool read_only, struct thin_meta **out);
/*
 * Before anything is written: make sure that the superblock is on disk as it was read. One that was killed, or failed to flush, may
 * have left it in the cache only, and the disk may still have the one before, whose blocks are free by this one.
 */
int meta_confirm(struct thin_meta *m);
/* Does not commit. */
void meta_close(struct thin_meta *m);

void meta_get_info(struct thin_meta *m, struct meta_info *info); /* shared */

/* What metadata space a change may use: the less it adds, the more. */
enum meta_purpose {
	META_TO_ADD, /* leaves what is needed to unmap and delete */
	META_TO_UNMAP, /* part of a device; leaves what is needed to delete */
	META_TO_DELETE, /* a device; all there is */
};

/*
 * Make sure that NEW_DEVS devices can be made, and mappings changed along PATHS ways from a root to a leaf (each
 * good for up to 64 adjacent blocks; a new device's tree is one, too), and the transaction can still be committed after it. -ENOSPC otherwise,
 * with nothing changed: commit (it may free blocks), then ask again. exclusive.
 * dev_unmap(), dev_shed() and meta_delete_thin() ask for themselves.
 */
int meta_require(struct thin_meta *m, unsigned paths, unsigned new_devs, enum meta_purpose purpose);
/* Metadata blocks that volumes cannot come to use: with fewer than these free, meta_require() refuses to add. exclusive. */
uint64_t meta_out_of_reach(struct thin_meta *m);

/* --- devices; exclusive unless said otherwise --- */

int meta_create_thin(struct thin_meta *m, uint32_t id); /* -EEXIST, harmless */

/* Advance the clock (S 5.3); once before one or several meta_create_snap(). -EOVERFLOW, harmless, at the end of 24 bits. */
int meta_tick(struct thin_meta *m);
/* A snapshot of ORIGIN as it is now, at the clock's present time, which must have been advanced since the origin was last written.
 * -EEXIST, -ENODATA: harmless. O(1). */
int meta_create_snap(struct thin_meta *m, uint32_t id, uint32_t origin);
/* -ENODATA, -EBUSY (open), -ENOSPC: harmless. O(unshared nodes). */
int meta_delete_thin(struct thin_meta *m, uint32_t id);

/* Call FN for each device id >= FROM, ascending, until it returns non-zero. shared. */
int meta_for_each_dev(struct thin_meta *m, uint32_t from, int (*fn)(void *arg, uint32_t id),
		      void *arg);

/* Hold a device, -ENODATA if there is none; counted, dev_close() gives it back. */
int dev_open(struct thin_meta *m, uint32_t id, struct thin_dev **out);
void dev_close(struct thin_dev *d);
void dev_get_info(const struct thin_dev *d, struct dev_info *info); /* shared */
/* A number that grows with each change of the device's mappings or details: the transaction of the last one. shared. */
uint64_t dev_changed_in(const struct thin_dev *d);

/*
 * The runs that cover [vblock, vblock + len), holes too, ascending, at most MAX of them in RUNS; *nr: how many.
 * When there are more than MAX, the first MAX are given. shared.
 */
int dev_map(struct thin_dev *d, uint64_t vblock, uint64_t len, struct map_run *runs, unsigned max,
	    unsigned *nr);
/*
 * Cut the *NR runs that dev_map() gave into such that are shared and such that the device has for itself, now and in
 * the last commit; at most MAX, then the last ones are dropped. O(depth) for each block that no other entry points
 * to. shared.
 */
int dev_sort_out_shared(struct thin_dev *d, struct map_run *runs, unsigned max, unsigned *nr);
/*
 * Let the NR blocks from VBLOCK on, which are at DBLOCK, no longer look shared, those that are not: so that the next
 * write to them changes nothing. Needs room as an insertion.
 */
int dev_renew(struct thin_dev *d, uint64_t vblock, uint64_t dblock, uint64_t nr);
/* First mapped vblock >= FROM, with the length of the run of mapped blocks there (at most MAX_LEN); -ENODATA: none. shared. */
int dev_next_mapped(struct thin_dev *d, uint64_t from, uint64_t max_len, uint64_t *vblock,
		    uint64_t *len);
int dev_highest_mapped(struct thin_dev *d, uint64_t *vblock); /* -ENODATA: none. shared. */

/*
 * Reserve up to WANT adjacent data blocks near GOAL: [*dblock, *dblock + *got). Nothing points to them and no commit knows of them until dev_insert().
 * -ENOSPC, harmless: none free (a commit may free some: pending_data_blocks).
 */
int meta_reserve_data(struct thin_meta *m, uint64_t goal, uint64_t want, uint64_t *dblock,
		      uint64_t *got);
void meta_unreserve_data(struct thin_meta *m, uint64_t dblock, uint64_t nr);

/* Map NR blocks from VBLOCK on to reserved data blocks from DBLOCK on, dropping what was mapped there. The data must be in place. */
int dev_insert(struct thin_dev *d, uint64_t vblock, uint64_t dblock, uint64_t nr);

/*
 * Let TO's blocks [dst, dst + nr) be FROM's [src, src + nr): mapped to the same data blocks, and not mapped where FROM
 * has holes. Both devices then take them for shared. FROM and TO may be one device; the ranges do not overlap.
 * -ENOMEM, harmless. O(nr).
 */
int dev_share(struct thin_dev *from, uint64_t src, struct thin_dev *to, uint64_t dst, uint64_t nr);

/*
 * Map NR blocks from VBLOCK on all to the one data block DBLOCK, in use or reserved, dropping what was mapped there. The device takes
 * them for shared. O(nr).
 */
int dev_map_all_to(struct thin_dev *d, uint64_t vblock, uint64_t nr, uint64_t dblock);
/* References to a data block. */
int meta_data_count(struct thin_meta *m, uint64_t dblock, uint32_t *count);
/*
 * Let no device ever have DBLOCK for itself, though it be the only one that does: what is in it stays as it is, as long as it has
 * references. One block, MAP_HOLE: none; in memory only, and not over meta_abort(). exclusive.
 */
void meta_pin_data(struct thin_meta *m, uint64_t dblock);
uint64_t meta_pinned_data(const struct thin_meta *m);
/* Whether DBLOCK lies where the pool is about to end: it has to be moved, and may have no new user. shared. */
bool meta_data_must_go(const struct thin_meta *m, uint64_t dblock);

/*
 * Unmap [begin, end), at most MAX entries at once, fewer when metadata space for PURPOSE is short: *next = where to go on, END when
 * done. -ENOSPC, harmless: not even one.
 */
int dev_unmap(struct thin_dev *d, uint64_t begin, uint64_t end, uint64_t max,
	      enum meta_purpose purpose, uint64_t *next);

/* Unmap some of the lowest blocks, cheaply where subtrees are shared: for deleting a big device step by step. *left: mapped blocks
 * after it. -ENOSPC, harmless. */
int dev_shed(struct thin_dev *d, uint64_t max, uint64_t *left);

/* Whether another device has the very same mappings: then deleting this one costs nothing. shared. */
int dev_root_is_shared(struct thin_dev *d, bool *is_shared);

/*
 * Whether deleting the device at once would drop no more than MAX mappings: those in nodes that no other device has. Reads no
 * more nodes than these MAX are in, however many are shared. shared.
 */
int dev_deletion_is_small(struct thin_dev *d, uint64_t max, bool *is_small);

/*
 * How many data blocks deleting the device would free, but for what it has at two places: of MAX_LEAVES leaves of its tree, from
 * vblock FROM on; *next: where to go on, when *more. O(nodes that it shares with none). shared.
 */
int dev_exclusive(struct thin_dev *d, uint64_t from, unsigned max_leaves, uint64_t *blocks,
		  uint64_t *next, bool *more);

/*
 * How many data blocks deleting several devices would free, all of them together: add each, once, from 0 to the end as with
 * dev_exclusive(). What has changed between the calls may be counted or not. Memory: 32 bytes for each node and data block
 * with several references that a device in it does not share as a part of a larger tree. -ENOMEM
 */
struct meta_tally;
struct meta_tally *meta_tally_new(void); /* NULL: no memory */
void meta_tally_free(struct meta_tally *t); /* NULL is fine */
int meta_tally_add(struct meta_tally *t, struct thin_dev *d, uint64_t from, unsigned max_leaves,
		   uint64_t *next, bool *more); /* shared */
uint64_t meta_tally_blocks(const struct meta_tally *t);

/* --- the pool --- */

int meta_set_transaction_id(struct thin_meta *m, uint64_t current, uint64_t new_id); /* -EINVAL: harmless */
int meta_set_needs_check(struct thin_meta *m, bool on);
/* S 9.5. The caller commits before meta_reserve_snap(): -EBUSY if the transaction has changes, or a snapshot is held. */
int meta_reserve_snap(struct thin_meta *m);
int meta_release_snap(struct thin_meta *m); /* -EINVAL: none held */
/* The device has become larger. -EINVAL: smaller; -ENOSPC: no room for the new bitmaps; both harmless. */
int meta_grow_data(struct thin_meta *m, uint64_t nr_data_blocks);
int meta_grow_metadata(struct thin_meta *m, uint64_t nr_meta_blocks);

/* --- commit --- */

/* The open transaction's number: starts at 1, +1 with each meta_freeze(). shared. */
uint64_t meta_open_txn(const struct thin_meta *m);
/* Whether the open transaction has changes, or one failed half-way. shared. */
bool meta_has_changes(const struct thin_meta *m);

int meta_freeze(struct thin_meta *m); /* exclusive */
int meta_write_blocks(struct thin_meta *m); /* no lock */
int meta_write_superblock(struct thin_meta *m); /* no lock */
int meta_write(struct thin_meta *m); /* both, where there are no data, or they have been flushed */
/* FREED: data blocks that became free, still reserved: punch them, then meta_unreserve_data(). NULL: free at once. exclusive. */
int meta_durable(struct thin_meta *m, struct runs *freed);

/* All of these, with a flush of DATA in its place, for offline tools and tests. DATA NULL: nothing to flush. */
int meta_commit(struct thin_meta *m, struct image *data);

/* Back to the last commit; open devices stay open, those that are gone answer -ENODATA from then on. exclusive. */
int meta_abort(struct thin_meta *m);
/*
 * After meta_abort(): set needs_check on disk by the superblock alone. When flushing a superblock has failed, the disk has
 * it or the one before it: until one of them is known to be there, no block that either uses may be written. exclusive.
 */
int meta_mark_needs_check(struct thin_meta *m);

#endif
