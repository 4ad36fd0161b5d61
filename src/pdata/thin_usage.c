/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thin_usage: what devices alone keep in use.
 *
 * What a deletion frees is found by counting as it would count: of each node and data block that
 * has several references, those that would be dropped, in a map, until they are all. Nothing is
 * kept of what has one reference.
 */
#include <config.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "pdata/thin_meta_internal.h"
#include "util/u64map.h"

struct meta_tally {
	struct u64map nodes, data; /* metadata block or data block -> references dropped so far */
	uint64_t blocks; /* data blocks without any left */
};

struct visitor {
	struct space_map *data_sm;
	struct meta_tally *tally; /* NULL: shared data blocks are not looked at further */
	uint64_t blocks;
};

/* One reference to KEY, which has COUNT, is dropped: *last, it was the last. */
static int
drop_one(struct u64map *dropped, uint64_t key, uint32_t count, bool *last)
{
	uint64_t nr = 0;

	u64map_get(dropped, key, &nr);
	*last = ++nr == count;
	return u64map_set(dropped, key, nr);
}

static int
enter_shared(void *arg, uint64_t node, uint32_t count, bool again, bool *enter)
{
	struct visitor *v = arg;
	uint64_t nr = 0;

	if (!again)
		return drop_one(&v->tally->nodes, node, count, enter);
	u64map_get(&v->tally->nodes, node, &nr);
	*enter = nr == count;
	return 0;
}

static int
visit_mapping(void *arg, uint64_t key, const void *value)
{
	struct visitor *v = arg;
	const struct le64 *raw = value;
	uint64_t dblock = le64_get(*raw) >> MAPPING_TIME_BITS;
	uint32_t count;
	bool last;
	int r = sm_count(v->data_sm, dblock, &count);

	(void)key;
	last = count == 1;
	if (!r && count > 1 && v->tally)
		r = drop_one(&v->tally->data, dblock, count, &last);
	v->blocks += !r && last;
	return r;
}

static int
walk(struct thin_dev *d, struct meta_tally *tally, uint64_t from, unsigned max_leaves,
     uint64_t *blocks, uint64_t *next, bool *more)
{
	struct thin_meta *m = d->meta;
	struct btree mappings = meta_mapping_tree(m);
	struct btree top = meta_top_tree(m);
	struct visitor v = {.data_sm = m->data_sm, .tally = tally};
	bool shared = false;
	int r = 0;

	*blocks = 0;
	*more = false;
	if (d->gone)
		return -ENODATA;
	if (m->broken || !m->data_sm)
		return -EIO;
	/* A held metadata snapshot shares the way to the device's root. One that changed since has left it. */
	if (!d->changed)
		r = btree_path_is_shared(&top, m->sb.data_mapping_root, d->id, &shared);
	if (r || shared)
		return r;
	r = btree_iterate_unshared(&mappings, d->root, from, max_leaves, tally ? enter_shared : NULL,
				   visit_mapping, &v, next, more);
	*blocks = v.blocks;
	return r;
}

int
dev_exclusive(struct thin_dev *d, uint64_t from, unsigned max_leaves, uint64_t *blocks,
	      uint64_t *next, bool *more)
{
	return walk(d, NULL, from, max_leaves, blocks, next, more);
}

static int
count_down(void *arg, uint64_t key, const void *value)
{
	uint64_t *left = arg;

	(void)key;
	(void)value;
	return (*left)-- ? 0 : 1;
}

int
dev_deletion_is_small(struct thin_dev *d, uint64_t max, bool *is_small)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	uint64_t left = max, next;
	bool more;
	int r = d->gone ? -ENODATA : d->meta->broken ? -EIO : 0;

	if (!r)
		r = btree_iterate_unshared(&mappings, d->root, 0, UINT_MAX, NULL, count_down, &left, &next, &more);
	*is_small = r == 0;
	return r < 0 ? r : 0;
}

struct meta_tally *
meta_tally_new(void)
{
	return calloc(1, sizeof(struct meta_tally));
}

void
meta_tally_free(struct meta_tally *t)
{
	if (!t)
		return;
	u64map_clear(&t->nodes);
	u64map_clear(&t->data);
	free(t);
}

int
meta_tally_add(struct meta_tally *t, struct thin_dev *d, uint64_t from, unsigned max_leaves,
	       uint64_t *next, bool *more)
{
	uint64_t blocks;
	int r = walk(d, t, from, max_leaves, &blocks, next, more);

	t->blocks += blocks;
	return r;
}

uint64_t
meta_tally_blocks(const struct meta_tally *t)
{
	return t->blocks;
}
