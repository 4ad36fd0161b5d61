/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thin_dev: creating, snapshotting and deleting thin devices (format sheet, S 9), and the devices
 * that are in memory because somebody has them open or because they changed.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "pdata/thin_meta_internal.h"
#include "util/msg.h"

static struct disk_details
details_to_disk(const struct dev_info *info)
{
	return (struct disk_details){
		.mapped_blocks = le64_make(info->mapped_blocks),
		.transaction_id = le64_make(info->transaction_id),
		.creation_time = le32_make(info->creation_time),
		.snapshotted_time = le32_make(info->snapshotted_time),
	};
}

static void
details_from_disk(const struct disk_details *d, struct dev_info *info)
{
	*info = (struct dev_info){
		.mapped_blocks = le64_get(d->mapped_blocks),
		.transaction_id = le64_get(d->transaction_id),
		.creation_time = le32_get(d->creation_time),
		.snapshotted_time = le32_get(d->snapshotted_time),
	};
}

static struct thin_dev *
find_dev(struct thin_meta *m, uint32_t id)
{
	uint64_t value;

	return u64map_get(&m->dev_by_id, id, &value) ? (struct thin_dev *)(uintptr_t)value : NULL;
}

/* -ENODATA when there is no such device. */
static int
read_dev(struct thin_meta *m, uint32_t id, struct dev_info *info, uint64_t *root)
{
	struct btree details = meta_details_tree(m);
	struct btree top = meta_top_tree(m);
	struct disk_details disk;
	struct le64 value;
	int r = btree_lookup(&details, m->sb.device_details_root, id, &disk);

	if (r)
		return r;
	r = btree_lookup(&top, m->sb.data_mapping_root, id, &value);
	if (r == -ENODATA) {
		msg_error("%s: thin device %" PRIu32 " has details but no mappings; check it with "
			  "'thinfs check'", m->img->name, id);
		return -EUCLEAN;
	}
	if (r)
		return r;
	details_from_disk(&disk, info);
	*root = le64_get(value);
	return 0;
}

int
meta_load_dev(struct thin_meta *m, uint32_t id, struct thin_dev **out)
{
	struct thin_dev *d = find_dev(m, id);
	int r;

	if (d) {
		*out = d;
		return 0;
	}
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->meta = m;
	d->id = id;
	r = read_dev(m, id, &d->info, &d->root);
	if (!r)
		r = u64map_set(&m->dev_by_id, id, (uintptr_t)d);
	if (r) {
		free(d);
		return r;
	}
	TAILQ_INSERT_TAIL(&m->devs, d, link);
	*out = d;
	return 0;
}

int
meta_peek_dev(struct thin_meta *m, uint32_t id, struct dev_info *info, uint64_t *root)
{
	const struct thin_dev *d = find_dev(m, id);

	if (!d)
		return read_dev(m, id, info, root);
	*info = d->info;
	*root = d->root;
	return 0;
}

static void
forget_dev(struct thin_dev *d)
{
	if (!d->gone)
		u64map_remove(&d->meta->dev_by_id, d->id);
	TAILQ_REMOVE(&d->meta->devs, d, link);
	free(d);
}

static void
forget_unused(struct thin_dev *d)
{
	if (!d->opens && !d->changed)
		forget_dev(d);
}

int
dev_open(struct thin_meta *m, uint32_t id, struct thin_dev **out)
{
	int r = meta_load_dev(m, id, out);

	if (!r)
		(*out)->opens++;
	return r;
}

void
dev_close(struct thin_dev *d)
{
	d->opens--;
	forget_unused(d);
}

void
dev_get_info(const struct thin_dev *d, struct dev_info *info)
{
	*info = d->info;
}

uint64_t
dev_changed_in(const struct thin_dev *d)
{
	return d->changed_in;
}

static void
mark_changed(struct thin_dev *d)
{
	d->changed = true;
	d->changed_in = d->meta->open_txn;
}

int
dev_touch(struct thin_dev *d)
{
	struct thin_meta *m = d->meta;
	struct btree top = meta_top_set_tree(m);
	struct btree details = meta_details_tree(m);
	int r = 0;

	if (d->gone)
		return -ENODATA;
	if (!d->changed) {
		r = btree_shadow_path(&top, &m->sb.data_mapping_root, d->id);
		if (!r)
			r = btree_shadow_path(&details, &m->sb.device_details_root, d->id);
	}
	if (!r)
		mark_changed(d);
	return r;
}

/* The device's root and details into the trees. */
static int
flush_dev(struct thin_dev *d)
{
	struct thin_meta *m = d->meta;
	struct btree top = meta_top_set_tree(m);
	struct btree details = meta_details_tree(m);
	struct disk_details disk = details_to_disk(&d->info);
	struct le64 root = le64_make(d->root);
	int r = btree_insert(&top, &m->sb.data_mapping_root, d->id, &root, NULL);

	if (!r)
		r = btree_insert(&details, &m->sb.device_details_root, d->id, &disk, NULL);
	return r;
}

int
meta_flush_devs(struct thin_meta *m)
{
	struct thin_dev *d, *next;

	TAILQ_FOREACH_SAFE(d, &m->devs, link, next) {
		int r;

		if (!d->changed)
			continue;
		r = flush_dev(d);
		if (r)
			return r;
		d->changed = false;
		forget_unused(d);
	}
	return 0;
}

int
meta_reload_devs(struct thin_meta *m)
{
	struct thin_dev *d, *next;

	TAILQ_FOREACH_SAFE(d, &m->devs, link, next) {
		int r;

		d->changed = false;
		if (!d->opens) {
			forget_dev(d);
			continue;
		}
		if (d->gone)
			continue;
		r = read_dev(m, d->id, &d->info, &d->root);
		if (r == -ENODATA) {
			u64map_remove(&m->dev_by_id, d->id);
			d->gone = true;
			r = 0;
		}
		if (r)
			return r;
	}
	return 0;
}

