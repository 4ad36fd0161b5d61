/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * grow: taking in what is new of images that have become larger, making them larger, while the pool is in use or
 * before; and how long writers wait for that.
 *
 * The commit that has the new size flushes both images before it writes the superblock, so that the size of the
 * file is durable before the pool counts on it. After a crash before that the file may be larger than the
 * pool, which is no harm: the next mount takes it in.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

/* The size of an image in blocks of its kind, as far as a pool can use them. */
static int
image_blocks(struct image *img, uint64_t block_bytes, uint64_t max, uint64_t *nr)
{
	uint64_t bytes;
	int r = image_get_size(img, &bytes);

	*nr = r ? 0 : min_u64(bytes / block_bytes, max);
	return r;
}

/* What is new costs metadata blocks itself; those of a larger metadata image come first. */
static int
grow_locked(struct pool *p, uint64_t data, uint64_t meta, bool *grown)
{
	struct meta_info info;
	int r = pool_check_writable(p);

	if (r)
		return r;
	meta_get_info(p->tm, &info);
	if (meta > info.nr_meta_blocks) {
		r = meta_grow_metadata(p->tm, meta);
		*grown = !r;
	}
	if ((!r || r == -ENOSPC) && data > info.nr_data_blocks) {
		r = meta_grow_data(p->tm, data);
		*grown |= !r;
	}
	return r;
}

/*
 * Have what is below provide for the new part of the metadata image, up to *NR blocks, or leave it out: a commit must not
 * fail for lack of space there.
 */
static void
provide_below(struct pool *p, uint64_t *nr)
{
	struct meta_info info;

	rwlock_rdlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	rwlock_unlock(&p->meta_lock);
	if (*nr > info.nr_meta_blocks &&
	    image_allocate(p->meta, info.nr_meta_blocks * METADATA_BLOCK_SIZE,
			   (*nr - info.nr_meta_blocks) * METADATA_BLOCK_SIZE))
		*nr = info.nr_meta_blocks;
}

/* grow_lock held, or nobody else has the pool yet. */
static int
adopt(struct pool *p)
{
	bool grown = false;
	uint64_t data, meta;
	int r = pool_check_writable(p);

	if (!r && p->shrinking)
		return -EBUSY;
	if (!r)
		r = image_blocks(p->data, p->block_bytes, DATA_BLOCKS_MAX, &data);
	if (!r)
		r = image_blocks(p->meta, METADATA_BLOCK_SIZE, METADATA_BLOCKS_MAX, &meta);
	if (r)
		return r;
	provide_below(p, &meta);
	rwlock_wrlock(&p->meta_lock);
	r = grow_locked(p, data, meta, &grown);
	if (grown)
		pool_update_mode(p);
	rwlock_unlock(&p->meta_lock);
	if (grown) {
		msg_info("%s: %" PRIu64 " data blocks and %" PRIu64 " metadata blocks now", p->data->name,
			 data, meta);
		pool_space_hook(p);
	}
	return r;
}

int
pool_adopt_growth(struct pool *p)
{
	int r;

	mutex_lock(&p->grow_lock);
	r = adopt(p);
	mutex_unlock(&p->grow_lock);
	return r;
}

/* In blocks; what the pool uses of both images. */
static void
sizes(struct pool *p, uint64_t *data, uint64_t *meta)
{
	struct meta_info info;

	rwlock_rdlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	rwlock_unlock(&p->meta_lock);
	*data = info.nr_data_blocks;
	*meta = info.nr_meta_blocks;
}

/* --- by hand --- */

/* Let the image have BYTES at least, which are NR blocks of its kind; HAS: as many as the pool uses of it. 0: as it is. */
static int
enlarge_to(struct image *img, uint64_t bytes, uint64_t nr, uint64_t has, uint64_t max)
{
	uint64_t size;
	int r;

	if (!bytes)
		return 0;
	if (nr < has)
		return -EINVAL;
	if (nr > max)
		return -EFBIG;
	r = image_get_size(img, &size);
	return r || bytes <= size ? r : image_resize(img, bytes);
}

