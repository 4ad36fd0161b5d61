/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operations of a workload, and what they have in common. Each chooses what it is done to by W's random
 * numbers, does it to the pool, tells the oracle what must be now, and ends with one of the ended functions;
 * or it returns before it did anything. One more: a function here, and its line in the table of workload.c.
 */
#ifndef THINFS_TESTS_CRASH_WORKLOAD_OPS_H
#define THINFS_TESTS_CRASH_WORKLOAD_OPS_H

#include "crash/workload.h"

#define WORKLOAD_MAX_TOP 4U
#define WORKLOAD_MAX_DIRS 3U

extern const struct pool_caller workload_caller;

/* --- on data: workload_data.c --- */

void op_write(struct workload *w);
void op_truncate(struct workload *w);
void op_fallocate(struct workload *w);
void op_copy(struct workload *w);

/* --- on names: workload_names.c --- */

void op_create(struct workload *w);
void op_create_over(struct workload *w);
void op_unlink(struct workload *w);
void op_rename(struct workload *w);
void op_chmod(struct workload *w);
void op_snapshot(struct workload *w);
void op_remove_snapshot(struct workload *w);
void op_clone(struct workload *w);
void op_revert(struct workload *w);

/* --- workload.c --- */

uint64_t below(struct workload *w, uint64_t bound);
/* After an operation that failed, what parts of sectors hold is not known. */
bool whole_sectors(const struct workload *w);
void trace(struct workload *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An operation has ended with result R; whether it was good. */
bool ended(struct workload *w, int r);
/* The same, of one that makes devices; until it has ended, the pool does not commit between its steps. */
bool ended_birth(struct workload *w, int r);

enum which {
	TOP,
	SNAPSHOT,
	ANY,
	ANY_WRITABLE,
};

unsigned count(struct workload *w, enum which which);
bool choose(struct workload *w, enum which which, struct entry *e);
unsigned list_dirs(struct workload *w, struct entry dirs[WORKLOAD_MAX_DIRS]);
/* Of an entry of the oracle's; NULL: it is not there. Held. */
struct vol *lookup(struct workload *w, const struct entry *e);
/* Let go of the volume that is held open. */
void release(struct workload *w);

#endif
