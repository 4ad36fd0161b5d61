/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * discard: taking mappings away; truncating, and fallocate(2).
 *
 * Shrinking a volume must not bring its old bytes back when it grows again, whenever a crash
 * comes. What is cut off is unmapped in the same transaction as the size changes, or, when that
 * is too much for one, the record says RECORD_SHRINKING until it is done, and the end does not
 * move out again before. The rest of the last block is zeroed in a new copy of the block, which comes
 * in with the size.
 */
#include <config.h>

#include <errno.h>
#include <linux/falloc.h>

#include "pool/catalog.h"
#include "pool/pace.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"

/* Mappings removed in one hold of meta_lock. */
#define UNMAP_AT_ONCE 1024U
/* With the size, in the one transaction that cuts a volume. */
#define CUT_AT_ONCE 16U

#define LAST_BLOCK UINT64_MAX

/* One step: *next is where to go on. */
static int
unmap_step(struct vol *v, struct pace *pace, uint64_t begin, uint64_t end, uint64_t *next)
{
	struct thin_dev *dev;
	int r = pace_begin_change(pace, META_TO_UNMAP);

	if (r)
		return r;
	r = vol_dev(v, &dev);
	if (!r)
		r = vol_keep_size(v);
	if (!r)
		r = dev_unmap(dev, begin, end, pace->nr, META_TO_UNMAP, next);
	pace_end_change(pace);
	return r;
}

int
vol_unmap(struct vol *v, uint64_t first, uint64_t end)
{
	struct pace pace = pace_start(v->pool, pool_step(v->pool, UNMAP_AT_ONCE));
	int r = 0;

	while (first < end && !r) {
		r = unmap_step(v, &pace, first, end, &first);
		/* What this transaction freed can be used after a commit. */
		if (r == -ENOSPC && pool_sync_wait(v->pool, NULL) != -EIO)
			r = unmap_step(v, &pace, first, end, &first);
	}
	return r;
}

/* --- shrinking --- */

static uint64_t
blocks_of(const struct vol *v, uint64_t size)
{
	return vol_block(v, size) + (size % v->pool->block_bytes != 0);
}

static int
set_shrinking(struct vol *v, bool on)
{
	int r = vol_record_changed(v);

	if (r)
		return r;
	if (on)
		v->flags |= RECORD_SHRINKING;
	else
		v->flags &= ~(uint32_t)RECORD_SHRINKING;
	return 0;
}

int
vol_finish_shrink(struct vol *v)
{
	int r;

	if (!(v->flags & RECORD_SHRINKING))
		return 0;
	r = vol_unmap(v, blocks_of(v, v->size), LAST_BLOCK);
	if (!r)
		r = pool_begin_change(v->pool, 1, 0, META_TO_DELETE);
	if (r)
		return r;
	r = set_shrinking(v, false);
	pool_end_change(v->pool);
	return r;
}

/* In one transaction: the new last block, the size, and as much unmapped behind it as may be. meta_lock exclusive. */
static int
cut_locked(struct vol *v, uint64_t size, uint64_t tail)
{
	uint64_t next = LAST_BLOCK;
	struct thin_dev *dev;
	int r = vol_dev(v, &dev);

	if (!r)
		r = vol_record_changed(v);
	if (!r && tail != MAP_HOLE)
		r = dev_insert(dev, vol_block(v, size), tail, 1);
	if (r)
		return r;
	r = dev_unmap(dev, blocks_of(v, size), LAST_BLOCK, pool_step(v->pool, CUT_AT_ONCE), META_TO_DELETE,
		      &next);
	if (r == -ENOSPC) { /* later, then */
		next = blocks_of(v, size);
		r = 0;
	}
	if (r)
		return r;
	v->size = size;
	v->origin_end = min_u64(v->origin_end, size);
	return next == LAST_BLOCK ? 0 : set_shrinking(v, true);
}

static int
cut(struct vol *v, uint64_t size, uint64_t tail)
{
	int r = pool_begin_change(v->pool, 2, 1, META_TO_UNMAP);

	if (!r) {
		r = cut_locked(v, size, tail);
		pool_end_change(v->pool);
	}
	if (r && tail != MAP_HOLE)
		pool_give_back(v->pool, tail, 1, r);
	return r;
}

static int
shrink(struct vol *v, uint64_t size)
{
	uint64_t block = v->pool->block_bytes;
	uint64_t tail = MAP_HOLE;
	int r = vol_finish_shrink(v);

	if (!r && size % block)
		r = vol_copy_tail(v, size, &tail);
	if (r == -ENOSPC) /* a full pool must still shrink */
		r = vol_provision(v, NULL, block - size % block, size,
				  PROVISION_KEEP_SIZE | PROVISION_SKIP_HOLES);
	if (!r)
		r = cut(v, size, tail);
	v->clean_end = r ? 0 : UINT64_MAX;
	return r;
}

static int
grow(struct vol *v, uint64_t size)
{
	int r = vol_finish_shrink(v);

	if (!r)
		r = vol_clean_tail(v, size, size);
	return r ? r : vol_extend(v, size);
}

static int
check_change(const struct vol *v)
{
	if (v->pool->mode == POOL_FAIL)
		return -EIO;
	return v->pool->read_only || v->flags & RECORD_READ_ONLY ? -EROFS : 0;
}

