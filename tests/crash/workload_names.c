/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "crash/external.h"
#include "crash/workload_ops.h"

void
op_create(struct workload *w)
{
	char name[ORACLE_NAME];
	struct vol *vol;
	int r;

	if (count(w, TOP) >= WORKLOAD_MAX_TOP)
		return;
	snprintf(name, sizeof(name), "v%u", w->next_name++);
	trace(w, "create %s", name);
	r = pool_create(w->pool, pool_top(w->pool), name, &workload_caller, &vol);
	if (!r)
		vol_put(vol);
	ended_birth(w, r);
}

static const struct entry *
find(struct workload *w, const char *dir, const char *name)
{
	const struct version *v = oracle_now(w->oracle);

	for (unsigned i = 0; i < v->nr; i++)
		if (v->v[i].id != ORACLE_DIR && !strcmp(v->v[i].dir, dir) && !strcmp(v->v[i].name, name))
			return &v->v[i];
	return NULL;
}

/* Of any size, or the origin's. */
static uint64_t
size_over(struct workload *w, unsigned nr)
{
	uint64_t size = below(w, 2) ? external_size(nr) : below(w, ORACLE_BYTES);

	if (size > ORACLE_BYTES)
		size = ORACLE_BYTES;
	if (whole_sectors(w))
		size -= size % ORACLE_SECTOR;
	return size;
}

void
op_create_over(struct workload *w)
{
	static uint8_t shown[ORACLE_BYTES];
	unsigned nr = (unsigned)below(w, NR_EXTERNAL);
	uint64_t size = size_over(w, nr);
	char name[ORACLE_NAME];
	const struct entry *e;
	struct vol *vol;
	int r;

	if (count(w, TOP) >= WORKLOAD_MAX_TOP)
		return;
	snprintf(name, sizeof(name), "v%u", w->next_name++);
	trace(w, "create %s of %llu over external %u", name, (unsigned long long)size, nr);
	r = pool_create_over(w->pool, name, &workload_caller, external_path(nr), size, &vol);
	if (!r)
		vol_put(vol);
	if (!ended_birth(w, r))
		return;
	e = find(w, "", name);
	external_read(nr, shown);
	if (e)
		oracle_write(w->oracle, e->id, shown, size, 0, true);
}

static struct voldir *
dir_of(struct workload *w, const struct entry *e)
{
	struct voldir *dir;

	if (!e->dir[0])
		return voldir_get(pool_top(w->pool));
	return pool_lookup_snapshot(w->pool, e->dir, &dir) ? NULL : dir;
}

void
op_unlink(struct workload *w)
{
	struct voldir *dir;
	struct entry e;
	int r;

	if (w->held && below(w, 2)) {
		trace(w, "release");
		release(w);
		ended(w, 0);
		return;
	}
	if (!choose(w, below(w, 3) ? TOP : SNAPSHOT, &e))
		return;
	trace(w, "unlink %s/%s", e.dir, e.name);
	if (!w->held && below(w, 2)) {
		w->held = lookup(w, &e);
		if (w->held && vol_open(w->held, false)) {
			vol_put(w->held);
			w->held = NULL;
		}
	}
	dir = dir_of(w, &e);
	r = dir ? pool_unlink(w->pool, dir, e.name) : -ENOENT;
	if (dir)
		voldir_put(dir);
	ended(w, r);
}

void
op_rename(struct workload *w)
{
	struct entry e, over;
	struct voldir *dir;
	unsigned flags = 0;
	int r;

	if (!choose(w, below(w, 3) ? TOP : SNAPSHOT, &e))
		return;
	if (!below(w, 3) || !choose(w, TOP, &over)) {
		if (count(w, TOP) >= WORKLOAD_MAX_TOP)
			return;
		snprintf(over.name, sizeof(over.name), "v%u", w->next_name++);
	} else if (!e.dir[0] && below(w, 2)) {
		flags = POOL_RENAME_EXCHANGE;
	}
	trace(w, "rename %s/%s to %s flags %u", e.dir, e.name, over.name, flags);
	dir = dir_of(w, &e);
	r = dir ? pool_rename(w->pool, dir, e.name, pool_top(w->pool), over.name, flags) : -ENOENT;
	if (dir)
		voldir_put(dir);
	ended(w, r);
}

