/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * range_lock: who may do what with which blocks of one volume.
 *
 *              READ  WRITE  CHANGE  FREEZE
 *   READ        +      +      -       +      look up the mapping and read
 *   WRITE       +      +      -       -      look up the mapping and overwrite in place
 *   CHANGE      -      -      -       -      change the mapping: provision, break sharing, discard
 *   FREEZE      +      -      -       -      no write is under way: taking a snapshot
 *
 * (+: both may hold overlapping ranges.) First come, first served: nobody waits for one that came
 * later, so a stream of writes cannot starve a snapshot.
 *
 * A hold lives in its caller's frame. READ and WRITE cost two writes to a line of the thread's own, as long as nobody has or
 * wants CHANGE or FREEZE on the volume: the hold is announced in the thread's place, and who wants one of these looks
 * at all places. Otherwise, one mutex, and a walk over the holds under way on this volume.
 */
#ifndef THINFS_POOL_RANGE_LOCK_H
#define THINFS_POOL_RANGE_LOCK_H

#include <bsd/sys/queue.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "util/lock.h"

enum range_mode {
	RANGE_READ,
	RANGE_WRITE,
	RANGE_CHANGE,
	RANGE_FREEZE,
};

struct range_hold {
	uint64_t first, last; /* inclusive */
	enum range_mode mode;
	struct range_place *place; /* where it is announced; NULL: it is in the list */
	TAILQ_ENTRY(range_hold) link;
};

TAILQ_HEAD(range_hold_list, range_hold);

struct range_lock {
	/* CHANGE and FREEZE, held and waiting: while there are any, nothing more is announced. Changes under the mutex. */
	atomic_uint nr_exclusive;
	struct mutex mutex;
	pthread_cond_t released;
	unsigned nr_waiting;
	struct range_hold_list holds; /* held and waiting, in order of arrival; not those that are announced */
};

void range_lock_init(struct range_lock *l);
void range_lock_destroy(struct range_lock *l);

/* Wait until [first, last] is free for MODE. */
void range_lock(struct range_lock *l, struct range_hold *h, enum range_mode mode, uint64_t first,
		uint64_t last);
void range_unlock(struct range_lock *l, struct range_hold *h);

#endif
