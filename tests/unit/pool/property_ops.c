/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "unit/pool/property.h"

#define MAX_TOP 6U
#define MAX_DIRS 6U

typedef unsigned long long ull;

static uint64_t
below(struct property *t, uint64_t bound)
{
	return random_below(&t->rs, bound);
}

static bool
percent(struct property *t, unsigned p)
{
	return below(t, 100) < p;
}

static const struct pool_caller caller = {.uid = 1, .gid = 1, .mode = 0644};

/* --- choosing --- */

static struct model_vol *
any_vol(struct property *t)
{
	const struct model_state *s = &t->m.now;

	return s->nr_vols ? s->vols[below(t, s->nr_vols)] : NULL;
}

/* One that has a name; of a snapshot, or not. */
static struct model_vol *
named_vol(struct property *t, bool in_snapshot)
{
	for (unsigned tries = 0; tries < 20; tries++) {
		struct model_vol *v = any_vol(t);

		if (v && v->name[0] && (v->snapshot[0] != '\0') == in_snapshot)
			return v;
	}
	return NULL;
}

/* Volumes of the top more often than the many in snapshots. */
static struct model_vol *
some_vol(struct property *t)
{
	struct model_vol *v = percent(t, 80) ? named_vol(t, false) : NULL;

	return v ? v : any_vol(t);
}

static unsigned
nr_top(struct property *t)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < t->m.now.nr_vols; i++)
		nr += t->m.now.vols[i]->name[0] && !t->m.now.vols[i]->snapshot[0];
	return nr;
}

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

/* --- errors --- */

/* Whether the operation has failed for lack of space; any other failure than EXPECTED fails the test. */
static bool
no_space(struct property *t, int r, int expected)
{
	if (r == expected)
		return false;
	if (r == -ENOSPC && t->config.may_fill)
		return true;
	fail(t, "%s, not %s", r ? strerror(-r) : "no error", expected ? strerror(-expected) : "0");
}

/* --- contents --- */

static void
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

static void
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

static void
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
		v->touched[i] = false;
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
	untouch(t, v, offset, end);
}

static void
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

static bool
ranges_overlap(uint64_t a, uint64_t b, uint64_t len)
{
	return a < b + len && b < a + len;
}

/* Blocks that lie alike in both are shared, often whole volumes. */
static void
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

static void
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

/* --- names --- */

static void
op_create(struct property *t)
{
	struct model_vol *same = percent(t, 10) ? named_vol(t, false) : NULL;
	struct vol_attr attr;
	char name[MODEL_NAME];
	struct vol *vol;
	int r;

	if (!same && nr_top(t) >= MAX_TOP)
		return;
	snprintf(name, sizeof(name), "v%u", t->next_name++);
	doing(t, "create '%s'", same ? same->name : name);
	r = pool_create(t->pool, pool_top(t->pool), same ? same->name : name, &caller, &vol);
	if (no_space(t, r, same ? -EEXIST : 0) || same)
		return;
	if (vol_getattr(vol, &attr) || attr.size || attr.mapped_bytes)
		fail(t, "it is not empty");
	vol_put(vol);
	if (model_find_id(&t->m.now, attr.id))
		fail(t, "number %u is in use", attr.id);
	model_add(&t->m, attr.id, "", name);
}

/* The name of V goes; it stays only while it is open. */
static void
model_unlink(struct property *t, struct model_vol *v)
{
	for (unsigned i = 0; i < MAX_HANDLES; i++) {
		if (t->handles[i].vol && t->handles[i].id == v->id) {
			v->name[0] = v->snapshot[0] = '\0';
			return;
		}
	}
	model_drop(&t->m, v);
}

static bool
is_open(struct property *t, const struct model_vol *v)
{
	for (unsigned i = 0; i < MAX_HANDLES; i++)
		if (t->handles[i].vol && t->handles[i].id == v->id)
			return true;
	return false;
}

