/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * workload: what programs do with a pool, by a seed, told to the oracle.
 */
#ifndef THINFS_TESTS_CRASH_WORKLOAD_H
#define THINFS_TESTS_CRASH_WORKLOAD_H

#include "crash/disks.h"
#include "crash/oracle.h"
#include "unit/random.h"

struct workload {
	struct disks *disks;
	struct oracle *oracle;
	struct pool *pool;
	struct pool_options options;
	struct random_source rs;
	bool may_fail; /* operations may fail, and more than for lack of space; only whole sectors are written */
	bool killed; /* for that reason only */
	uint64_t tag; /* of the last write: no two write the same bytes */
	unsigned next_name;
	struct vol *held; /* open, maybe deleted */
	unsigned errors; /* of operations */
	unsigned sync_errors; /* of those, syncs */
	bool trace;
};

/* Open the pool over the disks, and let the oracle see it if it is all zeros. Whether that went well. */
bool workload_start(struct workload *w, struct disks *d, struct oracle *o, uint64_t seed,
		    const struct pool_options *options);
void workload_op(struct workload *w);
/* Make everything durable, and tell the oracle. */
int workload_sync_all(struct workload *w);
/* Close the pool: 0 or an error. */
int workload_end(struct workload *w);

#endif
