/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A read-write lock whose readers share nothing that they write to, as long as there is no writer.
 *
 * A reader counts itself in its thread's place and then looks whether the lock is wanted; a writer says that it is
 * wanted and then looks at all places. These are sequentially consistent, so one of the two sees the other: the
 * reader goes back and passes the gate, which the writer holds until it has done; or the writer waits for it.
 */
#include <config.h>

#include "util/lock.h"

/* Readers mostly have it for less than waking up takes. */
#define SPINS 200U

void
rwlock_init(struct rwlock *l, const char *name, unsigned rank)
{
	l->place = (struct lock_place){rank, name};
	l->wanted = false;
	l->exclusive = false;
	pthread_mutex_init(&l->gate, NULL);
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->left, NULL);
	for (unsigned i = 0; i <= THREAD_SLOTS; i++)
		l->readers[i].nr = 0;
}

void
rwlock_destroy(struct rwlock *l)
{
	pthread_cond_destroy(&l->left);
	pthread_mutex_destroy(&l->mutex);
	pthread_mutex_destroy(&l->gate);
}

static void
leave(struct rwlock *l)
{
	atomic_fetch_sub(&l->readers[thread_slot()].nr, 1);
	if (!atomic_load(&l->wanted))
		return;
	pthread_mutex_lock(&l->mutex);
	pthread_cond_signal(&l->left);
	pthread_mutex_unlock(&l->mutex);
}

void
rwlock_rdlock(struct rwlock *l)
{
	atomic_uint *nr = &l->readers[thread_slot()].nr;

	lock_order_enter(l->place.rank, 0, l->place.name);
	if (!atomic_load_explicit(&l->wanted, memory_order_relaxed)) {
		atomic_fetch_add(nr, 1);
		if (!atomic_load(&l->wanted))
			return;
		leave(l);
	}
	pthread_mutex_lock(&l->gate);
	atomic_fetch_add(nr, 1);
	pthread_mutex_unlock(&l->gate);
}

static bool
has_readers(struct rwlock *l)
{
	unsigned nr = thread_slots_used();

	for (unsigned i = 0; i < nr; i++)
		if (atomic_load(&l->readers[i].nr))
			return true;
	return atomic_load(&l->readers[THREAD_SLOTS].nr);
}

void
rwlock_wrlock(struct rwlock *l)
{
	lock_order_enter(l->place.rank, 0, l->place.name);
	pthread_mutex_lock(&l->gate);
	atomic_store(&l->wanted, true);
	for (unsigned i = 0; i < SPINS && has_readers(l); i++)
		;
	if (has_readers(l)) {
		pthread_mutex_lock(&l->mutex);
		while (has_readers(l))
			pthread_cond_wait(&l->left, &l->mutex);
		pthread_mutex_unlock(&l->mutex);
	}
	l->exclusive = true;
}

void
rwlock_unlock(struct rwlock *l)
{
	lock_order_leave(l->place.rank);
	if (!l->exclusive) {
		leave(l);
		return;
	}
	l->exclusive = false;
	atomic_store(&l->wanted, false);
	pthread_mutex_unlock(&l->gate);
}
