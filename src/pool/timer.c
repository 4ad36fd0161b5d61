/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * timer: a commit every so often, and at once when much waits to be written.
 */
#include <config.h>

#include <errno.h>

#include "pool/pool_internal.h"

/* How old the time of a last write in the catalog may become while the volume is written in place. */
#define TIMES_SECONDS 60

/* What the timer does each time. KEPT: when, in seconds, times were kept last. */
static void
tick(struct pool *p, time_t now, time_t *kept)
{
	bool changes;

	pool_look_for_space(p);
	pool_grow_ahead(p);
	if (now - *kept >= TIMES_SECONDS) {
		*kept = now;
		pool_keep_times(p);
	}
	rwlock_rdlock(&p->meta_lock);
	changes = p->mode < POOL_READ_ONLY && commit_is_needed(p);
	rwlock_unlock(&p->meta_lock);
	if (changes)
		pool_sync_wait(p, NULL);
}

static void *
timer_main(void *arg)
{
	struct pool *p = arg;
	time_t kept = 0;

	mutex_lock(&p->timer_lock);
	while (!p->timer_stop) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		kept = kept ? kept : until.tv_sec;
		until.tv_nsec += p->options.commit_interval_ms % 1000 * 1000000L;
		until.tv_sec += p->options.commit_interval_ms / 1000 + until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		while (!p->timer_stop && !p->timer_now &&
		       cond_timedwait(&p->timer_wake, &p->timer_lock, &until) != ETIMEDOUT)
			;
		p->timer_now = false;
		if (p->timer_stop)
			break;
		mutex_unlock(&p->timer_lock);
		tick(p, until.tv_sec, &kept);
		mutex_lock(&p->timer_lock);
	}
	mutex_unlock(&p->timer_lock);
	return NULL;
}

int
pool_start_timer(struct pool *p)
{
	int r = -pthread_create(&p->timer, NULL, timer_main, p);

	p->timer_runs = !r;
	return r;
}

void
pool_stop_timer(struct pool *p)
{
	if (!p->timer_runs)
		return;
	mutex_lock(&p->timer_lock);
	p->timer_stop = true;
	pthread_cond_signal(&p->timer_wake);
	mutex_unlock(&p->timer_lock);
	pthread_join(p->timer, NULL);
	p->timer_runs = false;
}

void
pool_hurry(struct pool *p)
{
	struct meta_info info;
	bool wait;

	rwlock_rdlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	wait = info.nr_dirty * METADATA_BLOCK_SIZE > p->options.metadata_cache_bytes / 2;
	rwlock_unlock(&p->meta_lock);
	if (wait || !p->timer_runs) {
		pool_sync_wait(p, NULL);
		return;
	}
	pool_wake_timer(p);
}

void
pool_wake_timer(struct pool *p)
{
	mutex_lock(&p->timer_lock);
	p->timer_now = true;
	pthread_cond_signal(&p->timer_wake);
	mutex_unlock(&p->timer_lock);
}