/* What of IMG could not be taken into use goes again: it would be in the way of whatever is tried next. */
static void
cut_back(struct image *img, uint64_t old_bytes, uint64_t used_bytes)
{
	uint64_t end = max_u64(old_bytes, used_bytes), bytes;
	int r = image_get_size(img, &bytes);

	if (!r && bytes > end)
		r = image_resize(img, end);
	if (r)
		msg_warn("%s: cannot be cut off again: %s", img->name, strerror(-r));
}

/* grow_lock held */
static int
resize_held(struct pool *p, uint64_t data_bytes, uint64_t meta_bytes)
{
	uint64_t nr_data = data_bytes / p->block_bytes, nr_meta = meta_bytes / METADATA_BLOCK_SIZE;
	uint64_t has_data, has_meta, old_data, old_meta;
	int r = image_get_size(p->data, &old_data);

	sizes(p, &has_data, &has_meta);
	if (!r)
		r = image_get_size(p->meta, &old_meta);
	if (r)
		return r;
	r = enlarge_to(p->meta, meta_bytes, nr_meta, has_meta, METADATA_BLOCKS_MAX);
	if (!r)
		r = enlarge_to(p->data, data_bytes, nr_data, has_data, DATA_BLOCKS_MAX);
	if (!r)
		r = adopt(p);
	sizes(p, &has_data, &has_meta);
	if (!r && has_meta < nr_meta) /* there is nothing below for it */
		r = -ENOSPC;
	if (r) {
		cut_back(p->data, old_data, has_data * p->block_bytes);
		cut_back(p->meta, old_meta, has_meta * METADATA_BLOCK_SIZE);
	}
	return r;
}

int
pool_resize(struct pool *p, uint64_t data_bytes, uint64_t meta_bytes)
{
	int r = pool_check_writable(p);

	if (r)
		return r;
	mutex_lock(&p->grow_lock);
	r = p->shrinking ? -EBUSY : resize_held(p, data_bytes, meta_bytes);
	mutex_unlock(&p->grow_lock);
	return r ? r : pool_sync_wait(p, NULL);
}

/* --- by itself --- */

/* What the metadata image grows by when grow= names a size, which is of the data image. */
#define METADATA_PERCENT 25U
#define METADATA_STEP_MIN 256U /* blocks */

/* After a failure; whoever needs space asks all the time. */
#define RETRY_SECONDS 10

static bool
grows(const struct pool *p)
{
	return p->options.grow_bytes || p->options.grow_percent;
}

static uint64_t
percent_of(uint64_t nr, unsigned percent)
{
	return nr / 100 * percent + nr % 100 * percent / 100;
}

static uint64_t
data_step(const struct pool *p, uint64_t nr)
{
	return max_u64(1, p->options.grow_bytes ? p->options.grow_bytes / p->block_bytes
						 : percent_of(nr, p->options.grow_percent));
}

static uint64_t
metadata_step(const struct pool *p, uint64_t nr)
{
	unsigned percent = p->options.grow_percent ? p->options.grow_percent : METADATA_PERCENT;

	return max_u64(METADATA_STEP_MIN, percent_of(nr, percent));
}

/* Growing begins when half of a step is left, or a quarter of a pool that is small beside it. */
static bool
data_is_short(struct pool *p, const struct meta_info *info)
{
	uint64_t nr = info->nr_data_blocks;

	return info->free_data_blocks + info->pending_data_blocks <=
	       catalog_reserve(p) + min_u64(data_step(p, nr) / 2, nr / 4);
}

/* Commits, and removing, need what is below the reserve. */
static bool
metadata_is_short(const struct meta_info *info)
{
	return info->free_meta_blocks <= info->meta_reserve + info->nr_meta_blocks / 8;
}

/* From NR blocks of UNIT bytes by STEP, as far as MAX_BYTES (0: any) and LIMIT allow. -ENOSPC: no further. */
static int
enlarge_by(struct image *img, uint64_t unit, uint64_t nr, uint64_t step, uint64_t max_bytes, uint64_t limit)
{
	uint64_t end = max_bytes ? min_u64(limit, max_bytes / unit) : limit;
	int r;

	if (nr >= end)
		return -ENOSPC;
	step = min_u64(step, end - nr);
	/* Of the data image, space is taken when it is written; the metadata image must have it before. */
	r = unit == METADATA_BLOCK_SIZE ? image_allocate(img, nr * unit, step * unit) : 0;
	return r ? r : image_resize(img, (nr + step) * unit);
}

