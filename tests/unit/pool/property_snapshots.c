/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "unit/pool/property_ops.h"

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

void
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
	r = pool_snapshot(t->pool, name, &property_caller);
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

void
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

void
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
	r = pool_clone(t->pool, vol, name, &property_caller);
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

void
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
	r = pool_revert(t->pool, vol, vol_from, name, &property_caller);
	vol_put(vol);
	vol_put(vol_from);
	expected = !from->snapshot[0] ? -EXDEV : is_open(t, v) ? -EBUSY : 0;
	if (no_space(t, r, expected) || expected)
		return;
	model_take(t, name, v);
	/* The snapshot of it is in no other way connected with the volume than any. */
	model_assign(&t->m, v, from);
}