static void
op_unlink(struct property *t)
{
	struct model_vol *v = named_vol(t, percent(t, 30));
	struct voldir *dir = pool_top(t->pool);
	struct pool_status before, after;
	uint64_t exclusive, freed;
	struct vol *vol;
	int r;

	if (!v)
		return;
	doing(t, "unlink '%s/%s'", v->snapshot, v->name);
	if (v->snapshot[0] && pool_lookup_snapshot(t->pool, v->snapshot, &dir))
		fail(t, "no snapshot '%s'", v->snapshot);
	if (percent(t, 50))
		do_commit(t); /* so that nothing else is freed with it */
	vol = lookup(t, v);
	if (vol_exclusive(vol, &exclusive))
		fail(t, "what is exclusive cannot be told");
	vol_put(vol);
	pool_get_status(t->pool, &before);
	r = pool_unlink(t->pool, dir, v->name);
	if (v->snapshot[0])
		voldir_put(dir);
	if (no_space(t, r, 0))
		return;
	pool_get_status(t->pool, &after);
	freed = (before.data_used - after.data_used) * before.block_bytes;
	/* In a full pool it may have taken a commit, which needs blocks for the catalog. */
	if (!is_open(t, v) && !t->config.may_fill && (v->twins ? freed < exclusive : freed != exclusive))
		fail(t, "%llu bytes were freed, of which %llu exclusive", (ull)freed, (ull)exclusive);
	model_unlink(t, v);
}

static int
rename_result(struct property *t, const struct model_vol *v, const struct model_vol *target,
	      unsigned flags)
{
	if (target == v)
		return 0;
	if (target && flags & POOL_RENAME_NOREPLACE)
		return -EEXIST;
	if (flags & POOL_RENAME_EXCHANGE)
		return !target ? -ENOENT : v->snapshot[0] ? -EPERM : 0;
	return 0;
}

static void
model_rename(struct property *t, struct model_vol *v, struct model_vol *target, const char *to,
	     unsigned flags)
{
	uint32_t id = v->id;
	char name[MODEL_NAME];

	if (target == v)
		return;
	snprintf(name, sizeof(name), "%s", to);
	if (target && flags & POOL_RENAME_EXCHANGE)
		memcpy(target->name, v->name, sizeof(name));
	else if (target)
		model_unlink(t, target);
	v = model_find_id(&t->m.now, id);
	memcpy(v->name, name, sizeof(name));
	if (v->snapshot[0])
		v->read_only = false;
	v->snapshot[0] = '\0';
}

static void
op_rename(struct property *t)
{
	static const unsigned all_flags[] = {0, 0, 0, POOL_RENAME_NOREPLACE, POOL_RENAME_EXCHANGE};
	struct model_vol *v = named_vol(t, percent(t, 40)), *target = named_vol(t, false);
	struct voldir *dir = pool_top(t->pool);
	unsigned flags = all_flags[below(t, 5)];
	char to[MODEL_NAME];
	int r, expected;

	if (!v || (!target && nr_top(t) >= MAX_TOP))
		return;
	if (nr_top(t) < MAX_TOP && percent(t, 50))
		target = NULL;
	if (target == v && flags)
		return;
	snprintf(to, sizeof(to), "v%u", t->next_name++);
	if (target)
		memcpy(to, target->name, sizeof(to));
	doing(t, "rename '%s/%s' to '%s' flags %u", v->snapshot, v->name, to, flags);
	if (v->snapshot[0] && pool_lookup_snapshot(t->pool, v->snapshot, &dir))
		fail(t, "no snapshot '%s'", v->snapshot);
	r = pool_rename(t->pool, dir, v->name, pool_top(t->pool), to, flags);
	if (v->snapshot[0])
		voldir_put(dir);
	expected = rename_result(t, v, target, flags);
	if (!no_space(t, r, expected) && !expected)
		model_rename(t, v, target, to, flags);
}

