/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "unit/pool/threads.h"

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

void *
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

void
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

void *
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

void *
count(void *arg)
{
	(void)arg;
	while (!stop) {
		uint64_t n = counter + 1;

		if (vol_write(first, &n, sizeof(n), FIRST_AT) != sizeof(n) ||
		    vol_write(second, &n, sizeof(n), SECOND_AT) != sizeof(n)) {
			wrong(&bad_errors, "counting", (long long)n);
			break;
		}
		counter = n;
	}
	return NULL;
}

void *
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
