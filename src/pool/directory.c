/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * directory: creating, renaming and unlinking volumes. Each is one change under meta_lock, so a
 * commit has all of it or nothing.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"

static int
check_volume_name(const char *name)
{
	int r = name_check(name);

	return !r && !strcmp(name, SNAPSHOTS_DIR) ? -EEXIST : r;
}

static void
names_changed(struct pool *p)
{
	p->names_changed_in = meta_open_txn(p->tm);
}

/* ORIGIN NULL: none. */
static int
create_locked(struct pool *p, const char *name, const struct pool_caller *caller, struct origin *origin,
	      uint64_t size, struct vol **out)
{
	struct vol *v;
	uint32_t id;
	int r;

	if (names_find(p, p->top, name))
		return -EEXIST;
	r = names_new_id(p, &id);
	if (!r)
		r = catalog_require(p, id, 1);
	if (!r)
		r = meta_create_thin(p->tm, id);
	if (r)
		return r;
	v = names_add(p, id, p->top, name);
	if (!v)
		return -ENOMEM;
	v->mode = caller->mode & 07777;
	v->uid = caller->uid;
	v->gid = caller->gid;
	v->btime_ns = now_ns();
	v->mtime_ns = v->btime_ns;
	v->ctime_ns = v->btime_ns;
	v->clean_end = UINT64_MAX;
	v->size = size;
	v->origin = origin;
	v->origin_end = origin ? min_u64(size, origin_identity(origin)->size) : 0;
	r = vol_record_changed(v);
	names_changed(p);
	*out = vol_get(v);
	return r;
}

static int
create(struct pool *p, const char *name, const struct pool_caller *caller, struct origin *origin, uint64_t size,
       struct vol **out)
{
	int r;

	/* No volume comes while one snapshot of all is on its way: it would not be in it. */
	mutex_lock(&p->snapshot_lock);
	/* The volume, perhaps the catalog, a record. */
	r = pool_begin_naming(p, 2, 2);
	if (!r) {
		r = create_locked(p, name, caller, origin, size, out);
		pool_end_change(p);
	}
	mutex_unlock(&p->snapshot_lock);
	return r;
}

int
pool_create(struct pool *p, struct voldir *dir, const char *name, const struct pool_caller *caller,
	    struct vol **out)
{
	int r = check_volume_name(name);

	if (!r && dir != p->top)
		r = -EPERM;
	return r ? r : create(p, name, caller, NULL, 0, out);
}

int
pool_create_over(struct pool *p, const char *name, const struct pool_caller *caller, const char *path,
		 uint64_t size, struct vol **out)
{
	struct origin *origin;
	int r = check_volume_name(name);

	if (!r)
		r = pool_check_writable(p);
	if (!r && strlen(path) >= RECORD_ORIGIN_SIZE)
		r = -ENAMETOOLONG;
	if (!r && size != UINT64_MAX && size > VOL_SIZE_MAX)
		r = -EFBIG;
	if (!r)
		r = origin_find(&p->origins, path, &origin);
	if (r)
		return r;
	if (size == UINT64_MAX)
		size = origin_identity(origin)->size;
	return create(p, name, caller, origin, size, out);
}

/* --- unlinking --- */

/* Take the name away; *queue: the device may go now. */
static int
unlink_locked(struct vol *v, bool *queue)
{
	struct pool *p = v->pool;
	bool remember = !p->catalog.foreign;
	int r = 0;

	/* What goes at once, in this transaction or not at all, need not be remembered. */
	if (remember && !v->has_record && !v->opens) {
		r = reclaim_is_cheap(v, &remember);
		remember = !remember;
		if (!r && !remember)
			return reclaim_whole(v);
	}
	if (!r && remember && !v->has_record)
		r = meta_require(p->tm, 1, 0, META_TO_DELETE);
	if (!r && remember)
		r = vol_record_changed(v);
	if (r && (r != -ENOSPC || v->opens))
		return r;
	v->flags |= RECORD_DELETED;
	v->ctime_ns = now_ns();
	names_detach(v);
	names_changed(p);
	*queue = !v->opens;
	return 0;
}

