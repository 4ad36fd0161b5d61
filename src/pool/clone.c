/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * clone: a writable copy of a volume, and going back to a snapshot. Both are snapshots to the metadata: they
 * cost the same whatever is in the volume.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"

/* --- cloning --- */

/* meta_lock exclusive, FROM frozen. */
static int
clone_locked(struct vol *from, const char *name, const struct pool_caller *caller)
{
	struct pool *p = from->pool;
	struct vol *v;
	int r;

	if (from->gone || !from->dir)
		return -ENOENT;
	if (names_find(p, p->top, name))
		return -EEXIST;
	r = catalog_require(p, p->next_id, 1);
	if (!r)
		r = meta_tick(p->tm);
	if (!r)
		r = snapshot_device(from, p->top, name, &v);
	if (r)
		return r;
	v->flags &= ~(uint32_t)RECORD_READ_ONLY;
	v->mode = (from->mode & 0777) | 0200;
	v->uid = caller->uid;
	v->gid = caller->gid;
	p->names_changed_in = meta_open_txn(p->tm);
	return 0;
}

int
pool_clone(struct pool *p, struct vol *from, const char *name, const struct pool_caller *caller)
{
	struct range_hold hold;
	int r = name_check(name);

	if (!r && !strcmp(name, SNAPSHOTS_DIR))
		r = -EEXIST;
	if (r)
		return r;
	mutex_lock(&p->snapshot_lock); /* as for pool_create() */
	vol_lock_range(from, &hold, RANGE_FREEZE, 0, UINT64_MAX);
	r = pool_begin_naming(p, 4, 2);
	if (!r) {
		r = clone_locked(from, name, caller);
		pool_end_change(p);
	}
	vol_unlock_range(from, &hold);
	mutex_unlock(&p->snapshot_lock);
	return r;
}

/* --- going back --- */

static int
check_revert(const struct vol *v, const struct vol *from)
{
	struct pool *p = v->pool;

	if (v->gone || !v->dir || from->gone || !from->dir)
		return -ENOENT;
	if (v->dir != p->top || from->dir == p->top)
		return -EXDEV;
	return v->opens ? -EBUSY : 0;
}

/*
 * The same device number with other mappings. What it had is in the snapshot just taken, which shares the root: so deleting
 * it costs no more than that.
 */
static int
replace_device(struct vol *v, const struct vol *from)
{
	struct pool *p = v->pool;
	int r;

	vol_drop_dev(v);
	r = meta_delete_thin(p->tm, v->id);
	if (!r)
		r = meta_create_snap(p->tm, v->id, from->id);
	if (r)
		return r;
	v->flags = (v->flags & ~(uint32_t)RECORD_SHRINKING) | (from->flags & RECORD_SHRINKING);
	v->size = from->size;
	vol_inherit_origin(v, from);
	v->parent = from->id;
	v->clean_end = 0;
	return vol_record_changed(v);
}

static int
revert_locked(struct vol *v, const struct vol *from, const char *safety,
	      const struct pool_caller *caller)
{
	int r = check_revert(v, from);

	if (!r)
		r = catalog_require(v->pool, v->id, 1);
	if (!r)
		r = snapshot_take_one(v, safety, caller);
	return r ? r : replace_device(v, from);
}

int
pool_revert(struct pool *p, struct vol *v, struct vol *from, const char *safety,
	    const struct pool_caller *caller)
{
	struct range_hold hold_v, hold_from;
	int r = name_check(safety);

	if (!r && v == from)
		r = -EXDEV;
	if (r)
		return r;
	mutex_lock(&p->snapshot_lock);
	if (from->id < v->id)
		vol_lock_range(from, &hold_from, RANGE_FREEZE, 0, UINT64_MAX);
	vol_lock_range(v, &hold_v, RANGE_CHANGE, 0, UINT64_MAX);
	if (from->id > v->id)
		vol_lock_range(from, &hold_from, RANGE_FREEZE, 0, UINT64_MAX);
	r = pool_begin_naming(p, 6, 4);
	if (!r) {
		r = revert_locked(v, from, safety, caller);
		pool_end_change(p);
	}
	vol_unlock_range(from, &hold_from);
	vol_unlock_range(v, &hold_v);
	mutex_unlock(&p->snapshot_lock);
	if (!r)
		vol_wrote(v);
	return r;
}
