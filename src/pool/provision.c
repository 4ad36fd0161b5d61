/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * provision: writing where the mapping has to change (design, section 5; format sheet, S 10).
 *
 * The data go to newly reserved blocks first, whole blocks with the rest copied, from the block before or the
 * external origin, or zeroed around them, and then the mapping is inserted. Until then nothing, no commit either, knows of the
 * blocks; after it the old ones are no longer ours. Adjacent blocks go as one run: one write, one
 * hold of the lock.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/passdown.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"

#define MAX_RUNS 32U

/* Of one run: bounds how long the lock is held for looking at it and inserting it, and what a failure undoes. */
#define MAX_NEW_BLOCKS 256U
#define MAX_NEW_BYTES (16ULL << 20)

/* A stretch of new blocks, and what is to be in them. */
struct fill {
	uint64_t vblock, len; /* blocks */
	uint64_t dblock; /* the new place */
	uint64_t old; /* the place to copy from, or MAP_HOLE */
	struct origin_view from; /* where OLD is MAP_HOLE: what shows there, so far */
	uint64_t begin, end; /* bytes of the volume to write, within the blocks */
	const uint8_t *buf; /* what comes to BEGIN; NULL: zeros */
	bool bare; /* what is not written may stay as it is in the new place */
	bool promised; /* for fallocate(2): reads as zeros whatever the options say, and what is below provides for it */
};

/* --- getting blocks --- */

static int
try_reserve(struct vol *v, uint64_t want, uint64_t *dblock, uint64_t *got)
{
	struct pool *p = v->pool;
	struct meta_info info;
	uint64_t kept;
	int r = -ENOSPC;

	rwlock_wrlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	kept = catalog_reserve(p);
	if (info.free_data_blocks > kept)
		r = meta_reserve_data(p->tm, vol_goal(v, info.nr_data_blocks),
				      min_u64(want, info.free_data_blocks - kept), dblock, got);
	if (!r)
		vol_placed(v, *dblock, *got, info.nr_data_blocks);
	rwlock_unlock(&p->meta_lock);
	return r;
}

/* Reserve up to WANT blocks; -ENOSPC after a commit did not help. */
static int
reserve(struct vol *v, uint64_t want, uint64_t *dblock, uint64_t *got)
{
	struct pool *p = v->pool;
	int r = pool_check_writable(p);

	if (!r)
		r = try_reserve(v, want, dblock, got);
	if (r != -ENOSPC)
		return r;
	r = pool_settle_freed(p);
	if (r)
		return r;
	r = try_reserve(v, want, dblock, got);
	if (r == -ENOSPC && !pool_make_room(p, ROOM_FOR_DATA))
		r = try_reserve(v, want, dblock, got);
	if (r == -ENOSPC) {
		rwlock_wrlock(&p->meta_lock);
		if (p->mode == POOL_WRITE)
			pool_set_mode(p, POOL_OUT_OF_DATA_SPACE);
		rwlock_unlock(&p->meta_lock);
	}
	return r;
}

int
vol_reserve_one(struct vol *v, uint64_t *dblock)
{
	uint64_t got;

	return reserve(v, 1, dblock, &got);
}

void
pool_give_back(struct pool *p, uint64_t dblock, uint64_t nr, int error)
{
	struct runs runs = {0};

	if (error == -ENOSPC && passdown_wanted(p) && !runs_add(&runs, dblock, nr)) {
		passdown_queue(p, &runs);
		return;
	}
	rwlock_wrlock(&p->meta_lock);
	meta_unreserve_data(p->tm, dblock, nr);
	rwlock_unlock(&p->meta_lock);
}

/* --- filling them --- */

int
pool_copy_data(struct pool *p, uint64_t from, uint64_t to, uint64_t len)
{
	uint8_t *buf = buf_get(p);
	int r = buf ? 0 : -ENOMEM;

	while (len && !r) {
		uint64_t n = min_u64(len, IO_BUF_SIZE);

		r = image_read(pool_data(p), buf, n, from);
		if (!r)
			r = image_write(pool_data(p), buf, n, to);
		from += n;
		to += n;
		len -= n;
	}
	buf_put(p, buf);
	return r;
}

/* Whether all of the blocks is beyond what is shown of an origin. */
static bool
has_no_origin(const struct pool *p, const struct fill *f)
{
	return f->vblock * p->block_bytes >= f->from.end;
}

