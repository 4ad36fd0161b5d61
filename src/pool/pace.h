/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pace: long work on metadata, in steps that hold meta_lock for a millisecond or so each, with pauses between them.
 *
 * The pauses let others in: POSIX threads' lock does not queue, so who unlocks it and at once locks it again often has
 * it again before any of those who wait has woken up (measured: fifty times in a row, readers and a commit
 * waiting). And the scheduler interrupts a thread that always computes more often, also while it
 * holds the lock.
 *
 *	struct pace pace = pace_start(p, 1024);
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
	unsigned nr; /* mappings that the next step may take */
	unsigned max_nr;
	int64_t began_ns; /* the step under way */
	int64_t took_ns; /* the last one */
};

/* Steps of MAX_NR mappings, fewer when that takes long or the options say so. */
struct pace pace_start(struct pool *p, unsigned max_nr);
/*
 * pool_begin_change() for what asks for metadata space itself. But for the first step it first pauses as long as the last one
 * took: the lock is taken at most half of the time. Without threads (tests) there is nobody to wait for.
 */
int pace_begin_change(struct pace *pace, enum meta_purpose purpose) __attribute__((warn_unused_result));
void pace_end_change(struct pace *pace);

#endif
