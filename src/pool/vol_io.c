/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vol_io: reading and writing.
 *
 * A write first tries to be an overwrite in place: with RANGE_WRITE held, all blocks must be
 * mapped and unshared and the size must not change. Otherwise it starts again with RANGE_CHANGE
 * (provision.c).
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "pool/pool_internal.h"
#include "util/minmax.h"

#define MAX_RUNS 32U

/* So that one request does not hold its range for too long, and its runs fit in a frame. */
#define MAX_PIECE (8ULL << 20)

/* The part of a run that lies within [offset, end): bytes, and where they are in the data image. */
static uint64_t
clip_run(const struct vol *v, const struct map_run *run, uint64_t offset, uint64_t end,
	 uint64_t *place)
{
	uint64_t size = v->pool->block_bytes;
	uint64_t run_start = run->vblock * size;
	uint64_t run_end = run_start + run->len * size;

	*place = run->dblock == MAP_HOLE ? 0 : run->dblock * size + (offset - run_start);
	return min_u64(end, run_end) - offset;
}

/* VIEW, if not NULL: the origin that goes with the runs. */
static int
map_piece(struct vol *v, uint64_t offset, uint64_t len, struct map_run *runs, unsigned *nr,
	  struct origin_view *view)
{
	uint64_t first = vol_block(v, offset);
	int r = vol_lock_shared(v);

	if (r)
		return r;
	r = dev_map(v->dev, first, vol_block(v, offset + len - 1) - first + 1, runs, MAX_RUNS, nr);
	if (view)
		*view = vol_origin(v);
	rwlock_unlock(&v->pool->meta_lock);
	return r;
}

/* Read up to LEN bytes: as far as MAX_RUNS runs go. */
static ssize_t
read_piece(struct vol *v, uint8_t *buf, uint64_t len, uint64_t offset)
{
	struct map_run runs[MAX_RUNS];
	struct origin_view view;
	struct range_hold hold;
	uint64_t done = 0;
	unsigned nr;
	int r;

	vol_lock_range(v, &hold, RANGE_READ, vol_block(v, offset),
		   vol_block(v, offset + len - 1));
	r = map_piece(v, offset, len, runs, &nr, &view);
	for (unsigned i = 0; i < nr && !r; i++) {
		uint64_t place;
		uint64_t n = clip_run(v, &runs[i], offset + done, offset + len, &place);

		if (runs[i].dblock == MAP_HOLE)
			r = origin_read(&view, v, buf + done, n, offset + done);
		else
			r = image_read(pool_data(v->pool), buf + done, n, place);
		done += n;
	}
	vol_unlock_range(v, &hold);
	return r ? r : (ssize_t)done;
}

ssize_t
vol_read(struct vol *v, void *buf, size_t len, uint64_t offset)
{
	uint64_t size = v->size;
	size_t done = 0;

	if (v->pool->mode == POOL_FAIL)
		return -EIO;
	if (offset >= size)
		return 0;
	len = min_u64(len, size - offset);
	while (done < len) {
		ssize_t n = read_piece(v, (uint8_t *)buf + done, min_u64(len - done, MAX_PIECE),
				       offset + done);

		if (n < 0)
			return done ? (ssize_t)done : n;
		done += n;
	}
	return done;
}

void
vol_lock_change(struct vol *v, struct range_hold *hold, uint64_t begin, uint64_t end)
{
	uint64_t last = end > begin ? vol_block(v, end - 1) : vol_block(v, begin);

	for (;;) {
		uint64_t first = vol_block(v, min_u64(begin, v->size));

		vol_lock_range(v, hold, RANGE_CHANGE, first, last);
		if (first <= vol_block(v, v->size) || first == vol_block(v, begin))
			return;
		/* The volume has shrunk meanwhile. */
		vol_unlock_range(v, hold);
	}
}

/* Whether all of it can be overwritten in place. */
static bool
in_place(const struct map_run *runs, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		if (runs[i].dblock == MAP_HOLE || runs[i].shared)
			return false;
	return true;
}

/* Overwrite as much as MAX_RUNS runs cover; 0: mappings must change first. */
static ssize_t
overwrite_piece(struct vol *v, const uint8_t *buf, uint64_t len, uint64_t offset)
{
	struct map_run runs[MAX_RUNS];
	struct range_hold hold;
	uint64_t done = 0;
	unsigned nr = 0;
	int r = 0;

	vol_lock_range(v, &hold, RANGE_WRITE, vol_block(v, offset),
		   vol_block(v, offset + len - 1));
	if (offset + len <= v->size)
		r = map_piece(v, offset, len, runs, &nr, NULL);
	if (!r && in_place(runs, nr)) {
		vol_will_overwrite(v);
		for (unsigned i = 0; i < nr && !r; i++) {
			uint64_t place;
			uint64_t n = clip_run(v, &runs[i], offset + done, offset + len, &place);

			r = image_write(pool_data(v->pool), buf + done, n, place);
			done += n;
		}
	}
	vol_unlock_range(v, &hold);
	return r ? r : (ssize_t)done;
}

/* Write one piece with the mappings changing; all or an error. */
static int
change_piece(struct vol *v, const uint8_t *buf, uint64_t len, uint64_t offset)
{
	struct range_hold hold;
	int r;

	vol_lock_change(v, &hold, offset, offset + len);
	r = vol_provision(v, buf, len, offset, 0);
	vol_unlock_range(v, &hold);
	return r;
}

ssize_t
vol_write(struct vol *v, const void *buf, size_t len, uint64_t offset)
{
	const uint8_t *bytes = buf;
	size_t done = 0;

	if (v->pool->mode == POOL_FAIL)
		return -EIO;
	if (v->pool->read_only || v->flags & RECORD_READ_ONLY)
		return -EROFS;
	if (offset > VOL_SIZE_MAX || len > VOL_SIZE_MAX - offset)
		return -EFBIG;
	while (done < len) {
		uint64_t piece = min_u64(len - done, MAX_PIECE);
		ssize_t n = overwrite_piece(v, bytes + done, piece, offset + done);

		if (n == 0) {
			int r = change_piece(v, bytes + done, piece, offset + done);

			n = r ? r : (ssize_t)piece;
		}
		if (n < 0)
			return n;
		done += n;
	}
	vol_wrote(v);
	return done;
}
