/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Those who let volumes share blocks while others write to them. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unit/pool/threads.h"

/*
 * There and back at once, of each pair; and within one. What is read from either is whole sectors of this pair,
 * whoever wrote them.
 */
void *
copier(void *arg)
{
	struct random_source rs = {700 + (uintptr_t)arg};
	uint64_t *buf = malloc(VOL_BYTES);

	while (!stop) {
		unsigned i = (unsigned)random_below(&rs, NR_VOLS), how = (unsigned)random_below(&rs, 8);
		struct vol *a = how & 1 ? vols[i] : mirrors[i], *b = how & 2 ? vols[i] : mirrors[i];
		uint64_t src = random_below(&rs, VOL_BYTES / 65536) * 65536;
		uint64_t dst = random_below(&rs, VOL_BYTES / 65536) * 65536;
		ssize_t n;

		if (how & 4)
			dst = src = 0;
		n = vol_copy_range(a, src, b, dst, how & 4 ? VOL_BYTES : (1 + random_below(&rs, 4)) * 65536);
		/* Two ranges of one volume may overlap. */
		if (n < 0 && !(a == b && n == -EINVAL))
			wrong(&bad_errors, "copy", n);
		n = vol_read(mirrors[i], buf, VOL_BYTES, 0);
		if (n < 0)
			wrong(&bad_errors, "reading a copy", n);
		else
			check_sectors(buf, (size_t)n, i);
	}
	free(buf);
	return NULL;
}

static uint64_t
value_of(struct vol *v)
{
	uint64_t n = 0;

	if (vol_read(v, &n, sizeof(n), FIRST_AT) < 0)
		wrong(&bad_errors, "reading a counter", 0);
	return n;
}

/* What is written to the one does not come to the other, however near it was to the copying. */
static void
check_apart(struct random_source *rs, struct vol *copy, uint64_t before)
{
	uint64_t n = value_of(copy), nonsense = UINT64_MAX;

	if (n < before || n > counter + 1)
		wrong(&bad_frozen, "a copy has the counter as", (long long)n);
	usleep((useconds_t)random_below(rs, 2000));
	if (value_of(copy) != n)
		wrong(&bad_frozen, "the counter goes on in a copy", (long long)n);
	if (vol_write(copy, &nonsense, sizeof(nonsense), FIRST_AT) != sizeof(nonsense))
		wrong(&bad_errors, "writing to a copy", 0);
	if (value_of(first) == nonsense)
		wrong(&bad_frozen, "what was written to a copy came to its source", 0);
}

/* Of the counter that goes on and on. */
void *
cloner(void *arg)
{
	struct random_source rs = {800 + (uintptr_t)arg};
	unsigned nr = 0;
	char name[32];

	while (!stop) {
		uint64_t before = counter;
		struct vol *v = NULL;
		int r;

		snprintf(name, sizeof(name), "c%u-%u", (unsigned)(uintptr_t)arg, nr++);
		if (random_below(&rs, 2)) {
			r = pool_clone(pool, first, name, &threads_caller);
			if (!r)
				r = pool_lookup(pool, pool_top(pool), name, &v);
		} else {
			r = pool_create(pool, pool_top(pool), name, &threads_caller, &v);
			if (!r && vol_copy_range(first, 0, v, 0, 1 << 20) != 1 << 20)
				r = -EIO;
		}
		expect(r, 0, "clone");
		if (!r)
			check_apart(&rs, v, before);
		if (v) {
			vol_put(v);
			expect(pool_unlink(pool, pool_top(pool), name), 0, "unlink of a clone");
		}
		usleep((useconds_t)random_below(&rs, 5000));
	}
	return NULL;
}

static void
write_value(struct vol *v, uint64_t n)
{
	if (vol_write(v, &n, sizeof(n), FIRST_AT) != sizeof(n))
		wrong(&bad_errors, "write", (long long)n);
}

static struct vol *
file_of(const char *snapshot, const char *name)
{
	struct voldir *dir;
	struct vol *v = NULL;

	if (pool_lookup_snapshot(pool, snapshot, &dir))
		return NULL;
	if (pool_lookup(pool, dir, name, &v))
		v = NULL;
	voldir_put(dir);
	return v;
}

/* N is in the snapshot OLD, N + 1 in the volume: go back. */
static void
revert(struct vol *v, const char *name, const char *old, uint64_t n)
{
	struct vol *from = file_of(old, name), *kept;
	int r = -ENOENT;

	if (from) {
		r = pool_revert(pool, v, from, "kept", &threads_caller);
		vol_put(from);
	}
	expect(r, 0, "revert");
	if (r)
		return;
	if (value_of(v) != n)
		wrong(&bad_frozen, "the volume was not reverted", (long long)n);
	kept = file_of("kept", name);
	if (!kept || value_of(kept) != n + 1)
		wrong(&bad_frozen, "what the volume had is not kept", (long long)n);
	if (kept)
		vol_put(kept);
	expect(pool_remove_snapshot(pool, "kept"), 0, "remove");
}

void *
reverter(void *arg)
{
	char name[] = "reverted", old[32];
	struct vol *v;

	(void)arg;
	if (pool_create(pool, pool_top(pool), name, &threads_caller, &v)) {
		wrong(&bad_errors, "create", 0);
		return NULL;
	}
	for (uint64_t n = 1; !stop; n += 2) {
		int r;

		write_value(v, n);
		snprintf(old, sizeof(old), "%s@%u", name, (unsigned)n);
		r = pool_snapshot(pool, old, &threads_caller);
		expect(r, 0, "snapshot");
		if (r)
			continue;
		write_value(v, n + 1);
		revert(v, name, old, n);
		expect(pool_remove_snapshot(pool, old), 0, "remove");
		usleep(2000);
	}
	vol_put(v);
	expect(pool_unlink(pool, pool_top(pool), name), 0, "unlink");
	return NULL;
}
