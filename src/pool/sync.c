/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sync: asking for what was done to be durable.
 *
 * Who asks first leads: it does the commit, or the flush, in its own thread, for all who have asked. Those who
 * ask meanwhile are answered by the next round; a thread of the pool leads that, so that nobody
 * works for others longer than its own request takes - it may hold the range of a volume.
 * So an fsync that nobody else waits for wakes nobody.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "pool/pool_internal.h"

enum sync_need {
	NEED_FLUSH, /* of the data image */
	NEED_COMMIT,
	NEED_ERROR, /* there was something to make durable, and it is lost */
};

static enum sync_need
needs_of(struct pool *p, const struct vol *v)
{
	bool changed;

	if (p->mode == POOL_FAIL || (v ? v->lost : p->lost))
		return NEED_ERROR;
	if (p->mode >= POOL_READ_ONLY || p->read_only)
		return NEED_FLUSH;
	if (!v || p->catalog.incomplete)
		return NEED_COMMIT;
	changed = v->record_changed_in > p->durable_txn || p->names_changed_in > p->durable_txn ||
		  (v->dev && dev_changed_in(v->dev) > p->durable_txn);
	return changed ? NEED_COMMIT : NEED_FLUSH;
}

/* Make all in QUEUE durable, by a commit if one of them needs it, and answer them. */
static void
sync_round(struct pool *p, struct sync_queue *queue)
{
	struct sync_request *req;
	bool need_commit = false;
	int r;

	rwlock_rdlock(&p->meta_lock);
	STAILQ_FOREACH(req, queue, link)
		need_commit |= needs_of(p, req->vol) == NEED_COMMIT;
	rwlock_unlock(&p->meta_lock);
	if (need_commit)
		r = commit_run(p);
	else
		r = p->read_only ? 0 : commit_flush_data(p);
	while ((req = STAILQ_FIRST(queue))) {
		bool lost;

		STAILQ_REMOVE_HEAD(queue, link);
		rwlock_rdlock(&p->meta_lock);
		lost = needs_of(p, req->vol) == NEED_ERROR;
		rwlock_unlock(&p->meta_lock);
		lock_order_assert_below(RANK_META, "answering a sync");
		req->done(req->arg, lost ? -EIO : r == 0 || r == -ENOSPC ? r : -EIO);
		if (req->vol)
			vol_put(req->vol);
		free(req);
	}
}

/* Work for the queue once; whether more has come meanwhile. SYNCING is ours. */
static bool
lead_once(struct pool *p)
{
	struct sync_queue queue;
	bool more;

	mutex_lock(&p->sync_lock);
	STAILQ_INIT(&queue);
	STAILQ_CONCAT(&queue, &p->sync_queue);
	mutex_unlock(&p->sync_lock);
	sync_round(p, &queue);
	mutex_lock(&p->sync_lock);
	more = !STAILQ_EMPTY(&p->sync_queue);
	p->syncing = more;
	mutex_unlock(&p->sync_lock);
	return more;
}

/* Let the thread go on leading; false: there is none. */
static bool
hand_over(struct pool *p)
{
	mutex_lock(&p->sync_lock);
	p->sync_handed = p->sync_runs;
	pthread_cond_signal(&p->sync_wake);
	mutex_unlock(&p->sync_lock);
	return p->sync_runs;
}

void
pool_sync(struct pool *p, struct vol *vol, void (*done)(void *arg, int error), void *arg)
{
	struct sync_request *req = malloc(sizeof(*req));
	bool lead;

	if (!req) {
		done(arg, -ENOMEM);
		return;
	}
	*req = (struct sync_request){.vol = vol ? vol_get(vol) : NULL, .done = done, .arg = arg};
	mutex_lock(&p->sync_lock);
	STAILQ_INSERT_TAIL(&p->sync_queue, req, link);
	lead = !p->syncing;
	p->syncing = true;
	mutex_unlock(&p->sync_lock);
	while (lead && lead_once(p) && !hand_over(p))
		;
}

static void *
sync_main(void *arg)
{
	struct pool *p = arg;

	mutex_lock(&p->sync_lock);
	while (!p->sync_stop || p->sync_handed) {
		if (!p->sync_handed) {
			cond_wait(&p->sync_wake, &p->sync_lock);
			continue;
		}
		p->sync_handed = false;
		mutex_unlock(&p->sync_lock);
		while (lead_once(p))
			;
		mutex_lock(&p->sync_lock);
	}
	mutex_unlock(&p->sync_lock);
	return NULL;
}

int
sync_start(struct pool *p)
{
	int r = -pthread_create(&p->sync_thread, NULL, sync_main, p);

	p->sync_runs = !r;
	return r;
}

void
sync_stop(struct pool *p)
{
	if (!p->sync_runs)
		return;
	mutex_lock(&p->sync_lock);
	p->sync_stop = true;
	pthread_cond_signal(&p->sync_wake);
	mutex_unlock(&p->sync_lock);
	pthread_join(p->sync_thread, NULL);
	p->sync_runs = false;
}

struct sync_waiter {
	struct mutex lock;
	pthread_cond_t cond;
	bool done;
	int error;
};

static void
wake_waiter(void *arg, int error)
{
	struct sync_waiter *w = arg;

	mutex_lock(&w->lock);
	w->done = true;
	w->error = error;
	pthread_cond_signal(&w->cond);
	mutex_unlock(&w->lock);
}

int
pool_sync_wait(struct pool *p, struct vol *vol)
{
	struct sync_waiter w = {
		.lock = MUTEX_INITIALIZER("who waits for a commit", LOCK_LEAF),
		.cond = PTHREAD_COND_INITIALIZER,
	};

	pool_sync(p, vol, wake_waiter, &w);
	mutex_lock(&w.lock);
	while (!w.done)
		cond_wait(&w.cond, &w.lock);
	mutex_unlock(&w.lock);
	return w.error;
}
