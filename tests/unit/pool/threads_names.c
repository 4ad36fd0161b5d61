/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <jansson.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pool/report.h"
#include "unit/pool/threads.h"

void *
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
		int r = pool_create(pool, pool_top(pool), name, &threads_caller, &v);

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
void *
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
		r = pool_create(pool, pool_top(pool), name, &threads_caller, &v);
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
void *
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
