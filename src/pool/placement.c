/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * placement: where in the data image a volume's new blocks should be.
 *
 * Each volume goes through a window of adjacent blocks, and then takes the next window that none has begun, so that
 * the blocks of volumes that are written at the same time do not alternate: reading one of them would then need
 * a request for each block. A window is only a wish: what it lacks is taken where there is something free.
 */
#include <config.h>

#include "pool/pool_internal.h"
#include "util/minmax.h"

/* A window: large for the disk, but no more than a part of the image, so that small images stay compact. */
#define WINDOW_BYTES (16ULL << 20)
#define WINDOWS_LEAST 256U

static uint64_t
window_blocks(const struct pool *p, uint64_t nr_data_blocks)
{
	return max_u64(1, min_u64(WINDOW_BYTES / p->block_bytes, nr_data_blocks / WINDOWS_LEAST));
}

static void
begin_window(struct vol *v, uint64_t at, uint64_t nr_data_blocks)
{
	v->goal = at;
	v->goal_end = at + window_blocks(v->pool, nr_data_blocks);
	v->pool->next_window = v->goal_end;
}

uint64_t
vol_goal(struct vol *v, uint64_t nr_data_blocks)
{
	struct pool *p = v->pool;

	if (v->goal >= v->goal_end)
		begin_window(v, p->next_window < nr_data_blocks ? p->next_window : 0, nr_data_blocks);
	return v->goal;
}

void
vol_placed(struct vol *v, uint64_t dblock, uint64_t nr, uint64_t nr_data_blocks)
{
	/* What was free lies elsewhere: go on there. */
	if (dblock < v->goal || dblock >= v->goal_end)
		begin_window(v, dblock, nr_data_blocks);
	v->goal = dblock + nr;
}
