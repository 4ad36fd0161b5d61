/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the threads of a load have in common. Each has a worker of its own.
 */
#ifndef THINFS_TESTS_CRASH_LOAD_WORKER_H
#define THINFS_TESTS_CRASH_LOAD_WORKER_H

#include <pthread.h>

#include "crash/load.h"

#define BUF_SECTORS 512U

/* A file that only this worker writes to, or the shared one. */
struct own {
	struct file *file;
	int fd;
	uint64_t sectors; /* its size */
};

struct worker {
	struct load *l;
	unsigned nr;
	pthread_t thread;
	struct random_source rs;
	struct own own[OWN_FILES]; /* file NULL: none */
	struct own shared;
	uint8_t *buf; /* BUF_SECTORS */
};

/* --- the threads, until the daemon has gone --- */

void *write_all(void *arg); /* load_files.c */
void *snap_all(void *arg); /* load_snaps.c */
void *bulk_all(void *arg); /* load_snaps.c */

/* --- load_copies.c; by the thread of load_snaps.c --- */

/* Copy or clone a file of S that was read, and maybe write to the copy; remove it again some time. */
void copy_some(struct worker *w, struct snap *s);
/* A volume of its own goes back to a snapshot of it. */
void revert_some(struct worker *w);

/* --- load.c --- */

uint64_t below(struct worker *w, uint64_t bound);
/* A call has failed with ERROR: that is right if the daemon has died, or is dying. */
void failed(struct load *l, const char *what, const char *name, int error);
void path_of(const struct load *l, const char *name, char path[400]);
const char *name_of(const struct file *f);
void remove_file(struct worker *w, struct file *f);
/* Files named PREFIX... that have come back with a kill, and are not the worker's own. */
void remove_rest(struct worker *w, const char *prefix);
/* Make all names durable; whether it did. */
bool sync_dir(struct worker *w);

#endif
