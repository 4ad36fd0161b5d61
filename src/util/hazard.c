/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "util/hazard.h"

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
