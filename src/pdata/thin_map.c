/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thin_map: which data block is behind which block of a device (format sheet, S 5.1, S 5.3).
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "pdata/thin_meta_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

/* Mappings of a leaf (S 4.1): what is removed at a time when metadata space is short. */
#define ONE_LEAF 252U

struct mapping {
	uint64_t dblock;
	uint32_t time;
};

static struct mapping
mapping_from_disk(const void *value)
{
	const struct le64 *v = value;
	uint64_t raw = le64_get(*v);

	return (struct mapping){raw >> MAPPING_TIME_BITS, raw & MAPPING_TIME_MAX};
}

/* --- looking up --- */

struct run_builder {
	struct thin_dev *dev;
	struct map_run *runs;
	unsigned max, nr;
	uint64_t next; /* the vblock that comes next */
	uint64_t end;
};

/* Append one block, or a hole; 1 when there is no room. */
static int
add_run(struct run_builder *b, uint64_t dblock, uint64_t len, bool shared)
{
	struct map_run *last = b->nr ? &b->runs[b->nr - 1] : NULL;

	if (last && last->dblock != MAP_HOLE && dblock != MAP_HOLE && last->shared == shared &&
	    last->dblock + last->len == dblock) {
		last->len += len;
	} else {
		if (b->nr == b->max)
			return 1;
		b->runs[b->nr++] = (struct map_run){
			.vblock = b->next, .dblock = dblock, .len = len, .shared = shared};
	}
	b->next += len;
	return 0;
}

static int
outside(const struct thin_dev *d, uint64_t vblock, uint64_t dblock)
{
	msg_error("%s: block %" PRIu64 " of thin device %" PRIu32 " is mapped to data block %" PRIu64
		  ", but there are only %" PRIu64 "; check it with 'thinfs check'", d->meta->img->name, vblock,
		  d->id, dblock, sm_nr_blocks(d->meta->data_sm));
	return -EUCLEAN;
}

static int
visit_mapping(void *arg, uint64_t key, const void *value)
{
	struct run_builder *b = arg;
	struct mapping m = mapping_from_disk(value);

	if (key >= b->end)
		return 1;
	if (m.dblock >= sm_nr_blocks(b->dev->meta->data_sm))
		return outside(b->dev, key, m.dblock);
	if (key > b->next && add_run(b, MAP_HOLE, key - b->next, false))
		return 1;
	return add_run(b, m.dblock, 1, b->dev->info.snapshotted_time > m.time);
}

/* One block, as most requests are of: straight down, without a walk. */
static int
map_one(struct thin_dev *d, uint64_t vblock, struct map_run *run)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct mapping m;
	struct le64 value;
	int r = btree_lookup(&mappings, d->root, vblock, &value);

	*run = (struct map_run){.vblock = vblock, .dblock = MAP_HOLE, .len = 1};
	if (r)
		return r == -ENODATA ? 0 : r;
	m = mapping_from_disk(&value);
	if (m.dblock >= sm_nr_blocks(d->meta->data_sm))
		return outside(d, vblock, m.dblock);
	run->dblock = m.dblock;
	run->shared = d->info.snapshotted_time > m.time;
	return 0;
}

int
dev_map(struct thin_dev *d, uint64_t vblock, uint64_t len, struct map_run *runs, unsigned max,
	unsigned *nr)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct run_builder b = {
		.dev = d, .runs = runs, .max = max, .next = vblock, .end = vblock + len};
	int r;

	if (d->gone)
		return -ENODATA;
	if (!d->meta->data_sm)
		return -EIO;
	if (len == 1 && max) {
		*nr = 1;
		return map_one(d, vblock, runs);
	}
	r = btree_iterate(&mappings, d->root, vblock, visit_mapping, &b);
	if (r < 0)
		return r;
	if (b.next < b.end && b.nr < max)
		add_run(&b, MAP_HOLE, b.end - b.next, false);
	*nr = b.nr;
	return 0;
}

struct next_visitor {
	uint64_t start, len, max;
};

static int
visit_next(void *arg, uint64_t key, const void *value)
{
	struct next_visitor *v = arg;

	(void)value;
	if (!v->len)
		v->start = key;
	else if (key != v->start + v->len)
		return 1;
	return ++v->len >= v->max;
}

