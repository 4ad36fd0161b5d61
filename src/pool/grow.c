/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * grow: taking in what is new of images that have become larger, while the pool is in use or before; and
 * how long writers wait for that.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

/* The size of an image in blocks of its kind, as far as a pool can use them. */
static int
image_blocks(struct image *img, uint64_t block_bytes, uint64_t max, uint64_t *nr)
{
	uint64_t bytes;
	int r = image_get_size(img, &bytes);

	*nr = r ? 0 : min_u64(bytes / block_bytes, max);
	return r;
}

/* What is new costs metadata blocks itself; those of a larger metadata image come first. */
static int
grow_locked(struct pool *p, uint64_t data, uint64_t meta, bool *grown)
{
	struct meta_info info;
	int r = pool_check_writable(p);

	if (r)
		return r;
	meta_get_info(p->tm, &info);
	if (meta > info.nr_meta_blocks) {
		r = meta_grow_metadata(p->tm, meta);
		*grown = !r;
	}
	if ((!r || r == -ENOSPC) && data > info.nr_data_blocks) {
		r = meta_grow_data(p->tm, data);
		*grown |= !r;
	}
	return r;
}

/*
 * Have what is below provide for the new part of the metadata image, up to *NR blocks, or leave it out: a commit must not
 * fail for lack of space there.
 */
static void
provide_below(struct pool *p, uint64_t *nr)
{
	struct meta_info info;

	rwlock_rdlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	rwlock_unlock(&p->meta_lock);
	if (*nr > info.nr_meta_blocks &&
	    image_allocate(p->meta, info.nr_meta_blocks * METADATA_BLOCK_SIZE,
			   (*nr - info.nr_meta_blocks) * METADATA_BLOCK_SIZE))
		*nr = info.nr_meta_blocks;
}

int
pool_adopt_growth(struct pool *p)
{
	bool grown = false;
	uint64_t data, meta;
	int r = pool_check_writable(p);

	if (!r)
		r = image_blocks(p->data, p->block_bytes, DATA_BLOCKS_MAX, &data);
	if (!r)
		r = image_blocks(p->meta, METADATA_BLOCK_SIZE, METADATA_BLOCKS_MAX, &meta);
	if (r)
		return r;
	provide_below(p, &meta);
	rwlock_wrlock(&p->meta_lock);
	r = grow_locked(p, data, meta, &grown);
	if (grown)
		pool_update_mode(p);
	rwlock_unlock(&p->meta_lock);
	if (grown) {
		msg_info("%s: %" PRIu64 " data blocks and %" PRIu64 " metadata blocks now", p->data->name,
			 data, meta);
		pool_space_hook(p);
	}
	return r;
}

bool
pool_waits_for_space(const struct pool *p)
{
	return !p->options.error_if_no_space && !p->waited_enough;
}

void
pool_stop_waiting(struct pool *p)
{
	rwlock_wrlock(&p->meta_lock);
	/* Back in write mode, there is no waiting to end. */
	if (p->mode != POOL_WRITE && !p->waited_enough) {
		p->waited_enough = true;
		msg_warn("%s: no space for %u seconds: writers get an error from now on, until there is some",
			 p->data->name, p->options.no_space_timeout_s);
	}
	rwlock_unlock(&p->meta_lock);
}
