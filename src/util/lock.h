/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lock: mutexes and read-write locks with a rank (util/lock_order.h). But for that, mutexes are POSIX threads', and
 * cost the same. Read-write locks are for many readers (rwlock.c).
 */
#ifndef THINFS_UTIL_LOCK_H
#define THINFS_UTIL_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "util/lock_order.h"
#include "util/thread_slot.h"

/* For the message when the order is broken. */
struct lock_place {
	unsigned rank;
	const char *name; /* a constant */
};

struct mutex {
	pthread_mutex_t os;
	struct lock_place place;
};

/* How many of the threads with one number have the lock shared, on a line of its own. */
struct rwlock_readers {
	atomic_uint nr;
	char rest[CACHE_LINE - sizeof(atomic_uint)];
};

struct rwlock {
	struct lock_place place;
	atomic_bool wanted; /* exclusively, by who has the gate; changes under the mutex */
	bool exclusive; /* it is held so; only changes while nobody else holds it at all */
	pthread_mutex_t gate; /* of those who want it exclusively: one at a time */
	pthread_mutex_t mutex; /* for what follows */
	uint64_t nr_exclusive; /* how many have had it so */
	unsigned waiting; /* readers, for the one who has it so, or is about to */
	unsigned owed; /* readers that waited for the one before, and have not yet woken up: they come first */
	pthread_cond_t left; /* a reader has, while it was wanted; or the last that was owed has it */
	pthread_cond_t done; /* who had it exclusively has */
	struct rwlock_readers readers[THREAD_SLOTS + 1]; /* the last is of all threads without a number */
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

/*
 * Shared: two writes to a line of the thread's own, while nobody wants it exclusively. Exclusive: a look at the lines of
 * all threads. A writer waits for the readers that there are, and for those that waited while the one before had it; not
 * for others that come later. So a reader waits for one writer at most. Writers among themselves are in no order.
 * Never taken twice by one thread.
 */
void rwlock_init(struct rwlock *l, const char *name, unsigned rank);
void rwlock_destroy(struct rwlock *l);
void rwlock_rdlock(struct rwlock *l);
void rwlock_wrlock(struct rwlock *l);
/* By the thread that took it. */
void rwlock_unlock(struct rwlock *l);

#endif
