/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * zero_block: a data block of zeros, to which all blocks are mapped that shall read as zeros where
 * unmapping them would show the external origin again.
 *
 * One for the whole pool, while it is mounted: to the metadata a block that is shared, as by
 * copy_file_range, so that nobody writes to it in place, the kernel neither; and pinned, or its
 * last user would. It is the volumes' references alone that keep it; when the last one has gone it
 * is free, and before it may be used for something else, after a commit, it is forgotten here.
 * What a former mount has used is a block like any other.
 */
#include <config.h>

#include <errno.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"

/* Blocks in one hold of meta_lock. */
#define MAP_AT_ONCE 512U
/* Of 32 bits that a count has. */
#define REFERENCES_MAX (1U << 31)

void
zero_block_check(struct pool *p)
{
	uint32_t count = 0;

	uint64_t dblock = meta_pinned_data(p->tm);

	if (dblock != MAP_HOLE && (meta_data_count(p->tm, dblock, &count) || !count))
		meta_pin_data(p->tm, MAP_HOLE);
}

/* meta_lock exclusive: the block, or MAP_HOLE. */
static uint64_t
usable(struct pool *p)
{
	uint32_t count = 0;
	uint64_t dblock;

	zero_block_check(p);
	dblock = meta_pinned_data(p->tm);
	if (dblock == MAP_HOLE || meta_data_must_go(p->tm, dblock) ||
	    meta_data_count(p->tm, dblock, &count) || count > REFERENCES_MAX)
		return MAP_HOLE;
	return dblock;
}

/* One step with FRESH, a block reserved and zeroed, or MAP_HOLE; *used: it is the pool's now. -EAGAIN: one is needed. */
static int
map_step(struct vol *v, uint64_t first, uint64_t nr, uint64_t fresh, bool *used)
{
	struct pool *p = v->pool;
	struct thin_dev *dev;
	uint64_t dblock;
	int r = pool_begin_change(p, 4 + (unsigned)(nr / 64), 1, META_TO_UNMAP);

	*used = false;
	if (r)
		return r;
	dblock = usable(p);
	if (dblock == MAP_HOLE)
		dblock = fresh;
	r = dblock == MAP_HOLE ? -EAGAIN : vol_dev(v, &dev);
	if (!r)
		r = vol_keep_origin(v);
	if (!r)
		r = dev_map_all_to(dev, first, nr, dblock);
	if (!r && dblock == fresh) {
		meta_pin_data(p->tm, fresh);
		*used = true;
	}
	pool_end_change(p);
	return r;
}

/* The data are in place before the mapping: a commit flushes them first. */
static int
map_with_new(struct vol *v, uint64_t first, uint64_t nr)
{
	struct pool *p = v->pool;
	bool used = false;
	uint64_t fresh;
	int r = vol_reserve_one(v, &fresh);

	if (r)
		return r;
	r = image_zero(pool_data(p), fresh * p->block_bytes, p->block_bytes);
	if (!r)
		r = map_step(v, first, nr, fresh, &used);
	if (!used)
		pool_give_back(v->pool, fresh, 1, r);
	return r;
}

int
vol_map_zeros(struct vol *v, uint64_t first, uint64_t end)
{
	int r = 0;

	while (first < end && !r) {
		uint64_t nr = min_u64(end - first, MAP_AT_ONCE);
		bool used;

		r = map_step(v, first, nr, MAP_HOLE, &used);
		if (r == -EAGAIN)
			r = map_with_new(v, first, nr);
		first += nr;
	}
	return r;
}
