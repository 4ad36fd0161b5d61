/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * oracle: what a pool may look like after power was cut somewhere in the log of its disks.
 *
 * It is told of every operation before and after it is done, and keeps
 *   versions  the names, sizes and snapshots after each operation,
 *   values    each content a sector of a volume or snapshot ever got, and in which operation,
 *   syncs     which of all that was promised to be durable, and since when.
 *
 * After a cut, names and sizes must be those of one version: the one at the last sync before the
 * cut, or a later one. A sector has the value it had at the last sync of its volume, or at that version
 * if that is later - data come before the metadata of the same commit -, or one that was written after it.
 * What was never written is zero. A snapshot's values are its origin's at its instant.
 *
 * An operation that failed may have happened, in any part: its values are not sure. When a sync has
 * failed, the pool goes back to its last commit, and no version after it says anything of data.
 */
#ifndef THINFS_TESTS_CRASH_ORACLE_H
#define THINFS_TESTS_CRASH_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/pool.h"

#define ORACLE_BYTES (384U << 10) /* the largest volume */
#define ORACLE_SECTOR 512U
#define ORACLE_SECTORS (ORACLE_BYTES / ORACLE_SECTOR)
#define ORACLE_NAME 40U
#define ORACLE_DIR UINT32_MAX /* id of an entry that stands for a snapshot's directory */

struct volume;

struct entry {
	uint32_t id, parent;
	bool read_only;
	uint64_t size;
	struct volume *vol; /* its contents; not in what is found after a cut */
	char dir[ORACLE_NAME], name[ORACLE_NAME];
};

struct version {
	uint32_t op; /* the operation that made it */
	uint32_t data; /* the operation up to which data are there with it */
	struct entry *v; /* in the pool's order */
	unsigned nr;
};

struct value {
	uint32_t op;
	bool sure;
	uint8_t bytes[ORACLE_SECTOR];
};

struct history {
	struct value **v;
	uint32_t nr, cap;
};

struct volume {
	uint32_t id;
	uint32_t born; /* the operation that made it; what a snapshot has since then is sure */
	struct history sectors[ORACLE_SECTORS];
};

struct sync {
	size_t at; /* events before its end */
	uint32_t op; /* all up to this operation */
	uint32_t id; /* of the volume, or ORACLE_DIR: all */
};

struct oracle {
	size_t *begins; /* of each operation: events before it; [0]: what there was at first */
	uint32_t nr_ops; /* the last operation's number */
	struct version *versions;
	size_t nr_versions;
	struct volume **volumes;
	size_t nr_volumes;
	struct sync *syncs;
	size_t nr_syncs;
	bool reverted;
	bool killed; /* the process, at least once; its cache stayed */
	uint32_t replaced; /* the device whose contents are new ones at the next look; ORACLE_DIR: none */
	uint32_t committed; /* the last operation within which a commit was */
	char problem[512]; /* what oracle_check() found */
};

/* All that is in P now is durable. */
void oracle_init(struct oracle *o, struct pool *p);
void oracle_free(struct oracle *o);
/* The end of a volume of SIZE bytes is about to move out. */
void oracle_extend(struct oracle *o, uint32_t id, uint64_t size);

/* An operation begins when that many events have been. */
void oracle_begin(struct oracle *o, size_t events);
/* What it did, or SURE false: may have done. BUF NULL: zeros. */
void oracle_write(struct oracle *o, uint32_t id, const uint8_t *buf, uint64_t len, uint64_t offset,
		  bool sure);
void oracle_snapshot(struct oracle *o, uint32_t id, uint32_t origin);
/* The contents TO, new ones, are as FROM's are now. */
void oracle_take(struct oracle *o, struct volume *to, const struct volume *from);
/* In failing workloads of whole sectors only. */
void oracle_copy(struct oracle *o, uint32_t from, uint64_t src, uint32_t to, uint64_t dst, uint64_t len,
		 bool sure);
/* What the next oracle_look() finds under this number is something else than what was there. */
void oracle_replaced(struct oracle *o, uint32_t id);
/*
 * Take over names and sizes from the pool: the new version, or the last one if nothing changed. BORN:
 * devices that were not there are new, even with the number of one that was before.
 */
const struct version *oracle_look(struct oracle *o, struct pool *p, bool born);
/* The pool has committed within the operation: what it did may be there in part. */
void oracle_committed(struct oracle *o);
/* The pool may have gone back to its last commit: versions that it comes to now have older data. */
void oracle_reverted(struct oracle *o);
/* The process that had the pool was killed, and it was opened again: what was not durable may be lost. */
void oracle_killed(struct oracle *o, struct pool *p);
/* A sync has succeeded: of all that was done before the operation that is under way. */
void oracle_synced(struct oracle *o, size_t events, uint32_t id);

const struct version *oracle_now(const struct oracle *o);
/* Whether P may look as it does after a cut before event AT. LIVE: it must look as it was left. */
bool oracle_check(struct oracle *o, struct pool *p, size_t at, bool live);

#endif
