/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lock: mutexes and read-write locks with a rank (util/lock_order.h). But for that they are POSIX threads', and
 * cost the same.
 */
#ifndef THINFS_UTIL_LOCK_H
#define THINFS_UTIL_LOCK_H

#include <pthread.h>
#include <time.h>

#include "util/lock_order.h"

/* For the message when the order is broken. */
struct lock_place {
	unsigned rank;
	const char *name; /* a constant */
};

struct mutex {
	pthread_mutex_t os;
	struct lock_place place;
};

struct rwlock {
	pthread_rwlock_t os;
	struct lock_place place;
};

#define MUTEX_INITIALIZER(name, rank) {PTHREAD_MUTEX_INITIALIZER, {(rank), (name)}}

static inline void
mutex_init(struct mutex *m, const char *name, unsigned rank)
{
	pthread_mutex_init(&m->os, NULL);
	m->place = (struct lock_place){rank, name};
}

static inline void
mutex_destroy(struct mutex *m)
{
	pthread_mutex_destroy(&m->os);
}

static inline void
mutex_lock(struct mutex *m)
{
	lock_order_enter(m->place.rank, 0, m->place.name);
	pthread_mutex_lock(&m->os);
}

/* As with POSIX threads' mutexes: when this returns, or another thread has got it, M may be no more. */
static inline void
mutex_unlock(struct mutex *m)
{
	lock_order_leave(m->place.rank);
	pthread_mutex_unlock(&m->os);
}

/* While it waits, the thread counts as holding the mutex: it takes nothing else. */
static inline void
cond_wait(pthread_cond_t *c, struct mutex *m)
{
	pthread_cond_wait(c, &m->os);
}

/* UNTIL is of the clock that C was made with. 0 or ETIMEDOUT. */
static inline int
cond_timedwait(pthread_cond_t *c, struct mutex *m, const struct timespec *until)
{
	return pthread_cond_timedwait(c, &m->os, until);
}

/* Writers first: readers come all the time, and a writer must get its turn. So never taken twice by one thread. */
static inline void
rwlock_init(struct rwlock *l, const char *name, unsigned rank)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&l->os, &attr);
	pthread_rwlockattr_destroy(&attr);
	l->place = (struct lock_place){rank, name};
}

static inline void
rwlock_destroy(struct rwlock *l)
{
	pthread_rwlock_destroy(&l->os);
}

static inline void
rwlock_rdlock(struct rwlock *l)
{
	lock_order_enter(l->place.rank, 0, l->place.name);
	pthread_rwlock_rdlock(&l->os);
}

static inline void
rwlock_wrlock(struct rwlock *l)
{
	lock_order_enter(l->place.rank, 0, l->place.name);
	pthread_rwlock_wrlock(&l->os);
}

static inline void
rwlock_unlock(struct rwlock *l)
{
	lock_order_leave(l->place.rank);
	pthread_rwlock_unlock(&l->os);
}

#endif
