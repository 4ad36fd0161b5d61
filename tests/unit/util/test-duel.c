/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two threads that come to one lock at the same instant, again and again: one as those do who only announce
 * themselves, the other exclusively. What test-lockless cannot see on a quiet or a slow machine: stores that
 * are not seen in time, a place that is filled in the wrong order, a wake-up that is lost (then this hangs). Prints TAP.
 */
#include <config.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pool/range_lock.h"
#include "unit/random.h"
#include "util/lock.h"

#define ROUNDS_MAX 200000U
#define MILLISECONDS_MAX 1500U
#define MAX_APART 60U /* how much one may be before the other, of what pause() counts */
#define LONG_ENOUGH 40U /* to be found there by the other */

struct duel {
	const char *claim;
	void (*enter)(bool exclusive, struct range_hold *hold);
	void (*leave)(bool exclusive, struct range_hold *hold);
};

static struct rwlock lock;
static struct range_lock ranges;
static const struct duel *duel;
static uint64_t seed;
static atomic_uint round_of[2], inside, met;
static unsigned nr_rounds; /* after both have ended */
static atomic_bool over;

/* --- the locks --- */

static void
enter_lock(bool exclusive, struct range_hold *hold)
{
	(void)hold;
	if (exclusive)
		rwlock_wrlock(&lock);
	else
		rwlock_rdlock(&lock);
}

static void
leave_lock(bool exclusive, struct range_hold *hold)
{
	(void)exclusive;
	(void)hold;
	rwlock_unlock(&lock);
}

/* One block of the range is shared, the last or the first. */
static void
enter_change(bool exclusive, struct range_hold *hold)
{
	if (exclusive)
		range_lock(&ranges, hold, RANGE_CHANGE, 5, 8);
	else
		range_lock(&ranges, hold, RANGE_READ, 8, 8 + round_of[0] % 2);
}

static void
enter_freeze(bool exclusive, struct range_hold *hold)
{
	if (exclusive)
		range_lock(&ranges, hold, RANGE_FREEZE, 0, 8);
	else
		range_lock(&ranges, hold, RANGE_WRITE, round_of[0] % 4, 4);
}

/* What is left in the thread's place is a range that the other one does not care about. */
static void
leave_range(bool exclusive, struct range_hold *hold)
{
	range_unlock(&ranges, hold);
	if (!exclusive) {
		range_lock(&ranges, hold, RANGE_READ, 20, 20);
		range_unlock(&ranges, hold);
	}
}

static const struct duel duels[] = {
	{"who has a read-write lock exclusively is alone", enter_lock, leave_lock},
	{"nobody reads what is being changed", enter_change, leave_range},
	{"nobody writes to what is frozen", enter_freeze, leave_range},
};

/* --- both threads --- */

static void
pause_for(uint64_t turns)
{
	for (volatile uint64_t i = 0; i < turns; i++)
		;
}

/* Begin a round together; on one processor, the other one must be let in. False: there are no more. */
static bool
meet(unsigned me, unsigned number)
{
	unsigned looks = 0;

	atomic_store(&round_of[me], number);
	while (atomic_load(&round_of[!me]) < number) {
		if (over)
			return false;
		if (++looks % 1000 == 0)
			sched_yield();
	}
	return true;
}

static void *
run(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, n = 0;
	struct random_source rs = {seed + me};
	struct range_hold hold;

	while (n < ROUNDS_MAX && !over && meet(me, ++n)) {
		pause_for(random_below(&rs, MAX_APART));
		duel->enter(me, &hold);
		met += atomic_fetch_or(&inside, 1U << me) != 0;
		pause_for(LONG_ENOUGH);
		atomic_fetch_and(&inside, ~(1U << me));
		duel->leave(me, &hold);
	}
	if (me)
		nr_rounds = n;
	over = true;
	return NULL;
}

static bool
fight(const struct duel *d)
{
	pthread_t threads[2];

	duel = d;
	met = inside = 0;
	round_of[0] = round_of[1] = 0;
	over = false;
	for (uintptr_t i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)i))
			abort();
	for (unsigned ms = 0; ms < MILLISECONDS_MAX && !over; ms++)
		usleep(1000);
	over = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("# %u rounds\n", nr_rounds);
	return !met;
}

/* --- the same writer again and again --- */

static atomic_uint nr_read;

static void *
read_once(void *arg)
{
	(void)arg;
	rwlock_rdlock(&lock);
	nr_read++;
	rwlock_unlock(&lock);
	return NULL;
}

static bool
is_waited_for(unsigned readers)
{
	bool all;

	pthread_mutex_lock(&lock.mutex);
	all = lock.waiting == readers;
	pthread_mutex_unlock(&lock.mutex);
	return all;
}

/* Whether readers that wait have it before the writer, who takes it again at once. */
static bool
readers_have_their_turn(void)
{
	enum { READERS = 3, TURNS = 50 };
	pthread_t threads[READERS];
	bool good = true;

	for (unsigned turn = 0; turn < TURNS; turn++) {
		rwlock_wrlock(&lock);
		nr_read = 0;
		for (unsigned i = 0; i < READERS; i++)
			if (pthread_create(&threads[i], NULL, read_once, NULL))
				abort();
		while (!is_waited_for(READERS))
			sched_yield();
		rwlock_unlock(&lock);
		rwlock_wrlock(&lock);
		good &= nr_read == READERS;
		rwlock_unlock(&lock);
		for (unsigned i = 0; i < READERS; i++)
			pthread_join(threads[i], NULL);
	}
	return good;
}

static unsigned
report(bool good, unsigned number, const char *claim)
{
	printf("%sok %u - %s\n", good ? "" : "not ", number, claim);
	fflush(stdout);
	return !good;
}

int
main(void)
{
	unsigned nr = sizeof(duels) / sizeof(duels[0]), nr_failed = 0;

	alarm(60);
	seed = random_start("duel").state;
	printf("1..%u\n", nr + 1);
	rwlock_init(&lock, "the lock", 1);
	range_lock_init(&ranges);
	for (unsigned i = 0; i < nr; i++)
		nr_failed += report(fight(&duels[i]), i + 1, duels[i].claim);
	nr_failed += report(readers_have_their_turn(), nr + 1, "who waits to read does so before the writer has it again");
	range_lock_destroy(&ranges);
	rwlock_destroy(&lock);
	return nr_failed != 0;
}
