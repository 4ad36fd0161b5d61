/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sm_counts: reference counts of blocks in memory, for counting them all anew.
 *
 * Kept as on disk (format sheet, S 6.2): two bits a block, in pieces that belong to one bitmap
 * each, and a table of the counts of 3 and more. Memory: 4 KiB for each 16320 blocks any of which
 * has a count, 32 bytes for each count of 3 and more.
 *
 * No lock inside. Errors: negative errno.
 */
#ifndef THINFS_PDATA_SM_COUNTS_H
#define THINFS_PDATA_SM_COUNTS_H

#include <stdint.h>

#include "util/u64map.h"

struct sm_counts {
	uint64_t nr_blocks;
	uint64_t nr_chunks;
	uint64_t **chunks; /* CHUNK_WORDS words in host order each; NULL: all counts are 0 */
	struct u64map large; /* counts of 3 and more */
};

/* All counts are 0. -ENOMEM */
int sm_counts_init(struct sm_counts *s, uint64_t nr_blocks);
/* A zeroed struct is fine, too. */
void sm_counts_free(struct sm_counts *s);
/* Make TO, which holds nothing, what FROM is. -ENOMEM */
int sm_counts_copy(struct sm_counts *to, const struct sm_counts *from);

/* BLOCK must be below nr_blocks. */
uint32_t sm_counts_get(const struct sm_counts *s, uint64_t block);
/* -ENOMEM. A count of 2^32 - 1 stays. */
int sm_counts_inc(struct sm_counts *s, uint64_t block);

#endif
