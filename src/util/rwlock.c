/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A read-write lock whose readers share nothing that they write to, as long as there is no writer.
 *
 * A reader counts itself in its thread's place and then looks whether the lock is wanted; a writer says that it is
 * wanted and then looks at all places. These are sequentially consistent, so one of the two sees the other: the
 * reader goes back and waits until the writer has done; or the writer waits for it.
 *
 * Readers that wait are let in when the writer has done, and the next one, which may be the same, waits until they
 * have woken up: `owed`. Otherwise who takes the lock again at once would have it before them each time.
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
	l->nr_exclusive = 0;
	l->waiting = l->owed = 0;
	pthread_mutex_init(&l->gate, NULL);
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->left, NULL);
	pthread_cond_init(&l->done, NULL);
	for (unsigned i = 0; i <= THREAD_SLOTS; i++)
		l->readers[i].nr = 0;
}

void
rwlock_destroy(struct rwlock *l)
{
	pthread_cond_destroy(&l->done);
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

/* Wait for the writer that there is, and be one of those who have it next. */
static void
wait_for_writer(struct rwlock *l)
{
	uint64_t this_one = l->nr_exclusive;

	l->waiting++;
	while (l->nr_exclusive == this_one)
		pthread_cond_wait(&l->done, &l->mutex);
	if (!--l->owed)
		pthread_cond_signal(&l->left);
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
	pthread_mutex_lock(&l->mutex);
	if (atomic_load(&l->wanted))
		wait_for_writer(l);
	atomic_fetch_add(nr, 1);
	pthread_mutex_unlock(&l->mutex);
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
	pthread_mutex_lock(&l->mutex);
	while (l->owed)
		pthread_cond_wait(&l->left, &l->mutex);
	atomic_store(&l->wanted, true);
	pthread_mutex_unlock(&l->mutex);
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
	pthread_mutex_lock(&l->mutex);
	l->exclusive = false;
	l->nr_exclusive++;
	l->owed = l->waiting;
	l->waiting = 0;
	atomic_store(&l->wanted, false);
	if (l->owed)
		pthread_cond_broadcast(&l->done);
	pthread_mutex_unlock(&l->mutex);
	pthread_mutex_unlock(&l->gate);
}
