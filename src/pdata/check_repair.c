/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_repair: both space maps made anew from what the check has found.
 *
 * However they are damaged, nothing of the old maps is needed, and nothing of them is overwritten
 * before the superblock names the new ones.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/check_internal.h"
#include "pdata/thin_meta_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

#define REPAIR_CACHE_BYTES (4U << 20)

static void
end_transaction(struct thin_meta *m)
{
	meta_close(m);
}

/* Metadata of NR_BLOCKS blocks as the superblock describes them, but for needs_check; without space maps. */
static int
begin_transaction(struct check *c, uint64_t nr_blocks, struct thin_meta **out)
{
	struct thin_meta *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	TAILQ_INIT(&m->devs);
	m->img = c->img;
	m->cache_bytes = REPAIR_CACHE_BYTES;
	m->sb = c->sb;
	m->sb.needs_check = false;
	m->frozen_sb = aligned_alloc(METADATA_BLOCK_SIZE, METADATA_BLOCK_SIZE);
	r = m->frozen_sb ? bc_open(m->img, nr_blocks, m->cache_bytes, &m->bc) : -ENOMEM;
	if (r) {
		end_transaction(m);
		return r;
	}
	m->txn.bc = m->bc;
	*out = m;
	return 0;
}

static int
mend_details(struct check *c, struct thin_meta *m)
{
	struct btree details = meta_details_tree(m);
	int r = 0;

	for (size_t i = 0; i < c->nr_wrong && !r; i++)
		r = btree_insert(&details, &m->sb.device_details_root, c->wrong[i].id,
				 &c->wrong[i].right, NULL);
	return r;
}

/* -ENOSPC: NR_BLOCKS have no room for new maps; nothing was written. */
static int
rebuild(struct check *c, uint64_t nr_blocks)
{
	struct thin_meta *m;
	int r = begin_transaction(c, nr_blocks, &m);

	if (r)
		return r;
	r = sm_create_counted(&m->txn, SM_METADATA, nr_blocks, &c->trees, &c->metadata, &m->meta_sm);
	/* Without room for the bitmaps alone, do not first fill the memory with them. */
	if (!r && sm_nr_free(m->meta_sm) < c->data.nr_chunks + c->metadata.nr_chunks)
		r = -ENOSPC;
	if (!r)
		r = sm_create_counted(&m->txn, SM_DATA, c->nr_data_blocks, &c->data, NULL,
				      &m->data_sm);
	if (!r)
		r = mend_details(c, m);
	if (!r)
		r = meta_freeze(m);
	/* Only now is it clear that there is room; this needs the place where meta_freeze() put the superblock. */
	if (!r)
		r = meta_confirm(m);
	if (!r) {
		superblock_to_disk(&m->sb, SUPERBLOCK_LOCATION, m->frozen_sb);
		r = meta_write(m);
	}
	end_transaction(m);
	return r;
}

/* The superblock alone: needs no room, and is old or new. */
static int
clear_needs_check(struct check *c)
{
	struct thin_meta *m;
	int r = begin_transaction(c, c->nr_blocks, &m);

	if (r)
		return r;
	r = meta_confirm(m);
	if (!r) {
		superblock_to_disk(&m->sb, SUPERBLOCK_LOCATION, m->frozen_sb);
		r = block_write_sealed(m->img, SUPERBLOCK_LOCATION, BLOCK_SUPERBLOCK, m->frozen_sb);
		if (!r)
			r = image_flush(m->img);
		if (r)
			msg_error("%s: writing the superblock failed: %s", m->img->name, strerror(-r));
	}
	end_transaction(m);
	return r;
}

/* In the room there is, or that the image has behind its end. */
static int
rebuild_or_grow(struct check *c, struct repair_result *result)
{
	uint64_t size;
	int r = rebuild(c, c->nr_blocks);

	if (r != -ENOSPC || image_get_size(c->img, &size))
		return r;
	size = min_u64(size / METADATA_BLOCK_SIZE, METADATA_BLOCKS_MAX);
	if (size <= c->nr_blocks)
		return r;
	r = rebuild(c, size);
	if (!r)
		result->grown_to = size;
	return r;
}

static bool
maps_are_wrong(const struct check_result *r)
{
	return r->nr_errors || r->nr_warnings || r->leaked_metadata || r->leaked_data;
}

static int
mend(struct check *c, struct repair_result *result)
{
	const struct check_result *found = &c->result;
	int r;

	if (!maps_are_wrong(found) && !found->needs_check) {
		result->outcome = REPAIR_NOTHING_TO_DO;
		return 0;
	}
	if (found->nr_unmendable || found->unreadable || c->trees_lost) {
		result->outcome = REPAIR_IMPOSSIBLE;
		return 0;
	}
	r = maps_are_wrong(found) ? rebuild_or_grow(c, result) : clear_needs_check(c);
	if (r == -ENOSPC) {
		result->outcome = REPAIR_NO_SPACE;
		return 0;
	}
	if (r)
		return r;
	result->outcome = REPAIR_DONE;
	result->rebuilt_maps = maps_are_wrong(found);
	result->cleared_needs_check = found->needs_check;
	result->mended_details = c->nr_wrong;
	return 0;
}

/* Trust is good. */
static int
check_again(struct image *img)
{
	struct check_result after;
	int r = meta_check(img, NULL, NULL, &after);

	if (r || (!maps_are_wrong(&after) && !after.needs_check))
		return r;
	msg_error("%s: the repair was written, but the metadata are not clean after it; mount it "
		  "read-only and copy its volumes", img->name);
	return -EUCLEAN;
}

int
meta_repair(struct image *img, check_fn fn, void *arg, struct repair_result *result)
{
	struct check c;
	int r = check_run(&c, img, fn, arg);

	*result = (struct repair_result){.before = c.result};
	if (!r)
		r = mend(&c, result);
	check_end(&c);
	if (!r && result->outcome == REPAIR_DONE)
		r = check_again(img);
	return r;
}
