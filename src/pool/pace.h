/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pace: long work in steps that keep others waiting, for a millisecond or so each, with pauses between them.
 *
 * The pauses let others in: POSIX threads' lock does not queue, so who unlocks it and at once locks it again often has
 * it again before any of those who wait has woken up (measured: fifty times in a row, readers and a commit
 * waiting). And the scheduler interrupts a thread that always computes more often, also while it
 * holds the lock.
 *
 *	struct pace pace = pace_start(p, pool_step(p, 1024));
 *
 *	while (there is more && !r) {
 *		r = pace_begin_change(&pace, purpose);
 *		... up to pace.nr of it ...
 *		pace_end_change(&pace);
 *	}
 */
#ifndef THINFS_POOL_PACE_H
#define THINFS_POOL_PACE_H

#include <stdint.h>

#include "pdata/thin_meta.h"

struct pool;

struct pace {
	struct pool *pool;
	unsigned nr; /* mappings, or whatever it is about, that the next step may take */
	unsigned max_nr;
	int64_t began_ns; /* the step under way */
	int64_t owed_ns; /* what steps took since the last pause */
};

struct pace pace_start(struct pool *p, unsigned max_nr);
/*
 * A step begins, with no lock held but ranges. First pauses as long as the last ones took, once that is worth it, so that what
 * they keep others from is theirs half of the time. Without threads (tests) there is nobody to wait for, and steps stay as they are.
 */
void pace_begin(struct pace *pace);
/* It has ended; the next one is made smaller if this one took long. */
void pace_end(struct pace *pace);

/* The same around pool_begin_change(), for what asks for metadata space itself, and pool_end_change(). */
int pace_begin_change(struct pace *pace, enum meta_purpose purpose) __attribute__((warn_unused_result));
void pace_end_change(struct pace *pace);

#endif
