/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "util/lock_order.h"

#ifdef THINFS_DEBUG

#include <inttypes.h>
#include <stdlib.h>

#include "util/msg.h"

/*
 * What this thread holds. Of many locks of one rank only the highest is remembered, also after it was released
 * before the others: by ascending id, none below it is taken again before all are released.
 */
static __thread struct {
	unsigned nr;
	uint64_t highest;
	const char *name;
} held[LOCK_LEAF + 1];

static void __attribute__((noreturn))
fail(const char *what, uint64_t id, unsigned rank)
{
	msg_error("lock order: %s (%" PRIu64 ") while holding %s (%" PRIu64 ")", what, id,
		  held[rank].name, held[rank].highest);
	abort();
}

void
lock_order_enter(unsigned rank, uint64_t id, const char *name)
{
	for (unsigned i = rank + 1; i <= LOCK_LEAF; i++)
		if (held[i].nr)
			fail(name, id, i);
	if (held[rank].nr && id <= held[rank].highest)
		fail(name, id, rank);
	held[rank].nr++;
	held[rank].highest = id;
	held[rank].name = name;
}

void
lock_order_leave(unsigned rank)
{
	if (!held[rank].nr) {
		msg_error("lock order: releasing a lock of rank %u that is not held", rank);
		abort();
	}
	held[rank].nr--;
}

void
lock_order_assert_below(unsigned rank, const char *what)
{
	for (unsigned i = rank; i <= LOCK_LEAF; i++)
		if (held[i].nr)
			fail(what, 0, i);
}

#endif