static int
copy_origin(struct vol *v, const struct fill *f, uint64_t at, uint64_t len)
{
	struct pool *p = v->pool;
	uint8_t *buf = buf_get(p);
	int r = buf ? 0 : -ENOMEM;

	while (len && !r) {
		uint64_t n = min_u64(len, IO_BUF_SIZE);

		r = origin_read(&f->from, v, buf, n, at);
		if (!r)
			r = image_write(pool_data(p), buf, n, f->dblock * p->block_bytes + at - f->vblock * p->block_bytes);
		at += n;
		len -= n;
	}
	buf_put(p, buf);
	return r;
}

/* What is around the bytes that are written: from the old block, the origin, or zeros. AT: offset in the volume. */
static int
fill_rest(struct vol *v, const struct fill *f, uint64_t at, uint64_t len)
{
	struct pool *p = v->pool;
	uint64_t size = p->block_bytes;
	uint64_t offset = at - f->vblock * size;

	if (!len)
		return 0;
	if (f->old != MAP_HOLE)
		return pool_copy_data(p, f->old * size + offset, f->dblock * size + offset, len);
	if (!has_no_origin(p, f))
		return copy_origin(v, f, at, len);
	if (f->bare)
		return 0;
	return image_zero(pool_data(p), f->dblock * size + offset, len);
}

static int
fill_large(struct vol *v, const struct fill *f)
{
	struct pool *p = v->pool;
	uint64_t size = p->block_bytes;
	uint64_t start = f->vblock * size, end = start + f->len * size;
	uint64_t place = f->dblock * size + (f->begin - start);
	int r = fill_rest(v, f, start, f->begin - start);

	if (!r && f->begin < f->end)
		r = f->buf ? image_write(pool_data(p), f->buf, f->end - f->begin, place)
			   : image_zero(pool_data(p), place, f->end - f->begin);
	return r ? r : fill_rest(v, f, f->end, end - f->end);
}

/* All in one write: the common case of one small write into a new block. */
static int
fill_small(struct vol *v, const struct fill *f, uint8_t *buf)
{
	struct pool *p = v->pool;
	uint64_t size = p->block_bytes;
	uint64_t start = f->vblock * size, end = start + f->len * size;
	const uint8_t *around = zeros;
	struct iovec iov[3];
	int r = 0;

	if (f->old != MAP_HOLE) {
		r = image_read(pool_data(p), buf, end - start, f->old * size);
		around = buf;
	} else if (!has_no_origin(p, f)) {
		r = origin_read(&f->from, v, buf, f->begin - start, start);
		if (!r)
			r = origin_read(&f->from, v, buf + (f->end - start), end - f->end, f->end);
		around = buf;
	}
	iov[0] = (struct iovec){(void *)around, f->begin - start};
	iov[1] = (struct iovec){(void *)(f->buf ? f->buf : zeros), f->end - f->begin};
	iov[2] = (struct iovec){(void *)(around + (f->end - start)), end - f->end};
	return r ? r : image_writev(pool_data(p), iov, 3, f->dblock * size);
}

static int
fill_blocks(struct vol *v, const struct fill *f)
{
	struct pool *p = v->pool;
	uint64_t bytes = f->len * p->block_bytes;
	bool whole = f->end - f->begin == bytes;
	uint8_t *buf;
	int r;

	if (whole || bytes > IO_BUF_SIZE || f->bare)
		return fill_large(v, f);
	buf = buf_get(p);
	r = buf ? fill_small(v, f, buf) : -ENOMEM;
	buf_put(p, buf);
	return r;
}

/* --- mapping them --- */

int
vol_extend_locked(struct vol *v, uint64_t end)
{
	int r;

	if (end <= v->size)
		return 0;
	r = vol_record_changed(v);
	if (!r)
		v->size = end;
	return r;
}

int
vol_extend(struct vol *v, uint64_t end)
{
	int r;

	if (end <= v->size)
		return 0;
	r = pool_begin_change(v->pool, 2, 1, META_TO_ADD);
	if (r)
		return r;
	r = vol_extend_locked(v, end);
	pool_end_change(v->pool);
	return r;
}

