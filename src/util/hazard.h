/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hazard: what each thread is looking at without a lock, so that nobody takes it away (hazard pointers).
 *
 * Things are found by a pointer that is shared. A reader loads it, says hazard_set(), and loads it again: if it is
 * still the same, the thing stays until hazard_clear(). Who wants to take a thing away first changes the shared pointer,
 * so that nobody finds it any more, and then asks hazard_is_set(). Loads (the second) and stores of the
 * shared pointer must be sequentially consistent: then either the reader sees the change, or the other one the hazard.
 *
 * A thread can set a few at once, and clears what it has set itself. Cost: a write to a line of its own; asking looks at
 * all threads' lines.
 */
#ifndef THINFS_UTIL_HAZARD_H
#define THINFS_UTIL_HAZARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "util/thread_slot.h"

#define HAZARDS_PER_THREAD (CACHE_LINE / sizeof(void *))

/* All zero: none is set. */
struct hazards {
	struct {
		_Atomic(const void *) at[HAZARDS_PER_THREAD];
	} of[THREAD_SLOTS];
};

/* Where this thread has P, which may be NULL: free; NULL: nowhere. */
static inline _Atomic(const void *) *
hazard_find(struct hazards *h, const void *p)
{
	unsigned slot = thread_slot();

	if (slot == THREAD_SLOTS)
		return NULL;
	for (unsigned i = 0; i < HAZARDS_PER_THREAD; i++)
		if (atomic_load_explicit(&h->of[slot].at[i], memory_order_relaxed) == p)
			return &h->of[slot].at[i];
	return NULL;
}

/* False: the thread has no room for one more. */
static inline bool
hazard_set(struct hazards *h, const void *p)
{
	_Atomic(const void *) *at = hazard_find(h, NULL);

	if (at)
		atomic_store(at, p);
	return at;
}

/* False: this thread has not set P. */
static inline bool
hazard_clear(struct hazards *h, const void *p)
{
	_Atomic(const void *) *at = hazard_find(h, p);

	/* What was read there has been read before whoever finds it cleared goes on. */
	if (at)
		atomic_store_explicit(at, NULL, memory_order_release);
	return at;
}

/* By any thread. */
bool hazard_is_set(struct hazards *h, const void *p);

#endif
