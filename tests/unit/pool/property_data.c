/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <linux/falloc.h>
#include <string.h>

#include "unit/pool/property_ops.h"

/* An offset that is at, or near, an edge more often than chance has it. */
static uint64_t
some_offset(struct property *t, uint64_t bound)
{
	uint64_t block = (uint64_t)t->config.block_pages * PAGE_SIZE;
	uint64_t offset = below(t, bound);

	switch (below(t, 4)) {
	case 0:
		offset -= offset % block;
		break;
	case 1:
		offset -= offset % MODEL_SECTOR;
		break;
	case 2:
		offset -= offset % 4096;
		break;
	default:
		break;
	}
	return offset;
}

static void
some_range(struct property *t, const struct model_vol *v, uint64_t *offset, uint64_t *len)
{
	static const uint64_t max[] = {16, 512, 4096, 65536, 200000, 1500000};
	uint64_t block = (uint64_t)t->config.block_pages * PAGE_SIZE;
	uint64_t near = v->size < MODEL_BYTES ? v->size + block : MODEL_BYTES;

	*offset = some_offset(t, percent(t, 90) && near < MODEL_BYTES ? near : MODEL_BYTES);
	*len = 1 + below(t, max[below(t, 6)]);
	if (percent(t, 20))
		*len = (1 + below(t, 5)) * block;
	if (percent(t, 20))
		*len = block - *offset % block;
	if (*len > MODEL_BYTES - *offset)
		*len = MODEL_BYTES - *offset;
}

void
op_write(struct property *t)
{
	struct model_vol *v = some_vol(t), *before;
	uint64_t offset, len, pattern = below(t, UINT64_MAX);
	struct vol *vol;
	ssize_t n;

	if (!v)
		return;
	some_range(t, v, &offset, &len);
	doing(t, "write %u '%s/%s' %llu+%llu of %llu", v->id, v->snapshot, v->name, (ull)offset,
	      (ull)len, (ull)v->size);
	for (uint64_t i = 0; i < len; i += 8, pattern += 0x9e3779b97f4a7c15ULL)
		memcpy(t->buf + i, &pattern, len - i < 8 ? len - i : 8);
	vol = lookup(t, v);
	n = vol_write(vol, t->buf, len, offset);
	vol_put(vol);
	if (v->read_only) {
		no_space(t, (int)n, -EROFS);
		return;
	}
	if (n >= 0 && (uint64_t)n != len)
		fail(t, "%zd bytes written", n);
	before = model_vol_copy(v);
	model_write(&t->m, v, t->buf, len, offset);
	model_touch(v, offset, len);
	if (no_space(t, n < 0 ? (int)n : 0, 0))
		adopt_partial(t, v, before);
	model_vol_free(before);
}

void
op_read(struct property *t)
{
	struct model_vol *v = some_vol(t);
	uint64_t offset, len, expected;
	struct vol *vol;
	ssize_t n;

	if (!v)
		return;
	some_range(t, v, &offset, &len);
	doing(t, "read '%s/%s' %llu+%llu of %llu", v->snapshot, v->name, (ull)offset, (ull)len,
	      (ull)v->size);
	expected = offset >= v->size ? 0 : len < v->size - offset ? len : v->size - offset;
	vol = lookup(t, v);
	n = vol_read(vol, t->buf, len, offset);
	vol_put(vol);
	if (n < 0 || (uint64_t)n != expected)
		fail(t, "%zd, not %llu", n, (ull)expected);
	model_read(v, t->other, expected, offset);
	if (memcmp(t->buf, t->other, expected))
		fail(t, "other bytes");
}

