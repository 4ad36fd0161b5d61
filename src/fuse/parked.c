/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuse/parked.h"
#include "util/msg.h"

/* More than the kernel sends of writes in the background (max_background) at their largest. */
#define PARKED_BYTES_MAX (128ULL << 20)
#define TICK_S 1 /* also looks for timeouts and for writers that were killed */

struct waiter {
	struct waiter *next;
	fuse_req_t req;
	struct vol *vol; /* held */
	bool is_write;
	int mode; /* of a fallocate */
	uint64_t offset, len;
	time_t deadline; /* CLOCK_MONOTONIC; 0: none */
	char data[]; /* of a write */
};

struct parked {
	struct mount *m;
	pthread_t thread;
	struct mutex lock; /* a leaf; never held across a call into the pool */
	pthread_cond_t changed;
	struct waiter *first, **last; /* lock */
	uint64_t bytes; /* lock: in waiters, the one being tried too */
	bool space; /* lock: the hook has run since the last attempt */
	bool give_up; /* lock */
	bool stop; /* lock */
	bool said; /* only the thread: that writers wait */
};

static time_t
now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void
on_space(void *arg)
{
	struct parked *p = arg;

	mutex_lock(&p->lock);
	p->space = true;
	if (p->first)
		pthread_cond_signal(&p->changed);
	mutex_unlock(&p->lock);
}

static int
try_again(struct waiter *w)
{
	ssize_t r;

	if (!w->is_write)
		return vol_fallocate(w->vol, w->mode, w->offset, w->len);
	r = vol_write(w->vol, w->data, w->len, w->offset);
	return r < 0 ? (int)r : 0;
}

static void
answer(struct waiter *w, int r)
{
	if (r || !w->is_write)
		fuse_reply_err(w->req, -r);
	else
		fuse_reply_write(w->req, w->len);
	vol_put(w->vol);
	free(w);
}

/*
 * Take out the first waiter, if there is one that GIVE_UP, its deadline or its caller's death has
 * ended; called with the lock. *timeout: it was the deadline.
 */
static struct waiter *
take_ended_locked(struct parked *p, bool give_up, int *r, bool *timeout)
{
	time_t now = now_s();

	for (struct waiter **at = &p->first; *at; at = &(*at)->next) {
		struct waiter *w = *at;

		*timeout = w->deadline && now >= w->deadline;
		if (give_up || p->give_up || *timeout)
			*r = -ENOSPC;
		else if (fuse_req_interrupted(w->req))
			*r = -EINTR;
		else
			continue;
		*at = w->next;
		if (!*at)
			p->last = at;
		return w;
	}
	return NULL;
}

static size_t
data_bytes(const struct waiter *w)
{
	return w->is_write ? w->len : 0;
}

static void
answer_ended(struct parked *p)
{
	struct waiter *w;
	bool timeout;
	int r;

	for (;;) {
		bool give_up = !pool_waits_for_space(p->m->pool);

		mutex_lock(&p->lock);
		w = take_ended_locked(p, give_up, &r, &timeout);
		if (w)
			p->bytes -= data_bytes(w);
		mutex_unlock(&p->lock);
		if (!w)
			return;
		if (timeout)
			pool_stop_waiting(p->m->pool);
		answer(w, r);
	}
}

/*
 * Try them from the first on, up to one for which there is still no space: that goes back to the
 * head.
 */
static void
retry(struct parked *p)
{
	for (;;) {
		struct waiter *w;
		int r;

		mutex_lock(&p->lock);
		w = p->give_up ? NULL : p->first;
		if (w) {
			p->first = w->next;
			if (!p->first)
				p->last = &p->first;
		}
		mutex_unlock(&p->lock);
		if (!w)
			return;

		r = try_again(w);
		mutex_lock(&p->lock);
		if (r == -ENOSPC) {
			w->next = p->first;
			p->first = w;
			if (!w->next)
				p->last = &w->next;
		} else {
			p->bytes -= data_bytes(w);
		}
		mutex_unlock(&p->lock);
		if (r == -ENOSPC)
			return;
		answer(w, r);
	}
}

