/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thin_usage: what a device alone keeps in use.
 */
#include <config.h>

#include <errno.h>

#include "pdata/thin_meta_internal.h"

struct tally {
	struct space_map *data_sm;
	uint64_t blocks;
};

static int
visit_mapping(void *arg, uint64_t key, const void *value)
{
	struct tally *t = arg;
	const struct le64 *v = value;
	uint32_t count;
	int r = sm_count(t->data_sm, le64_get(*v) >> MAPPING_TIME_BITS, &count);

	(void)key;
	t->blocks += !r && count == 1;
	return r;
}

int
dev_exclusive(struct thin_dev *d, uint64_t from, unsigned max_leaves, uint64_t *blocks,
	      uint64_t *next, bool *more)
{
	struct thin_meta *m = d->meta;
	struct btree mappings = meta_mapping_tree(m);
	struct btree top = meta_top_tree(m);
	struct tally tally = {.data_sm = m->data_sm};
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
	r = btree_iterate_unshared(&mappings, d->root, from, max_leaves, visit_mapping, &tally, next,
				   more);
	*blocks = tally.blocks;
	return r;
}