void
op_truncate(struct property *t)
{
	struct model_vol *v = some_vol(t), *before;
	struct vol *vol;
	uint64_t size;
	int r;

	if (!v)
		return;
	size = percent(t, 10) ? 1ULL << (20 + below(t, 30)) : some_offset(t, MODEL_BYTES);
	doing(t, "truncate %u '%s/%s' %llu -> %llu", v->id, v->snapshot, v->name, (ull)v->size,
	      (ull)size);
	vol = lookup(t, v);
	r = vol_truncate(vol, size);
	vol_put(vol);
	if (v->read_only) {
		no_space(t, r, -EROFS);
		return;
	}
	before = model_vol_copy(v);
	model_truncate(&t->m, v, size, t->config.block_pages);
	if (no_space(t, r, 0))
		adopt_partial(t, v, before);
	model_vol_free(before);
}

/* Blocks that are wholly in the range are not mapped any more. */
static void
untouch(struct property *t, struct model_vol *v, uint64_t begin, uint64_t end)
{
	uint64_t block = t->config.block_pages;
	uint64_t first = (begin + block * PAGE_SIZE - 1) / (block * PAGE_SIZE) * block;
	uint64_t last = end / (block * PAGE_SIZE) * block;

	for (uint64_t i = first; i < last && i < MODEL_PAGES; i++)
		v->touched[i] = i * PAGE_SIZE < v->over; /* zeros may be mapped */
}

static void
model_fallocate(struct property *t, struct model_vol *v, int mode, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;

	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > v->size)
		v->size = end;
	if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
		model_touch(v, offset, len);
		return;
	}
	if (end > v->size)
		end = v->size;
	if (offset >= end)
		return;
	model_write(&t->m, v, NULL, end - offset, offset);
	if (offset < v->over) /* an edge there is copied first */
		model_touch(v, offset, (end < v->over ? end : v->over) - offset);
	untouch(t, v, offset, end);
}

void
op_fallocate(struct property *t)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	};
	int mode = modes[below(t, sizeof(modes) / sizeof(modes[0]))], r;
	struct model_vol *v = some_vol(t), *before;
	uint64_t offset, len;
	struct vol *vol;

	if (!v)
		return;
	some_range(t, v, &offset, &len);
	doing(t, "fallocate %u '%s/%s' mode %d %llu+%llu of %llu", v->id, v->snapshot, v->name, mode,
	      (ull)offset, (ull)len, (ull)v->size);
	vol = lookup(t, v);
	r = vol_fallocate(vol, mode, offset, len);
	vol_put(vol);
	if (v->read_only) {
		no_space(t, r, -EROFS);
		return;
	}
	before = model_vol_copy(v);
	model_fallocate(t, v, mode, offset, len);
	if (no_space(t, r, 0))
		adopt_partial(t, v, before);
	model_vol_free(before);
}

/* Write all that can be of V, until there is no space. */
static void
fill(struct property *t, struct model_vol *v)
{
	struct model_vol *before = model_vol_copy(v);
	struct vol *vol = lookup(t, v);
	uint64_t pattern = below(t, UINT64_MAX);
	ssize_t n;

	for (uint64_t i = 0; i < MODEL_BYTES; i += 8, pattern += 0x9e3779b97f4a7c15ULL)
		memcpy(t->buf + i, &pattern, 8);
	n = vol_write(vol, t->buf, MODEL_BYTES, 0);
	vol_put(vol);
	model_write(&t->m, v, t->buf, MODEL_BYTES, 0);
	model_touch(v, 0, MODEL_BYTES);
	if (no_space(t, n < 0 ? (int)n : 0, 0))
		adopt_partial(t, v, before);
	model_vol_free(before);
}

/* What fallocate has given can be written, whatever others have taken meanwhile. */
static void
write_promised(struct property *t, struct model_vol *v, uint64_t offset, uint64_t len)
{
	struct vol *vol = lookup(t, v);

	memset(t->buf, (int)(1 + below(t, 255)), len);
	for (uint64_t at = 0, n; at < len; at += n) {
		ssize_t r;

		n = 1 + below(t, 2ULL * t->config.block_pages * PAGE_SIZE);
		n = n < len - at ? n : len - at;
		r = vol_write(vol, t->buf + at, n, offset + at);
		if (r != (ssize_t)n)
			fail(t, "%llu+%llu was promised, and is refused: %s", (ull)(offset + at), (ull)n,
			     strerror((int)-r));
	}
	vol_put(vol);
	model_write(&t->m, v, t->buf, len, offset);
	model_touch(v, offset, len);
}

