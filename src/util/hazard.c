/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stddef.h>

#include "util/hazard.h"

/* Where this thread has P, which may be NULL: free; NULL: nowhere. */
static _Atomic(const void *) *
find(struct hazards *h, const void *p)
{
	unsigned slot = thread_slot();

	if (slot == THREAD_SLOTS)
		return NULL;
	for (unsigned i = 0; i < HAZARDS_PER_THREAD; i++)
		if (atomic_load_explicit(&h->of[slot].at[i], memory_order_relaxed) == p)
			return &h->of[slot].at[i];
	return NULL;
}

bool
hazard_set(struct hazards *h, const void *p)
{
	_Atomic(const void *) *at = find(h, NULL);

	if (at)
		atomic_store(at, p);
	return at;
}

bool
hazard_clear(struct hazards *h, const void *p)
{
	_Atomic(const void *) *at = find(h, p);

	/* What was read there has been read before whoever finds it cleared goes on. */
	if (at)
		atomic_store_explicit(at, NULL, memory_order_release);
	return at;
}

bool
hazard_is_set(struct hazards *h, const void *p)
{
	unsigned nr = thread_slots_used();

	for (unsigned t = 0; t < nr; t++)
		for (unsigned i = 0; i < HAZARDS_PER_THREAD; i++)
			if (atomic_load(&h->of[t].at[i]) == p)
				return true;
	return false;
}
