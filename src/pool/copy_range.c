/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * copy_range: copying from one volume to another, or within one, by sharing blocks where both ends
 * lie alike in their blocks; the rest is read and written.
 *
 * The source is frozen while its blocks are shared: a write that looked the mapping up before must not go
 * in place after. Nothing is written then, so the cost is that of the metadata, and a commit has all
 * of a step or nothing.
 */
#include <config.h>

#include <errno.h>

#include "pool/pool_internal.h"
#include "util/minmax.h"

/* In one hold of meta_lock. */
#define SHARE_AT_ONCE 512U
#define SHARE_AT_LEAST 16U

/* Tree paths that sharing NR blocks may change: adjacent entries, in both trees. */
static unsigned
share_paths(uint64_t nr)
{
	return 6 + 2 * (unsigned)(nr / 64);
}

struct copy {
	struct vol *from, *to;
	uint64_t src, dst; /* bytes; where to go on */
	uint64_t left; /* bytes */
};

/* --- the locks of both ranges --- */

struct both {
	struct range_hold from, to;
	bool one; /* within one volume: one hold covers both */
};

static void
lock_source(const struct copy *c, struct both *b)
{
	vol_lock_range(c->from, &b->from, RANGE_FREEZE, vol_block(c->from, c->src),
		   vol_block(c->from, c->src + c->left - 1));
}

static void
lock_both(const struct copy *c, struct both *b)
{
	b->one = c->from == c->to;
	if (b->one) {
		vol_lock_change(c->to, &b->to, min_u64(c->src, c->dst),
				max_u64(c->src, c->dst) + c->left);
		return;
	}
	if (c->from->id < c->to->id)
		lock_source(c, b);
	vol_lock_change(c->to, &b->to, c->dst, c->dst + c->left);
	if (c->from->id > c->to->id)
		lock_source(c, b);
}

static void
unlock_both(const struct copy *c, struct both *b)
{
	vol_unlock_range(c->to, &b->to);
	if (!b->one)
		vol_unlock_range(c->from, &b->from);
}

/* --- sharing --- */

/* What a hole at OFFSET shows of the origin: its end, within the block. */
static uint64_t
shown(const struct origin_view *view, uint64_t offset, uint64_t size)
{
	return view->end > offset ? min_u64(view->end - offset, size) : 0;
}

/* Whether a hole of the source, made one of the target, would read the same there. */
static bool
same_hole(const struct copy *c, uint64_t at)
{
	const struct origin_view from = vol_origin(c->from), to = vol_origin(c->to);
	uint64_t size = c->to->pool->block_bytes;
	uint64_t there = shown(&from, c->src + at, size);

	if (there != shown(&to, c->dst + at, size))
		return false;
	return !there || (from.origin == to.origin && c->src == c->dst);
}

/*
 * Of NR blocks, how many from the first one on can be shared; *nr. Where there are external origins, a hole may have to be
 * copied: *copy, how many of those come first then, and none can be shared. Both ranges held.
 */
static int
sharable(const struct copy *c, uint64_t *nr, uint64_t *copy)
{
	uint64_t size = c->to->pool->block_bytes, wanted = *nr;
	bool same = true;
	int r = 0;

	*copy = 0;
	if (!c->from->origin && !c->to->origin)
		return 0;
	*nr = 0;
	while (*nr + *copy < wanted && !r) {
		uint64_t at = *nr + *copy;
		struct map_run run;
		unsigned found;

		r = vol_lock_shared(c->from);
		if (r)
			break;
		r = dev_map(c->from->dev, vol_block(c->from, c->src) + at, 1, &run, 1, &found);
		rwlock_unlock(&c->from->pool->meta_lock);
		same = run.dblock != MAP_HOLE || same_hole(c, at * size);
		if (same ? *copy : *nr)
			break;
		*(same ? nr : copy) += 1;
	}
	return r;
}

/* One step of at most NR blocks, with the target's end moved to END. *done: blocks. */
static int
share_step(const struct copy *c, uint64_t nr, uint64_t end, uint64_t *done)
{
	struct pool *p = c->to->pool;
	struct thin_dev *from, *to;
	int r;

	*done = min_u64(nr, pool_step(p, SHARE_AT_ONCE));
	r = pool_begin_change(p, share_paths(*done), 1, META_TO_ADD);
	if (r == -ENOSPC) {
		*done = min_u64(nr, pool_step(p, SHARE_AT_LEAST));
		r = pool_begin_change(p, share_paths(*done), 1, META_TO_ADD);
	}
	if (r)
		return r;
	r = vol_dev(c->from, &from);
	if (!r)
		r = vol_dev(c->to, &to);
	if (!r)
		r = vol_keep_origin(c->to);
	if (!r)
		r = vol_extend_locked(c->to, min_u64(end, c->dst + *done * p->block_bytes));
	if (!r)
		r = dev_share(from, vol_block(c->from, c->src), to, vol_block(c->to, c->dst), *done);
	pool_end_change(p);
	return r;
}

