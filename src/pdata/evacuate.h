/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * evacuate: taking all references to the last blocks of the data device elsewhere, and then making it smaller.
 *
 * Trees share nodes, and a block that moves may be named in many leaves. evacuation_move() changes all
 * leaves that name it at once, and each node above them once, however many share it: the copy takes over all
 * references. So what was shared before is shared after, and nothing is counted differently but at another place.
 * This takes time for the nodes that lead to blocks that must go, and for no others: committed nodes
 * never change, so of those that evacuation_find() found to lead to none it remembers just that, in a bit each.
 *
 * Data are the caller's affair: they are copied between evacuation_find() and evacuation_move(), and nobody
 * may overwrite them meanwhile. A block that must go and is shared, by the rule of time, is not (dev_sort_out_shared() calls it
 * shared, too). Of one that is not shared, the writers of one block of one device have to be kept away.
 *
 * Locking: as thin_meta.h; "shared" and "exclusive" are the caller's metadata lock. One at a time, and by one thread.
 * Errors: as thin_meta.h. After meta_abort() only evacuation_end() may be called.
 */
#ifndef THINFS_PDATA_EVACUATE_H
#define THINFS_PDATA_EVACUATE_H

#include <stdbool.h>
#include <stdint.h>

#include "pdata/thin_meta.h"
#include "util/u64map.h"

struct evacuation;

/*
 * No data block from FIRST on is handed out from now on. -EBUSY: a metadata snapshot is held, which cannot change; -EINVAL; -ENOSPC: what is
 * in use there, or might be soon, would not leave KEPT free blocks before it. Exclusive; O(blocks).
 */
int evacuation_begin(struct thin_meta *m, uint64_t first, uint64_t kept, struct evacuation **out);
/* They are free again, if they still are there. Nothing reserved is left among them. Exclusive. */
void evacuation_end(struct evacuation *e);

/* How many of the blocks that must go are in use; *pending: freed in a transaction that is not durable. Shared; O(blocks). */
int evacuation_left(struct evacuation *e, uint64_t *used, uint64_t *pending);

/* A mapping to a block that must go. */
struct evacuee {
	uint64_t vblock, dblock;
	bool shared; /* by the rule of time */
};

/* How far a search has come. All zeros: the start. */
struct evacuation_place {
	uint64_t dev, vblock;
	bool end; /* of the last device */
};

/*
 * Some of them, at most MAX, all of device *dev; *nr may be 0 although there are more behind *AT, which moves on. A bounded
 * number of nodes is read. Shared.
 */
int evacuation_find(struct evacuation *e, struct evacuation_place *at, uint32_t *dev,
		    struct evacuee *found, unsigned max, unsigned *nr);

/*
 * Find out which nodes MOVES, the next to be moved, does not concern, so that evacuation_move() need not; from all zeros until
 * at->end. What is not prepared costs that call time, nothing else. A bounded number of nodes is read. Shared.
 */
int evacuation_prepare(struct evacuation *e, const struct u64map *moves, struct evacuation_place *at);

/*
 * Wherever a key of MOVES (data block -> reserved data block) is mapped, let its value be. Those that nothing maps any more stay
 * reserved. -ENOSPC, -ENOMEM: harmless. Exclusive; O(devices, and nodes that
 * lead to blocks that move or that is not known of).
 */
int evacuation_move(struct evacuation *e, const struct u64map *moves);

/* The data device ends before them now. -EAGAIN: some are in use, or not durably free; -ENOSPC: both harmless. Exclusive. */
int evacuation_shrink(struct evacuation *e);

#endif
