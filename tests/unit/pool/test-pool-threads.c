/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A pool used by many threads at once, with its own threads at work: writers, readers, those who
 * take, check and remove snapshots, make and remove volumes, small ones and some that are taken back in
 * steps, copy, clone and revert them, ask, report and sync. Then the same again while an image fails, so that the pool goes back to
 * its last commit under all of them. A plain program, so that it runs under ThreadSanitizer as well.
 *
 * THINFS_TEST_SECONDS: for how long, 5 unless told; and a fifth of it for each kind of failure.
 */
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/image_fault.h"
#include "pdata/thin_meta.h"
#include "unit/audit.h"
#include "unit/kept_image.h"
#include "unit/pool/threads.h"

const struct pool_caller threads_caller = {.mode = 0644};
static struct kept_image data, meta;
struct pool *pool;
struct vol *vols[NR_VOLS], *mirrors[NR_VOLS], *first, *second;
atomic_bool stop, failing;
_Atomic uint64_t synced, counter;

static int nr_tests;
static atomic_uint nr_failed;

static void
ok(bool good, const char *what)
{
	nr_failed += !good;
	printf("%sok %d - %s\n", good ? "" : "not ", ++nr_tests, what);
}

atomic_uint bad_errors, bad_reads, bad_frozen, bad_order, bad_sync;

void
wrong(atomic_uint *claim, const char *what, long long number)
{
	if (failing && claim != &bad_reads && claim != &bad_sync)
		return;
	if ((*claim)++ < 10)
		fprintf(stderr, "# %s: %lld\n", what, number);
}

void
expect(int r, int allowed, const char *what)
{
	if (r && r != allowed)
		wrong(&bad_errors, what, r);
}

/* --- all together --- */

static struct image *
memory(const char *name, uint64_t size)
{
	struct image *img;

	if (image_open_memory(name, size, &img))
		abort();
	return img;
}

static void
open_pool(void)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;

	options.commit_interval_ms = 5;
	if (pool_open_images(&data.image, &meta.image, &options, &pool)) {
		printf("Bail out! the pool does not open\n");
		exit(99);
	}
}

static struct vol *
make_vol(const char *name, uint64_t size)
{
	struct vol *v;

	if (pool_create(pool, pool_top(pool), name, &threads_caller, &v) || vol_truncate(v, size))
		abort();
	return v;
}

/* Let FAIL, if any, come on the way. */
static void
run_threads(unsigned msec, void (*fail)(void))
{
	void *(*const fns[])(void *) = {writer, writer, writer, reader, reader, count, syncer, syncer,
					snapshotter, remover, creator, creator, big_creator, asker,
					copier, copier, cloner, cloner, reverter};
	enum { NR = sizeof(fns) / sizeof(fns[0]) };
	pthread_t threads[NR];

	stop = false;
	for (uintptr_t i = 0; i < NR; i++)
		if (pthread_create(&threads[i], NULL, fns[i], (void *)i))
			abort();
	usleep(msec * 500);
	if (fail)
		fail();
	usleep(msec * 500);
	stop = true;
	for (unsigned i = 0; i < NR; i++)
		pthread_join(threads[i], NULL);
}

/* --- what a round begins and ends with --- */

static void
begin(void)
{
	struct image *img;
	char name[16];

	if (image_fault_wrap(memory("data", (uint64_t)NR_BLOCKS << 16), &img))
		abort();
	kept_image_init(&data, img);
	if (image_fault_wrap(memory("meta", 8U << 20), &img))
		abort();
	kept_image_init(&meta, img);
	if (meta_format(&meta.image, 128, NR_BLOCKS))
		abort();
	counter = synced = 0;
	forget_snapshots();
	open_pool();
	first = make_vol("first", 1 << 20);
	second = make_vol("second", 1 << 20);
	for (unsigned i = 0; i < NR_VOLS; i++) {
		snprintf(name, sizeof(name), "v%u", i);
		vols[i] = make_vol(name, VOL_BYTES);
		snprintf(name, sizeof(name), "m%u", i);
		mirrors[i] = make_vol(name, VOL_BYTES);
	}
	if (pool_sync_wait(pool, NULL))
		abort();
}

static int
end(void)
{
	for (unsigned i = 0; i < NR_VOLS; i++) {
		vol_put(vols[i]);
		vol_put(mirrors[i]);
	}
	vol_put(first);
	vol_put(second);
	return pool_close(pool);
}

static void
check_counters_after_reopening(void)
{
	uint64_t a, b;

	open_pool();
	a = read_counter(pool_top(pool), "first", FIRST_AT);
	b = read_counter(pool_top(pool), "second", SECOND_AT);
	/* What was not synced may be lost in any order. */
	if (b < synced || a < (failing ? synced : b))
		wrong(&bad_sync, "a counter was synced and is not there", (long long)(synced - (a < b ? a : b)));
}

static void
free_images(void)
{
	kept_image_free(&data);
	kept_image_free(&meta);
}

/* --- with an image that fails --- */

static void
fail_data_flush(void)
{
	image_fault_set(data.inner, IMAGE_OP_FLUSH, 1, EIO, false);
}

static void
fail_meta_write(void)
{
	image_fault_set(meta.inner, IMAGE_OP_WRITE, 3, EIO, false);
}

static void
fail_meta_flush(void)
{
	image_fault_set(meta.inner, IMAGE_OP_FLUSH, 2, EIO, false);
}

static void
run_failing(void (*fail)(void), unsigned msec, const char *claim)
{
	bool read_only;

	begin();
	/* So slow that metadata are written meanwhile. */
	image_fault_delay(data.inner, IMAGE_OP_FLUSH, 1000);
	failing = true;
	run_threads(msec, fail);
	read_only = pool_get_mode(pool) == POOL_READ_ONLY;
	end();
	image_fault_clear(data.inner);
	image_fault_clear(meta.inner);
	check_counters_after_reopening();
	pool_close(pool);
	failing = false;
	ok(read_only && !bad_reads && !bad_sync && audit_image(meta.inner, AUDIT_CLEAN), claim);
	free_images();
}

int
main(void)
{
	const char *given = getenv("THINFS_TEST_SECONDS");
	unsigned msec = (given ? (unsigned)atoi(given) : 5) * 1000;

	alarm(280);
	printf("1..12\n");
	begin();
	run_threads(msec, NULL);
	ok(!end(), "the pool closes, with all committed");
	check_counters_after_reopening();
	check_all_frozen();
	ok(!pool_close(pool), "the pool closes after being opened again");
	fprintf(stderr, "# counted to %llu\n", (unsigned long long)counter);
	ok(!bad_errors, "no operation failed");
	ok(!bad_reads, "a read sees one write or another, never both in a sector, nor another volume's");
	ok(!bad_frozen, "a snapshot, a copy or a clone does not change while its volumes are written to");
	ok(!bad_order, "no snapshot has a later write without an earlier one to another volume");
	ok(!bad_sync, "what was synced is there when the pool is opened again");
	ok(audit_image(meta.inner, AUDIT_ALL), "the metadata are clean");
	ok(counter > 0, "and something was done");
	free_images();

	run_failing(fail_data_flush, msec / 5, "a flush of the data image fails: what was synced is there");
	run_failing(fail_meta_write, msec / 5, "a write of metadata fails: what was synced is there");
	run_failing(fail_meta_flush, msec / 5, "a flush of the metadata image fails: what was synced is there");
	return nr_failed != 0;
}
