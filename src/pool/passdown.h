/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * passdown: giving the space of freed data blocks back to the data image.
 *
 * A block whose last reference went in a transaction stays reserved when that is durable, until
 * its place has been punched (a file) or discarded (a block device): were it handed out before,
 * the discard would hit its new data. Done by a thread of its own, in merged ranges, so that
 * nobody's commit waits for it.
 */
#ifndef THINFS_POOL_PASSDOWN_H
#define THINFS_POOL_PASSDOWN_H

#include <stdbool.h>

#include "util/runs.h"

struct pool;

/* Without a thread (tests) passdown_queue() does it all at once. */
int passdown_start(struct pool *p);
/* Do what is left, and end the thread. */
void passdown_stop(struct pool *p);

/* Whether the pool does so. */
bool passdown_wanted(const struct pool *p);
/* Takes what is in FREED, reserved data blocks that nothing points to, of a durable transaction or of none. No lock held. */
void passdown_queue(struct pool *p, struct runs *freed);
/* Give back the places of the NR blocks from FIRST on, which the pool is without, in small pieces. No lock held. */
void passdown_now(struct pool *p, uint64_t first, uint64_t nr);
/* Wait until all that was queued can be handed out again. No lock held. */
void passdown_wait(struct pool *p);

#endif
