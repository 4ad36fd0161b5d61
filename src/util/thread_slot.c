/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "util/thread_slot.h"

_Static_assert(THREAD_SLOTS == 64, "a bit for each");

static _Atomic uint64_t taken;
static atomic_uint nr_used;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_exit;
static __thread unsigned mine; /* the number, plus 1; 0: none yet */

/* The thread ends. Should another destructor want a number after this, it gets one anew, and this is called again. */
static void
give_back(void *value)
{
	unsigned slot = mine - 1;

	(void)value;
	mine = 0;
	if (slot < THREAD_SLOTS)
		atomic_fetch_and(&taken, ~(1ULL << slot));
}

static void
make_key(void)
{
	if (pthread_key_create(&at_exit, give_back))
		atomic_store(&taken, UINT64_MAX);
}

static unsigned
take_slot(void)
{
	uint64_t before = atomic_load(&taken);
	unsigned slot, used;

	do {
		if (before == UINT64_MAX)
			return THREAD_SLOTS;
		slot = (unsigned)__builtin_ctzll(~before);
	} while (!atomic_compare_exchange_weak(&taken, &before, before | 1ULL << slot));
	used = atomic_load(&nr_used);
	while (used <= slot && !atomic_compare_exchange_weak(&nr_used, &used, slot + 1))
		;
	return slot;
}

unsigned
thread_slot(void)
{
	if (mine)
		return mine - 1;
	pthread_once(&once, make_key);
	mine = take_slot() + 1;
	/* Any value but NULL has the destructor called. */
	if (mine <= THREAD_SLOTS && pthread_setspecific(at_exit, &once)) {
		give_back(NULL);
		mine = THREAD_SLOTS + 1;
	}
	return mine - 1;
}

unsigned
thread_slots_used(void)
{
	return atomic_load(&nr_used);
}
