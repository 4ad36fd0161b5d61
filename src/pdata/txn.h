/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * txn: the transaction manager, copy-on-write of metadata blocks (format sheet, S 7.1).
 *
 * A block of a committed transaction is never changed: before a change it is shadowed, that is
 * copied to a newly allocated block, once per transaction. What points to it must then be changed
 * in the same way, up to the superblock.
 *
 * The metadata space map is used through the hooks below, because it is itself made of blocks and
 * trees that live in the transaction.
 *
 * Locking: as the block cache: txn_read() shared, everything else under the exclusive metadata lock.
 * Errors: negative errno. -ENOSPC: no free metadata block; what was begun may be half done, so callers
 * reserve first (txn_require). -EUCLEAN: the image contradicts itself.
 */
#ifndef THINFS_PDATA_TXN_H
#define THINFS_PDATA_TXN_H

#include <stdbool.h>
#include <stdint.h>

#include "pdata/block_cache.h"

struct space_map;

struct txn {
	struct block_cache *bc;
	struct space_map *sm; /* of the metadata device; set once it is open */
	/* Two bits a block, of somebody who knows something of a block as long as it is not made anew; NULL: nobody. */
	uint64_t *known;
	uint64_t nr_known;
};

/* A block for reading, held until bc_put(). */
int txn_read(struct txn *t, uint64_t nr, enum block_type type, struct block **out);

/* Allocate a block of zeros with count 1, held until bc_put(). */
int txn_new(struct txn *t, enum block_type type, struct block **out);

/*
 * Make block NR changeable: *out is NR itself or a copy at another place, held until bc_put().
 * When *shared is set, others still point to NR, and the caller must add a reference for all that
 * the copy points to. The caller stores (*out)->nr where it had found NR.
 */
int txn_shadow(struct txn *t, uint64_t nr, enum block_type type, struct block **out, bool *shared);

/* References of a block: add one, drop one (freeing it at 0, after which nothing may be read from it), count. */
int txn_inc(struct txn *t, uint64_t nr);
int txn_dec(struct txn *t, uint64_t nr);
/*
 * Drop a reference of a block that others keep, and with it one of all that is below: the only way in which a block
 * loses a user without its own count, or that of a block above it that was copied, telling (sm_was_dropped()).
 */
int txn_leave(struct txn *t, uint64_t nr);
int txn_count(struct txn *t, uint64_t nr, uint32_t *count);

#endif
