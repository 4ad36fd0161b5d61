/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_devices: the details of the thin devices, the tree of their roots, and their mappings
 * (format sheet, S 5).
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "pdata/btree_node.h"
#include "pdata/check_internal.h"

/* What one of the two trees says of a device. */
struct entry {
	uint64_t id;
	uint64_t leaf; /* the block that says so */
	union {
		struct disk_details details;
		uint64_t root;
	};
};

struct entries {
	struct entry *v; /* ascending ids */
	size_t nr, cap;
};

static struct entry *
add_entry(struct entries *e, uint64_t id, uint64_t leaf)
{
	if (e->nr == e->cap) {
		size_t cap = e->cap ? 2 * e->cap : 64;
		struct entry *v = reallocarray(e->v, cap, sizeof(*v));

		if (!v)
			return NULL;
		e->v = v;
		e->cap = cap;
	}
	e->v[e->nr] = (struct entry){.id = id, .leaf = leaf};
	return &e->v[e->nr++];
}

static int
take_details(struct tree_walk *w, uint64_t block, const struct disk_node *n, bool first)
{
	uint32_t now = w->c->sb.time;

	for (unsigned i = 0; i < node_nr(n); i++) {
		struct entry *e = add_entry(w->arg, node_key(n, i), block);
		const struct disk_details *d = node_value(n, i);

		if (!e)
			return -ENOMEM;
		e->details = *d;
		if (first && e->id > DEV_ID_MAX)
			check_error(w->c, w->use, block, "device %" PRIu64 ": numbers end at %u", e->id,
				    DEV_ID_MAX);
		if (first && (le32_get(d->creation_time) > now || le32_get(d->snapshotted_time) > now))
			check_error(w->c, w->use, block, "device %" PRIu64 ": made at time %" PRIu32
				    ", snapshotted at %" PRIu32 ", but it is only %" PRIu32, e->id,
				    le32_get(d->creation_time), le32_get(d->snapshotted_time), now);
	}
	return 0;
}

static int
take_roots(struct tree_walk *w, uint64_t block, const struct disk_node *n, bool first)
{
	int r = 0;

	for (unsigned i = 0; i < node_nr(n) && !r; i++) {
		struct entry *e = add_entry(w->arg, node_key(n, i), block);

		if (!e)
			return -ENOMEM;
		e->root = node_child(n, i);
		if (first)
			r = check_count(w->c, e->root);
	}
	return r;
}

/* Count the data blocks of a leaf of mappings, and look at their times. */
static int
take_mappings(struct tree_walk *w, uint64_t block, const struct disk_node *n, bool first)
{
	struct check *c = w->c;
	unsigned outside = 0, early = 0, i_outside = 0, i_early = 0;
	int r = 0;

	for (unsigned i = 0; first && i < node_nr(n) && !r; i++) {
		uint64_t mapping = le64_get(*(const struct le64 *)node_value(n, i));
		uint64_t dblock = mapping >> MAPPING_TIME_BITS;

		if (dblock < c->nr_data_blocks)
			r = sm_counts_inc(&c->data, dblock);
		else if (!outside++)
			i_outside = i;
		if ((mapping & MAPPING_TIME_MAX) > c->sb.time && !early++)
			i_early = i;
	}
	if (outside)
		check_error(c, w->use, block, "node of the %s: %u mappings to data blocks that do not "
			    "exist, the first of block %" PRIu64, w->name, outside,
			    node_key(n, i_outside));
	if (early)
		check_error(c, w->use, block, "node of the %s: %u mappings made after the pool's time, "
			    "the first of block %" PRIu64, w->name, early, node_key(n, i_early));
	return r;
}

static int
add_wrong(struct check *c, uint64_t id, const struct disk_details *right)
{
	if (c->nr_wrong == c->cap_wrong) {
		size_t cap = c->cap_wrong ? 2 * c->cap_wrong : 16;
		struct wrong_details *v = reallocarray(c->wrong, cap, sizeof(*v));

		if (!v)
			return -ENOMEM;
		c->wrong = v;
		c->cap_wrong = cap;
	}
	c->wrong[c->nr_wrong++] = (struct wrong_details){id, *right};
	return 0;
}

