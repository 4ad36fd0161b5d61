/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "pool/range_lock.h"
#include "unit/random.h"

/* Another thread that wants a range. */
struct other {
	struct range_lock *lock;
	struct range_hold hold;
	enum range_mode mode;
	uint64_t first, last;
	atomic_bool has_it;
	pthread_t thread;
};

static void *
take(void *arg)
{
	struct other *o = arg;

	range_lock(o->lock, &o->hold, o->mode, o->first, o->last);
	o->has_it = true;
	return NULL;
}

static void
start(struct other *o, struct range_lock *lock, enum range_mode mode, uint64_t first, uint64_t last)
{
	o->lock = lock;
	o->mode = mode;
	o->first = first;
	o->last = last;
	o->has_it = false;
	cr_assert_eq(pthread_create(&o->thread, NULL, take, o), 0);
}

/* Whether it gets its range while nothing is released. */
static bool
gets_it(struct other *o, bool expected)
{
	for (unsigned i = 0; i < (expected ? 2000 : 10) && !o->has_it; i++)
		usleep(1000);
	return o->has_it;
}

static void
end(struct other *o)
{
	pthread_join(o->thread, NULL);
	range_unlock(o->lock, &o->hold);
}

Test(range_lock, who_excludes_whom_is_as_the_table_says)
{
	static const bool together[4][4] = {
		[RANGE_READ] = {true, true, false, true},
		[RANGE_WRITE] = {true, true, false, false},
		[RANGE_CHANGE] = {false, false, false, false},
		[RANGE_FREEZE] = {true, false, false, false},
	};
	struct range_lock lock;

	range_lock_init(&lock);
	for (enum range_mode a = RANGE_READ; a <= RANGE_FREEZE; a++) {
		for (enum range_mode b = RANGE_READ; b <= RANGE_FREEZE; b++) {
			struct range_hold held;
			struct other o;

			range_lock(&lock, &held, a, 10, 20);
			start(&o, &lock, b, 20, 30);
			cr_assert_eq(gets_it(&o, together[a][b]), together[a][b], "%d, then %d", a, b);
			range_unlock(&lock, &held);
			end(&o);
		}
	}
	range_lock_destroy(&lock);
}

Test(range_lock, ranges_that_only_touch_do_not_wait)
{
	struct range_hold held;
	struct range_lock lock;
	struct other o;

	range_lock_init(&lock);
	range_lock(&lock, &held, RANGE_CHANGE, 10, 20);
	start(&o, &lock, RANGE_CHANGE, 21, UINT64_MAX);
	cr_assert(gets_it(&o, true));
	end(&o);
	start(&o, &lock, RANGE_CHANGE, 0, 9);
	cr_assert(gets_it(&o, true));
	end(&o);
	range_unlock(&lock, &held);
	range_lock_destroy(&lock);
}

Test(range_lock, nobody_overtakes_one_who_waits_for_the_same)
{
	struct range_hold held;
	struct range_lock lock;
	struct other freezer, writer, elsewhere;

	range_lock_init(&lock);
	range_lock(&lock, &held, RANGE_WRITE, 0, 5);
	start(&freezer, &lock, RANGE_FREEZE, 0, 100);
	cr_assert(!gets_it(&freezer, false));
	/* Could go along with the first writer, but the freezer was there before. */
	start(&writer, &lock, RANGE_WRITE, 50, 60);
	cr_assert(!gets_it(&writer, false));
	start(&elsewhere, &lock, RANGE_WRITE, 101, 110);
	cr_assert(gets_it(&elsewhere, true));
	end(&elsewhere);
	range_unlock(&lock, &held);
	cr_assert(gets_it(&freezer, true));
	cr_assert(!gets_it(&writer, false));
	end(&freezer);
	cr_assert(gets_it(&writer, true));
	end(&writer);
	range_lock_destroy(&lock);
}

/* --- many threads --- */

#define NR_CELLS 64

static struct range_lock shared;
static atomic_int in_cell[4][NR_CELLS];
static atomic_uint violations;

static bool
may_be_with(enum range_mode a, enum range_mode b)
{
	if (a == RANGE_CHANGE || b == RANGE_CHANGE)
		return false;
	return a == RANGE_READ || b == RANGE_READ || (a == RANGE_WRITE && b == RANGE_WRITE);
}

static void
check_cell(enum range_mode mode, uint64_t cell)
{
	for (enum range_mode m = RANGE_READ; m <= RANGE_FREEZE; m++)
		if (!may_be_with(mode, m) && in_cell[m][cell] > (m == mode))
			violations++;
}

static void *
use(void *arg)
{
	struct random_source rs = {(uintptr_t)arg};

	for (unsigned i = 0; i < 5000; i++) {
		enum range_mode mode = (enum range_mode)random_below(&rs, 4);
		uint64_t first = random_below(&rs, NR_CELLS);
		uint64_t last = first + random_below(&rs, NR_CELLS - first);
		struct range_hold hold;

		range_lock(&shared, &hold, mode, first, last);
		for (uint64_t c = first; c <= last; c++) {
			in_cell[mode][c]++;
			check_cell(mode, c);
		}
		for (uint64_t c = first; c <= last; c++)
			in_cell[mode][c]--;
		range_unlock(&shared, &hold);
	}
	return NULL;
}

Test(range_lock, many_threads_never_hold_what_excludes_each_other)
{
	pthread_t threads[8];

	range_lock_init(&shared);
	for (uintptr_t i = 0; i < 8; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, use, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(violations, 0);
	range_lock_destroy(&shared);
}
