/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * slow_flush: a disk whose flush takes its time. The linker puts this in the place of fdatasync(2); with
 * BENCH_FLUSH_US in the environment each takes that many microseconds longer.
 */
#include <config.h>

#include <stdlib.h>
#include <time.h>

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int
__wrap_fdatasync(int fd)
{
	const char *text = getenv("BENCH_FLUSH_US");
	long us = text ? atol(text) : 0;
	struct timespec delay = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	if (us)
		nanosleep(&delay, NULL);
	return __real_fdatasync(fd);
}