/* The data are in place: let the volume have them, and its size grow, at once. */
static int
insert(struct vol *v, const struct fill *f, unsigned flags)
{
	struct pool *p = v->pool;
	struct thin_dev *dev;
	bool moves_end = !(flags & PROVISION_KEEP_SIZE) && f->end > v->size;
	bool records = moves_end || (v->origin && !v->has_record);
	int r = pool_begin_change(p, 1 + records + (unsigned)(f->len / 64), records, META_TO_ADD);

	if (r)
		return r;
	r = vol_dev(v, &dev);
	if (!r)
		r = vol_keep_origin(v);
	/* First what can fail and leave everything as it was. */
	if (!r && !(flags & PROVISION_KEEP_SIZE))
		r = vol_extend_locked(v, f->end);
	if (!r)
		r = dev_insert(dev, f->vblock, f->dblock, f->len);
	pool_end_change(p);
	return r;
}

/* Whether the new place need not be zeroed: nothing is copied to it, and it is a hole, or it does not matter. */
static bool
is_bare(struct pool *p, const struct fill *f)
{
	uint64_t len = f->len * p->block_bytes;

	if (f->old != MAP_HOLE || !has_no_origin(p, f) || (f->buf && f->end - f->begin == len))
		return false;
	return (p->options.skip_block_zeroing && !f->promised) ||
	       image_is_hole(p->data, f->dblock * p->block_bytes, len);
}

/* Without that, a write to blocks that the pool has could still fail: the data image may be sparse. */
static int
allocate_below(struct pool *p, uint64_t dblock, uint64_t nr)
{
	return image_allocate(pool_data(p), dblock * p->block_bytes, nr * p->block_bytes);
}

static int
provision_run(struct vol *v, struct fill *f, unsigned flags)
{
	int r;

	f->bare = is_bare(v->pool, f);
	r = fill_blocks(v, f);
	if (!r && f->promised)
		r = allocate_below(v->pool, f->dblock, f->len);
	if (!r)
		r = insert(v, f, flags);
	if (r && f->promised) /* of the last blocks that there are below, some may have been taken */
		image_discard(pool_data(v->pool), f->dblock * v->pool->block_bytes,
			      f->len * v->pool->block_bytes);
	if (r)
		pool_give_back(v->pool, f->dblock, f->len, r);
	return r;
}

/* Give new blocks to all of RUN, which is a hole or shared. */
static int
replace_run(struct vol *v, const struct map_run *run, const struct origin_view *from, const uint8_t *buf,
	    uint64_t begin, uint64_t end, unsigned flags)
{
	uint64_t size = v->pool->block_bytes;
	uint64_t max = max_u64(1, min_u64(MAX_NEW_BLOCKS, MAX_NEW_BYTES / size));
	uint64_t origin_end = from->end / size + (from->end % size != 0);
	uint64_t done = 0;
	int r = 0;

	while (done < run->len && !r) {
		struct fill f = {.vblock = run->vblock + done, .from = *from};
		uint64_t start = f.vblock * size;
		uint64_t want = min_u64(max, run->len - done);

		/* With or without the origin: what is beyond it needs no reading. */
		if (run->dblock == MAP_HOLE && f.vblock < origin_end)
			want = min_u64(want, origin_end - f.vblock);
		r = reserve(v, want, &f.dblock, &f.len);
		if (r)
			return r;
		f.old = run->dblock == MAP_HOLE ? MAP_HOLE : run->dblock + done;
		f.begin = max_u64(begin, start);
		f.end = min_u64(end, start + f.len * size);
		f.buf = buf ? buf + (f.begin - begin) : NULL;
		f.promised = flags & PROVISION_ALLOCATE;
		if (f.promised)
			f.begin = f.end = start + (run->dblock == MAP_HOLE ? 0 : f.len * size);
		r = provision_run(v, &f, flags);
		done += f.len;
	}
	return r;
}

/*
 * What was shared and is not any more has been written in place: let the next write find it so at once. Only that
 * would be lost when there is no room for it.
 */
static void
renew_run(struct vol *v, const struct map_run *run)
{
	struct pool *p = v->pool;
	struct thin_dev *dev;

	rwlock_wrlock(&p->meta_lock);
	if (!pool_check_writable(p) &&
	    !meta_require(p->tm, 1 + (unsigned)(run->len / 64), 0, META_TO_ADD) && !vol_dev(v, &dev))
		dev_renew(dev, run->vblock, run->dblock, run->len);
	pool_end_change(p);
}

