/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unit/pool/threads.h"

struct taken {
	char name[32];
	uint64_t hash;
};

static pthread_mutex_t taken_lock = PTHREAD_MUTEX_INITIALIZER;
static struct taken taken[NR_SNAPSHOTS];
static unsigned nr_taken;

uint64_t
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
	uint64_t a = read_counter(dir, "first", FIRST_AT), b = read_counter(dir, "second", SECOND_AT);

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

void *
snapshotter(void *arg)
{
	struct random_source rs = {300};
	unsigned nr = 0;

	(void)arg;
	while (!stop) {
		struct taken t;

		snprintf(t.name, sizeof(t.name), "s%u", nr++);
		expect(pool_snapshot(pool, t.name, &threads_caller), 0, "snapshot");
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

void *
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

void
check_all_frozen(void)
{
	for (unsigned i = 0; i < nr_taken; i++)
		check_frozen(&taken[i]);
}

void
forget_snapshots(void)
{
	nr_taken = 0;
}
