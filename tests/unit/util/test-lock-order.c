/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>

#include "util/lock.h"

#ifdef THINFS_DEBUG

enum { FIRST = 1, MANY, LAST };

static struct mutex first = MUTEX_INITIALIZER("first", FIRST);
static struct mutex last = MUTEX_INITIALIZER("last", LAST);
static struct mutex leaf = MUTEX_INITIALIZER("a leaf", LOCK_LEAF);
static struct mutex other_leaf = MUTEX_INITIALIZER("another leaf", LOCK_LEAF);

Test(lock_order, the_order_may_be_taken_and_released_in_any)
{
	struct rwlock shared;

	rwlock_init(&shared, "shared", LAST);
	for (int i = 0; i < 2; i++) {
		mutex_lock(&first);
		lock_order_enter(MANY, 7, "one of many");
		lock_order_enter(MANY, 9, "one of many");
		lock_order_assert_below(LAST, "I/O");
		rwlock_rdlock(&shared);
		mutex_lock(&leaf);
		mutex_unlock(&first);
		mutex_unlock(&leaf);
		rwlock_unlock(&shared);
		lock_order_leave(MANY);
		lock_order_leave(MANY);
		lock_order_assert_below(0, "anything");
	}
	rwlock_destroy(&shared);
}

static void *
take_first(void *arg)
{
	mutex_lock(&first);
	mutex_unlock(&first);
	return arg;
}

Test(lock_order, threads_do_not_hold_for_each_other)
{
	pthread_t thread;

	mutex_lock(&last);
	cr_assert_eq(pthread_create(&thread, NULL, take_first, NULL), 0);
	pthread_join(thread, NULL);
	mutex_unlock(&last);
}

Test(lock_order, a_lower_rank_aborts, .signal = SIGABRT)
{
	mutex_lock(&last);
	mutex_lock(&first);
}

Test(lock_order, a_reader_counts_like_a_writer, .signal = SIGABRT)
{
	struct rwlock shared;

	rwlock_init(&shared, "shared", LAST);
	rwlock_rdlock(&shared);
	mutex_lock(&first);
}

Test(lock_order, reading_twice_aborts, .signal = SIGABRT)
{
	struct rwlock shared;

	rwlock_init(&shared, "shared", LAST);
	rwlock_rdlock(&shared);
	rwlock_rdlock(&shared); /* waits for ever when a writer has come between */
}

Test(lock_order, a_leaf_under_a_leaf_aborts, .signal = SIGABRT)
{
	mutex_lock(&leaf);
	mutex_lock(&other_leaf);
}

Test(lock_order, descending_ids_abort, .signal = SIGABRT)
{
	lock_order_enter(MANY, 9, "nine");
	lock_order_enter(MANY, 7, "seven");
}

Test(lock_order, the_same_id_twice_aborts, .signal = SIGABRT)
{
	lock_order_enter(MANY, 7, "seven");
	lock_order_enter(MANY, 7, "seven");
}

Test(lock_order, what_must_not_be_done_under_a_lock_aborts, .signal = SIGABRT)
{
	mutex_lock(&last);
	lock_order_assert_below(LAST, "I/O");
}

Test(lock_order, releasing_what_is_not_held_aborts, .signal = SIGABRT)
{
	lock_order_leave(MANY);
}

#else

Test(lock_order, is_asserted)
{
	cr_skip_test("not a debug build (--enable-debug)");
}

#endif