/*
 * Whether the last block may be shared though it is not wanted as a whole: it is the last of the source and will be
 * that of the target, so that nobody sees the rest. Both ranges held.
 */
static bool
tail_is_last(const struct copy *c)
{
	return c->from != c->to && c->src + c->left >= c->from->size &&
	       c->dst + c->left >= c->to->size;
}

/* *COPY: bytes that come next and must be copied. */
static int
share_held(struct copy *c, uint64_t *copy)
{
	uint64_t size = c->to->pool->block_bytes;
	uint64_t end;
	int r;

	if (c->left % size && !tail_is_last(c))
		c->left -= c->left % size;
	end = c->dst + c->left;
	r = vol_prepare_end(c->to, c->dst, end, 0);
	if (end >= c->to->size)
		c->to->clean_end = 0;
	while (c->left && !r) {
		uint64_t nr = min_u64((c->left + size - 1) / size, SHARE_AT_ONCE), bytes;

		r = sharable(c, &nr, copy);
		*copy *= size;
		if (r || *copy)
			break;
		r = share_step(c, nr, end, &nr);
		if (r)
			break;
		bytes = min_u64(c->left, nr * size);
		c->src += bytes;
		c->dst += bytes;
		c->left -= bytes;
	}
	return r;
}

/*
 * From the start of a block on, all but perhaps an incomplete one at the end. *done: bytes, also when it fails; *copy: bytes
 * after these that cannot be shared.
 */
static int
share(struct copy c, uint64_t *done, uint64_t *copy)
{
	uint64_t start = c.dst;
	struct both locks;
	int r;

	lock_both(&c, &locks);
	r = share_held(&c, copy);
	unlock_both(&c, &locks);
	*done = c.dst - start;
	return r;
}

/* --- reading and writing --- */

static ssize_t
copy_bytes(const struct copy *c)
{
	struct pool *p = c->to->pool;
	uint8_t *buf = buf_get(p);
	ssize_t n = -ENOMEM;

	if (buf)
		n = vol_read(c->from, buf, min_u64(c->left, IO_BUF_SIZE), c->src);
	if (n > 0)
		n = vol_write(c->to, buf, (size_t)n, c->dst);
	buf_put(p, buf);
	return n;
}

/* --- choosing --- */

/* From the next place on where blocks begin at both ends, or that far. Bytes, or an error. */
static ssize_t
copy_some(struct copy c)
{
	uint64_t size = c.to->pool->block_bytes;
	uint64_t into = c.src % size, done = 0, copy = 0;
	int r = 0;

	if (into == c.dst % size) {
		if (!into)
			r = share(c, &done, &copy);
		if (r || done)
			return done ? (ssize_t)done : r;
		c.left = min_u64(c.left, copy ? copy : size - into);
	}
	return copy_bytes(&c);
}

static int
check(const struct copy *c)
{
	const struct vol *to = c->to;

	if (to->pool->mode == POOL_FAIL)
		return -EIO;
	if (to->pool->read_only || to->flags & RECORD_READ_ONLY)
		return -EROFS;
	if (c->dst > VOL_SIZE_MAX || c->left > VOL_SIZE_MAX - c->dst)
		return -EFBIG;
	if (c->from == to && c->src < c->dst + c->left && c->dst < c->src + c->left)
		return -EINVAL;
	return 0;
}

ssize_t
vol_copy_range(struct vol *from, uint64_t src, struct vol *to, uint64_t dst, uint64_t len)
{
	struct copy c = {.from = from, .to = to, .src = src, .dst = dst};
	uint64_t size = from->size;
	ssize_t n = 1;
	int r;

	if (src >= size)
		return 0;
	c.left = min_u64(len, size - src);
	r = check(&c);
	if (r)
		return r;
	while (c.left && n > 0) {
		n = copy_some(c);
		if (n <= 0)
			break;
		c.src += (uint64_t)n;
		c.dst += (uint64_t)n;
		c.left -= (uint64_t)n;
	}
	if (c.src > src)
		vol_wrote(to);
	return n < 0 && c.src == src ? n : (ssize_t)(c.src - src);
}
