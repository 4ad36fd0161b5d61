/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thin_exact: which blocks a device has for itself, though the rule of time (format sheet, S 5.3) says that they
 * are shared: those that it shared with what has been deleted or overwritten since.
 *
 * A count tells how many pointers there are to a block, not how many devices reach it; so all counts on the
 * way to a mapping must be one (trap 10). And they must have been so in the last commit, too: who lost its way to
 * a block in a transaction that is not durable has it again after a crash, and would see what was written in
 * place. sm_was_dropped() tells of those; when a flush of the superblock has failed, nothing does.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "pdata/thin_meta_internal.h"

/* The way to the device's tree: a held metadata snapshot may share it. One that changed has left that. */
static int
tree_is_shared(struct thin_dev *d, bool *shared)
{
	struct thin_meta *m = d->meta;
	struct btree top = meta_top_tree(m);

	*shared = m->in_doubt || sm_was_dropped(m->meta_sm, d->root);
	if (*shared || d->changed)
		return 0;
	return btree_path_is_shared(&top, m->sb.data_mapping_root, d->id, shared);
}

static int
block_is_shared(struct thin_dev *d, uint64_t vblock, uint64_t dblock, bool *shared)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct space_map *sm = d->meta->data_sm;
	uint32_t count;
	int r = sm_count(sm, dblock, &count);

	/* Behind a fence blocks are being moved: none may begin to be overwritten in place. */
	*shared = r || count != 1 || sm_was_dropped(sm, dblock) || dblock >= sm_get_fence(sm) ||
		  dblock == d->meta->pinned;
	if (*shared)
		return r;
	return btree_path_is_shared(&mappings, d->root, vblock, shared);
}

/* Cut RUN after the blocks that are alike in this: *len of them, *shared or not. */
static int
leading(struct thin_dev *d, const struct map_run *run, uint64_t *len, bool *shared)
{
	bool next;
	int r = block_is_shared(d, run->vblock, run->dblock, shared);

	for (*len = 1; !r && *len < run->len; ++*len) {
		r = block_is_shared(d, run->vblock + *len, run->dblock + *len, &next);
		if (next != *shared)
			break;
	}
	return r;
}

int
dev_sort_out_shared(struct thin_dev *d, struct map_run *runs, unsigned max, unsigned *nr)
{
	bool all_shared, shared;
	int r = d->gone ? -ENODATA : d->meta->broken ? -EIO : tree_is_shared(d, &all_shared);

	for (unsigned i = 0; i < *nr && !r && !all_shared; i++) {
		struct map_run *run = &runs[i];
		uint64_t len;

		if (!run->shared)
			continue;
		r = leading(d, run, &len, &shared);
		if (r)
			break;
		if (len < run->len) {
			*nr = *nr < max ? *nr + 1 : max;
			memmove(run + 1, run, (*nr - i - 1) * sizeof(*run));
			run[1].vblock += len;
			run[1].dblock += len;
			run[1].len -= len;
			run->len = len;
		}
		run->shared = shared;
		run->aged = !shared;
	}
	return r;
}

int
dev_renew(struct thin_dev *d, uint64_t vblock, uint64_t dblock, uint64_t nr)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct le64 value = {0};
	int r = meta_begin_change(d->meta);

	if (r)
		return r;
	r = dev_touch(d);
	for (uint64_t i = 0; i < nr && !r; i++) {
		bool shared = true;

		r = btree_lookup(&mappings, d->root, vblock + i, &value);
		if (!r && le64_get(value) >> MAPPING_TIME_BITS == dblock + i)
			r = block_is_shared(d, vblock + i, dblock + i, &shared);
		if (r == -ENODATA)
			r = 0;
		if (r || shared)
			continue;
		value = le64_make((dblock + i) << MAPPING_TIME_BITS | d->meta->sb.time);
		r = btree_insert(&mappings, &d->root, vblock + i, &value, NULL);
	}
	return meta_end_change(d->meta, r);
}