static int
write_run(struct vol *v, const struct map_run *run, const struct origin_view *from, const uint8_t *buf,
	  uint64_t begin, uint64_t end, unsigned flags)
{
	struct pool *p = v->pool;
	uint64_t place;
	int r;

	if (run->dblock == MAP_HOLE && flags & PROVISION_SKIP_HOLES && begin >= from->end)
		return 0;
	if (run->dblock == MAP_HOLE || run->shared)
		return replace_run(v, run, from, buf, begin, end, flags);
	if (flags & PROVISION_ALLOCATE)
		return allocate_below(p, run->dblock, run->len);
	place = run->dblock * p->block_bytes + (begin - run->vblock * p->block_bytes);
	vol_will_overwrite(v);
	r = buf ? image_write(pool_data(p), buf, end - begin, place)
		: image_zero_in_place(pool_data(p), place, end - begin);
	if (!r && run->aged)
		renew_run(v, run);
	if (!r && !(flags & PROVISION_KEEP_SIZE))
		r = vol_extend(v, end);
	return r;
}

/* --- the end of the volume --- */

int
vol_copy_tail(struct vol *v, uint64_t size, uint64_t *dblock)
{
	uint64_t block = v->pool->block_bytes;
	struct fill f = {.vblock = vol_block(v, size), .begin = size};
	struct map_run run;
	unsigned nr;
	int r = vol_lock_shared(v);

	*dblock = MAP_HOLE;
	if (r)
		return r;
	r = dev_map(v->dev, f.vblock, 1, &run, 1, &nr);
	rwlock_unlock(&v->pool->meta_lock);
	if (r || run.dblock == MAP_HOLE)
		return r;
	r = reserve(v, 1, &f.dblock, &f.len);
	if (r)
		return r;
	f.old = run.dblock;
	f.end = (f.vblock + 1) * block;
	r = fill_blocks(v, &f);
	if (r)
		pool_give_back(v->pool, f.dblock, 1, r);
	else
		*dblock = f.dblock;
	return r;
}

static int
zero_mapped(struct vol *v, uint64_t begin, uint64_t end)
{
	if (begin >= end)
		return 0;
	return vol_provision(v, NULL, end - begin, begin, PROVISION_KEEP_SIZE | PROVISION_SKIP_HOLES);
}

int
vol_clean_tail(struct vol *v, uint64_t begin, uint64_t end)
{
	uint64_t block = v->pool->block_bytes;
	uint64_t clean_end = (end + block - 1) / block * block;
	int r;

	if (end <= v->clean_end)
		return 0;
	r = zero_mapped(v, max_u64(v->size, v->clean_end), begin);
	if (!r)
		r = zero_mapped(v, end, clean_end);
	if (!r)
		v->clean_end = clean_end;
	return r;
}

int
vol_prepare_end(struct vol *v, uint64_t begin, uint64_t end, unsigned flags)
{
	int r;

	if (end <= v->size || flags & PROVISION_KEEP_SIZE)
		return 0;
	r = vol_finish_shrink(v);
	return r ? r : vol_clean_tail(v, begin, end);
}

int
vol_provision(struct vol *v, const void *buf, uint64_t len, uint64_t offset, unsigned flags)
{
	uint64_t size = v->pool->block_bytes;
	uint64_t end = offset + len;
	uint64_t at = offset;
	int r = vol_prepare_end(v, offset, end, flags);

	while (at < end && !r) {
		struct map_run runs[MAX_RUNS];
		struct origin_view from;
		uint64_t first = vol_block(v, at);
		uint64_t nr_blocks = min_u64(vol_block(v, end - 1) - first + 1, MAX_NEW_BLOCKS);
		unsigned nr;

		r = vol_lock_shared(v);
		if (r)
			break;
		r = dev_map(v->dev, first, nr_blocks, runs, MAX_RUNS, &nr);
		if (!r)
			r = dev_sort_out_shared(v->dev, runs, MAX_RUNS, &nr);
		from = vol_origin(v);
		rwlock_unlock(&v->pool->meta_lock);
		for (unsigned i = 0; i < nr && !r; i++) {
			uint64_t run_end = min_u64(end, (runs[i].vblock + runs[i].len) * size);

			r = write_run(v, &runs[i], &from, buf ? (const uint8_t *)buf + (at - offset) : NULL,
				      at, run_end, flags);
			at = run_end;
		}
	}
	if (r) /* bytes behind the end may have been written */
		v->clean_end = 0;
	return r;
}