static void
op_open(struct property *t)
{
	struct handle *h = &t->handles[below(t, MAX_HANDLES)];
	struct model_vol *v;

	if (h->vol) {
		v = model_find_id(&t->m.now, h->id);
		doing(t, "release %u '%s'", h->id, v ? v->name : "gone");
		vol_release(h->vol);
		vol_put(h->vol);
		h->vol = NULL;
		for (unsigned i = 0; i < MAX_HANDLES; i++)
			if (t->handles[i].vol && t->handles[i].id == h->id)
				v = NULL;
		if (v && !v->name[0])
			model_drop(&t->m, v);
		return;
	}
	v = any_vol(t);
	if (!v || !v->name[0])
		return;
	doing(t, "open %u '%s/%s'", v->id, v->snapshot, v->name);
	h->vol = lookup(t, v);
	h->id = v->id;
	if (vol_open(h->vol, !v->read_only))
		fail(t, "not opened");
	if (v->read_only && vol_open(h->vol, true) != -EROFS)
		fail(t, "a read-only volume was opened for writing");
}

static void
op_setattr(struct property *t)
{
	struct model_vol *v = named_vol(t, percent(t, 80));
	struct vol_attr attr = {.mode = percent(t, 70) ? 0644 : 0444};
	struct vol *vol;
	int r;

	if (!v)
		return;
	doing(t, "chmod %o '%s/%s'", attr.mode, v->snapshot, v->name);
	vol = lookup(t, v);
	r = vol_setattr(vol, VOL_SET_MODE, &attr);
	vol_put(vol);
	if (!no_space(t, r, 0) && v->snapshot[0])
		v->read_only = attr.mode == 0444;
}

/* --- snapshots --- */

/* Add what is in the new snapshot: NAME of all, or of ONE. */
static void
model_take(struct property *t, const char *name, const struct model_vol *one)
{
	unsigned nr = t->m.now.nr_vols;
	struct voldir *dir;

	if (pool_lookup_snapshot(t->pool, name, &dir))
		fail(t, "there is no '%s'", name);
	model_add_dir(&t->m, name);
	for (unsigned i = 0; i < nr; i++) {
		struct model_vol *v = t->m.now.vols[i];
		struct vol_attr attr;
		struct vol *vol;

		if (!v->name[0] || v->snapshot[0] || (one && v != one))
			continue;
		if (pool_lookup(t->pool, dir, v->name, &vol) || vol_getattr(vol, &attr))
			fail(t, "'%s' is not in the snapshot", v->name);
		vol_put(vol);
		if (attr.parent != v->id || !attr.has_parent)
			fail(t, "the parent is %u, not %u", attr.parent, v->id);
		model_snapshot(&t->m, v, attr.id, name);
	}
	voldir_put(dir);
}

static void
op_snapshot(struct property *t)
{
	struct model_vol *one = percent(t, 50) ? named_vol(t, false) : NULL;
	struct model_state *s = &t->m.now;
	char name[MODEL_NAME];
	int r, expected = 0;

	if (s->nr_dirs >= MAX_DIRS)
		return;
	if (one)
		snprintf(name, sizeof(name), "%.20s@t%u", one->name, t->next_name++);
	else
		snprintf(name, sizeof(name), "s%u", t->next_name++);
	if (s->nr_dirs && percent(t, 5)) {
		memcpy(name, s->dirs[below(t, s->nr_dirs)].name, sizeof(name));
		expected = -EEXIST;
	}
	doing(t, "snapshot '%s'", name);
	r = pool_snapshot(t->pool, name, &caller);
	if (expected == -EEXIST && r == -ENOENT && strchr(name, '@'))
		return; /* the volume it was made of is not there any more */
	if (!no_space(t, r, expected) && !expected)
		model_take(t, name, one);
}

static bool
is_busy(struct property *t, const char *name)
{
	for (unsigned i = 0; i < MAX_HANDLES; i++) {
		struct model_vol *v = t->handles[i].vol
					      ? model_find_id(&t->m.now, t->handles[i].id) : NULL;

		if (v && !strcmp(v->snapshot, name))
			return true;
	}
	return false;
}

