/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "pool/passdown.h"
#include "pool/pool_internal.h"

/* Ranges for which meta_lock is taken once. */
#define RANGES_AT_ONCE 256U

static void
release(struct pool *p, const struct run *v, size_t nr)
{
	rwlock_wrlock(&p->meta_lock);
	for (size_t i = 0; i < nr; i++)
		meta_unreserve_data(p->tm, v[i].start, v[i].len);
	pool_update_mode(p);
	rwlock_unlock(&p->meta_lock);
	pool_space_hook(p);
}

static void
pass_down(struct pool *p, struct runs *freed)
{
	runs_normalise(freed);
	for (size_t done = 0; done < freed->nr; done += RANGES_AT_ONCE) {
		size_t left = freed->nr - done;
		size_t n = left < RANGES_AT_ONCE ? left : RANGES_AT_ONCE;
		const struct run *v = freed->v + done;

		for (size_t i = 0; i < n; i++)
			/* A failure costs space outside the pool only. */
			image_discard(pool_data(p), v[i].start * p->block_bytes,
				      v[i].len * p->block_bytes);
		release(p, v, n);
	}
	runs_clear(freed);
}

static void *
passdown_main(void *arg)
{
	struct pool *p = arg;
	struct passdown *q = &p->passdown;

	mutex_lock(&q->lock);
	for (;;) {
		struct runs work;

		while (!q->queue.nr && !q->stop)
			cond_wait(&q->wake, &q->lock);
		if (!q->queue.nr)
			break;
		work = q->queue;
		memset(&q->queue, 0, sizeof(q->queue));
		q->busy = true;
		mutex_unlock(&q->lock);
		pass_down(p, &work);
		mutex_lock(&q->lock);
		q->busy = false;
		pthread_cond_broadcast(&q->idle);
	}
	mutex_unlock(&q->lock);
	return NULL;
}

int
passdown_start(struct pool *p)
{
	int r = -pthread_create(&p->passdown.thread, NULL, passdown_main, p);

	p->passdown.runs = !r;
	return r;
}

void
passdown_stop(struct pool *p)
{
	struct passdown *q = &p->passdown;

	if (!q->runs)
		return;
	mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->wake);
	mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	q->runs = false;
}

bool
passdown_wanted(const struct pool *p)
{
	return !p->options.no_discard_passdown && !p->options.ignore_discard;
}

void
passdown_queue(struct pool *p, struct runs *freed)
{
	struct passdown *q = &p->passdown;
	int r;

	if (!freed->nr)
		return;
	if (!q->runs) {
		pass_down(p, freed);
		return;
	}
	mutex_lock(&q->lock);
	r = runs_move(&q->queue, freed);
	pthread_cond_signal(&q->wake);
	mutex_unlock(&q->lock);
	if (r) {
		/* No memory for the list: hand them out without. */
		release(p, freed->v, freed->nr);
		runs_clear(freed);
	}
}

void
passdown_wait(struct pool *p)
{
	struct passdown *q = &p->passdown;

	mutex_lock(&q->lock);
	while (q->runs && (q->queue.nr || q->busy))
		cond_wait(&q->idle, &q->lock);
	mutex_unlock(&q->lock);
}