int
dev_next_mapped(struct thin_dev *d, uint64_t from, uint64_t max_len, uint64_t *vblock,
		uint64_t *len)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct next_visitor v = {.max = max_len};
	int r;

	if (d->gone)
		return -ENODATA;
	r = btree_iterate(&mappings, d->root, from, visit_next, &v);
	if (r < 0)
		return r;
	if (!v.len)
		return -ENODATA;
	*vblock = v.start;
	*len = v.len;
	return 0;
}

int
dev_highest_mapped(struct thin_dev *d, uint64_t *vblock)
{
	struct btree mappings = meta_mapping_tree(d->meta);

	return d->gone ? -ENODATA : btree_lookup_last(&mappings, d->root, vblock, NULL);
}

int
dev_root_is_shared(struct thin_dev *d, bool *is_shared)
{
	uint32_t count;
	int r = d->gone ? -ENODATA : d->meta->broken ? -EIO : txn_count(&d->meta->txn, d->root, &count);

	*is_shared = !r && count > 1;
	return r;
}

/* --- changing --- */

static int
insert_one(struct thin_dev *d, const struct btree *mappings, uint64_t vblock, uint64_t dblock)
{
	struct thin_meta *m = d->meta;
	struct le64 value = le64_make(dblock << MAPPING_TIME_BITS | m->sb.time);
	bool inserted;
	int r = sm_inc(m->data_sm, dblock);

	if (!r)
		r = btree_insert(mappings, &d->root, vblock, &value, &inserted);
	if (!r && inserted)
		d->info.mapped_blocks++;
	return r;
}

int
dev_insert(struct thin_dev *d, uint64_t vblock, uint64_t dblock, uint64_t nr)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	int r = meta_begin_change(d->meta);

	if (r)
		return r;
	if (d->gone)
		return -ENODATA;
	r = dev_touch(d);
	for (uint64_t i = 0; i < nr && !r; i++)
		r = insert_one(d, &mappings, vblock + i, dblock + i);
	return meta_end_change(d->meta, r);
}

/*
 * Remove up to MAX mappings of [begin, last], pass by pass, as long as there is room for one more: *next is the lowest
 * that is left. -ENODATA: there is none.
 */
static int
remove_while_room(struct thin_dev *d, uint64_t begin, uint64_t last, uint64_t max,
		  enum meta_purpose purpose, uint64_t *next)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	uint64_t done = 0;

	for (;;) {
		uint64_t want = max - done, removed = 0;
		int r = btree_lookup_next(&mappings, d->root, begin, next, NULL);

		if (!r && *next > last)
			r = -ENODATA;
		if (r || !want)
			return r;
		r = meta_require_removal(d, *next, want, purpose);
		if (r == -ENOSPC && want > ONE_LEAF)
			r = meta_require_removal(d, *next, want = ONE_LEAF, purpose);
		if (r)
			return r == -ENOSPC && done ? 0 : r;

		r = dev_touch(d);
		if (!r)
			r = btree_remove_some(&mappings, &d->root, *next, last, want, &removed);
		/* The details may say less than there are. */
		d->info.mapped_blocks -= min_u64(removed, d->info.mapped_blocks);
		done += removed;
		r = meta_end_change(d->meta, r);
		if (r)
			return r;
	}
}

int
dev_unmap(struct thin_dev *d, uint64_t begin, uint64_t end, uint64_t max, enum meta_purpose purpose,
	  uint64_t *next)
{
	int r = meta_begin_change(d->meta);

	if (r)
		return r;
	if (d->gone)
		return -ENODATA;
	r = begin < end ? remove_while_room(d, begin, end - 1, max, purpose, next) : -ENODATA;
	if (r != -ENODATA)
		return r;
	*next = end;
	return 0;
}

int
dev_shed(struct thin_dev *d, uint64_t max, uint64_t *left)
{
	uint64_t next;
	int r = meta_begin_change(d->meta);

	if (r)
		return r;
	if (d->gone)
		return -ENODATA;
	r = remove_while_room(d, 0, UINT64_MAX, max, META_TO_DELETE, &next);
	if (r == -ENODATA) /* or more, which would never come to an end */
		d->info.mapped_blocks = 0;
	*left = d->info.mapped_blocks;
	return r == -ENODATA ? 0 : r;
}