static int
compare_mapped(struct check *c, const struct entry *e, uint64_t mapped, bool held)
{
	struct check_problem p = {
		.severity = CHECK_ERROR,
		.mendable = !held,
		.block = e->leaf,
		.nr = 1,
	};
	struct disk_details right = e->details;

	if (le64_get(e->details.mapped_blocks) == mapped)
		return 0;
	check_problem(c, &p, "%sdevice %" PRIu64 ": its details say %" PRIu64
		      " mapped blocks, it has %" PRIu64, held ? "metadata snapshot: " : "", e->id,
		      le64_get(e->details.mapped_blocks), mapped);
	right.mapped_blocks = le64_make(mapped);
	return held ? 0 : add_wrong(c, e->id, &right);
}

/* DETAILS is NULL for a device that has none. */
static int
check_device(struct check *c, const struct entry *root, const struct entry *details, bool held)
{
	struct tree_walk w = {
		.c = c,
		.use = USE_MAPPINGS,
		.value_size = sizeof(struct le64),
		.leaf = take_mappings,
	};
	const struct seen_block *s;
	int r;

	snprintf(w.name, sizeof(w.name), "mappings of device %" PRIu64, root->id);
	r = check_walk(&w, root->root, &s);
	if (r || !s || s->incomplete)
		return r;
	if (!held) {
		c->result.nr_devices++;
		c->result.nr_mappings += s->nr_entries;
	}
	return details ? compare_mapped(c, details, s->nr_entries, held) : 0;
}

/* Both lists must have the same devices, if both are WHOLE. */
static int
check_each(struct check *c, const struct entries *roots, const struct entries *details, bool held,
	   bool whole)
{
	const char *where = held ? "metadata snapshot: " : "";
	size_t i = 0, j = 0;
	int r = 0;

	while (!r && (i < roots->nr || j < details->nr)) {
		const struct entry *root = i < roots->nr ? &roots->v[i] : NULL;
		const struct entry *d = j < details->nr ? &details->v[j] : NULL;

		if (!root || (d && d->id < root->id)) {
			if (whole)
				check_error(c, USE_DETAILS, d->leaf, "%sdevice %" PRIu64
					    " has details but no mappings", where, d->id);
			j++;
		} else if (!d || root->id < d->id) {
			if (whole)
				check_error(c, USE_TOP, root->leaf, "%sdevice %" PRIu64
					    " has mappings but no details", where, root->id);
			r = check_device(c, root, NULL, held);
			i++;
		} else {
			r = check_device(c, root, d, held);
			i++;
			j++;
		}
	}
	return r;
}

int
check_devices(struct check *c, const struct superblock *sb, bool held)
{
	struct entries roots = {0}, details = {0};
	struct tree_walk top_walk = {
		.c = c,
		.use = USE_TOP,
		.value_size = sizeof(struct le64),
		.every_leaf = true,
		.name = "tree of devices",
		.leaf = take_roots,
		.arg = &roots,
	};
	struct tree_walk details_walk = {
		.c = c,
		.use = USE_DETAILS,
		.value_size = sizeof(struct disk_details),
		.every_leaf = true,
		.name = "details",
		.leaf = take_details,
		.arg = &details,
	};
	const struct seen_block *top = NULL, *d = NULL;
	int r = check_count(c, sb->device_details_root);

	if (!r)
		r = check_walk(&details_walk, sb->device_details_root, &d);
	if (!r)
		r = check_count(c, sb->data_mapping_root);
	if (!r)
		r = check_walk(&top_walk, sb->data_mapping_root, &top);
	if (!r)
		r = check_each(c, &roots, &details, held,
			       top && d && !top->incomplete && !d->incomplete);
	free(roots.v);
	free(details.v);
	return r;
}
