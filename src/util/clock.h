/* SPDX-License-Identifier: GPL-2.0-or-later */
/* clock: for durations, which a change of the time of day does not change. */
#ifndef THINFS_UTIL_CLOCK_H
#define THINFS_UTIL_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_S INT64_C(1000000000)

static inline int64_t
monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

#endif
