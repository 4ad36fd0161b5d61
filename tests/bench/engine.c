/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * engine: what the engine itself costs, without FUSE and without data: the data image does nothing but count. Prints,
 * for each kind of request, nanoseconds of one thread and requests to the data image. A kind is measured in
 * batches, and the fastest quarter of them told by its slowest: so it is the same on a busy machine.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/image.h"
#include "pool/pool.h"

#define BLOCK (64ULL << 10)
#define NR_BLOCKS 1000000ULL
#define NR_BATCHES 40

static struct pool *pool;
static struct vol *mapped, *scattered, *empty;
static uint64_t nr_io;
static char *buf;
static uint64_t random_state = 88172645463325252ULL;

/* --- a data image without data --- */

static int
null_io(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	(void)img, (void)iov, (void)nr_iov, (void)offset;
	nr_io++;
	return 0;
}

static int
null_flush(struct image *img)
{
	(void)img;
	return 0;
}

static int
null_range(struct image *img, uint64_t offset, uint64_t len)
{
	(void)img, (void)offset, (void)len;
	return 0;
}

static bool
null_is_hole(struct image *img, uint64_t offset, uint64_t len)
{
	(void)img, (void)offset, (void)len;
	return true;
}

static int
null_get_size(struct image *img, uint64_t *size)
{
	(void)img;
	*size = 8 * NR_BLOCKS * BLOCK;
	return 0;
}

static void
null_close(struct image *img)
{
	(void)img;
}

static const struct image_ops null_ops = {
	.readv = null_io,
	.writev = null_io,
	.flush = null_flush,
	.punch = null_range,
	.discard = null_range,
	.is_hole = null_is_hole,
	.get_size = null_get_size,
	.close = null_close,
};

static struct image null_image = {.ops = &null_ops, .name = "null"};

/* --- requests --- */

static uint64_t
random_block(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % (NR_BLOCKS - 16);
}

static ssize_t
read_4k(void)
{
	return vol_read(mapped, buf, 4096, random_block() * BLOCK);
}

static ssize_t
write_4k(void)
{
	return vol_write(mapped, buf, 4096, random_block() * BLOCK);
}

static ssize_t
read_1m(void)
{
	return vol_read(mapped, buf, 1 << 20, random_block() * BLOCK);
}

static ssize_t
write_1m(void)
{
	return vol_write(mapped, buf, 1 << 20, random_block() * BLOCK);
}

static ssize_t
read_1m_scattered(void)
{
	return vol_read(scattered, buf, 1 << 20, random_block() % 1000 * BLOCK);
}

static ssize_t
first_4k(void)
{
	return vol_write(empty, buf, 4096, random_block() * BLOCK);
}

static ssize_t
first_1m(void)
{
	static uint64_t at;

	return vol_write(empty, buf, 1 << 20, NR_BLOCKS * BLOCK + (at++ << 20));
}

static ssize_t
first_4k_synced(void)
{
	ssize_t r = vol_write(empty, buf, 4096, random_block() * BLOCK);

	return pool_sync_wait(pool, empty) ? -1 : r;
}

static ssize_t
fsync_4k(void)
{
	ssize_t r = vol_write(empty, buf, 4096, NR_BLOCKS * BLOCK);

	return pool_sync_wait(pool, empty) ? -1 : r;
}

/* --- measuring --- */

static uint64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void
fail(const char *what)
{
	fprintf(stderr, "engine: %s failed\n", what);
	exit(1);
}

static void
measure(const char *what, ssize_t (*request)(void), unsigned nr)
{
	uint64_t ns[NR_BATCHES], io = nr_io;

	for (unsigned b = 0; b < NR_BATCHES; b++) {
		uint64_t begin = now();

		for (unsigned i = 0; i < nr; i++)
			if (request() <= 0)
				fail(what);
		ns[b] = now() - begin;
	}
	qsort(ns, NR_BATCHES, sizeof(*ns), compare);
	printf("%-44s %8.0f ns  %6.2f requests to the data image\n", what, (double)ns[NR_BATCHES / 4] / nr,
	       (double)(nr_io - io) / nr / NR_BATCHES);
}

static struct vol *
make_volume(const char *name, uint64_t blocks)
{
	const struct pool_caller caller = {.uid = 0, .mode = 0600};
	struct vol *v;

	if (pool_create(pool, pool_top(pool), name, &caller, &v) || vol_truncate(v, blocks * BLOCK))
		fail("creating a volume");
	return v;
}

/* Volumes: all mapped, in order; every second block elsewhere; nothing mapped. */
static void
make_volumes(void)
{
	mapped = make_volume("mapped", NR_BLOCKS);
	scattered = make_volume("scattered", NR_BLOCKS);
	empty = make_volume("empty", 4 * NR_BLOCKS);
	for (uint64_t b = 0; b < NR_BLOCKS; b += 16)
		if (vol_write(mapped, buf, 1 << 20, b * BLOCK) < 0)
			fail("mapping a volume");
	for (uint64_t i = 0; i < 2 * 1024; i++)
		if (vol_write(scattered, buf, BLOCK, (i % 1024 * 2 + i / 1024) * BLOCK) < 0)
			fail("mapping a volume");
}

int
main(void)
{
	const struct pool_caller caller = {.uid = 0, .mode = 0700};
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct image *meta;

	options.commit_interval_ms = 0;
	buf = calloc(1, 1 << 20);
	if (!buf || image_open_memory("meta", 256ULL << 20, &meta) ||
	    pool_open_images(&null_image, meta, &options, &pool))
		fail("opening a pool");
	make_volumes();
	measure("read 4K", read_4k, 2000);
	measure("overwrite 4K", write_4k, 2000);
	measure("read 1M", read_1m, 1000);
	measure("overwrite 1M", write_1m, 1000);
	measure("read 1M, every block elsewhere", read_1m_scattered, 1000);
	measure("first write 4K", first_4k, 500);
	measure("first write 1M", first_1m, 100);
	measure("overwrite 4K and fsync", fsync_4k, 500);
	measure("first write 4K and fsync", first_4k_synced, 20);
	if (pool_sync_wait(pool, NULL) || pool_snapshot(pool, "mapped@1", &caller))
		fail("a snapshot");
	measure("overwrite 4K after a snapshot", write_4k, 500);
	vol_put(mapped);
	vol_put(scattered);
	vol_put(empty);
	if (pool_close(pool))
		fail("closing the pool");
	free(buf);
	return 0;
}
