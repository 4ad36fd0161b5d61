/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A pool used by many threads at once, with its own threads at work: writers, readers, those who
 * take, check and remove snapshots, make and remove volumes, small ones and some that are taken back in
 * steps, ask, report and sync. Then the same again while an image fails, so that the pool goes back to
 * its last commit under all of them. A plain program, so that it runs under ThreadSanitizer as well.
 *
 * THINFS_TEST_SECONDS: for how long, 5 unless told; and a fifth of it for each kind of failure.
 */
#include <config.h>

#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/image_fault.h"
#include "pdata/thin_meta.h"
#include "pool/pool.h"
#include "pool/report.h"
#include "unit/audit.h"
#include "unit/kept_image.h"
#include "unit/random.h"

#define NR_VOLS 3U
#define VOL_BYTES (2U << 20)
#define WRITE_ALIGN 4096U
#define NR_SNAPSHOTS 6U
#define NR_BLOCKS 12000U /* of the pool */
#define BIG_BLOCKS 5000U /* more than are taken back at once */

static const struct pool_caller caller = {.mode = 0644};
static struct kept_image data, meta;
static struct pool *pool;
static struct vol *vols[NR_VOLS], *first, *second;
static atomic_bool stop;
static atomic_bool failing; /* an image does: operations may fail, but what was synced stays, and nobody sees others' bytes */
static _Atomic uint64_t synced; /* what the counters were before a sync that has returned */
static _Atomic uint64_t counter;

static int nr_tests;
static atomic_uint nr_failed;

static void
ok(bool good, const char *what)
{
	nr_failed += !good;
	printf("%sok %d - %s\n", good ? "" : "not ", ++nr_tests, what);
}

/* What threads find wrong. Each claim has its count. */
static atomic_uint bad_errors, bad_reads, bad_frozen, bad_order, bad_sync;

static void
wrong(atomic_uint *claim, const char *what, long long number)
{
	if (failing && claim != &bad_reads && claim != &bad_sync)
		return;
	if ((*claim)++ < 10)
		fprintf(stderr, "# %s: %lld\n", what, number);
}

static void
expect(int r, int allowed, const char *what)
{
	if (r && r != allowed)
		wrong(&bad_errors, what, r);
}

/* --- writing and reading --- */

/* All sectors of what is written hold one number, which says what volume it belongs to. */
static void
write_some(struct random_source *rs, unsigned i, uint64_t *buf)
{
	uint64_t offset = random_below(rs, VOL_BYTES / WRITE_ALIGN) * WRITE_ALIGN;
	uint64_t len = (1 + random_below(rs, 40)) * WRITE_ALIGN;
	uint64_t stamp = (uint64_t)(i + 1) << 56 | random_u64(rs) >> 8;
	ssize_t n;

	if (len > VOL_BYTES - offset)
		len = VOL_BYTES - offset;
	for (uint64_t k = 0; k < len / sizeof(*buf); k++)
		buf[k] = stamp;
	n = vol_write(vols[i], buf, len, offset);
	if (n < 0 || (uint64_t)n != len)
		wrong(&bad_errors, "write", n);
}

