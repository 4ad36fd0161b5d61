/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>
#include <time.h>

#include "pool/data_flush.h"
#include "pool/pool_internal.h"
#include "util/clock.h"
#include "util/msg.h"

/* What the last flush took for the next one to be left to the thread: several times what waking it costs. */
#define WORTH_A_THREAD_NS 250000

static int
flush_timed(struct pool *p)
{
	int64_t began_ns = monotonic_ns();
	int r = image_flush(pool_data(p));

	p->data_flush.took_ns = monotonic_ns() - began_ns;
	return r;
}

static int
tell(struct pool *p, int r)
{
	if (r && !p->data_flush.failed)
		msg_error("%s: flushing the data image failed: %s", p->data->name, strerror(-r));
	p->data_flush.failed |= r != 0;
	return r;
}

int
data_flush(struct pool *p)
{
	return tell(p, flush_timed(p));
}

bool
data_flush_begin(struct pool *p)
{
	struct data_flush *f = &p->data_flush;

	if (!f->runs || f->took_ns < WORTH_A_THREAD_NS)
		return false;
	mutex_lock(&f->lock);
	f->wanted = true;
	pthread_cond_signal(&f->wake);
	mutex_unlock(&f->lock);
	return true;
}

int
data_flush_end(struct pool *p)
{
	struct data_flush *f = &p->data_flush;
	int r;

	mutex_lock(&f->lock);
	while (f->wanted)
		cond_wait(&f->ended, &f->lock);
	r = f->result;
	mutex_unlock(&f->lock);
	return tell(p, r);
}

static void *
data_flush_main(void *arg)
{
	struct pool *p = arg;
	struct data_flush *f = &p->data_flush;

	mutex_lock(&f->lock);
	while (!f->stop) {
		int r;

		if (!f->wanted) {
			cond_wait(&f->wake, &f->lock);
			continue;
		}
		mutex_unlock(&f->lock);
		r = flush_timed(p);
		mutex_lock(&f->lock);
		f->result = r;
		f->wanted = false;
		pthread_cond_signal(&f->ended);
	}
	mutex_unlock(&f->lock);
	return NULL;
}

int
data_flush_start(struct pool *p)
{
	int r = -pthread_create(&p->data_flush.thread, NULL, data_flush_main, p);

	p->data_flush.runs = !r;
	return r;
}

void
data_flush_stop(struct pool *p)
{
	struct data_flush *f = &p->data_flush;

	if (!f->runs)
		return;
	mutex_lock(&f->lock);
	f->stop = true;
	pthread_cond_signal(&f->wake);
	mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
	f->runs = false;
}
