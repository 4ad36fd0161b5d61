/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "unit/pool/property_ops.h"

void
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
	r = pool_create(t->pool, pool_top(t->pool), same ? same->name : name, &property_caller, &vol);
	if (no_space(t, r, same ? -EEXIST : 0) || same)
		return;
	if (vol_getattr(vol, &attr) || attr.size || attr.mapped_bytes)
		fail(t, "it is not empty");
	vol_put(vol);
	if (model_find_id(&t->m.now, attr.id))
		fail(t, "number %u is in use", attr.id);
	model_add(&t->m, attr.id, "", name);
}

/* Over an external origin: as if that had been written to it, but for what is mapped. */
void
op_create_over(struct property *t)
{
	uint64_t size = percent(t, 30) ? UINT64_MAX : below(t, 2 * ORIGIN_BYTES);
	uint64_t shown = size < ORIGIN_BYTES ? size : ORIGIN_BYTES;
	struct model_vol *v;
	struct vol_attr attr;
	char name[MODEL_NAME];
	struct vol *vol;
	int r;

	if (nr_top(t) >= MAX_TOP)
		return;
	snprintf(name, sizeof(name), "v%u", t->next_name++);
	doing(t, "create '%s' of %llu over an origin", name, (ull)size);
	r = pool_create_over(t->pool, name, &property_caller, t->origin, size, &vol);
	if (no_space(t, r, 0))
		return;
	if (vol_getattr(vol, &attr) || attr.mapped_bytes || attr.origin_size != shown ||
	    attr.size != (size == UINT64_MAX ? ORIGIN_BYTES : size))
		fail(t, "it has %llu bytes, %llu of the origin", (ull)attr.size, (ull)attr.origin_size);
	vol_put(vol);
	v = model_add(&t->m, attr.id, "", name);
	for (uint64_t at = 0; at < shown; at++)
		t->buf[at] = property_origin_byte(at);
	model_write(&t->m, v, t->buf, shown, 0);
	v->size = attr.size;
	v->over = shown;
	v->twins = true; /* of zeros */
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

void
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
	/* What takes several steps, or is done in a full pool, may take a commit, which needs blocks for the catalog. */
	if (!is_open(t, v) && t->meta.nr_flushes == t->nr_flushes && (v->twins ? freed < exclusive : freed != exclusive))
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

void
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

void
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

void
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
