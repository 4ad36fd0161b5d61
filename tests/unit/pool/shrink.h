/* SPDX-License-Identifier: GPL-2.0-or-later */
/* shrink: what tests of shrinking a pool have in common. */
#ifndef THINFS_TESTS_UNIT_POOL_SHRINK_H
#define THINFS_TESTS_UNIT_POOL_SHRINK_H

#include <stdint.h>

#include "pool/pool.h"
#include "pool/report.h"

/* For msg_set_sink(). */
static inline void
ignore(const char *text)
{
	(void)text;
}

static inline uint64_t
data_blocks(struct pool *p)
{
	struct pool_status st;

	pool_get_status(p, &st);
	return st.data_blocks;
}

/* To BLOCKS data blocks; as pool_shrink(). */
static inline int
shrink(struct pool *p, uint64_t blocks, uint64_t *possible)
{
	struct pool_shrink progress = {0};

	return pool_shrink(p, blocks * pool_block_bytes(p), &progress, possible);
}

#endif
