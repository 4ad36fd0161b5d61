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

#include "util/thread_slot.h"

#define HAZARDS_PER_THREAD (CACHE_LINE / sizeof(void *))

/* All zero: none is set. */
struct hazards {
	struct {
		_Atomic(const void *) at[HAZARDS_PER_THREAD];
	} of[THREAD_SLOTS];
};

/* False: the thread has no room for one more. */
bool hazard_set(struct hazards *h, const void *p);
/* False: this thread has not set P. */
bool hazard_clear(struct hazards *h, const void *p);
/* By any thread. */
bool hazard_is_set(struct hazards *h, const void *p);

#endif
