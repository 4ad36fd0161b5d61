/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lock_order: that locks are taken in their order, asserted in debug builds (--enable-debug).
 *
 * Each lock has a rank. A thread may take it only while it holds nothing of that rank or a higher one, but for
 * ranks of which many may be held: these go by ascending id. Otherwise the process ends by abort(3), after a line
 * that names both locks. Without THINFS_DEBUG nothing of this is left.
 *
 * Ranks are the user's, below LOCK_LEAF. Locks may be released in any order, by the thread that took them.
 */
#ifndef THINFS_UTIL_LOCK_ORDER_H
#define THINFS_UTIL_LOCK_ORDER_H

#include <stdint.h>

#define LOCK_LEAF 7U /* nothing is taken while it is held */

#ifdef THINFS_DEBUG

/* Before NAME, which outlives the hold, is taken. ID: 0 where there is one lock of the rank at a time. */
void lock_order_enter(unsigned rank, uint64_t id, const char *name);
void lock_order_leave(unsigned rank);
/* That this thread holds nothing of RANK or above. WHAT it is about to do, for the message. */
void lock_order_assert_below(unsigned rank, const char *what);

#else

static inline void
lock_order_enter(unsigned rank, uint64_t id, const char *name)
{
	(void)rank, (void)id, (void)name;
}

static inline void
lock_order_leave(unsigned rank)
{
	(void)rank;
}

static inline void
lock_order_assert_below(unsigned rank, const char *what)
{
	(void)rank, (void)what;
}

#endif
#endif
