/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "fuse/shrinker.h"

#include <errno.h>
#include <stdlib.h>

struct shrinker {
	struct mount *m;
	struct mutex lock; /* a leaf; never held across a call into the pool */
	pthread_t thread;
	bool started; /* lock: there is a thread to join */
	bool running; /* lock */
	bool stop; /* lock */
	int error; /* lock: of the last one */
	uint64_t bytes; /* wanted; const while it runs */
	uint64_t possible; /* lock */
	struct pool_shrink progress;
};

int
shrinker_new(struct mount *m, struct shrinker **out)
{
	struct shrinker *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->m = m;
	mutex_init(&s->lock, "the shrinker", LOCK_LEAF);
	*out = s;
	return 0;
}

static void *
shrinker_run(void *arg)
{
	struct shrinker *s = arg;
	uint64_t possible = 0;
	int r;

	pthread_setname_np(pthread_self(), "thinfs-shrink");
	r = pool_shrink(s->m->pool, s->bytes, &s->progress, &possible);
	mutex_lock(&s->lock);
	s->error = r;
	s->possible = possible;
	s->running = false;
	mutex_unlock(&s->lock);
	return NULL;
}

/* lock */
static int
start_locked(struct shrinker *s, uint64_t bytes)
{
	int r;

	if (s->running)
		return -EBUSY;
	if (s->stop || s->m->read_only)
		return -EROFS;
	if (s->started) /* it has ended, but for its return */
		pthread_join(s->thread, NULL);
	s->progress = (struct pool_shrink){0};
	s->error = 0;
	s->bytes = bytes;
	r = -pthread_create(&s->thread, NULL, shrinker_run, s);
	s->started = s->running = !r;
	return r;
}

int
shrinker_control(struct shrinker *s, struct control_shrink *c)
{
	struct pool_status st;
	int r = 0;

	pool_get_status(s->m->pool, &st);
	mutex_lock(&s->lock);
	if (c->what == CONTROL_SHRINK_START)
		r = start_locked(s, c->data);
	else if (c->what == CONTROL_SHRINK_CANCEL)
		s->progress.cancel = true;
	else if (c->what != CONTROL_SHRINK_TELL)
		r = -EINVAL;
	c->error = s->error;
	c->running = s->running;
	c->possible = s->possible;
	mutex_unlock(&s->lock);
	c->moved = s->progress.moved;
	c->total = s->progress.total;
	c->data = st.data_blocks * st.block_bytes;
	return r;
}

void
shrinker_stop(struct shrinker *s)
{
	bool started;

	mutex_lock(&s->lock);
	s->stop = true;
	s->progress.cancel = true;
	started = s->started;
	s->started = false;
	mutex_unlock(&s->lock);
	if (started)
		pthread_join(s->thread, NULL);
}

void
shrinker_free(struct shrinker *s)
{
	if (!s)
		return;
	mutex_destroy(&s->lock);
	free(s);
}