void
op_promise(struct property *t)
{
	struct model_vol *v = named_vol(t, false), *other = named_vol(t, false), *before;
	uint64_t offset, len;
	struct vol *vol;
	int r;

	if (!v || !t->config.may_fill)
		return;
	some_range(t, v, &offset, &len);
	doing(t, "promise %u '%s' %llu+%llu of %llu", v->id, v->name, (ull)offset, (ull)len,
	      (ull)v->size);
	vol = lookup(t, v);
	r = vol_fallocate(vol, 0, offset, len);
	vol_put(vol);
	before = model_vol_copy(v);
	model_fallocate(t, v, 0, offset, len);
	if (no_space(t, r, 0)) {
		adopt_partial(t, v, before);
	} else {
		if (other && other != v)
			fill(t, other);
		write_promised(t, v, offset, len);
	}
	model_vol_free(before);
}

static bool
ranges_overlap(uint64_t a, uint64_t b, uint64_t len)
{
	return a < b + len && b < a + len;
}

/* Blocks that lie alike in both are shared, often whole volumes. */
void
op_copy(struct property *t)
{
	struct model_vol *from = any_vol(t), *to = some_vol(t), *before;
	uint64_t block = (uint64_t)t->config.block_pages * PAGE_SIZE;
	uint64_t src, dst, len, unused, expected;
	struct vol *vol_from, *vol_to;
	ssize_t n;

	if (!from)
		return;
	some_range(t, from, &src, &len);
	some_range(t, to, &dst, &unused);
	if (percent(t, 60))
		dst = dst - dst % block + src % block;
	if (percent(t, 30)) {
		src = dst = 0;
		len = MODEL_BYTES;
	}
	expected = src >= from->size ? 0 : len < from->size - src ? len : from->size - src;
	if (expected > MODEL_BYTES - src || dst > MODEL_BYTES - expected)
		return;
	doing(t, "copy %u '%s/%s' %llu+%llu of %llu to %u '%s/%s' %llu of %llu", from->id, from->snapshot,
	      from->name, (ull)src, (ull)len, (ull)from->size, to->id, to->snapshot, to->name, (ull)dst,
	      (ull)to->size);
	vol_from = lookup(t, from);
	vol_to = lookup(t, to);
	n = vol_copy_range(vol_from, src, vol_to, dst, len);
	vol_put(vol_from);
	vol_put(vol_to);
	if (!expected) {
		if (n)
			fail(t, "%zd, not 0", n);
		return;
	}
	if (to->read_only) {
		no_space(t, (int)n, -EROFS);
		return;
	}
	if (from == to && ranges_overlap(src, dst, expected)) {
		no_space(t, (int)n, -EINVAL);
		return;
	}
	if (n >= 0 && (uint64_t)n != expected && !t->config.may_fill)
		fail(t, "%zd bytes copied, not %llu", n, (ull)expected);
	before = model_vol_copy(to);
	model_read(from, t->buf, expected, src);
	model_write(&t->m, to, t->buf, expected, dst);
	model_touch(to, dst, expected);
	to->twins |= from->twins || src != dst;
	if (no_space(t, n < 0 ? (int)n : 0, 0) || (uint64_t)n != expected)
		adopt_partial(t, to, before);
	model_vol_free(before);
}

void
op_seek(struct property *t)
{
	struct model_vol *v = some_vol(t);
	uint64_t at, len;

	if (!v || !v->size)
		return;
	some_range(t, v, &at, &len);
	at %= v->size;
	doing(t, "seek %u '%s/%s' %llu of %llu", v->id, v->snapshot, v->name, (ull)at, (ull)v->size);
	compare_seek(t, v, at);
}
