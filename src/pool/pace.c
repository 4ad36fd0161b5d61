/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <time.h>

#include "pool/pace.h"
#include "pool/pool_internal.h"
#include "util/clock.h"

#define NR_MIN 32U

#define LONG_NS 2000000
#define SHORT_NS 500000 /* not worth to go to sleep for, either */
/* Whatever made a step take that long. */
#define PAUSE_MAX_NS 20000000

struct pace
pace_start(struct pool *p, unsigned max_nr)
{
	return (struct pace){.pool = p, .nr = max_nr, .max_nr = max_nr};
}

static void
pause_between(struct pace *pace)
{
	struct timespec pause = {.tv_nsec = pace->owed_ns < PAUSE_MAX_NS ? pace->owed_ns : PAUSE_MAX_NS};

	if (pace->owed_ns < SHORT_NS)
		return;
	nanosleep(&pause, NULL);
	pace->owed_ns = 0;
}

void
pace_begin(struct pace *pace)
{
	pause_between(pace);
	pace->began_ns = monotonic_ns();
}

void
pace_end(struct pace *pace)
{
	int64_t took = monotonic_ns() - pace->began_ns;

	if (!pace->pool->options.commit_interval_ms)
		return;
	pace->owed_ns += took;
	if (took > LONG_NS && pace->nr / 2 >= NR_MIN)
		pace->nr /= 2;
	else if (took < SHORT_NS)
		pace->nr = pace->nr < pace->max_nr / 2 ? pace->nr * 2 : pace->max_nr;
}

int
pace_begin_change(struct pace *pace, enum meta_purpose purpose)
{
	int r;

	pause_between(pace);
	r = pool_begin_change(pace->pool, 0, 0, purpose);
	pace->began_ns = monotonic_ns();
	return r;
}

void
pace_end_change(struct pace *pace)
{
	pace_end(pace);
	pool_end_change(pace->pool);
}
