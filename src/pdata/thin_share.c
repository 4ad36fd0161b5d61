/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thin_share: letting a device have the data blocks of another one, or of itself elsewhere.
 *
 * Whether a block may be overwritten in place is told by time alone (format sheet, S 5.3), here and in the
 * kernel. So neither entry may look newer than the last snapshot of its device: each is given a time
 * that its device takes for shared. Nothing else of either device changes, nor does the clock advance.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "pdata/thin_meta_internal.h"
#include "util/minmax.h"

struct found {
	uint64_t vblock;
	uint64_t dblock;
	uint32_t time;
};

struct collector {
	const struct thin_dev *dev;
	struct found *entries;
	unsigned nr;
	uint64_t end;
};

static int
collect(void *arg, uint64_t key, const void *value)
{
	struct collector *c = arg;
	const struct le64 *v = value;
	uint64_t raw = le64_get(*v);

	if (key >= c->end)
		return 1;
	if (raw >> MAPPING_TIME_BITS >= sm_nr_blocks(c->dev->meta->data_sm))
		return -EUCLEAN;
	c->entries[c->nr++] =
		(struct found){key, raw >> MAPPING_TIME_BITS, raw & MAPPING_TIME_MAX};
	return 0;
}

/* Whether any of its entries must change, too. */
static bool
looks_exclusive(const struct thin_dev *d, const struct collector *c)
{
	for (unsigned i = 0; i < c->nr; i++)
		if (c->entries[i].time >= d->info.snapshotted_time)
			return true;
	return false;
}

/* Give the device a last snapshot, so that there is a time before it. */
static void
ensure_snapshotted(struct thin_dev *d)
{
	struct superblock *sb = &d->meta->sb;

	if (d->info.snapshotted_time)
		return;
	if (!sb->time)
		sb->time = 1;
	d->info.snapshotted_time = 1;
}

static int
set_entry(struct thin_dev *d, uint64_t vblock, uint64_t dblock, uint32_t time)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct le64 value = le64_make(dblock << MAPPING_TIME_BITS | time);
	bool inserted;
	int r = btree_insert(&mappings, &d->root, vblock, &value, &inserted);

	if (!r && inserted)
		d->info.mapped_blocks++;
	return r;
}

/* Let the entry VBLOCK have one more reference to DBLOCK, with a time that the device takes for shared. */
static int
add_reference(struct thin_dev *d, uint64_t vblock, uint64_t dblock, uint32_t time)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct le64 old;
	/* Overwriting an entry by one of the same block drops no reference, so it must bring none. */
	int r = btree_lookup(&mappings, d->root, vblock, &old);

	if (r == -ENODATA || (!r && le64_get(old) >> MAPPING_TIME_BITS != dblock))
		r = sm_inc(d->meta->data_sm, dblock);
	if (!r)
		r = set_entry(d, vblock, dblock, (uint32_t)min_u64(time, d->info.snapshotted_time - 1));
	return r;
}

static int
share_one(struct thin_dev *from, const struct found *f, struct thin_dev *to, uint64_t vblock)
{
	uint32_t time = min_u64(f->time, from->info.snapshotted_time - 1);
	int r = 0;

	if (time != f->time)
		r = set_entry(from, f->vblock, f->dblock, time);
	return r ? r : add_reference(to, vblock, f->dblock, time);
}

/* Without what is mapped there, as far as it goes. */
static int
unmap(struct thin_dev *d, uint64_t begin, uint64_t end)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	uint64_t removed = 0, next;
	int r;

	if (begin >= end)
		return 0;
	r = btree_remove_range(&mappings, &d->root, begin, end, end - begin, &removed, &next);
	d->info.mapped_blocks -= min_u64(removed, d->info.mapped_blocks);
	return r;
}

static int
share_all(struct thin_dev *from, const struct collector *c, uint64_t src, struct thin_dev *to,
	  uint64_t dst, uint64_t nr)
{
	uint64_t done = 0;
	int r = 0;

	for (unsigned i = 0; i < c->nr && !r; i++) {
		uint64_t at = c->entries[i].vblock - src;

		r = unmap(to, dst + done, dst + at);
		if (!r)
			r = share_one(from, &c->entries[i], to, dst + at);
		done = at + 1;
	}
	return r ? r : unmap(to, dst + done, dst + nr);
}

int
dev_share(struct thin_dev *from, uint64_t src, struct thin_dev *to, uint64_t dst, uint64_t nr)
{
	struct btree mappings = meta_mapping_tree(from->meta);
	struct collector c = {.dev = from, .end = src + nr};
	int r = meta_begin_change(from->meta);

	if (r)
		return r;
	if (from->gone || to->gone)
		return -ENODATA;
	c.entries = malloc(nr * sizeof(*c.entries));
	if (!c.entries)
		return -ENOMEM;
	r = btree_iterate(&mappings, from->root, src, collect, &c);
	if (r > 0)
		r = 0;
	if (!r && looks_exclusive(from, &c))
		r = dev_touch(from);
	if (!r)
		r = dev_touch(to);
	if (!r) {
		if (from->changed)
			ensure_snapshotted(from);
		ensure_snapshotted(to);
		r = share_all(from, &c, src, to, dst, nr);
	}
	free(c.entries);
	return meta_end_change(from->meta, r);
}

int
dev_map_all_to(struct thin_dev *d, uint64_t vblock, uint64_t nr, uint64_t dblock)
{
	int r = meta_begin_change(d->meta);

	if (r)
		return r;
	if (d->gone)
		return -ENODATA;
	r = dev_touch(d);
	if (!r)
		ensure_snapshotted(d);
	for (uint64_t i = 0; i < nr && !r; i++)
		r = add_reference(d, vblock + i, dblock, 0);
	return meta_end_change(d->meta, r);
}

int
meta_data_count(struct thin_meta *m, uint64_t dblock, uint32_t *count)
{
	return m->data_sm ? sm_count(m->data_sm, dblock, count) : -EIO;
}

void
meta_pin_data(struct thin_meta *m, uint64_t dblock)
{
	m->pinned = dblock;
}

uint64_t
meta_pinned_data(const struct thin_meta *m)
{
	return m->pinned;
}

bool
meta_data_must_go(const struct thin_meta *m, uint64_t dblock)
{
	return m->data_sm && dblock >= sm_get_fence(m->data_sm);
}