void
meta_free_devs(struct thin_meta *m)
{
	struct thin_dev *d;

	while ((d = TAILQ_FIRST(&m->devs))) {
		TAILQ_REMOVE(&m->devs, d, link);
		free(d);
	}
	u64map_clear(&m->dev_by_id);
}

/* --- creating and deleting --- */

static int
check_new_id(struct thin_meta *m, uint32_t id)
{
	struct btree details = meta_details_tree(m);
	struct disk_details disk;
	int r;

	if (id > DEV_ID_MAX)
		return -EINVAL;
	r = btree_lookup(&details, m->sb.device_details_root, id, &disk);
	return r == -ENODATA ? 0 : r ? r : -EEXIST;
}

static int
insert_new(struct thin_meta *m, uint32_t id, uint64_t root, const struct dev_info *info)
{
	struct btree top = meta_top_set_tree(m);
	struct btree details = meta_details_tree(m);
	struct disk_details disk = details_to_disk(info);
	struct le64 value = le64_make(root);
	int r = btree_insert(&top, &m->sb.data_mapping_root, id, &value, NULL);

	if (!r)
		r = btree_insert(&details, &m->sb.device_details_root, id, &disk, NULL);
	return r;
}

int
meta_create_thin(struct thin_meta *m, uint32_t id)
{
	struct btree mappings = meta_mapping_tree(m);
	struct dev_info info = {
		.transaction_id = m->sb.trans_id,
		.creation_time = m->sb.time,
		.snapshotted_time = m->sb.time,
	};
	uint64_t root;
	int r = meta_begin_change(m);

	if (!r)
		r = check_new_id(m, id);
	if (r)
		return r;
	r = btree_empty(&mappings, &root);
	if (!r)
		r = insert_new(m, id, root, &info);
	return meta_end_change(m, r);
}

int
meta_tick(struct thin_meta *m)
{
	int r = meta_begin_change(m);

	if (r)
		return r;
	if (m->sb.time >= MAPPING_TIME_MAX)
		return -EOVERFLOW;
	m->sb.time++;
	return meta_end_change(m, 0);
}

int
meta_create_snap(struct thin_meta *m, uint32_t id, uint32_t origin)
{
	struct thin_dev *d;
	struct dev_info info;
	int r = meta_begin_change(m);

	if (!r)
		r = check_new_id(m, id);
	if (!r)
		r = dev_open(m, origin, &d);
	if (r)
		return r;
	info = (struct dev_info){
		.mapped_blocks = d->info.mapped_blocks,
		.transaction_id = m->sb.trans_id,
		.creation_time = m->sb.time,
		.snapshotted_time = m->sb.time,
	};
	r = dev_touch(d);
	if (!r)
		r = txn_inc(&m->txn, d->root);
	if (!r)
		r = insert_new(m, id, d->root, &info);
	d->info.snapshotted_time = m->sb.time;
	dev_close(d);
	return meta_end_change(m, r);
}

int
meta_delete_thin(struct thin_meta *m, uint32_t id)
{
	struct btree top = meta_top_tree(m);
	struct btree details = meta_details_tree(m);
	struct thin_dev *d;
	int r = meta_begin_change(m);

	if (!r)
		r = meta_load_dev(m, id, &d);
	if (r)
		return r;
	if (d->opens)
		return -EBUSY;
	r = meta_require_deletion(d);
	if (r) {
		forget_unused(d);
		return r;
	}
	/* The tree must name the present root: it is that one that goes. */
	r = d->changed ? flush_dev(d) : 0;
	if (!r)
		r = btree_remove(&details, &m->sb.device_details_root, id);
	if (!r)
		r = btree_remove(&top, &m->sb.data_mapping_root, id);
	if (!r)
		forget_dev(d);
	return meta_end_change(m, r);
}

struct dev_visitor {
	int (*fn)(void *arg, uint32_t id);
	void *arg;
};

static int
visit_dev(void *arg, uint64_t key, const void *value)
{
	struct dev_visitor *v = arg;

	(void)value;
	if (key > DEV_ID_MAX) {
		msg_error("the metadata has a thin device %" PRIu64
			  ", numbers end at %u; check it with 'thinfs check'", key, DEV_ID_MAX);
		return -EUCLEAN;
	}
	return v->fn(v->arg, (uint32_t)key);
}

int
meta_for_each_dev(struct thin_meta *m, uint32_t from, int (*fn)(void *arg, uint32_t id), void *arg)
{
	struct btree details = meta_details_tree(m);
	struct dev_visitor visitor = {fn, arg};

	return btree_iterate(&details, m->sb.device_details_root, from, visit_dev, &visitor);
}

struct root_visitor {
	struct thin_meta *m;
	int (*fn)(void *arg, uint32_t id, uint64_t root);
	void *arg;
};

static int
visit_root(void *arg, uint64_t key, const void *value)
{
	const struct root_visitor *v = arg;
	const struct le64 *root = value;
	const struct thin_dev *d;

	if (key > DEV_ID_MAX)
		return -EUCLEAN;
	d = find_dev(v->m, (uint32_t)key);
	return v->fn(v->arg, (uint32_t)key, d ? d->root : le64_get(*root));
}

int
meta_for_each_root(struct thin_meta *m, int (*fn)(void *arg, uint32_t id, uint64_t root), void *arg)
{
	struct btree top = meta_top_tree(m);
	struct root_visitor visitor = {m, fn, arg};

	return btree_iterate(&top, m->sb.data_mapping_root, 0, visit_root, &visitor);
}
