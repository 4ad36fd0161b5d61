/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * names: the volumes and snapshots of a pool in memory, by name and by number.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

#define VOL_MODE_DEFAULT 0600U
#define DIR_MODE_DEFAULT 0755U

static int
compare_ids(struct vol *a, struct vol *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

static int
compare_names(struct vol *a, struct vol *b)
{
	return strcmp(a->name, b->name);
}

static int
compare_dir_names(struct voldir *a, struct voldir *b)
{
	return strcmp(a->name, b->name);
}

static int
compare_serials(struct voldir *a, struct voldir *b)
{
	return a->serial < b->serial ? -1 : a->serial > b->serial;
}

RB_GENERATE(vol_id_tree, vol, by_id, compare_ids)
RB_GENERATE(vol_dir_tree, vol, in_dir, compare_ids)
RB_GENERATE(vol_name_tree, vol, by_name, compare_names)
RB_GENERATE(voldir_name_tree, voldir, names, compare_dir_names)
RB_GENERATE(voldir_serial_tree, voldir, serials, compare_serials)

/* --- holding --- */

struct vol *
vol_get(struct vol *v)
{
	v->refs++;
	return v;
}

void
vol_put(struct vol *v)
{
	if (--v->refs)
		return;
	range_lock_destroy(&v->range);
	free(v->name);
	free(v);
}

struct voldir *
voldir_get(struct voldir *d)
{
	d->refs++;
	return d;
}

void
voldir_put(struct voldir *d)
{
	if (!--d->refs)
		free(d);
}

/* --- finding --- */

struct vol *
names_find(struct pool *p, struct voldir *dir, const char *name)
{
	struct vol key = {.name = (char *)name};

	(void)p;
	return RB_FIND(vol_name_tree, &dir->by_name, &key);
}

struct voldir *
names_find_dir(struct pool *p, const char *name)
{
	struct voldir key;

	if (strlen(name) >= sizeof(key.name) || !name[0])
		return NULL;
	strcpy(key.name, name);
	return RB_FIND(voldir_name_tree, &p->dirs, &key);
}

struct vol *
names_find_id(struct pool *p, uint32_t id)
{
	struct vol key = {.id = id};

	return RB_FIND(vol_id_tree, &p->vols, &key);
}

int
pool_lookup(struct pool *p, struct voldir *dir, const char *name, struct vol **out)
{
	struct vol *v;

	rwlock_rdlock(&p->meta_lock);
	v = names_find(p, dir, name);
	if (v)
		*out = vol_get(v);
	rwlock_unlock(&p->meta_lock);
	return v ? 0 : -ENOENT;
}

int
pool_lookup_snapshot(struct pool *p, const char *name, struct voldir **out)
{
	struct voldir *d;

	rwlock_rdlock(&p->meta_lock);
	d = names_find_dir(p, name);
	if (d)
		*out = voldir_get(d);
	rwlock_unlock(&p->meta_lock);
	return d ? 0 : -ENOENT;
}

int
pool_lookup_id(struct pool *p, uint32_t id, struct vol **out)
{
	struct vol *v;

	rwlock_rdlock(&p->meta_lock);
	v = names_find_id(p, id);
	if (v)
		*out = vol_get(v);
	rwlock_unlock(&p->meta_lock);
	return v ? 0 : -ENOENT;
}

struct voldir *
pool_top(struct pool *p)
{
	return p->top;
}

int
pool_next_volume(struct pool *p, struct voldir *dir, uint64_t after, struct vol **out,
		 uint64_t *cookie)
{
	/* A cookie is id + 1. */
	struct vol key = {.id = (uint32_t)after}, *v;

	if (after > DEV_ID_MAX)
		return -ENOENT;
	rwlock_rdlock(&p->meta_lock);
	v = RB_NFIND(vol_dir_tree, &dir->by_id, &key);
	while (v && v->flags & RECORD_HIDDEN)
		v = RB_NEXT(vol_dir_tree, &dir->by_id, v);
	if (v) {
		*out = vol_get(v);
		*cookie = v->id + 1ULL;
	}
	rwlock_unlock(&p->meta_lock);
	return v ? 0 : -ENOENT;
}

int
pool_next_snapshot(struct pool *p, uint64_t after, struct voldir **out, uint64_t *cookie)
{
	struct voldir key, *d;

	key.serial = after + 1;
	rwlock_rdlock(&p->meta_lock);
	d = RB_NFIND(voldir_serial_tree, &p->dirs_by_serial, &key);
	if (d) {
		*out = voldir_get(d);
		*cookie = d->serial;
	}
	rwlock_unlock(&p->meta_lock);
	return d ? 0 : -ENOENT;
}

/* --- adding and removing --- */

int
names_new_id(struct pool *p, uint32_t *id)
{
	/* Always upwards: a number is not used again before all others were. */
	for (uint32_t tries = 0; tries < CATALOG_ID; tries++) {
		uint32_t next = p->next_id;

		p->next_id = next + 1 < CATALOG_ID ? next + 1 : 0;
		if (!names_find_id(p, next)) {
			*id = next;
			return 0;
		}
	}
	return -ENOSPC;
}

void
names_attach(struct vol *v, struct voldir *dir, char *name)
{
	v->name = name;
	v->dir = dir;
	RB_INSERT(vol_name_tree, &dir->by_name, v);
	RB_INSERT(vol_dir_tree, &dir->by_id, v);
	dir->nr_vols++;
}

void
names_detach(struct vol *v)
{
	RB_REMOVE(vol_name_tree, &v->dir->by_name, v);
	RB_REMOVE(vol_dir_tree, &v->dir->by_id, v);
	v->dir->nr_vols--;
	v->dir = NULL;
	free(v->name);
	v->name = NULL;
}

struct vol *
names_add(struct pool *p, uint32_t id, struct voldir *dir, const char *name)
{
	static atomic_ullong generation;
	struct vol *v = calloc(1, sizeof(*v));
	char *copy = name ? strdup(name) : NULL;

	if (!v || (name && !copy)) {
		free(v);
		free(copy);
		return NULL;
	}
	v->pool = p;
	v->id = id;
	v->generation = ++generation;
	v->refs = 1;
	v->parent = RECORD_NO_PARENT;
	range_lock_init(&v->range);
	RB_INSERT(vol_id_tree, &p->vols, v);
	p->nr_devices++;
	if (name)
		names_attach(v, dir, copy);
	return v;
}

void
vol_drop_dev(struct vol *v)
{
	if (v->dev)
		dev_close(v->dev);
	v->dev = NULL;
}

void
names_drop(struct vol *v)
{
	struct pool *p = v->pool;

	if (v->dir)
		names_detach(v);
	vol_drop_dev(v);
	RB_REMOVE(vol_id_tree, &p->vols, v);
	p->nr_devices--;
	v->gone = true;
	vol_put(v);
}

struct voldir *
names_add_dir(struct pool *p, const char *name)
{
	struct voldir *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->pool = p;
	d->refs = 1;
	d->serial = ++p->next_serial;
	d->mode = DIR_MODE_DEFAULT;
	d->uid = getuid();
	d->gid = getgid();
	strcpy(d->name, name);
	if (name[0]) {
		RB_INSERT(voldir_name_tree, &p->dirs, d);
		RB_INSERT(voldir_serial_tree, &p->dirs_by_serial, d);
	}
	return d;
}

void
names_remove_dir(struct voldir *d)
{
	RB_REMOVE(voldir_name_tree, &d->pool->dirs, d);
	RB_REMOVE(voldir_serial_tree, &d->pool->dirs_by_serial, d);
	d->gone = true;
	voldir_put(d);
}

/* --- loading --- */

/* The name a device gets that has none; one of the pool's volumes may be called so already. */
static int
attach_by_number(struct vol *v)
{
	char name[48];

	snprintf(name, sizeof(name), "thin-%" PRIu32, v->id);
	for (unsigned i = 2; names_find(v->pool, v->pool->top, name); i++)
		snprintf(name, sizeof(name), "thin-%" PRIu32 "-%u", v->id, i);
	char *copy = strdup(name);

	if (!copy)
		return -ENOMEM;
	names_attach(v, v->pool->top, copy);
	return 0;
}

/*
 * Whether R, met while names are loaded, can be lived with: in a pool that is only read, damage must not
 * keep anybody from what can be read.
 */
static bool
is_bearable(const struct pool *p, int r)
{
	return p->read_only && (r == -EUCLEAN || r == -EIO);
}

/* How many blocks a device without a record seems to have: up to the last mapped one. */
static int
guess_blocks(struct vol *v, uint64_t *nr)
{
	struct thin_dev *dev;
	struct dev_info info;
	uint64_t highest;
	int r = vol_dev(v, &dev);

	if (r) /* nothing of it could be shown, not even its attributes */
		return r;
	dev_get_info(dev, &info);
	r = dev_highest_mapped(dev, &highest);
	if (!r)
		*nr = highest < UINT64_MAX ? highest + 1 : highest;
	if (r == -ENODATA) {
		*nr = 0;
		r = 0;
	}
	if (!is_bearable(v->pool, r))
		return r;
	/* Not 0: reading it must say that it is damaged. */
	*nr = info.mapped_blocks ? info.mapped_blocks : 1;
	msg_warn("thin device %" PRIu32 " is damaged: its size is not known, and reading it may fail", v->id);
	return 0;
}

static int
set_defaults(struct vol *v)
{
	uint64_t nr;
	int r = guess_blocks(v, &nr);

	if (r)
		return r;
	v->size = nr < VOL_SIZE_MAX / v->pool->block_bytes ? nr * v->pool->block_bytes : VOL_SIZE_MAX;
	v->origin = vol_origin_default(v->pool, v->id);
	if (v->origin) {
		v->origin_end = origin_identity(v->origin)->size;
		v->size = max_u64(v->size, v->origin_end);
	}
	v->flags = 0;
	v->mode = VOL_MODE_DEFAULT;
	v->uid = getuid();
	v->gid = getgid();
	v->has_record = false;
	return attach_by_number(v);
}

static int
load_dev(void *arg, uint32_t id)
{
	struct pool *p = arg;
	struct vol *v;

	/* The catalog's own device is a volume only if it is not a catalog. */
	if (id == CATALOG_ID && !p->catalog.foreign)
		return 0;
	v = names_find_id(p, id);
	if (!v)
		v = names_add(p, id, NULL, NULL);
	if (!v)
		return -ENOMEM;
	v->stale = false;
	if (id >= p->next_id && id + 1 < CATALOG_ID)
		p->next_id = id + 1;
	return 0;
}

static struct voldir *
record_dir(struct pool *p, const struct record *r)
{
	struct voldir *d;

	if (!r->snapshot[0])
		return p->top;
	d = names_find_dir(p, r->snapshot);
	if (d)
		return d;
	d = names_add_dir(p, r->snapshot);
	if (d) {
		d->mode = r->dir_mode;
		d->uid = r->dir_uid;
		d->gid = r->dir_gid;
		d->btime_ns = r->dir_btime_ns;
	}
	return d;
}

/* A record without a device is what a crash or a full pool left of a deleted one: nothing. */
static int
load_record(void *arg, const struct record *r)
{
	struct pool *p = arg;
	struct vol *v = names_find_id(p, r->id);
	struct voldir *dir;
	char *name;
	int error;

	if (!v || v->stale)
		return 0;
	v->has_record = true;
	v->flags = r->flags;
	v->mode = r->mode;
	v->uid = r->uid;
	v->gid = r->gid;
	v->parent = r->parent;
	v->size = r->size;
	v->btime_ns = r->btime_ns;
	v->mtime_ns = r->mtime_ns;
	v->ctime_ns = r->ctime_ns;
	error = vol_origin_load(v, r);
	if (error)
		return error;
	if (r->flags & RECORD_DELETED)
		return 0;
	dir = record_dir(p, r);
	if (!dir)
		return -ENOMEM;
	if (names_find(p, dir, r->name)) {
		msg_warn("two volumes are called '%s'; the one with number %" PRIu32
			 " is shown by its number", r->name, r->id);
		return 0;
	}
	name = strdup(r->name);
	if (!name)
		return -ENOMEM;
	names_attach(v, dir, name);
	return 0;
}

/* What memory knows is to be believed no longer: after an abort. */
static void
forget_all(struct pool *p)
{
	struct voldir *d, *next_dir;
	struct vol *v;

	RB_FOREACH(v, vol_id_tree, &p->vols) {
		v->stale = true;
		v->has_record = false;
		v->clean_end = 0;
		v->mtime_dirty = false;
		v->origin = NULL;
		if (v->dir)
			names_detach(v);
	}
	RB_FOREACH_SAFE(d, voldir_name_tree, &p->dirs, next_dir)
		names_remove_dir(d);
}

static int
settle(struct pool *p)
{
	struct vol *v, *next;

	RB_FOREACH_SAFE(v, vol_id_tree, &p->vols, next) {
		if (v->stale) {
			names_drop(v);
			continue;
		}
		if (!v->has_record || (!v->dir && !(v->flags & RECORD_DELETED))) {
			int r = v->has_record ? attach_by_number(v) : set_defaults(v);

			if (r)
				return r;
		}
		if (v->origin_moved && !p->read_only)
			catalog_changed(p, v->id);
	}
	return 0;
}

int
names_load(struct pool *p)
{
	uint64_t nr_bad;
	int r;

	forget_all(p);
	p->catalog.foreign = false;
	r = meta_for_each_dev(p->tm, 0, load_dev, p);
	if (is_bearable(p, r) && !RB_EMPTY(&p->vols)) {
		msg_warn("the list of thin devices is damaged: only the first %" PRIu64 " are shown", p->nr_devices);
		r = 0;
	}
	if (r)
		return r;
	r = catalog_load(p, load_record, p, &nr_bad);
	if (is_bearable(p, r)) {
		msg_warn("the catalog is damaged: volumes of which the name is lost are shown as thin-NUMBER");
		r = 0;
	}
	if (!r && p->catalog.foreign)
		r = load_dev(p, CATALOG_ID);
	if (!r && nr_bad)
		msg_warn("%" PRIu64 " records of the catalog are damaged: those volumes are shown "
			 "as thin-NUMBER, their data are not affected", nr_bad);
	return r ? r : settle(p);
}

void
names_free(struct pool *p)
{
	struct voldir *d;
	struct vol *v;

	while ((v = RB_MIN(vol_id_tree, &p->vols)))
		names_drop(v);
	while ((d = RB_MIN(voldir_name_tree, &p->dirs)))
		names_remove_dir(d);
	if (p->top)
		voldir_put(p->top);
	p->top = NULL;
}
