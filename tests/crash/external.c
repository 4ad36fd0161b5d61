/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash/external.h"
#include "unit/scratch.h"

#define HOLE_UNIT (64U << 10)

static const uint64_t sizes[NR_EXTERNAL] = {700, (4U << 16) + 12345, ORACLE_BYTES + 100000};
static char dir[1000];
static char paths[NR_EXTERNAL][sizeof(dir) + 16];
static pid_t maker;

static void
remove_all(void)
{
	if (getpid() != maker)
		return;
	for (unsigned i = 0; i < NR_EXTERNAL; i++)
		unlink(paths[i]);
	rmdir(dir);
}

/* No bytes of a workload's writes look like these. */
static uint64_t
word(unsigned nr, uint64_t at)
{
	return (0xD000ULL + nr) << 48 | (at + 1);
}

static bool
is_hole(unsigned nr, uint64_t at)
{
	return nr && at / HOLE_UNIT % 3 == 1;
}

static void
make(unsigned nr)
{
	FILE *f = fopen(paths[nr], "wx");

	if (!f)
		abort();
	for (uint64_t at = 0; at < sizes[nr]; at += 8) {
		uint64_t w = word(nr, at);
		size_t len = sizes[nr] - at < 8 ? sizes[nr] - at : 8;

		if (is_hole(nr, at))
			continue;
		if ((!(at % HOLE_UNIT) && fseek(f, (long)at, SEEK_SET)) || fwrite(&w, 1, len, f) != len)
			abort();
	}
	if (fflush(f) || ftruncate(fileno(f), (off_t)sizes[nr]) || fclose(f))
		abort();
}

static void
make_all(void)
{
	scratch_template(dir, sizeof(dir), "external");
	if (!mkdtemp(dir))
		abort();
	maker = getpid();
	atexit(remove_all);
	for (unsigned i = 0; i < NR_EXTERNAL; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/%u", dir, i);
		make(i);
	}
}

const char *
external_path(unsigned nr)
{
	if (!maker)
		make_all();
	return paths[nr];
}

uint64_t
external_size(unsigned nr)
{
	return sizes[nr];
}

void
external_read(unsigned nr, uint8_t *buf)
{
	uint64_t end = sizes[nr] < ORACLE_BYTES ? sizes[nr] : ORACLE_BYTES;

	memset(buf, 0, ORACLE_BYTES);
	for (uint64_t at = 0; at < end; at += 8) {
		uint64_t w = word(nr, at);

		if (!is_hole(nr, at))
			memcpy(buf + at, &w, end - at < 8 ? end - at : 8);
	}
}
