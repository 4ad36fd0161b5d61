/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mutant: pools that are wrong in the ways that matter, to show that the exploration would find it.
 *
 * Those that concern flushes are in disks.h. Blocks freed in a transaction are handed out again in the
 * same one by a function put in the place of sm_dec() by the linker (--wrap).
 */
#ifndef THINFS_TESTS_CRASH_MUTANT_H
#define THINFS_TESTS_CRASH_MUTANT_H

#include <stdbool.h>

/* Of data blocks, and of metadata blocks. */
extern bool mutant_reuse_data, mutant_reuse_metadata;
/* The superblock that one who was killed left in the cache is not flushed before blocks are used again. */
extern bool mutant_no_confirm;

#endif
