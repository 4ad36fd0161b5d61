/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load: many threads that use a mounted pool in all ways at once, until its daemon is killed.
 *
 *   writers   each has files of its own: writes, cuts, punches, renames, removes; and all write to the
 *             shared one, each its own stripes, smaller than a block
 *   snapper   makes and removes snapshots, and reads them
 *             and copies, clones and reverts (load_copies.c)
 *   bulk      files that take long to be removed
 */
#ifndef THINFS_TESTS_CRASH_LOAD_H
#define THINFS_TESTS_CRASH_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "crash/ledger.h"
#include "unit/random.h"

#define NR_WRITERS 4U
#define OWN_FILES 2U
#define OWN_SECTORS 6144U
#define SHARED_SECTORS 32768U
#define STRIPE 24U /* sectors; whole pages, so that the kernel's cache is no party to it */
#define SHARED_NAME "shared"
#define BULK_BYTES (320ULL << 20)

#define LOAD_COPIES 6U
#define LOAD_COPY_PREFIX "c-" /* names that are no business of the ledger's */

struct copy {
	char name[LEDGER_NAME]; /* "": none */
	uint64_t id; /* of the file that it is a copy of */
	uint64_t size;
	stamp *exact;
	bool whole; /* a clone */
	bool durable, written, going;
};

struct reverting {
	uint64_t gen; /* in the snapshot; one more in the volume, before */
	enum {
		REVERT_UNKNOWN,
		REVERT_CALLED, /* all that was there before is durable */
		REVERT_DURABLE
	} phase;
};

struct load {
	const char *dir; /* the mount */
	struct ledger ledger;
	uint64_t seed;
	bool direct; /* also use O_DIRECT */
	atomic_bool dead; /* the daemon has gone */
	atomic_uint nr_problems;
	struct copy copies[LOAD_COPIES];
	struct reverting reverting;
	_Atomic uint64_t nr_ops, nr_syncs, nr_snaps, nr_copies, nr_reverts;
	/* of all checks */
	uint64_t nr_sectors, nr_files, nr_snap_files;
};

/* Say what is wrong. */
void load_problem(struct load *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Have all threads at it until the daemon dies. */
void load_run(struct load *l);

/* load_check.c: look at everything in the mount, and take what is there for the beginning of the next run. */
void load_check(struct load *l);
/* load_copies.c: look at copies, clones and what was reverted, and remove them. */
void load_check_copies(struct load *l);
/* The number of the device that FD is; -1: cannot be asked. */
int64_t load_device(int fd);
/* The stamps of NR sectors from FIRST on in BYTES, which must be of volume ID. */
bool load_parse(struct load *l, const char *name, uint64_t id, const uint8_t *bytes, uint64_t first,
		uint64_t nr, stamp *found);
/* Read a file of a snapshot and see whether it is as it may be; what it was becomes what it must be. */
bool load_check_frozen(struct load *l, const char *path, const struct snap *s, struct frozen *z);

#endif
