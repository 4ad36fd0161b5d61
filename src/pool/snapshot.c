/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * snapshot: snapshots of one volume, of some, or of all at one instant.
 *
 * Writers of all volumes in question are stopped first; each write that returned before is then in
 * place with its mapping. All devices are snapshotted under one hold of meta_lock, so in one
 * transaction, with one tick of the clock. Cost: O(number of volumes), whatever is in them.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"

struct frozen {
	struct vol *vol;
	struct range_hold hold;
};

struct selection {
	struct frozen *v;
	size_t nr;
	uint64_t nr_devices; /* of the pool, with a name or without */
	bool all; /* of the volumes: those that are removed meanwhile do not matter */
};

/* --- choosing volumes; meta_lock shared --- */

static int
select_all(struct pool *p, struct selection *s)
{
	struct vol *v;

	s->v = calloc(p->top->nr_vols + 1, sizeof(*s->v));
	if (!s->v)
		return -ENOMEM;
	s->all = true;
	RB_FOREACH(v, vol_dir_tree, &p->top->by_id)
		s->v[s->nr++].vol = vol_get(v);
	return 0;
}

static int
compare_frozen(const void *a, const void *b)
{
	const struct frozen *x = a, *y = b;

	return x->vol->id < y->vol->id ? -1 : x->vol->id > y->vol->id;
}

static int
select_named(struct pool *p, const char *const *names, size_t nr, struct selection *s)
{
	s->v = calloc(nr + 1, sizeof(*s->v));
	if (!s->v)
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++) {
		struct vol *v = names_find(p, p->top, names[i]);

		if (!v)
			return -ENOENT;
		s->v[s->nr++].vol = vol_get(v);
	}
	/* Range locks are taken by ascending id, each once. */
	qsort(s->v, s->nr, sizeof(*s->v), compare_frozen);
	for (size_t i = 1; i < s->nr; i++)
		if (s->v[i].vol == s->v[i - 1].vol)
			return -EINVAL;
	return 0;
}

static void
selection_free(struct selection *s)
{
	for (size_t i = 0; i < s->nr; i++)
		vol_put(s->v[i].vol);
	free(s->v);
}

/* --- taking it --- */

int
snapshot_device(struct vol *v, struct voldir *dir, const char *name, struct vol **out)
{
	struct pool *p = v->pool;
	struct vol *snap;
	uint32_t id;
	int r = names_new_id(p, &id);

	if (!r)
		r = meta_create_snap(p->tm, id, v->id);
	if (r)
		return r;
	snap = names_add(p, id, dir, name);
	if (!snap)
		return -ENOMEM;
	snap->has_record = true;
	snap->flags = RECORD_READ_ONLY | (v->flags & RECORD_SHRINKING);
	snap->mode = v->mode & 0555;
	snap->uid = v->uid;
	snap->gid = v->gid;
	snap->parent = v->id;
	snap->size = v->size;
	vol_inherit_origin(snap, v);
	snap->mtime_ns = v->mtime_ns;
	snap->btime_ns = now_ns();
	snap->ctime_ns = snap->btime_ns;
	*out = snap;
	return vol_record_changed(snap);
}

static int
snapshot_one(struct vol *v, struct voldir *dir)
{
	struct vol *snap;
	int r = snapshot_device(v, dir, v->name, &snap);

	if (!r) {
		snap->btime_ns = dir->btime_ns;
		snap->ctime_ns = dir->btime_ns;
	}
	return r;
}

/* A hidden device that keeps the name of a snapshot in which nothing is. */
static int
add_place_holder(struct pool *p, struct voldir *dir)
{
	struct vol *v;
	uint32_t id;
	int r = names_new_id(p, &id);

	if (!r)
		r = meta_require(p->tm, 2, 1, META_TO_DELETE);
	if (!r)
		r = catalog_require(p, id, 1);
	if (!r)
		r = meta_create_thin(p->tm, id);
	if (r)
		return r;
	v = names_add(p, id, dir, "");
	if (!v)
		return -ENOMEM;
	v->flags = RECORD_HIDDEN;
	v->btime_ns = dir->btime_ns;
	return vol_record_changed(v);
}

static bool
is_gone(const struct vol *v)
{
	return v->gone || !v->dir;
}

static size_t
nr_left(const struct selection *s)
{
	size_t nr = 0;

	for (size_t i = 0; i < s->nr; i++)
		nr += !is_gone(s->v[i].vol);
	return nr;
}

/* meta_lock exclusive, all in S frozen. */
static int
take(struct pool *p, const char *name, const struct selection *s, const struct pool_caller *caller)
{
	struct voldir *dir;
	size_t nr = nr_left(s);
	int r;

	if (names_find_dir(p, name))
		return -EEXIST;
	if (!s->all && nr < s->nr)
		return -ENOENT;
	r = catalog_require(p, p->next_id, s->nr + 1);
	if (!r)
		r = meta_tick(p->tm);
	if (r)
		return r;
	dir = names_add_dir(p, name);
	if (!dir)
		return -ENOMEM;
	dir->mode = caller->mode & 07777;
	dir->uid = caller->uid;
	dir->gid = caller->gid;
	dir->btime_ns = now_ns();
	for (size_t i = 0; i < s->nr && !r; i++)
		if (!is_gone(s->v[i].vol))
			r = snapshot_one(s->v[i].vol, dir);
	if (!r && !nr)
		r = add_place_holder(p, dir);
	p->names_changed_in = meta_open_txn(p->tm);
	return r;
}

