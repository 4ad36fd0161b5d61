/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdbool.h>

#include "pool/range_lock.h"
#include "util/thread_slot.h"

#define BIT(mode) (1U << (mode))

static const unsigned excludes[] = {
	[RANGE_READ] = BIT(RANGE_CHANGE),
	[RANGE_WRITE] = BIT(RANGE_CHANGE) | BIT(RANGE_FREEZE),
	[RANGE_CHANGE] = BIT(RANGE_READ) | BIT(RANGE_WRITE) | BIT(RANGE_CHANGE) | BIT(RANGE_FREEZE),
	[RANGE_FREEZE] = BIT(RANGE_WRITE) | BIT(RANGE_CHANGE) | BIT(RANGE_FREEZE),
};

/*
 * A thread's place: the READ or WRITE that it has on LOCK, NULL: none. Only its thread writes there. Why it is safe:
 * who wants an exclusive mode counts itself in nr_exclusive and then looks at all places; who announces a hold then
 * looks at nr_exclusive, and takes it back if it is not zero. All four are sequentially consistent, so at least one sees the
 * other. Whoever reads a place while its hold changes sees a mixture of two, of which the first has ended and the
 * second will be taken back.
 */
struct range_place {
	_Atomic(struct range_lock *) lock;
	_Atomic uint64_t first, last;
	_Atomic enum range_mode mode;
	char rest[CACHE_LINE - 4 * sizeof(uint64_t)];
};

_Static_assert(sizeof(struct range_place) == CACHE_LINE, "threads must not share a line");

static struct range_place places[THREAD_SLOTS] __attribute__((aligned(CACHE_LINE)));

static bool
is_exclusive(enum range_mode mode)
{
	return mode == RANGE_CHANGE || mode == RANGE_FREEZE;
}

void
range_lock_init(struct range_lock *l)
{
	l->nr_exclusive = 0;
	mutex_init(&l->mutex, "the mutex of a range lock", LOCK_LEAF);
	pthread_cond_init(&l->released, NULL);
	l->nr_waiting = 0;
	TAILQ_INIT(&l->holds);
}

void
range_lock_destroy(struct range_lock *l)
{
	pthread_cond_destroy(&l->released);
	mutex_destroy(&l->mutex);
}

/* Whether H has to wait for one that came before it. */
static bool
must_wait(const struct range_hold *h)
{
	const struct range_hold *other = h;

	while ((other = TAILQ_PREV(other, range_hold_list, link)))
		if (other->first <= h->last && h->first <= other->last &&
		    excludes[h->mode] & BIT(other->mode))
			return true;
	return false;
}

/* Whether H, which is exclusive, has to wait for one that was announced. */
static bool
must_wait_for_places(const struct range_lock *l, const struct range_hold *h)
{
	unsigned nr = is_exclusive(h->mode) ? thread_slots_used() : 0;

	for (unsigned i = 0; i < nr; i++) {
		struct range_place *p = &places[i];

		if (atomic_load(&p->lock) == l &&
		    atomic_load_explicit(&p->first, memory_order_acquire) <= h->last &&
		    h->first <= atomic_load_explicit(&p->last, memory_order_acquire) &&
		    excludes[h->mode] & BIT(atomic_load_explicit(&p->mode, memory_order_acquire)))
			return true;
	}
	return false;
}

/* Let those look again who wait. */
static void
wake(struct range_lock *l)
{
	mutex_lock(&l->mutex);
	if (l->nr_waiting)
		pthread_cond_broadcast(&l->released);
	mutex_unlock(&l->mutex);
}

/* End what was announced. */
static void
leave(struct range_lock *l, struct range_place *p)
{
	atomic_store(&p->lock, NULL);
	if (atomic_load(&l->nr_exclusive))
		wake(l);
}

/* Hold H, which is not exclusive, without the mutex; false: it has to be taken. */
static bool
announce(struct range_lock *l, struct range_hold *h)
{
	unsigned slot = thread_slot();
	struct range_place *p = &places[slot];

	if (slot == THREAD_SLOTS || atomic_load_explicit(&l->nr_exclusive, memory_order_relaxed) ||
	    atomic_load_explicit(&p->lock, memory_order_relaxed))
		return false;
	atomic_store_explicit(&p->first, h->first, memory_order_release);
	atomic_store_explicit(&p->last, h->last, memory_order_release);
	atomic_store_explicit(&p->mode, h->mode, memory_order_release);
	atomic_store(&p->lock, l);
	if (atomic_load(&l->nr_exclusive)) {
		leave(l, p);
		return false;
	}
	h->place = p;
	return true;
}

void
range_lock(struct range_lock *l, struct range_hold *h, enum range_mode mode, uint64_t first,
	   uint64_t last)
{
	h->first = first;
	h->last = last;
	h->mode = mode;
	h->place = NULL;
	if (!is_exclusive(mode) && announce(l, h))
		return;
	mutex_lock(&l->mutex);
	TAILQ_INSERT_TAIL(&l->holds, h, link);
	if (is_exclusive(mode))
		atomic_fetch_add(&l->nr_exclusive, 1);
	while (must_wait(h) || must_wait_for_places(l, h)) {
		l->nr_waiting++;
		cond_wait(&l->released, &l->mutex);
		l->nr_waiting--;
	}
	mutex_unlock(&l->mutex);
}

void
range_unlock(struct range_lock *l, struct range_hold *h)
{
	if (h->place) {
		leave(l, h->place);
		return;
	}
	mutex_lock(&l->mutex);
	TAILQ_REMOVE(&l->holds, h, link);
	if (is_exclusive(h->mode))
		atomic_fetch_sub(&l->nr_exclusive, 1);
	if (l->nr_waiting)
		pthread_cond_broadcast(&l->released);
	mutex_unlock(&l->mutex);
}
