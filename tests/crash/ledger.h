/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ledger: what many threads have done to a mounted pool, and what may be there after its daemon was killed.
 *
 * One clock numbers everything. A write or a zeroing of sectors is a *generation*; no two at once
 * concern the same sector. What fsync returned for is the least that must be there; anything begun later
 * may be.
 *
 *   per sector  done     the last that returned
 *               zeroed   the last that was begun and makes zeros
 *               durable  what was done when an fsync that succeeded began
 *   sizes       the durable one and all begun since
 *   places      the names that a file had, likewise; an fsync of anything makes all names durable
 *
 * Files stay in the ledger until ledger_keep(), so that pointers to them need no counting.
 */
#ifndef THINFS_TESTS_CRASH_LEDGER_H
#define THINFS_TESTS_CRASH_LEDGER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LEDGER_NAME 32U
#define LEDGER_FILES 4096U
#define LEDGER_SNAPS 256U

/* A generation, and whether it made zeros; 0: never written. */
typedef uint64_t stamp;

static inline stamp
stamp_data(uint64_t gen)
{
	return gen << 1;
}

static inline stamp
stamp_zero(uint64_t gen)
{
	return gen << 1 | 1;
}

static inline bool
stamp_is_zero(stamp s)
{
	return !s || s & 1;
}

/* The size became END, maybe by steps from START on. */
struct size_change {
	uint64_t start, end;
	uint64_t done; /* when; 0: has not returned */
};

struct sizes {
	struct size_change *v; /* the first one is the last that is durable */
	unsigned nr;
	unsigned long forgotten; /* how many that are durable are no more here */
	bool any; /* of a snapshot, while which some were forgotten: its size is not known */
};

struct place {
	char name[LEDGER_NAME]; /* "": nowhere */
	uint64_t done; /* 0: has not returned */
};

struct file {
	uint64_t id; /* const; in its sectors */
	uint64_t nr; /* const; sectors that are followed */
	_Atomic int64_t dev; /* device number; -1: nobody knows */
	_Atomic stamp *done, *zeroed;

	pthread_mutex_t lock;
	stamp *durable; /* lock */
	struct sizes sizes; /* lock */

	/* the ledger's lock */
	struct place *places;
	unsigned nr_places;
	int found; /* index of a place; -1: none of them */
};

/* Two files whose names changed in one operation. */
struct pair {
	struct file *a, *b;
	unsigned place_a, place_b; /* what they have after it */
};

/* A file as it may be in a snapshot. */
struct frozen {
	struct file *file; /* NULL once it may have gone */
	uint64_t id, nr;
	int64_t dev;
	unsigned first_place;
	struct place *places; /* it has one of these */
	unsigned nr_places;
	stamp *least, *zeroed;
	struct sizes sizes;
	stamp *exact; /* as it was read; NULL: it was not */
	uint64_t exact_size;
	bool found;
};

struct snap {
	char name[LEDGER_NAME];
	uint64_t upper; /* nothing later is in it */
	struct file *only; /* NULL: it is of all */
	bool is_closed; /* what may be in it is known */
	uint64_t made, removing, removed; /* when; 0: not */
	struct frozen *files;
	unsigned nr;
	unsigned nr_files; /* the ledger's when it was begun */
};

struct ledger {
	_Atomic uint64_t clock;
	_Atomic uint64_t names_durable; /* names that were done by then are */
	pthread_mutex_t lock; /* files, snaps, pairs, places */
	struct file *files[LEDGER_FILES];
	unsigned nr_files;
	struct snap *snaps[LEDGER_SNAPS];
	unsigned nr_snaps;
	struct pair pairs[LEDGER_FILES];
	unsigned nr_pairs;
	uint64_t next_id;
};

void ledger_init(struct ledger *l);
void ledger_free(struct ledger *l);
uint64_t ledger_now(struct ledger *l);

/* A file of NR sectors that has no name yet. */
struct file *ledger_add(struct ledger *l, uint64_t nr);

/* A name is being given to F; the index of the place. "" takes it away. */
unsigned ledger_place(struct ledger *l, struct file *f, const char *name);
void ledger_placed(struct ledger *l, struct file *f, unsigned place);
/* B takes the name of A, which goes. */
void ledger_replace(struct ledger *l, struct file *a, struct file *b);
void ledger_replaced(struct ledger *l, struct file *a, struct file *b);

/* Sectors [first, end) are being written or zeroed: the stamp. And it has been done. */
stamp ledger_begin(struct ledger *l, struct file *f, uint64_t first, uint64_t end, bool zero);
void ledger_end(struct file *f, uint64_t first, uint64_t end, stamp s);
void ledger_size(struct file *f, uint64_t from, uint64_t to);
void ledger_sized(struct ledger *l, struct file *f);

/* An fsync begins, of F if that is not NULL; if it succeeds, what was done is durable. */
struct syncing {
	uint64_t began;
	stamp *done;
};
void ledger_sync(struct ledger *l, struct file *f, struct syncing *s);
void ledger_synced(struct ledger *l, struct file *f, struct syncing *s, bool success);

/* A snapshot of all, or of ONLY, is being made; and has been, or may have been. */
struct snap *ledger_snap(struct ledger *l, const char *name, struct file *only);
void ledger_snapped(struct ledger *l, struct snap *s, bool returned);

/* Whether a size, or a stamp found in a sector, may be there. */
bool sizes_allow(const struct sizes *sizes, uint64_t size);
bool stamp_allowed(stamp found, stamp least, stamp zeroed, uint64_t upper);
/* Whether F may have the place WHICH after a crash. */
bool place_allowed(const struct ledger *l, const struct file *f, unsigned which);

/* Forget a file, or a snapshot, that is there no more. */
void ledger_drop(struct ledger *l, unsigned nr);
void ledger_drop_snap(struct ledger *l, unsigned nr);
/* What was found is what is there from now on: FOUND are the stamps. */
void ledger_keep(struct ledger *l, struct file *f, const stamp *found, uint64_t size);
void ledger_keep_snap(struct snap *s);

#endif
