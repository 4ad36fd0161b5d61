/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdbool.h>

#include "pool/range_lock.h"

#define BIT(mode) (1U << (mode))

static const unsigned excludes[] = {
	[RANGE_READ] = BIT(RANGE_CHANGE),
	[RANGE_WRITE] = BIT(RANGE_CHANGE) | BIT(RANGE_FREEZE),
	[RANGE_CHANGE] = BIT(RANGE_READ) | BIT(RANGE_WRITE) | BIT(RANGE_CHANGE) | BIT(RANGE_FREEZE),
	[RANGE_FREEZE] = BIT(RANGE_WRITE) | BIT(RANGE_CHANGE) | BIT(RANGE_FREEZE),
};

void
range_lock_init(struct range_lock *l)
{
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

void
range_lock(struct range_lock *l, struct range_hold *h, enum range_mode mode, uint64_t first,
	   uint64_t last)
{
	h->first = first;
	h->last = last;
	h->mode = mode;
	mutex_lock(&l->mutex);
	TAILQ_INSERT_TAIL(&l->holds, h, link);
	while (must_wait(h)) {
		l->nr_waiting++;
		cond_wait(&l->released, &l->mutex);
		l->nr_waiting--;
	}
	mutex_unlock(&l->mutex);
}

void
range_unlock(struct range_lock *l, struct range_hold *h)
{
	mutex_lock(&l->mutex);
	TAILQ_REMOVE(&l->holds, h, link);
	if (l->nr_waiting)
		pthread_cond_broadcast(&l->released);
	mutex_unlock(&l->mutex);
}