void
op_chmod(struct workload *w)
{
	struct vol_attr attr = {.mode = below(w, 3) ? 0644 : 0444};
	struct entry e;
	struct vol *vol;
	int r;

	if (!choose(w, SNAPSHOT, &e))
		return;
	trace(w, "chmod %o %s/%s", attr.mode, e.dir, e.name);
	vol = lookup(w, &e);
	r = vol ? vol_setattr(vol, VOL_SET_MODE, &attr) : -ENOENT;
	if (vol)
		vol_put(vol);
	ended(w, r);
}

void
op_remove_snapshot(struct workload *w)
{
	struct entry dirs[WORKLOAD_MAX_DIRS];
	unsigned nr = list_dirs(w, dirs);
	const char *name;
	int r;

	if (!nr)
		return;
	name = dirs[below(w, nr)].dir;
	trace(w, "remove snapshot %s", name);
	r = pool_remove_snapshot(w->pool, name);
	ended(w, r == -EBUSY && w->held ? 0 : r);
}

void
op_snapshot(struct workload *w)
{
	struct entry dirs[WORKLOAD_MAX_DIRS], one;
	const struct version *v;
	char name[ORACLE_NAME];
	int r;

	if (list_dirs(w, dirs) == WORKLOAD_MAX_DIRS) {
		op_remove_snapshot(w);
		return;
	}
	if (below(w, 2) && choose(w, TOP, &one))
		snprintf(name, sizeof(name), "%.20s@t%u", one.name, w->next_name++);
	else
		snprintf(name, sizeof(name), "s%u", w->next_name++);
	trace(w, "snapshot %s", name);
	r = pool_snapshot(w->pool, name, &workload_caller);
	if (!ended_birth(w, r))
		return;
	v = oracle_now(w->oracle);
	for (unsigned i = 0; i < v->nr; i++)
		if (v->v[i].id != ORACLE_DIR && !strcmp(v->v[i].dir, name))
			oracle_snapshot(w->oracle, v->v[i].id, v->v[i].parent);
}


void
op_clone(struct workload *w)
{
	char name[ORACLE_NAME];
	const struct entry *e;
	struct entry from;
	struct vol *vol;
	int r;

	if (count(w, TOP) >= WORKLOAD_MAX_TOP || !choose(w, ANY, &from))
		return;
	snprintf(name, sizeof(name), "v%u", w->next_name++);
	trace(w, "clone %s/%s (%u) to %s", from.dir, from.name, from.id, name);
	vol = lookup(w, &from);
	r = vol ? pool_clone(w->pool, vol, name, &workload_caller) : -ENOENT;
	if (vol)
		vol_put(vol);
	if (!ended_birth(w, r))
		return;
	e = find(w, "", name);
	if (e)
		oracle_take(w->oracle, e->vol, from.vol);
}

/* The volume and the snapshot of what it had, both as of this operation. */
static void
tell_reverted(struct workload *w, const struct entry *old, const struct entry *from, const char *safety)
{
	const struct entry *now = find(w, "", old->name), *kept = find(w, safety, old->name);

	if (now)
		oracle_take(w->oracle, now->vol, from->vol);
	if (kept)
		oracle_take(w->oracle, kept->vol, old->vol);
}

void
op_revert(struct workload *w)
{
	struct entry dirs[WORKLOAD_MAX_DIRS], old, from;
	char safety[ORACLE_NAME];
	struct vol *vol, *to;
	int r = -ENOENT;

	if (list_dirs(w, dirs) == WORKLOAD_MAX_DIRS) {
		op_remove_snapshot(w);
		return;
	}
	if (!choose(w, SNAPSHOT, &from) || !choose(w, TOP, &old))
		return;
	snprintf(safety, sizeof(safety), "%.20s@r%u", old.name, w->next_name++);
	trace(w, "revert %u %s to %u %s/%s, keeping %s", old.id, old.name, from.id, from.dir, from.name,
	      safety);
	vol = lookup(w, &old);
	to = lookup(w, &from);
	if (vol && to)
		r = pool_revert(w->pool, vol, to, safety, &workload_caller);
	if (vol)
		vol_put(vol);
	if (to)
		vol_put(to);
	if (!r)
		oracle_replaced(w->oracle, old.id);
	if (ended_birth(w, r))
		tell_reverted(w, &old, &from, safety);
}
