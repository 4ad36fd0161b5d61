/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thinfs that is wrong, by the environment's THINFS_MUTANT, to show that killing it would be noticed:
 *
 *   fsync    an fsync of the mount is answered without making anything durable
 *   reuse    data blocks that were freed are used again in the same transaction
 *   freeze   a snapshot does not wait for the writes that are under way
 */
#include <config.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "crash/mutant.h"
#include "pool/pool.h"
#include "pool/range_lock.h"

void __real_pool_sync(struct pool *p, struct vol *vol, void (*done)(void *arg, int error), void *arg);
void __wrap_pool_sync(struct pool *p, struct vol *vol, void (*done)(void *arg, int error), void *arg);
void __real_range_lock(struct range_lock *l, struct range_hold *h, enum range_mode mode,
		       uint64_t first, uint64_t last);
void __wrap_range_lock(struct range_lock *l, struct range_hold *h, enum range_mode mode,
		       uint64_t first, uint64_t last);

static bool
is(const char *name)
{
	const char *wanted = getenv("THINFS_MUTANT");

	return wanted && !strcmp(wanted, name);
}

static void __attribute__((constructor))
choose(void)
{
	if (is("reuse"))
		mutant = MUTANT_REUSE_DATA;
}

void
__wrap_pool_sync(struct pool *p, struct vol *vol, void (*done)(void *arg, int error), void *arg)
{
	if (is("fsync"))
		done(arg, 0);
	else
		__real_pool_sync(p, vol, done, arg);
}

/* A place that nobody else asks for. */
void
__wrap_range_lock(struct range_lock *l, struct range_hold *h, enum range_mode mode, uint64_t first,
		  uint64_t last)
{
	if (mode == RANGE_FREEZE && is("freeze"))
		first = last;
	__real_range_lock(l, h, mode, first, last);
}