static void
say(struct parked *p, bool waiting)
{
	if (waiting && !p->said)
		msg_warn("%s: no space left in the pool, writers wait: remove volumes or "
			 "snapshots, discard data in them, or make the image larger",
			 p->m->data_path);
	p->said = waiting;
}

/* While somebody waits and the pool itself has nothing to tell: whether to try again. */
static bool
look_for_space(struct parked *p)
{
	struct pool *pool = p->m->pool;

	pool_look_for_space(pool);
	/* The pool has space: it is the filesystem of the images that has none, which tells nobody when it does again. */
	return pool_get_mode(pool) == POOL_WRITE;
}

static void *
parked_run(void *arg)
{
	struct parked *p = arg;
	bool waiting, tick, stop;

	pthread_setname_np(pthread_self(), "thinfs-parked");
	for (;;) {
		mutex_lock(&p->lock);
		if (!p->first && !p->stop) {
			cond_wait(&p->changed, &p->lock);
		} else if (!p->space && !p->give_up && !p->stop) {
			struct timespec until;

			clock_gettime(CLOCK_MONOTONIC, &until);
			until.tv_sec += TICK_S;
			cond_timedwait(&p->changed, &p->lock, &until);
		}
		waiting = p->first;
		tick = waiting && !p->space;
		p->space = false;
		stop = p->stop;
		mutex_unlock(&p->lock);

		say(p, waiting);
		answer_ended(p);
		if (stop)
			return NULL;
		if (!tick || look_for_space(p))
			retry(p);
	}
}

int
parked_start(struct mount *m, struct parked **out)
{
	struct parked *p = calloc(1, sizeof(*p));
	pthread_condattr_t attr;
	int r;

	if (!p)
		return -ENOMEM;
	p->m = m;
	p->last = &p->first;
	mutex_init(&p->lock, "the parked writers", LOCK_LEAF);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);

	r = -pthread_create(&p->thread, NULL, parked_run, p);
	if (r) {
		free(p);
		return r;
	}
	pool_set_space_hook(m->pool, on_space, p);
	*out = p;
	return 0;
}

void
parked_give_up(struct parked *p)
{
	mutex_lock(&p->lock);
	p->give_up = true;
	pthread_cond_signal(&p->changed);
	mutex_unlock(&p->lock);
}

void
parked_stop(struct parked *p)
{
	pool_set_space_hook(p->m->pool, NULL, NULL);
	mutex_lock(&p->lock);
	p->give_up = p->stop = true;
	pthread_cond_signal(&p->changed);
	mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	pthread_cond_destroy(&p->changed);
	mutex_destroy(&p->lock);
	free(p);
}

bool
parked_any(struct parked *p)
{
	bool any;

	mutex_lock(&p->lock);
	any = p->bytes || p->first;
	mutex_unlock(&p->lock);
	return any;
}

static bool
park(struct parked *p, struct waiter *w)
{
	unsigned timeout = pool_get_options(p->m->pool)->no_space_timeout_s;
	bool room;

	bool wait = pool_waits_for_space(p->m->pool);

	w->deadline = timeout ? now_s() + (time_t)timeout : 0;
	vol_get(w->vol);
	mutex_lock(&p->lock);
	room = wait && !p->give_up && p->bytes + data_bytes(w) <= PARKED_BYTES_MAX;
	if (room) {
		*p->last = w;
		p->last = &w->next;
		p->bytes += data_bytes(w);
		pthread_cond_signal(&p->changed);
	}
	mutex_unlock(&p->lock);
	if (!room) {
		vol_put(w->vol);
		free(w);
	}
	return room;
}

bool
parked_write(struct parked *p, fuse_req_t req, struct vol *vol, const void *buf, size_t len,
	     uint64_t offset)
{
	struct waiter *w = malloc(sizeof(*w) + len);

	if (!w)
		return false;
	*w = (struct waiter){
		.req = req,
		.vol = vol,
		.is_write = true,
		.offset = offset,
		.len = len,
	};
	memcpy(w->data, buf, len);
	return park(p, w);
}

bool
parked_fallocate(struct parked *p, fuse_req_t req, struct vol *vol, int mode, uint64_t offset,
		 uint64_t len)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w)
		return false;
	*w = (struct waiter){.req = req, .vol = vol, .mode = mode, .offset = offset, .len = len};
	return park(p, w);
}