static void *
writer(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg;
	struct random_source rs = {i + 1};
	uint64_t *buf = malloc(VOL_BYTES);
	uint64_t offset;

	while (!stop) {
		offset = random_below(&rs, VOL_BYTES / WRITE_ALIGN) * WRITE_ALIGN;
		switch (random_below(&rs, 16)) {
		case 0:
			expect(vol_fallocate(vols[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					     offset, 50 * WRITE_ALIGN), 0, "discard");
			break;
		case 1:
			expect(vol_truncate(vols[i], offset), 0, "truncate");
			expect(vol_truncate(vols[i], VOL_BYTES), 0, "truncate");
			break;
		case 2:
			expect(vol_fallocate(vols[i], FALLOC_FL_KEEP_SIZE, offset, 300000), 0,
			       "fallocate");
			break;
		default:
			write_some(&rs, i, buf);
		}
	}
	free(buf);
	return NULL;
}

static void
check_sectors(const uint64_t *buf, size_t len, unsigned i)
{
	for (size_t at = 0; at + 512 <= len; at += 512) {
		uint64_t stamp = buf[at / 8];

		if (stamp && stamp >> 56 != i + 1)
			wrong(&bad_reads, "another volume's bytes", (long long)stamp);
		for (size_t k = 1; k < 64; k++)
			if (buf[at / 8 + k] != stamp) {
				wrong(&bad_reads, "a torn sector", (long long)at);
				break;
			}
	}
}

static void *
reader(void *arg)
{
	struct random_source rs = {100 + (uintptr_t)arg};
	uint64_t *buf = malloc(VOL_BYTES);

	while (!stop) {
		unsigned i = (unsigned)random_below(&rs, NR_VOLS);
		uint64_t offset = random_below(&rs, VOL_BYTES / WRITE_ALIGN) * WRITE_ALIGN;
		ssize_t n = vol_read(vols[i], buf, random_below(&rs, 64) * WRITE_ALIGN, offset);

		if (n < 0)
			wrong(&bad_errors, "read", n);
		else
			check_sectors(buf, (size_t)n, i);
	}
	free(buf);
	return NULL;
}

/* --- two counters, the second never ahead of the first --- */

static void *
count(void *arg)
{
	(void)arg;
	while (!stop) {
		uint64_t n = counter + 1;

		if (vol_write(first, &n, sizeof(n), 70000) != sizeof(n) ||
		    vol_write(second, &n, sizeof(n), 8) != sizeof(n)) {
			wrong(&bad_errors, "counting", (long long)n);
			break;
		}
		counter = n;
	}
	return NULL;
}

static void *
syncer(void *arg)
{
	struct random_source rs = {200 + (uintptr_t)arg};

	while (!stop) {
		uint64_t before = counter;
		bool all = random_below(&rs, 2);
		int r = pool_sync_wait(pool, all ? NULL : vols[random_below(&rs, NR_VOLS)]);
		uint64_t known = synced;

		if (r)
			wrong(&bad_errors, "sync", r);
		while (!r && all && known < before &&
		       !atomic_compare_exchange_weak(&synced, &known, before))
			;
		usleep((useconds_t)random_below(&rs, 3000));
	}
	return NULL;
}

/* --- snapshots --- */

struct taken {
	char name[32];
	uint64_t hash;
};

static pthread_mutex_t taken_lock = PTHREAD_MUTEX_INITIALIZER;
static struct taken taken[NR_SNAPSHOTS];
static unsigned nr_taken;

static uint64_t
read_counter(struct voldir *dir, const char *name, uint64_t offset)
{
	struct vol *v;
	uint64_t n = 0;

	if (pool_lookup(pool, dir, name, &v)) {
		wrong(&bad_errors, "a volume is not in the snapshot", 0);
		return 0;
	}
	if (vol_read(v, &n, sizeof(n), offset) < 0)
		wrong(&bad_errors, "reading a counter", 0);
	vol_put(v);
	return n;
}

static void
check_counters(struct voldir *dir)
{
	uint64_t a = read_counter(dir, "first", 70000), b = read_counter(dir, "second", 8);

	if (a < b || a > b + 1)
		wrong(&bad_order, "the counters differ by", (long long)(a - b));
}

/* A number for all that is in a snapshot; checks its sectors as well. */
static uint64_t
hash_snapshot(const char *name)
{
	uint64_t *buf = malloc(VOL_BYTES), hash = 0;
	char vol_name[16];
	struct voldir *dir;

	if (pool_lookup_snapshot(pool, name, &dir)) {
		wrong(&bad_errors, "a snapshot is not there", 0);
		free(buf);
		return 0;
	}
	check_counters(dir);
	for (unsigned i = 0; i < NR_VOLS; i++) {
		struct vol *v;
		ssize_t n = -1;

		snprintf(vol_name, sizeof(vol_name), "v%u", i);
		if (!pool_lookup(pool, dir, vol_name, &v)) {
			n = vol_read(v, buf, VOL_BYTES, 0);
			vol_put(v);
		}
		if (n < 0) {
			wrong(&bad_errors, "reading a snapshot", n);
			continue;
		}
		check_sectors(buf, (size_t)n, i);
		for (ssize_t k = 0; k < n / 8; k += 64)
			hash = (hash ^ buf[k]) * 0x9e3779b97f4a7c15ULL + (uint64_t)n;
	}
	voldir_put(dir);
	free(buf);
	return hash;
}

static void
check_frozen(const struct taken *t)
{
	if (hash_snapshot(t->name) != t->hash)
		wrong(&bad_frozen, t->name, 0);
}

static void *
snapshotter(void *arg)
{
	struct random_source rs = {300};
	unsigned nr = 0;

	(void)arg;
	while (!stop) {
		struct taken t;

		snprintf(t.name, sizeof(t.name), "s%u", nr++);
		expect(pool_snapshot(pool, t.name, &caller), 0, "snapshot");
		t.hash = hash_snapshot(t.name);
		pthread_mutex_lock(&taken_lock);
		if (nr_taken && random_below(&rs, 2))
			check_frozen(&taken[random_below(&rs, nr_taken)]);
		if (nr_taken == NR_SNAPSHOTS) {
			check_frozen(&taken[0]);
			expect(pool_remove_snapshot(pool, taken[0].name), 0, "remove");
			memmove(taken, taken + 1, --nr_taken * sizeof(t));
		}
		taken[nr_taken++] = t;
		pthread_mutex_unlock(&taken_lock);
		usleep((useconds_t)random_below(&rs, 20000));
	}
	return NULL;
}

static void *
remover(void *arg)
{
	struct random_source rs = {400};

	(void)arg;
	while (!stop) {
		usleep((useconds_t)random_below(&rs, 100000));
		pthread_mutex_lock(&taken_lock);
		if (nr_taken) {
			unsigned i = (unsigned)random_below(&rs, nr_taken);

			check_frozen(&taken[i]);
			expect(pool_remove_snapshot(pool, taken[i].name), 0, "remove");
			taken[i] = taken[--nr_taken];
		}
		pthread_mutex_unlock(&taken_lock);
	}
	return NULL;
}

/* --- volumes that come and go --- */

static void *
creator(void *arg)
{
	struct random_source rs = {500 + (uintptr_t)arg};
	char name[32], other[32], bytes[100000];
	unsigned nr = 0;

	memset(bytes, 0, sizeof(bytes));
	while (!stop) {
		struct vol *v;

		snprintf(name, sizeof(name), "t%u-%u", (unsigned)(uintptr_t)arg, nr);
		snprintf(other, sizeof(other), "u%u-%u", (unsigned)(uintptr_t)arg, nr++ % 2);
		int r = pool_create(pool, pool_top(pool), name, &caller, &v);

		expect(r, 0, "create");
		if (r)
			continue;
		r = vol_open(v, true);
		expect(r, 0, "open");
		if (r) {
			vol_put(v);
			continue;
		}
		if (vol_write(v, bytes, sizeof(bytes), random_below(&rs, 1 << 20)) < 0)
			wrong(&bad_errors, "write", 0);
		expect(pool_rename(pool, pool_top(pool), name, pool_top(pool), other, 0), 0, "rename");
		if (random_below(&rs, 2))
			expect(pool_unlink(pool, pool_top(pool), other), 0, "unlink");
		if (vol_write(v, bytes, sizeof(bytes), 4096) < 0)
			wrong(&bad_errors, "write after unlink", 0);
		vol_release(v);
		vol_put(v);
	}
	return NULL;
}

/* Volumes that the reclaimer takes back in steps, while it may be needed that they are read. */
static void *
big_creator(void *arg)
{
	struct pool_status status;
	char name[32];
	unsigned nr = 0;

	(void)arg;
	while (!stop) {
		struct vol *v;
		int r;

		/* The others shall not run out of space: wait for the last one to go. */
		pool_get_status(pool, &status);
		if (status.data_available < BIG_BLOCKS + NR_BLOCKS / 4) {
			usleep(1000);
			continue;
		}
		snprintf(name, sizeof(name), "big%u", nr++);
		r = pool_create(pool, pool_top(pool), name, &caller, &v);
		expect(r, 0, "create");
		if (r)
			continue;
		expect(vol_fallocate(v, 0, 0, (uint64_t)BIG_BLOCKS << 16), 0, "fallocate");
		expect(vol_truncate(v, 100000), 0, "truncate");
		expect(vol_fallocate(v, FALLOC_FL_ZERO_RANGE, 5000, 20 << 16), 0, "zero range");
		expect(pool_unlink(pool, pool_top(pool), name), 0, "unlink");
		vol_put(v);
	}
	return NULL;
}

/* All that only asks, and chmod. */
static void *
asker(void *arg)
{
	struct random_source rs = {600 + (uintptr_t)arg};
	char name[POOL_NAME_MAX + 1], snapshot[POOL_NAME_MAX + 1];
	struct vol_attr attr = {.mode = 0600};
	struct pool_status status;

	while (!stop) {
		unsigned i = (unsigned)random_below(&rs, NR_VOLS);
		uint64_t cookie = 0;
		struct vol *v;

		expect(vol_getattr(vols[i], &attr), 0, "getattr");
		attr.mode = attr.mode == 0600 ? 0644 : 0600;
		expect(vol_setattr(vols[i], VOL_SET_MODE, &attr), 0, "setattr");
		pool_get_status(pool, &status);
		if (random_below(&rs, 20) == 0) {
			json_decref(report_list(pool));
			json_decref(report_status(pool));
		}
		if (vol_seek(vols[i], (off_t)random_below(&rs, VOL_BYTES), SEEK_HOLE) == -EIO)
			wrong(&bad_errors, "seek", 0);
		while (!pool_next_volume(pool, pool_top(pool), cookie, &v, &cookie)) {
			vol_get_name(v, name, snapshot);
			vol_put(v);
		}
		usleep((useconds_t)random_below(&rs, 2000));
	}
	return NULL;
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

	if (pool_create(pool, pool_top(pool), name, &caller, &v) || vol_truncate(v, size))
		abort();
	return v;
}

/* Let FAIL, if any, come on the way. */
static void
run_threads(unsigned msec, void (*fail)(void))
{
	void *(*const fns[])(void *) = {writer, writer, writer, reader, reader, count, syncer, syncer,
					snapshotter, remover, creator, creator, big_creator, asker};
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
	counter = synced = nr_taken = 0;
	open_pool();
	first = make_vol("first", 1 << 20);
	second = make_vol("second", 1 << 20);
	for (unsigned i = 0; i < NR_VOLS; i++) {
		snprintf(name, sizeof(name), "v%u", i);
		vols[i] = make_vol(name, VOL_BYTES);
	}
	if (pool_sync_wait(pool, NULL))
		abort();
}

static int
end(void)
{
	for (unsigned i = 0; i < NR_VOLS; i++)
		vol_put(vols[i]);
	vol_put(first);
	vol_put(second);
	return pool_close(pool);
}

static void
check_counters_after_reopening(void)
{
	uint64_t a, b;

	open_pool();
	a = read_counter(pool_top(pool), "first", 70000);
	b = read_counter(pool_top(pool), "second", 8);
	if (b < synced || a < b)
		wrong(&bad_sync, "a counter was synced and is not there", (long long)(synced - b));
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
	for (unsigned i = 0; i < nr_taken; i++)
		check_frozen(&taken[i]);
	ok(!pool_close(pool), "the pool closes after being opened again");
	fprintf(stderr, "# counted to %llu\n", (unsigned long long)counter);
	ok(!bad_errors, "no operation failed");
	ok(!bad_reads, "a read sees one write or another, never both in a sector, nor another volume's");
	ok(!bad_frozen, "a snapshot does not change while its volumes are written to");
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
