/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operations of a property test, and what they have in common. Each chooses by T's random numbers, says so by
 * doing(), does it to the pool and to the model, and fails where they differ. One more: a function here, and
 * its line in the table of property_ops.c.
 */
#ifndef THINFS_TESTS_PROPERTY_OPS_H
#define THINFS_TESTS_PROPERTY_OPS_H

#include "unit/pool/property.h"

#define MAX_TOP 6U
#define MAX_DIRS 6U

typedef unsigned long long ull;

extern const struct pool_caller property_caller;

/* --- on data: property_data.c --- */

void op_write(struct property *t);
void op_read(struct property *t);
void op_truncate(struct property *t);
void op_fallocate(struct property *t);
void op_promise(struct property *t);
void op_copy(struct property *t);
void op_seek(struct property *t);

/* --- on names: property_names.c --- */

void op_create(struct property *t);
void op_create_over(struct property *t);
void op_unlink(struct property *t);
void op_rename(struct property *t);
void op_open(struct property *t);
void op_setattr(struct property *t);

/* --- snapshots, clones: property_snapshots.c --- */

void op_snapshot(struct property *t);
void op_remove_snapshot(struct property *t);
void op_clone(struct property *t);
void op_revert(struct property *t);

/* --- property_ops.c --- */

uint64_t below(struct property *t, uint64_t bound);
bool percent(struct property *t, unsigned p);

struct model_vol *any_vol(struct property *t);
/* One that has a name; of a snapshot, or not. */
struct model_vol *named_vol(struct property *t, bool in_snapshot);
/* Volumes of the top more often than the many in snapshots. */
struct model_vol *some_vol(struct property *t);
unsigned nr_top(struct property *t);
bool is_open(struct property *t, const struct model_vol *v);
/* Whether the operation has failed for lack of space; any other failure than EXPECTED fails the test. */
bool no_space(struct property *t, int r, int expected);

#endif