static void
op_remove_snapshot(struct property *t)
{
	struct model_state *s = &t->m.now;
	char name[MODEL_NAME];
	bool busy;
	int r;

	if (!s->nr_dirs)
		return;
	memcpy(name, s->dirs[below(t, s->nr_dirs)].name, sizeof(name));
	busy = is_busy(t, name);
	doing(t, "remove snapshot '%s'%s", name, busy ? " (busy)" : "");
	r = pool_remove_snapshot(t->pool, name);
	if (no_space(t, r, busy ? -EBUSY : 0) || busy)
		return;
	for (unsigned i = s->nr_vols; i-- > 0;)
		if (!strcmp(s->vols[i]->snapshot, name))
			model_drop(&t->m, s->vols[i]);
	model_drop_dir(&t->m, name);
}

static void
op_clone(struct property *t)
{
	struct model_vol *same = percent(t, 10) ? named_vol(t, false) : NULL;
	struct model_vol *from = named_vol(t, percent(t, 60)), *v;
	struct vol_attr attr;
	char name[MODEL_NAME];
	struct vol *vol;
	int r;

	if (!from || (!same && nr_top(t) >= MAX_TOP))
		return;
	snprintf(name, sizeof(name), "v%u", t->next_name++);
	if (same)
		memcpy(name, same->name, sizeof(name));
	doing(t, "clone %u '%s/%s' to '%s'", from->id, from->snapshot, from->name, name);
	vol = lookup(t, from);
	r = pool_clone(t->pool, vol, name, &caller);
	vol_put(vol);
	if (no_space(t, r, same ? -EEXIST : 0) || same)
		return;
	if (pool_lookup(t->pool, pool_top(t->pool), name, &vol) || vol_getattr(vol, &attr))
		fail(t, "there is no '%s'", name);
	vol_put(vol);
	if (attr.parent != from->id || attr.size != from->size || attr.read_only)
		fail(t, "the clone's parent is %u, its size %llu", attr.parent, (ull)attr.size);
	v = model_snapshot(&t->m, from, attr.id, "");
	memcpy(v->name, name, sizeof(name));
	v->read_only = false;
}

static void
op_revert(struct property *t)
{
	struct model_vol *v = named_vol(t, false), *from = named_vol(t, percent(t, 95));
	struct vol *vol, *vol_from;
	char name[MODEL_NAME];
	int r, expected;

	if (!v || !from || t->m.now.nr_dirs >= MAX_DIRS)
		return;
	snprintf(name, sizeof(name), "%.20s@r%u", v->name, t->next_name++);
	doing(t, "revert %u '%s' to %u '%s/%s', keeping '%s'", v->id, v->name, from->id, from->snapshot,
	      from->name, name);
	vol = lookup(t, v);
	vol_from = lookup(t, from);
	r = pool_revert(t->pool, vol, vol_from, name, &caller);
	vol_put(vol);
	vol_put(vol_from);
	expected = !from->snapshot[0] ? -EXDEV : is_open(t, v) ? -EBUSY : 0;
	if (no_space(t, r, expected) || expected)
		return;
	model_take(t, name, v);
	/* The snapshot of it is in no other way connected with the volume than any. */
	model_assign(&t->m, v, from);
}

/* --- one of them --- */

static const struct {
	void (*fn)(struct property *t);
	unsigned weight;
} ops[] = {
	{op_write, 40}, {op_read, 20}, {op_truncate, 6}, {op_fallocate, 12}, {op_seek, 6},
	{op_create, 3}, {op_unlink, 2}, {op_rename, 2}, {op_open, 3}, {op_setattr, 2},
	{op_snapshot, 3}, {op_remove_snapshot, 2}, {op_copy, 8},
	{op_clone, 2}, {op_revert, 2},
};

void
property_op(struct property *t)
{
	unsigned at = (unsigned)below(t, 113);

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (at < ops[i].weight) {
			ops[i].fn(t);
			return;
		}
		at -= ops[i].weight;
	}
}
