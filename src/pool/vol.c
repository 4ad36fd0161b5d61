/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vol: a volume's attributes, and what its operations have in common.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"

int
vol_dev(struct vol *v, struct thin_dev **dev)
{
	int r = 0;

	if (v->gone)
		return -ESTALE;
	if (!v->dev)
		r = dev_open(v->pool->tm, v->id, &v->dev);
	*dev = v->dev;
	return r == -ENODATA ? -ESTALE : r;
}

int
vol_lock_shared(struct vol *v)
{
	struct pool *p = v->pool;
	struct thin_dev *dev;
	int r;

	rwlock_rdlock(&p->meta_lock);
	if (v->dev && !v->gone)
		return 0;
	rwlock_unlock(&p->meta_lock);

	rwlock_wrlock(&p->meta_lock);
	r = vol_dev(v, &dev);
	rwlock_unlock(&p->meta_lock);
	if (r)
		return r;
	rwlock_rdlock(&p->meta_lock);
	if (v->dev && !v->gone)
		return 0;
	rwlock_unlock(&p->meta_lock);
	return -ESTALE;
}

int
vol_record_changed(struct vol *v)
{
	int r = v->has_record ? 0 : catalog_require(v->pool, v->id, 1);

	if (!r)
		r = catalog_changed(v->pool, v->id);
	if (r)
		return r;
	v->has_record = true;
	v->record_changed_in = meta_open_txn(v->pool->tm);
	return 0;
}

int
vol_keep_size(struct vol *v)
{
	int r;

	/* A full pool must still discard. */
	if (v->has_record || v->pool->catalog.foreign || !pool_has_metadata_space(v->pool))
		return 0;
	r = vol_record_changed(v);
	return r == -ENOSPC ? 0 : r;
}

uint64_t
vol_block(const struct vol *v, uint64_t offset)
{
	return offset / v->pool->block_bytes;
}

void
vol_wrote(struct vol *v)
{
	int64_t now = now_ns();

	v->mtime_ns = now;
	v->ctime_ns = now;
	if (!v->mtime_dirty)
		v->mtime_dirty = true;
}

/* --- attributes --- */

static struct timespec
ns_to_timespec(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

int
vol_getattr(struct vol *v, struct vol_attr *attr)
{
	struct origin_view origin;
	struct dev_info info;
	int r = vol_lock_shared(v);

	if (r)
		return r;
	dev_get_info(v->dev, &info);
	origin = vol_origin(v);
	*attr = (struct vol_attr){
		.id = v->id,
		.generation = v->generation,
		.size = v->size,
		.mapped_bytes = info.mapped_blocks * v->pool->block_bytes,
		.mode = v->mode,
		.uid = v->uid,
		.gid = v->gid,
		.btime = ns_to_timespec(v->btime_ns),
		.mtime = ns_to_timespec(v->mtime_ns),
		.ctime = ns_to_timespec(v->ctime_ns),
		.read_only = v->flags & RECORD_READ_ONLY,
		.has_parent = v->parent != RECORD_NO_PARENT,
		.parent = v->parent,
		.deleted = !v->dir,
		.opens = v->opens,
		.origin = origin.origin ? origin_path(origin.origin) : NULL,
		.origin_size = origin.end,
	};
	rwlock_unlock(&v->pool->meta_lock);
	return 0;
}

static void
set_mode(struct vol *v, uint32_t mode)
{
	v->mode = mode & 07777;
	if (!v->dir || v->dir == v->pool->top)
		return;
	if (mode & 0222)
		v->flags &= ~(uint32_t)RECORD_READ_ONLY;
	else
		v->flags |= RECORD_READ_ONLY;
}

int
vol_setattr(struct vol *v, unsigned which, const struct vol_attr *attr)
{
	struct pool *p = v->pool;
	int r = pool_begin_change(p, 2, 1, META_TO_ADD);

	if (r)
		return r;
	r = v->gone ? -ESTALE : vol_record_changed(v);
	if (!r) {
		if (which & VOL_SET_MODE)
			set_mode(v, attr->mode);
		if (which & VOL_SET_UID)
			v->uid = attr->uid;
		if (which & VOL_SET_GID)
			v->gid = attr->gid;
		v->ctime_ns = now_ns();
		if (which & VOL_SET_MTIME)
			v->mtime_ns = attr->mtime.tv_sec * 1000000000LL + attr->mtime.tv_nsec;
		p->names_changed_in = meta_open_txn(p->tm);
	}
	pool_end_change(p);
	return r;
}

void
voldir_getattr(struct voldir *d, struct voldir_attr *attr)
{
	rwlock_rdlock(&d->pool->meta_lock);
	*attr = (struct voldir_attr){
		.serial = d->serial,
		.mode = d->mode,
		.uid = d->uid,
		.gid = d->gid,
		.btime = ns_to_timespec(d->btime_ns),
		.nr_volumes = d->nr_vols,
	};
	rwlock_unlock(&d->pool->meta_lock);
}

int
voldir_setattr(struct voldir *d, unsigned which, const struct vol_attr *attr)
{
	struct pool *p = d->pool;
	struct vol *v;
	int r;

	if (d == p->top)
		return -EPERM;
	r = pool_begin_change(p, 2, 1, META_TO_ADD);
	if (r)
		return r;
	if (which & VOL_SET_MODE)
		d->mode = attr->mode & 07777;
	if (which & VOL_SET_UID)
		d->uid = attr->uid;
	if (which & VOL_SET_GID)
		d->gid = attr->gid;
	RB_FOREACH(v, vol_dir_tree, &d->by_id)
		if (!r)
			r = vol_record_changed(v);
	p->names_changed_in = meta_open_txn(p->tm);
	pool_end_change(p);
	return r;
}

void
vol_get_name(struct vol *v, char *name, char *snapshot)
{
	rwlock_rdlock(&v->pool->meta_lock);
	strcpy(name, v->name ? v->name : "");
	strcpy(snapshot, v->dir ? v->dir->name : "");
	rwlock_unlock(&v->pool->meta_lock);
}

void
voldir_get_name(struct voldir *d, char *name)
{
	rwlock_rdlock(&d->pool->meta_lock);
	strcpy(name, d->name);
	rwlock_unlock(&d->pool->meta_lock);
}

/* --- open files --- */

int
vol_open(struct vol *v, bool for_write)
{
	struct pool *p = v->pool;
	struct thin_dev *dev;
	int r;

	rwlock_wrlock(&p->meta_lock);
	r = vol_dev(v, &dev);
	/* Its blocks are being taken back already. */
	if (!r && v->flags & RECORD_DELETED && !v->opens)
		r = -ESTALE;
	if (!r && for_write && (p->read_only || v->flags & RECORD_READ_ONLY))
		r = -EROFS;
	if (!r) {
		v->opens++;
		p->nr_open++;
	}
	rwlock_unlock(&p->meta_lock);
	return r;
}

void
vol_release(struct vol *v)
{
	struct pool *p = v->pool;
	bool deleted;

	rwlock_wrlock(&p->meta_lock);
	v->opens--;
	p->nr_open--;
	deleted = !v->opens && !v->gone && v->flags & RECORD_DELETED;
	rwlock_unlock(&p->meta_lock);
	if (deleted)
		reclaim_queue(v);
}

uint64_t
pool_nr_open(struct pool *p)
{
	uint64_t nr;

	rwlock_rdlock(&p->meta_lock);
	nr = p->nr_open;
	rwlock_unlock(&p->meta_lock);
	return nr;
}
