/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sync: asking for what was done to be durable.
 *
 * Who asks first leads: it does the commit, or the flush, in its own thread, for all who have asked. Those who
 * ask meanwhile are answered by the next round; a thread of the pool leads that, so that nobody
 * works for others longer than its own request takes - it may hold the range of a volume.
 * So an fsync that nobody else waits for wakes nobody.
 *
 * Those who were answered by a round mostly come back at once with the next thing to be made durable. Just too late for a
 * round that begins with whoever waited already, they would wait for two rounds each time, by halves. So
 * after a slow round the next one waits a moment for as many as that one left or answered.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "pool/pool_internal.h"
#include "util/clock.h"
#include "util/minmax.h"

/* How long to wait for others, against how long the last round took: no less than is worth going to sleep for. */
#define GATHER_SHARE 8
#define GATHER_MIN_NS 100000
#define GATHER_MAX_NS 4000000

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

/* A round of ANSWERED requests took that long: who should be waited for before the next one. */
static void
expect_more(struct pool *p, unsigned answered, int64_t took_ns)
{
	int64_t wait_ns = min_u64(took_ns / GATHER_SHARE, GATHER_MAX_NS);
	int64_t until_ns = monotonic_ns() + wait_ns;

	mutex_lock(&p->sync_lock);
	p->sync_expected = wait_ns < GATHER_MIN_NS ? 0 : answered + p->sync_waiting;
	p->sync_until = (struct timespec){until_ns / NS_PER_S, until_ns % NS_PER_S};
	mutex_unlock(&p->sync_lock);
}

/* Take all requests, waiting for those that should come in a moment: how many there are. */
static unsigned
gather(struct pool *p, struct sync_queue *queue)
{
	unsigned nr;

	mutex_lock(&p->sync_lock);
	while (p->sync_waiting < p->sync_expected &&
	       cond_timedwait(&p->sync_more, &p->sync_lock, &p->sync_until) != ETIMEDOUT)
		;
	STAILQ_INIT(queue);
	STAILQ_CONCAT(queue, &p->sync_queue);
	nr = p->sync_waiting;
	p->sync_waiting = 0;
	mutex_unlock(&p->sync_lock);
	return nr;
}

/* Make all in QUEUE durable, by a commit if one of them needs it, and answer them. */
static void
sync_round(struct pool *p, struct sync_queue *queue, unsigned nr)
{
	int64_t began_ns = monotonic_ns();
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
	expect_more(p, nr, monotonic_ns() - began_ns);
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
	unsigned nr = gather(p, &queue);
	bool more;

	sync_round(p, &queue, nr);
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
	if (++p->sync_waiting == p->sync_expected)
		pthread_cond_signal(&p->sync_more);
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
