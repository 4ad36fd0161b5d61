/* SPDX-License-Identifier: GPL-2.0-or-later */
/* In place of uring.c, in a build without liburing. */
#include <config.h>

#include <errno.h>

#include "fuse/uring.h"

int
uring_create(struct mount *m, unsigned threads, struct uring **out)
{
	(void)m;
	(void)threads;
	(void)out;
	return -ENOSYS;
}

/* There is none that these could be called with, but for the last. */

int
uring_start(struct uring *u)
{
	(void)u;
	return -ENOSYS;
}

int
uring_register(struct uring *u)
{
	(void)u;
	return -ENOSYS;
}

void
uring_stop(struct uring *u)
{
	(void)u;
}

bool
uring_reply(struct uring *u, const struct iovec *iov, int nr_iov)
{
	(void)u;
	(void)iov;
	(void)nr_iov;
	return false;
}

uint64_t
uring_interrupt(struct uring *u, uint64_t unique)
{
	(void)u;
	return unique;
}

void
uring_destroy(struct uring *u)
{
	(void)u;
}