int
snapshot_take_one(struct vol *v, const char *name, const struct pool_caller *caller)
{
	struct frozen one = {.vol = v};
	struct selection s = {.v = &one, .nr = 1};

	return take(v->pool, name, &s, caller);
}

static int
freeze_and_take(struct pool *p, const char *name, struct selection *s,
		const struct pool_caller *caller)
{
	int r;

	for (size_t i = 0; i < s->nr; i++)
		vol_lock_range(s->v[i].vol, &s->v[i].hold, RANGE_FREEZE, 0, UINT64_MAX);
	/* New numbers are adjacent, and entries of origins are in no more leaves than there are: dozens share one. */
	r = pool_begin_naming(p, 4 + (unsigned)(s->nr / 64 + s->nr_devices / 128), (unsigned)s->nr + 2);
	if (!r) {
		r = take(p, name, s, caller);
		pool_end_change(p);
	}
	for (size_t i = 0; i < s->nr; i++)
		vol_unlock_range(s->v[i].vol, &s->v[i].hold);
	return r;
}

static int
snapshot(struct pool *p, const char *name, const char *const *volumes, size_t nr,
	 const struct pool_caller *caller)
{
	struct selection s = {0};
	int r = name_check(name);

	if (!r)
		r = pool_check_writable(p);
	if (r)
		return r;
	mutex_lock(&p->snapshot_lock);
	rwlock_rdlock(&p->meta_lock);
	s.nr_devices = p->nr_devices;
	if (names_find_dir(p, name))
		r = -EEXIST;
	else
		r = volumes ? select_named(p, volumes, nr, &s) : select_all(p, &s);
	rwlock_unlock(&p->meta_lock);
	if (!r)
		r = freeze_and_take(p, name, &s, caller);
	mutex_unlock(&p->snapshot_lock);
	selection_free(&s);
	return r;
}

int
pool_snapshot_some(struct pool *p, const char *name, const char *const *volumes, size_t nr,
		   const struct pool_caller *caller)
{
	return snapshot(p, name, volumes, nr, caller);
}

int
pool_snapshot(struct pool *p, const char *name, const struct pool_caller *caller)
{
	const char *at = strrchr(name, '@');
	char volume[RECORD_NAME_SIZE];
	const char *one = volume;

	if (!at)
		return snapshot(p, name, NULL, 0, caller);
	if (at == name || !at[1])
		return -EINVAL;
	if ((size_t)(at - name) >= sizeof(volume))
		return -ENAMETOOLONG;
	snprintf(volume, sizeof(volume), "%.*s", (int)(at - name), name);
	return snapshot(p, name, &one, 1, caller);
}

/* --- removing --- */

int
snapshot_keep_dir(struct pool *p, struct voldir *dir, const struct vol *leaving)
{
	if (dir == p->top || dir->nr_vols > 1 || leaving->flags & RECORD_HIDDEN)
		return 0;
	return add_place_holder(p, dir);
}

/* All in DIR lose their names; those to be taken back go to LIST. meta_lock exclusive. */
static int
remove_all(struct pool *p, struct voldir *dir, struct vol **list, size_t *nr)
{
	struct vol *v, *next;
	int r = 0;

	RB_FOREACH(v, vol_dir_tree, &dir->by_id)
		if (v->opens)
			return -EBUSY;
	RB_FOREACH_SAFE(v, vol_dir_tree, &dir->by_id, next) {
		v->flags |= RECORD_DELETED;
		list[(*nr)++] = vol_get(v);
		names_detach(v);
		if (!r)
			r = catalog_changed(p, v->id);
		v->record_changed_in = meta_open_txn(p->tm);
	}
	names_remove_dir(dir);
	p->names_changed_in = meta_open_txn(p->tm);
	return r;
}

int
pool_remove_snapshot(struct pool *p, const char *name)
{
	struct vol **list = NULL;
	struct voldir *dir;
	size_t nr = 0;
	int r = pool_begin_change(p, 1, 0, META_TO_DELETE);

	if (r == -ENOSPC) /* it is the removal that may make room for its own record */
		r = pool_begin_change(p, 0, 0, META_TO_DELETE);
	if (r)
		return r;
	dir = names_find_dir(p, name);
	if (!dir) {
		r = -ENOENT;
	} else {
		list = calloc(dir->nr_vols + 1, sizeof(struct vol *));
		r = list ? remove_all(p, dir, list, &nr) : -ENOMEM;
	}
	pool_end_change(p);
	for (size_t i = 0; i < nr; i++) {
		reclaim_queue(list[i]);
		vol_put(list[i]);
	}
	free(list);
	return r;
}
