/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_maps: what the space maps are made of (format sheet, S 6).
 *
 * Their own blocks are counted in the metadata space map as well, so both are read before the
 * first bitmap is held against what it should be.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/btree_node.h"
#include "pdata/check_internal.h"

static int
take_counts(struct tree_walk *w, uint64_t block, const struct disk_node *n, bool first)
{
	struct map_check *m = w->arg;
	int r = 0;

	(void)first;
	for (unsigned i = 0; i < node_nr(n) && !r; i++) {
		uint32_t count = le32_get(*(const struct le32 *)node_value(n, i));

		if (count < 3)
			check_error(w->c, w->use, block, "%s block %" PRIu64 " has a count of %" PRIu32
				    " in the tree for 3 and more", m->name, node_key(n, i), count);
		r = u64map_set(&m->large, node_key(n, i), count);
	}
	return r;
}

static int
walk_counts(struct map_check *m)
{
	struct tree_walk w = {
		.c = m->c,
		.use = m->counts_use,
		.value_size = sizeof(struct le32),
		.leaf = take_counts,
		.arg = m,
	};
	const struct seen_block *s = NULL;
	int r = check_count(m->c, m->count_root);

	strcpy(w.name, m->of_data ? "data space map's counts" : "metadata space map's counts");
	if (!r)
		r = check_walk(&w, m->count_root, &s);
	m->large_lost = !s || s->incomplete;
	return r;
}

static int
take_index(struct tree_walk *w, uint64_t block, const struct disk_node *n, bool first)
{
	struct map_check *m = w->arg;

	(void)first;
	for (unsigned i = 0; i < node_nr(n); i++) {
		if (node_key(n, i) < m->nr_bitmaps)
			m->index[node_key(n, i)] = *(const struct disk_index_entry *)node_value(n, i);
		else
			check_error(w->c, w->use, block, "the data space map has bitmaps up to %" PRIu64
				    ", this is one %" PRIu64, m->nr_bitmaps, node_key(n, i));
	}
	return 0;
}

static int
walk_index(struct map_check *m)
{
	struct tree_walk w = {
		.c = m->c,
		.use = m->index_use,
		.value_size = sizeof(struct disk_index_entry),
		.name = "data space map's index",
		.leaf = take_index,
		.arg = m,
	};

	return check_walk(&w, m->bitmap_root, NULL);
}

static void
read_index(struct map_check *m)
{
	struct check *c = m->c;
	const struct disk_index *d = (const void *)c->nodes;
	struct check_problem p = {CHECK_WARNING, true, false, m->bitmap_root, 1, NULL};

	if (!check_claim(c, m->bitmap_root, m->index_use) ||
	    !check_read(c, m->bitmap_root, m->index_use, BLOCK_INDEX, c->nodes))
		return;
	memcpy(m->index, d->entries, m->nr_bitmaps * sizeof(d->entries[0]));
	for (uint64_t i = m->nr_bitmaps; i < METADATA_BITMAPS_MAX; i++) {
		if (!le64_get(d->entries[i].blocknr) && !le32_get(d->entries[i].nr_free) &&
		    !le32_get(d->entries[i].none_free_before))
			continue;
		check_problem(c, &p, "index of the metadata space map: entries past its end");
		return;
	}
}

/* The tree of large counts and the index; counts all that they point to. */
static int
read_map(struct map_check *m)
{
	int r;

	m->nr_bitmaps = (m->nr_blocks + BITMAP_ENTRIES - 1) / BITMAP_ENTRIES;
	m->index = calloc(m->nr_bitmaps ? m->nr_bitmaps : 1, sizeof(*m->index));
	if (!m->index)
		return -ENOMEM;
	r = walk_counts(m);
	if (!r)
		r = check_count(m->c, m->bitmap_root);
	if (!r && m->of_data)
		r = walk_index(m);
	else if (!r)
		read_index(m);
	for (uint64_t i = 0; i < m->nr_bitmaps && !r; i++)
		if (le64_get(m->index[i].blocknr))
			r = check_count(m->c, le64_get(m->index[i].blocknr));
	return r;
}

static struct map_check
map_of(struct check *c, bool of_data)
{
	const struct disk_sm_root *root = of_data ? &c->sb.data_sm_root : &c->sb.metadata_sm_root;

	return (struct map_check){
		.c = c,
		.of_data = of_data,
		.name = of_data ? "data" : "metadata",
		.index_use = of_data ? USE_DATA_INDEX : USE_METADATA_INDEX,
		.counts_use = of_data ? USE_DATA_COUNTS : USE_METADATA_COUNTS,
		.nr_blocks = le64_get(root->nr_blocks),
		.nr_allocated = le64_get(root->nr_allocated),
		.bitmap_root = le64_get(root->bitmap_root),
		.count_root = le64_get(root->ref_count_root),
		.wanted = of_data ? &c->data : &c->metadata,
	};
}

static void
map_end(struct map_check *m)
{
	u64map_clear(&m->large);
	free(m->index);
}

int
check_maps(struct check *c)
{
	struct map_check metadata = map_of(c, false), data = map_of(c, true);
	int r = read_map(&metadata);

	if (!r)
		r = read_map(&data);
	if (!r)
		r = check_bitmaps(&metadata);
	if (!r)
		r = check_bitmaps(&data);
	map_end(&metadata);
	map_end(&data);
	return r;
}
