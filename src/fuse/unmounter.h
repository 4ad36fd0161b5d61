/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * unmounter: a small process beside the daemon, which unmounts its directory when it is told to, and does nothing
 * else.
 *
 * It keeps the privileges that this takes - root's, or those of set-uid fusermount3. So the daemon, which reads what
 * others have put in images and requests, can give up all of its own.
 *
 * It has none of the daemon's files open, so that it holds no lock, and ends when the daemon does, however that ends.
 * When the daemon was killed, it aborts the connection to the kernel first: a thread of the daemon that has the kernel
 * write back dirty pages cannot be killed while it waits for the WRITEs that nobody serves any more, and would keep
 * everything, images and mount, in use for ever.
 *
 * Locking: one thread uses it.
 */
#ifndef THINFS_FUSE_UNMOUNTER_H
#define THINFS_FUSE_UNMOUNTER_H

#include <stdbool.h>
#include <sys/types.h>

struct unmounter {
	pid_t pid;
	int fd; /* to it; -1: there is none */
};

/* For DIR. Before there are threads; 0 or negative errno. */
int unmounter_start(struct unmounter *u, const char *dir);
/* What is mounted on DIR now is the connection to abort when the calling thread, which started U, is killed. */
void unmounter_watch(struct unmounter *u, unsigned dev_major, unsigned dev_minor);
/* As mountinfo_unmount(). */
int unmounter_unmount(struct unmounter *u, bool lazy);
/* Wait for its end. Nothing when it was not started. */
void unmounter_stop(struct unmounter *u);

#endif
