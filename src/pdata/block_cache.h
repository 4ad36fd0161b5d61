/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * block_cache: metadata blocks in memory.
 *
 * A block is clean (as on disk), dirty (made in the open transaction) or frozen (of a transaction
 * that is being written out). All metadata is copy-on-write: only dirty blocks may be changed,
 * through the transaction manager, so that frozen and clean ones never change and may be read and
 * written out without a lock.
 *
 * The cache remembers which blocks were read or made, and not freed since: they are in use, whether they are still cached
 * or not. A space map that calls one of them free is found out before it is written over (bc_new).
 *
 * Memory: clean blocks nobody holds are evicted, second chance, above the bound. Dirty and frozen
 * ones stay: bc_nr_dirty() tells when to commit.
 *
 * Locking: bc_read() and bc_put() may be called by any number of threads. bc_new(), bc_forget(),
 * bc_freeze(), bc_drop_all() and changing contents need the caller's exclusive metadata lock;
 * a bc_read() of the same block must not run at the same time as these.
 * A block is put by the thread that got it.
 * bc_write() and bc_thaw() need no lock, but only one batch exists at a time.
 *
 * Checksum and block number are verified when a block is read from disk, with the checks of its
 * structure that need no context (node: S 4.1), and written when it goes out.
 * Errors: negative errno. -EUCLEAN: the block is not what it should be; a message said so.
 */
#ifndef THINFS_PDATA_BLOCK_CACHE_H
#define THINFS_PDATA_BLOCK_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/image.h"

enum block_type {
	BLOCK_SUPERBLOCK,
	BLOCK_NODE,
	BLOCK_BITMAP,
	BLOCK_INDEX,
};

struct block_cache;

struct block {
	uint64_t nr; /* const while somebody holds it */
	void *data; /* METADATA_BLOCK_SIZE bytes, aligned for any type */
	/* The rest belongs to the cache. */
	struct cache_entry *entry;
};

/* MEMORY: bound of clean and dirty blocks together, in bytes. NR_BLOCKS: of the image. */
int bc_open(struct image *img, uint64_t nr_blocks, size_t memory, struct block_cache **out);
void bc_close(struct block_cache *bc);

/* The metadata device has grown. Exclusive. */
void bc_set_nr_blocks(struct block_cache *bc, uint64_t nr_blocks);
uint64_t bc_nr_blocks(const struct block_cache *bc);
const char *bc_name(const struct block_cache *bc); /* of the image, for messages */

/*
 * Get a block, from disk if needed (then this blocks on I/O), and hold it until bc_put().
 * -EUCLEAN also for a number outside the image, or a block cached as another type.
 */
int bc_read(struct block_cache *bc, uint64_t nr, enum block_type type, struct block **out);
void bc_put(struct block *b);

/*
 * A block of zeros for NR, dirty, whatever was cached for that number. Held until bc_put(). -EUCLEAN, with a message: NR
 * is known to be in use, so the space map that says that it is free is wrong.
 */
int bc_new(struct block_cache *bc, uint64_t nr, enum block_type type, struct block **out);

/* Whether the block was made in the open transaction: may be changed. */
bool bc_is_dirty(const struct block *b);

/* NR has been freed in the open transaction: it is not in use any more; if it is dirty, it needs not be written. */
void bc_forget(struct block_cache *bc, uint64_t nr);

/* All dirty blocks become frozen: the batch of this transaction. None may be frozen before. */
void bc_freeze(struct block_cache *bc);
/* Write the frozen blocks, sorted and merged. No flush. 0 or the image's error. */
int bc_write(struct block_cache *bc);
/* The frozen blocks are on disk: they are clean now. */
void bc_thaw(struct block_cache *bc);

/* Forget everything, dirty and frozen blocks too. Nobody may hold a block. */
void bc_drop_all(struct block_cache *bc);

size_t bc_nr_dirty(const struct block_cache *bc);
size_t bc_nr_cached(const struct block_cache *bc);

/*
 * Read and verify one block past the cache; write one with its checksum, without a flush. For the superblock.
 */
int block_read_verified(struct image *img, uint64_t nr, enum block_type type, void *data);
int block_write_sealed(struct image *img, uint64_t nr, enum block_type type, void *data);
const char *block_type_name(enum block_type type);
/* Set block number and checksum (S 2). */
void block_seal(uint64_t nr, enum block_type type, void *data);
/* What is wrong with a block: checksum, block number or, for a node, header and order of keys (S 4.1). NULL: nothing. */
const char *block_fault(uint64_t nr, enum block_type type, const void *data);
/* The same. -EUCLEAN with a message naming IMAGE. */
int block_verify(const char *image, uint64_t nr, enum block_type type, const void *data);

#endif