/* A device does not grow by us; what fails for another reason is said once, and tried again later. */
static void
growth_failed(struct pool *p, const struct image *img, int r)
{
	struct timespec now;

	if (r == -EOPNOTSUPP)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	p->grow_again_s = now.tv_sec + RETRY_SECONDS;
	if (!p->growth_failed)
		msg_warn("%s: cannot be made larger: %s; the pool goes on without until it can", img->name,
			 strerror(-r));
	p->growth_failed = true;
}

static bool
may_try(const struct pool *p)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return !p->growth_failed || now.tv_sec >= p->grow_again_s;
}

/* Make larger what is short, or what is said to be; grow_lock held. */
static void
grow_short(struct pool *p, bool data, bool meta)
{
	struct meta_info info;
	int r = -ENOSPC, meta_r = -ENOSPC;

	rwlock_rdlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	data = data || data_is_short(p, &info);
	meta = meta || metadata_is_short(&info);
	rwlock_unlock(&p->meta_lock);
	if (!(data || meta) || !may_try(p))
		return;
	if (meta)
		meta_r = enlarge_by(p->meta, METADATA_BLOCK_SIZE, info.nr_meta_blocks,
				    metadata_step(p, info.nr_meta_blocks), p->options.metadata_max_bytes,
				    METADATA_BLOCKS_MAX);
	if (data)
		r = enlarge_by(p->data, p->block_bytes, info.nr_data_blocks, data_step(p, info.nr_data_blocks),
			       p->options.max_bytes, DATA_BLOCKS_MAX);
	p->growth_useless = r && meta_r;
	if (!p->growth_useless) {
		p->growth_failed = false;
		adopt(p);
	}
	/* At its limit is no failure. */
	if (meta_r && meta_r != -ENOSPC)
		growth_failed(p, p->meta, meta_r);
	if (r && r != -ENOSPC)
		growth_failed(p, p->data, r);
}

void
pool_grow_ahead(struct pool *p)
{
	if (!grows(p) || p->shrinking || pool_check_writable(p))
		return;
	mutex_lock(&p->grow_lock);
	grow_short(p, false, false);
	mutex_unlock(&p->grow_lock);
}

bool
pool_should_grow(struct pool *p, const struct meta_info *info)
{
	return grows(p) && !p->growth_useless && (data_is_short(p, info) || metadata_is_short(info));
}

int
pool_make_room(struct pool *p, enum pool_room what)
{
	uint64_t data, meta, data_now, meta_now;
	int r;

	sizes(p, &data, &meta);
	mutex_lock(&p->grow_lock);
	sizes(p, &data_now, &meta_now);
	r = data_now != data || meta_now != meta ? 0 : adopt(p);
	sizes(p, &data_now, &meta_now);
	/* Others may have found the same, and have been here before. */
	if (grows(p) && (!r || r == -ENOSPC) && data_now == data && meta_now == meta) {
		grow_short(p, what == ROOM_FOR_DATA, what == ROOM_FOR_METADATA || r == -ENOSPC);
		sizes(p, &data_now, &meta_now);
	}
	mutex_unlock(&p->grow_lock);
	return data_now != data || meta_now != meta ? 0 : r ? r : -ENOSPC;
}

void
pool_look_for_space(struct pool *p)
{
	enum pool_mode mode = p->mode;

	if (mode == POOL_OUT_OF_DATA_SPACE)
		pool_make_room(p, ROOM_FOR_DATA);
	else if (mode == POOL_OUT_OF_METADATA_SPACE)
		pool_make_room(p, ROOM_FOR_METADATA);
}

/* --- waiting --- */

bool
pool_waits_for_space(const struct pool *p)
{
	return !p->options.error_if_no_space && !p->waited_enough;
}

void
pool_stop_waiting(struct pool *p)
{
	rwlock_wrlock(&p->meta_lock);
	/* Back in write mode, there is no waiting to end. */
	if (p->mode != POOL_WRITE && !p->waited_enough) {
		p->waited_enough = true;
		msg_warn("%s: no space for %u seconds: writers get an error from now on, until there is some",
			 p->data->name, p->options.no_space_timeout_s);
	}
	rwlock_unlock(&p->meta_lock);
}
