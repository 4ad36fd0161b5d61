/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * external: files that volumes of a workload are made over, whose content never changes. They are made when they are
 * first asked for, and removed when the program that made them ends.
 */
#ifndef THINFS_TESTS_CRASH_EXTERNAL_H
#define THINFS_TESTS_CRASH_EXTERNAL_H

#include <stdint.h>

#include "crash/oracle.h"

#define NR_EXTERNAL 3U

/* The path of file NR. */
const char *external_path(unsigned nr);
/* Bytes; one is smaller than a block, one larger than any volume, and none is a whole number of blocks. */
uint64_t external_size(unsigned nr);
/* What a volume over file NR shows, zeros behind its end included: ORACLE_BYTES. */
void external_read(unsigned nr, uint8_t *buf);

#endif
