/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reclaim: taking back the space of volumes that have no name any more, and of what was cut off.
 *
 * In small transactions, by a thread of its own, so that neither the one who removes a volume nor
 * other volumes' I/O wait for it. The catalog says RECORD_DELETED until the device is gone: a crash
 * in between is resumed at the next mount. Without a timer (tests), it is done at once instead.
 */
#include <config.h>

#include <errno.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"

/*
 * Mappings taken back in one hold of meta_lock, and the tree paths that this may change. When
 * metadata space is short, little is done at a time.
 */
#define RECLAIM_AT_ONCE 4096U
#define RECLAIM_OPS 17U
#define RECLAIM_AT_LEAST 64U

/* How long to wait after a failure; other transactions may have made room by then. */
#define RETRY_SECONDS 1

int
reclaim_is_cheap(struct vol *v, bool *cheap)
{
	struct thin_dev *dev;
	struct dev_info info;
	bool shared;
	int r = vol_dev(v, &dev);

	if (r)
		return r;
	dev_get_info(v->dev, &info);
	*cheap = info.mapped_blocks <= RECLAIM_AT_ONCE;
	if (*cheap)
		return 0;
	r = dev_root_is_shared(v->dev, &shared);
	*cheap = shared;
	return r;
}

static int
delete_device(struct vol *v)
{
	struct pool *p = v->pool;
	int r;

	vol_drop_dev(v);
	r = meta_delete_thin(p->tm, v->id);
	if (r)
		return r;
	if (v->has_record)
		r = catalog_changed(p, v->id);
	p->names_changed_in = meta_open_txn(p->tm);
	names_drop(v);
	return r;
}

/* One step under one hold of meta_lock, of MAX mappings; *done: the device is gone, or not to go. */
static int
step(struct vol *v, uint64_t max, bool *done)
{
	struct pool *p = v->pool;
	struct thin_dev *dev;
	uint64_t left;
	bool cheap;
	int r;

	*done = v->gone || v->opens;
	if (*done)
		return 0;
	r = vol_dev(v, &dev);
	if (!r)
		r = reclaim_is_cheap(v, &cheap);
	if (r)
		return r;
	/* A device that no record marks as deleted must go whole, or it would be back after a crash. */
	if (cheap || !v->has_record || p->catalog.foreign) {
		*done = true;
		return delete_device(v);
	}
	return dev_shed(dev, max, &left);
}

static int
reclaim_device(struct vol *v)
{
	struct pool *p = v->pool;
	bool done = false;
	int r = 0;

	while (!done && !r && !p->reclaim_stop) {
		uint64_t max = RECLAIM_AT_ONCE;

		r = pool_begin_change(p, RECLAIM_OPS, true);
		if (r == -ENOSPC) {
			max = RECLAIM_AT_LEAST;
			r = pool_begin_change(p, META_LEAST_OPS, true);
		}
		if (r)
			break;
		r = step(v, max, &done);
		pool_end_change(p);
	}
	return r;
}

/* What a truncate left behind the end. */
static int
reclaim_tail(struct vol *v)
{
	struct range_hold hold;
	int r;

	vol_lock_change(v, &hold, v->size, UINT64_MAX);
	r = vol_finish_shrink(v);
	range_unlock(&v->range, &hold);
	return r;
}

static int
reclaim_one(struct vol *v)
{
	if (v->flags & RECORD_DELETED)
		return reclaim_device(v);
	return v->flags & RECORD_SHRINKING ? reclaim_tail(v) : 0;
}

/* Let other transactions make room. reclaim_lock is held. */
static void
wait_to_retry(struct pool *p)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += RETRY_SECONDS;
	if (!p->reclaim_stop)
		pthread_cond_timedwait(&p->reclaim_wake, &p->reclaim_lock, &until);
}

static void *
reclaim_main(void *arg)
{
	struct pool *p = arg;
	struct vol *v;
	int r;

	pthread_mutex_lock(&p->reclaim_lock);
	while (!p->reclaim_stop) {
		v = TAILQ_FIRST(&p->reclaim);
		if (!v) {
			pthread_cond_wait(&p->reclaim_wake, &p->reclaim_lock);
			continue;
		}
		TAILQ_REMOVE(&p->reclaim, v, reclaim);
		v->in_reclaim = false;
		pthread_mutex_unlock(&p->reclaim_lock);
		r = reclaim_one(v);
		if (r == -ENOSPC)
			reclaim_queue(v);
		vol_put(v);
		pthread_mutex_lock(&p->reclaim_lock);
		if (r == -ENOSPC)
			wait_to_retry(p);
	}
	pthread_mutex_unlock(&p->reclaim_lock);
	return NULL;
}

void
reclaim_queue(struct vol *v)
{
	struct pool *p = v->pool;

	if (!p->reclaimer_runs) {
		reclaim_one(v);
		return;
	}
	pthread_mutex_lock(&p->reclaim_lock);
	if (!v->in_reclaim) {
		v->in_reclaim = true;
		vol_get(v);
		TAILQ_INSERT_TAIL(&p->reclaim, v, reclaim);
		pthread_cond_signal(&p->reclaim_wake);
	}
	pthread_mutex_unlock(&p->reclaim_lock);
}

/* What a crash, or the end of the last mount, left to do. No lock held; nobody else is there yet. */
static int
queue_left_over(struct pool *p)
{
	struct vol *v, *next;

	RB_FOREACH_SAFE(v, vol_id_tree, &p->vols, next)
		if (v->flags & (RECORD_DELETED | RECORD_SHRINKING))
			reclaim_queue(v);
	return 0;
}

int
reclaim_start(struct pool *p)
{
	int r;

	if (p->options.commit_interval_ms) {
		r = -pthread_create(&p->reclaimer, NULL, reclaim_main, p);
		if (r)
			return r;
		p->reclaimer_runs = true;
	}
	return queue_left_over(p);
}

void
reclaim_stop_thread(struct pool *p)
{
	struct vol *v;

	if (p->reclaimer_runs) {
		pthread_mutex_lock(&p->reclaim_lock);
		p->reclaim_stop = true;
		pthread_cond_signal(&p->reclaim_wake);
		pthread_mutex_unlock(&p->reclaim_lock);
		pthread_join(p->reclaimer, NULL);
	}
	while ((v = TAILQ_FIRST(&p->reclaim))) {
		TAILQ_REMOVE(&p->reclaim, v, reclaim);
		vol_put(v);
	}
	p->reclaimer_runs = false;
	p->reclaim_stop = false;
}
