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
#include "pool/pace.h"
#include "pool/pool_internal.h"

/* Mappings taken back in one hold of meta_lock: at most a millisecond, when they are scattered. */
#define RECLAIM_AT_ONCE 1024U

/* Volumes looked at in one hold of meta_lock. */
#define LOOK_AT_ONCE 4096U

/* How long to wait after a failure; other transactions may have made room by then. */
#define RETRY_SECONDS 1

int
reclaim_is_cheap(struct vol *v, bool *cheap)
{
	struct thin_dev *dev;
	struct dev_info info;
	uint64_t max = pool_step(v->pool, RECLAIM_AT_ONCE);
	int r = vol_dev(v, &dev);

	if (r)
		return r;
	dev_get_info(dev, &info);
	*cheap = info.mapped_blocks <= max;
	return *cheap ? 0 : dev_deletion_is_small(dev, max, cheap);
}

int
reclaim_whole(struct vol *v)
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

/* One step of at most NR mappings under one hold of meta_lock; *done: the device is gone, or not to go. */
static int
step(struct vol *v, unsigned nr, bool committed, bool *done)
{
	struct pool *p = v->pool;
	struct thin_dev *dev;
	uint64_t left;
	bool cheap, whole, recorded;
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
	recorded = v->record_changed_in <= p->durable_txn && !p->catalog.incomplete;
	whole = !v->has_record || p->catalog.foreign || (committed && !recorded);
	if (!cheap && !whole && !recorded)
		return -ENOSPC; /* first a commit that has the record */
	if (cheap || whole) {
		r = reclaim_whole(v);
		*done = !r;
		if (r != -ENOSPC || whole)
			return r;
		r = vol_dev(v, &dev);
	}
	return r ? r : dev_shed(dev, nr, &left);
}

static int
reclaim_device(struct vol *v)
{
	struct pool *p = v->pool;
	struct pace pace = pace_start(p, pool_step(p, RECLAIM_AT_ONCE));
	bool done = false, committed = false;
	int r = 0;

	while (!done && !r && !p->reclaim_stop) {
		r = pace_begin_change(&pace, META_TO_DELETE);
		if (r)
			break;
		r = step(v, pace.nr, committed, &done);
		pace_end_change(&pace);
		if (!r) {
			committed = false;
		} else if (r == -ENOSPC && !committed) {
			/* What this transaction freed can be used after a commit. */
			committed = true;
			r = pool_sync_wait(p, NULL) == -EIO ? -EIO : 0;
		}
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
	vol_unlock_range(v, &hold);
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
		cond_timedwait(&p->reclaim_wake, &p->reclaim_lock, &until);
}

static void *
reclaim_main(void *arg)
{
	struct pool *p = arg;
	struct vol *v;
	int r;

	mutex_lock(&p->reclaim_lock);
	while (!p->reclaim_stop) {
		v = TAILQ_FIRST(&p->reclaim);
		if (!v) {
			cond_wait(&p->reclaim_wake, &p->reclaim_lock);
			continue;
		}
		TAILQ_REMOVE(&p->reclaim, v, reclaim);
		v->in_reclaim = false;
		mutex_unlock(&p->reclaim_lock);
		r = reclaim_one(v);
		if (r == -ENOSPC)
			reclaim_queue(v);
		vol_put(v);
		mutex_lock(&p->reclaim_lock);
		if (r == -ENOSPC)
			wait_to_retry(p);
	}
	mutex_unlock(&p->reclaim_lock);
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
	mutex_lock(&p->reclaim_lock);
	if (!v->in_reclaim) {
		v->in_reclaim = true;
		vol_get(v);
		TAILQ_INSERT_TAIL(&p->reclaim, v, reclaim);
		pthread_cond_signal(&p->reclaim_wake);
	}
	mutex_unlock(&p->reclaim_lock);
}

/* The first volume from *ID on that has something left to do, held; NULL: not among the next ones, *ID is where to go on. */
static struct vol *
find_left_over_near(struct pool *p, uint32_t *id, bool *more)
{
	struct vol key = {.id = *id}, *v;
	unsigned left = LOOK_AT_ONCE;

	rwlock_rdlock(&p->meta_lock);
	v = RB_NFIND(vol_id_tree, &p->vols, &key);
	while (v && left-- && !(v->flags & (RECORD_DELETED | RECORD_SHRINKING)))
		v = RB_NEXT(vol_id_tree, &p->vols, v);
	*more = v;
	if (v)
		*id = v->id;
	v = v && v->flags & (RECORD_DELETED | RECORD_SHRINKING) ? vol_get(v) : NULL;
	rwlock_unlock(&p->meta_lock);
	return v;
}

/* The first volume from ID on with something left to do, held; NULL: none. */
static struct vol *
find_left_over(struct pool *p, uint32_t id)
{
	struct vol *v;
	bool more;

	do
		v = find_left_over_near(p, &id, &more);
	while (!v && more);
	return v;
}

void
pool_get_reclaim(struct pool *p, struct pool_reclaim *reclaim)
{
	struct vol_attr a;
	struct vol *v;
	uint32_t id;

	*reclaim = (struct pool_reclaim){0};
	for (id = 0; (v = find_left_over(p, id)); id++) {
		id = v->id;
		if (!vol_getattr(v, &a)) { /* else it has gone meanwhile */
			reclaim->nr_volumes++;
			reclaim->nr_open += a.deleted && a.opens;
			reclaim->bytes += a.deleted ? a.mapped_bytes : 0;
		}
		vol_put(v);
	}
}

/* What a crash, or the end of the last mount, left to do. No lock held: the reclaimer is at work on the first ones. */
static void
queue_left_over(struct pool *p)
{
	struct vol *v;
	uint32_t id;

	for (id = 0; (v = find_left_over(p, id)); id++) {
		id = v->id;
		reclaim_queue(v);
		vol_put(v);
	}
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
	queue_left_over(p);
	return 0;
}

void
reclaim_stop_thread(struct pool *p)
{
	struct vol *v;

	if (p->reclaimer_runs) {
		mutex_lock(&p->reclaim_lock);
		p->reclaim_stop = true;
		pthread_cond_signal(&p->reclaim_wake);
		mutex_unlock(&p->reclaim_lock);
		pthread_join(p->reclaimer, NULL);
	}
	while ((v = TAILQ_FIRST(&p->reclaim))) {
		TAILQ_REMOVE(&p->reclaim, v, reclaim);
		vol_put(v);
	}
	p->reclaimer_runs = false;
	p->reclaim_stop = false;
}
