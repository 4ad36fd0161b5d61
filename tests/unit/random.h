/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * random: numbers for model tests, the same again for the same seed.
 *
 * The seed is that of the environment (THINFS_TEST_SEED) or a fresh one; it is printed first, so that
 * a failure can be repeated.
 */
#ifndef THINFS_TESTS_RANDOM_H
#define THINFS_TESTS_RANDOM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct random_source {
	uint64_t state;
};

static inline struct random_source
random_start(const char *test)
{
	const char *given = getenv("THINFS_TEST_SEED");
	struct random_source rs;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	rs.state = given ? strtoull(given, NULL, 0)
			 : (uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid() << 40;
	fprintf(stderr, "# %s: THINFS_TEST_SEED=%llu\n", test, (unsigned long long)rs.state);
	return rs;
}

/* splitmix64 */
static inline uint64_t
random_u64(struct random_source *rs)
{
	uint64_t x = rs->state += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* 0 to BOUND - 1; the bias does not matter to tests. */
static inline uint64_t
random_below(struct random_source *rs, uint64_t bound)
{
	return random_u64(rs) % bound;
}

#endif
