/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fake_txn: the functions of txn.h, and bc_put() and bc_is_dirty(), over an array in memory, with
 * plain counts in the place of a space map. For tests of what stands on transactions; such a
 * test must not be linked with txn.c and block_cache.c.
 *
 * Any use that the true ones forbid fails the test: dropping a block that somebody holds, a
 * count below 0, changing a block of a committed transaction.
 */
#ifndef THINFS_TESTS_FAKE_TXN_H
#define THINFS_TESTS_FAKE_TXN_H

#include <stdint.h>

#include "pdata/txn.h"

struct fake_txn;

struct fake_txn *fake_open(unsigned nr_blocks);
void fake_close(struct fake_txn *f);
struct txn *fake_txn(struct fake_txn *f);

/* Close the open transaction: nothing is dirty any more, what was freed can be used again. */
void fake_commit(struct fake_txn *f);
/* Fail the test if a block of a committed transaction has changed, or been used again. */
void fake_check_committed(struct fake_txn *f);

uint32_t fake_count(const struct fake_txn *f, unsigned nr);
unsigned fake_allocated(const struct fake_txn *f);
/* Blocks that somebody holds; blocks handed out since opening. */
unsigned fake_held(const struct fake_txn *f);
unsigned fake_handed_out(const struct fake_txn *f);

/* The contents of a block, past all rules. */
void *fake_data(struct fake_txn *f, unsigned nr);

/* From now on the Nth call that can fail does so, and all after it; 0: none. */
void fake_fail_at(struct fake_txn *f, unsigned n);

#endif