int
vol_truncate(struct vol *v, uint64_t size)
{
	struct range_hold hold;
	int r = check_change(v);

	if (r)
		return r;
	if (size > VOL_SIZE_MAX)
		return -EFBIG;
	vol_lock_change(v, &hold, size, LAST_BLOCK);
	if (size < v->size)
		r = shrink(v, size);
	else if (size > v->size)
		r = grow(v, size);
	vol_unlock_range(v, &hold);
	if (v->flags & RECORD_SHRINKING)
		reclaim_queue(v);
	if (!r)
		vol_wrote(v);
	return r;
}

/* --- fallocate --- */

/* Let [begin, end) read as zeros by writing, but for holes that do so. */
static int
zero_bytes(struct vol *v, uint64_t begin, uint64_t end)
{
	if (begin >= end)
		return 0;
	return vol_provision(v, NULL, end - begin, begin, PROVISION_KEEP_SIZE | PROVISION_SKIP_HOLES);
}

/* Whole blocks, in what is shown of the origin: those that are not zeros there are mapped to zeros, others unmapped. */
static int
zero_blocks(struct vol *v, uint64_t first, uint64_t end)
{
	const struct origin_view view = vol_origin(v);
	uint64_t size = v->pool->block_bytes;
	int r = 0;

	while (first < end && !r) {
		bool zero = origin_is_zero(&view, v, first * size, size);
		uint64_t nr = 1;

		while (nr < end - first && nr < UNMAP_AT_ONCE &&
		       origin_is_zero(&view, v, (first + nr) * size, size) == zero)
			nr++;
		r = zero ? vol_unmap(v, first, first + nr) : vol_map_zeros(v, first, first + nr);
		/* Without a block for it, in place where that can be. */
		if (r == -ENOSPC && !zero)
			r = vol_provision(v, NULL, nr * size, first * size, PROVISION_KEEP_SIZE);
		first += nr;
	}
	return r;
}

/*
 * Let [begin, end) read as zeros: whole blocks by unmapping where that is allowed, the edges by writing. Where the external origin would show, it
 * is not shown to so far an end any more, if that is all that is shown behind BEGIN; else zeros are mapped.
 */
static int
zero_range(struct vol *v, uint64_t begin, uint64_t end)
{
	uint64_t size = v->pool->block_bytes;
	uint64_t first = blocks_of(v, begin), last = vol_block(v, end), covered;
	int r = 0;

	if (end >= vol_origin(v).end)
		r = vol_origin_lower(v, begin);
	if (r && r != -EOPNOTSUPP)
		return r;
	/* Within one block, or without taking any away. */
	if (first > last || v->pool->options.ignore_discard)
		return zero_bytes(v, begin, end);
	covered = min_u64(last, max_u64(first, blocks_of(v, vol_origin(v).end)));
	r = zero_bytes(v, begin, first * size);
	if (!r)
		r = zero_blocks(v, first, covered);
	if (!r)
		r = vol_unmap(v, covered, last);
	return r ? r : zero_bytes(v, last * size, end);
}

/* As the kernel: whole blocks show the origin again, and what is not a whole block stays; but not beyond the origin. */
static int
show_origin(struct vol *v, uint64_t begin, uint64_t end)
{
	uint64_t size = v->pool->block_bytes, shown = vol_origin(v).end;
	uint64_t first = blocks_of(v, begin), last = vol_block(v, end);
	int r;

	if (begin >= shown)
		return zero_range(v, begin, end);
	if (first > last)
		return zero_bytes(v, shown, end);
	r = vol_unmap(v, first, last);
	return r ? r : zero_bytes(v, max_u64(last * size, shown), end);
}

static int
discard(struct vol *v, int mode, uint64_t begin, uint64_t end)
{
	/* In the last block, all that is behind the end goes as well: then the block may be unmapped. */
	uint64_t size = v->size;
	uint64_t last = blocks_of(v, size) * v->pool->block_bytes;

	if (begin >= size)
		return 0;
	if (end >= size)
		end = v->clean_end >= last ? last : size;
	if (mode & FALLOC_FL_PUNCH_HOLE && v->pool->options.discard_to_origin)
		return show_origin(v, begin, end);
	return zero_range(v, begin, end);
}

static int
fallocate_locked(struct vol *v, int mode, uint64_t begin, uint64_t end)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	int r = 0;

	if (!keep && end > v->size)
		r = grow(v, end);
	if (r)
		return r;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return discard(v, mode, begin, end);
	return vol_provision(v, NULL, end - begin, begin, PROVISION_KEEP_SIZE | PROVISION_ALLOCATE);
}

int
vol_fallocate(struct vol *v, int mode, uint64_t offset, uint64_t len)
{
	struct range_hold hold;
	int r = check_change(v);

	if (r)
		return r;
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		break;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		if (v->pool->options.ignore_discard)
			return -EOPNOTSUPP;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (!len)
		return -EINVAL;
	if (offset > VOL_SIZE_MAX || len > VOL_SIZE_MAX - offset)
		return -EFBIG;
	vol_lock_change(v, &hold, offset, offset + len);
	r = fallocate_locked(v, mode, offset, offset + len);
	vol_unlock_range(v, &hold);
	if (!r)
		vol_wrote(v);
	return r;
}