static int
try_unlink(struct pool *p, struct voldir *dir, const char *name)
{
	bool queue = false;
	struct vol *v;
	int r = pool_begin_change(p, 0, 0, META_TO_DELETE);

	if (r)
		return r;
	v = names_find(p, dir, name);
	r = -ENOENT;
	if (v) {
		vol_get(v);
		r = snapshot_keep_dir(p, dir, v);
		if (!r)
			r = unlink_locked(v, &queue);
	}
	pool_end_change(p);
	if (queue)
		reclaim_queue(v);
	if (v)
		vol_put(v);
	return r;
}

int
pool_unlink(struct pool *p, struct voldir *dir, const char *name)
{
	int r = try_unlink(p, dir, name);

	/* What this transaction freed can be used after a commit. */
	if (r == -ENOSPC && pool_sync_wait(p, NULL) != -EIO)
		r = try_unlink(p, dir, name);
	return r;
}

/* --- renaming --- */

/* Give V the name NAME in the top directory; it is attached nowhere yet. */
static int
rename_locked(struct vol *v, struct voldir *from_dir, char *name)
{
	struct pool *p = v->pool;

	names_attach(v, p->top, name);
	if (from_dir != p->top) {
		v->flags &= ~(uint32_t)RECORD_READ_ONLY;
		v->mode |= 0200;
	}
	v->ctime_ns = now_ns();
	names_changed(p);
	return vol_record_changed(v);
}

static int
exchange(struct vol *a, struct vol *b)
{
	struct pool *p = a->pool;
	char *name_a = strdup(a->name), *name_b = strdup(b->name);
	int r;

	if (!name_a || !name_b) {
		free(name_a);
		free(name_b);
		return -ENOMEM;
	}
	names_detach(a);
	names_detach(b);
	r = rename_locked(a, p->top, name_b);
	return r ? r : rename_locked(b, p->top, name_a);
}

static int
replace(struct vol *v, struct voldir *from_dir, struct vol *target, const char *to, bool *queue)
{
	char *name = strdup(to);
	int r = name ? 0 : -ENOMEM;

	if (!r)
		r = snapshot_keep_dir(v->pool, from_dir, v);
	if (!r && target)
		r = unlink_locked(target, queue);
	if (r) {
		free(name);
		return r;
	}
	names_detach(v);
	return rename_locked(v, from_dir, name);
}

static int
rename_checked(struct pool *p, struct voldir *from_dir, struct vol *v, struct vol *target,
	       const char *to, unsigned flags, bool *queue)
{
	int r = catalog_require(p, v->id, 1);

	if (!r && target)
		r = catalog_require(p, target->id, 1);
	if (r)
		return r;
	if (target && flags & POOL_RENAME_NOREPLACE)
		return -EEXIST;
	if (flags & POOL_RENAME_EXCHANGE) {
		if (!target)
			return -ENOENT;
		return from_dir == p->top ? exchange(v, target) : -EPERM;
	}
	return replace(v, from_dir, target, to, queue);
}

int
pool_rename(struct pool *p, struct voldir *from_dir, const char *from, struct voldir *to_dir,
	    const char *to, unsigned flags)
{
	struct vol *v, *target = NULL;
	bool queue = false;
	int r = check_volume_name(to);

	if (!r && to_dir != p->top)
		r = -EPERM;
	if (r)
		return r;
	mutex_lock(&p->snapshot_lock); /* as for pool_create() */
	r = pool_begin_naming(p, 3, 2);
	if (r) {
		mutex_unlock(&p->snapshot_lock);
		return r;
	}
	v = names_find(p, from_dir, from);
	if (!v) {
		r = -ENOENT;
	} else {
		target = names_find(p, p->top, to);
		if (target)
			vol_get(target);
		if (target != v)
			r = rename_checked(p, from_dir, v, target, to, flags, &queue);
	}
	pool_end_change(p);
	mutex_unlock(&p->snapshot_lock);
	if (queue)
		reclaim_queue(target);
	if (target)
		vol_put(target);
	return r;
}
