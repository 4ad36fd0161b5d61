/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the threads of test-pool-threads.c have in common: the pool, what is in it, and what they find wrong.
 */
#ifndef THINFS_TESTS_THREADS_H
#define THINFS_TESTS_THREADS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pool/pool.h"
#include "unit/random.h"

#define NR_VOLS 3U
#define VOL_BYTES (2U << 20)
#define WRITE_ALIGN 4096U
#define NR_SNAPSHOTS 6U
#define NR_BLOCKS 12000U /* of the pool */
#define BIG_BLOCKS 5000U /* more than are taken back at once */

#define FIRST_AT 70000U /* where the counters are in FIRST and SECOND */
#define SECOND_AT 8U

extern const struct pool_caller threads_caller;
extern struct pool *pool;
/* MIRRORS[i] has what VOLS[i] has, or had, in any order. */
extern struct vol *vols[NR_VOLS], *mirrors[NR_VOLS], *first, *second;
extern atomic_bool stop;
extern atomic_bool failing; /* an image does: operations may fail, but what was synced stays, and nobody sees others' bytes */
extern _Atomic uint64_t synced; /* what the counters were before a sync that has returned */
extern _Atomic uint64_t counter;

/* What threads find wrong. Each claim has its count. */
extern atomic_uint bad_errors, bad_reads, bad_frozen, bad_order, bad_sync;
void wrong(atomic_uint *claim, const char *what, long long number);
void expect(int r, int allowed, const char *what);

/* --- threads_data.c --- */

void *writer(void *arg);
void *reader(void *arg);
void *count(void *arg);
void *syncer(void *arg);
/* Each sector of volume I has one number, which says so. */
void check_sectors(const uint64_t *buf, size_t len, unsigned i);

/* --- threads_names.c --- */

void *creator(void *arg);
void *big_creator(void *arg);
void *asker(void *arg);

/* --- threads_snapshots.c --- */

void *snapshotter(void *arg);
void *remover(void *arg);
uint64_t read_counter(struct voldir *dir, const char *name, uint64_t offset);
/* Of those that the threads have left. */
void check_all_frozen(void);
void forget_snapshots(void);

/* --- threads_share.c --- */

void *copier(void *arg);
void *cloner(void *arg);
void *reverter(void *arg);

#endif
