/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What works without locks, under more threads than have a place of their own: thread numbers, read-write locks,
 * ranges, and hits of the block cache. Prints TAP; for the thread sanitizer, too.
 */
#include <config.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/image.h"
#include "pdata/block_cache.h"
#include "pdata/format.h"
#include "pool/range_lock.h"
#include "unit/random.h"
#include "util/lock.h"

#define NR_THREADS (THREAD_SLOTS + 6)
#define NR_ROUNDS 400
#define NR_BLOCKS 1200U
#define NR_CELLS 16U

static struct rwlock lock;
static uint64_t pair[2]; /* equal, but while who holds the lock exclusively changes them */
static struct range_lock ranges;
static uint64_t cells[NR_CELLS]; /* each changes under CHANGE of it */
static struct block_cache *cache;
static atomic_uint owner_of[THREAD_SLOTS];
static atomic_uint bad_numbers, bad_pairs, bad_cells, bad_blocks, nr_without, nr_ready, nr_done;
static uint64_t added;
static unsigned nr_failed, nr_tests;

static void
ok(bool good, const char *claim)
{
	nr_failed += !good;
	printf("%sok %u - %s\n", good ? "" : "not ", ++nr_tests, claim);
}

/* --- one thread's work --- */

/* Let others in, if they can. */
static void
dawdle(struct random_source *rs)
{
	if (!random_below(rs, 4))
		sched_yield();
}

static void
use_lock(struct random_source *rs)
{
	uint64_t seen;

	if (random_below(rs, 8)) {
		rwlock_rdlock(&lock);
		seen = pair[0];
		dawdle(rs);
		bad_pairs += seen != pair[1];
	} else {
		rwlock_wrlock(&lock);
		pair[0]++;
		dawdle(rs);
		pair[1]++;
		added++;
	}
	rwlock_unlock(&lock);
}

static void
use_ranges(struct random_source *rs)
{
	uint64_t first = random_below(rs, NR_CELLS), last = first + random_below(rs, NR_CELLS - first);
	enum range_mode mode = random_below(rs, 6) ? RANGE_READ : RANGE_CHANGE;
	struct range_hold hold;
	uint64_t sum = 0;

	range_lock(&ranges, &hold, mode, first, last);
	for (uint64_t c = first; c <= last; c++)
		sum += mode == RANGE_CHANGE ? ++cells[c] : cells[c];
	dawdle(rs);
	for (uint64_t c = first; c <= last; c++)
		sum -= cells[c];
	bad_cells += sum != 0;
	range_unlock(&ranges, &hold);
}

static bool
holds(const struct block *b, uint64_t number)
{
	return le64_get(((const struct disk_bitmap *)b->data)->words[7]) == number;
}

/* Two blocks at once, of which some are mostly cached and others never. */
static void
use_cache(struct random_source *rs)
{
	uint64_t nr[2] = {random_below(rs, 20), random_below(rs, NR_BLOCKS)};
	struct block *b[2];

	for (unsigned i = 0; i < 2; i++) {
		if (bc_read(cache, nr[i], BLOCK_BITMAP, &b[i])) {
			bad_blocks++;
			return;
		}
	}
	dawdle(rs);
	for (unsigned i = 0; i < 2; i++) {
		bad_blocks += !holds(b[i], nr[i]);
		bc_put(b[i]);
	}
}

static void *
run(void *arg)
{
	struct random_source rs = {(uintptr_t)arg};
	unsigned slot = thread_slot();

	if (slot == THREAD_SLOTS)
		nr_without++;
	else
		bad_numbers += atomic_fetch_add(&owner_of[slot], 1) != 0 || slot >= thread_slots_used();
	for (nr_ready++; nr_ready < NR_THREADS;) /* so that all live at once */
		usleep(100);
	for (unsigned i = 0; i < NR_ROUNDS; i++) {
		use_lock(&rs);
		use_ranges(&rs);
		use_cache(&rs);
	}
	bad_numbers += thread_slot() != slot;
	for (nr_done++; nr_done < NR_THREADS;)
		usleep(100);
	if (slot < THREAD_SLOTS)
		owner_of[slot]--;
	return NULL;
}

static void
run_threads(void)
{
	pthread_t threads[NR_THREADS];

	nr_ready = nr_done = nr_without = 0;
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)(i + 1)))
			abort();
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
}

static struct image *
make_image(void)
{
	struct disk_bitmap bitmap = {0};
	struct image *img;

	if (image_open_memory("meta", NR_BLOCKS * METADATA_BLOCK_SIZE, &img))
		abort();
	for (uint64_t b = 0; b < NR_BLOCKS; b++) {
		bitmap.words[7] = le64_make(b);
		if (block_write_sealed(img, b, BLOCK_BITMAP, &bitmap))
			abort();
	}
	return img;
}

int
main(void)
{
	struct image *img = make_image();

	alarm(120);
	printf("1..7\n");
	rwlock_init(&lock, "the lock", 1);
	range_lock_init(&ranges);
	if (bc_open(img, NR_BLOCKS, 1 << 20, &cache))
		abort();
	run_threads();
	ok(!bad_numbers, "no two threads that live have the same number");
	ok(nr_without >= NR_THREADS - THREAD_SLOTS, "threads that find none left go without");
	nr_without = 0;
	run_threads();
	ok(nr_without == NR_THREADS - THREAD_SLOTS && !bad_numbers, "numbers of threads that ended are given out again");
	ok(!bad_pairs && pair[0] == added && pair[1] == added, "a writer is alone, however many read");
	ok(!bad_cells, "who changes a range is alone in it");
	ok(!bad_blocks, "a block that is held is not taken for another");
	ok(bc_nr_cached(cache) <= (1 << 20) / METADATA_BLOCK_SIZE, "the cache keeps its bound");
	bc_close(cache);
	range_lock_destroy(&ranges);
	rwlock_destroy(&lock);
	image_close(img);
	return nr_failed != 0;
}
