/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * meta_format: an empty pool, its blocks where the kernel would put them (format sheet, S 7.3).
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "pdata/thin_meta_internal.h"
#include "util/msg.h"

/* Room to write the maps of a format; not a bound that matters. */
#define FORMAT_CACHE_BYTES (4U << 20)

static int
check_sizes(struct image *img, uint32_t block_sectors, uint64_t nr_data_blocks,
	    uint64_t *nr_meta_blocks)
{
	uint64_t size;
	int r = image_get_size(img, &size);

	if (r)
		return r;
	*nr_meta_blocks = size / METADATA_BLOCK_SIZE;
	if (*nr_meta_blocks > METADATA_BLOCKS_MAX)
		*nr_meta_blocks = METADATA_BLOCKS_MAX;
	if (block_sectors < DATA_BLOCK_MIN_SECTORS || block_sectors > DATA_BLOCK_MAX_SECTORS ||
	    block_sectors % DATA_BLOCK_MIN_SECTORS) {
		msg_error("the block size must be a multiple of 64K between 64K and 1G");
		return -EINVAL;
	}
	if (nr_data_blocks > DATA_BLOCKS_MAX) {
		msg_error("%" PRIu64 " data blocks are more than a pool can have; "
			  "choose a larger block size", nr_data_blocks);
		return -EINVAL;
	}
	/* What the maps and a few nodes take, and as much again for the next transaction. */
	if (*nr_meta_blocks < 16 + 2 * (nr_data_blocks / BITMAP_ENTRIES + nr_data_blocks / (BITMAP_ENTRIES * 84ULL))) {
		msg_error("%s: %" PRIu64 " bytes are too small for the metadata of %" PRIu64
			  " data blocks; make it larger", img->name, size, nr_data_blocks);
		return -EINVAL;
	}
	return 0;
}

static int
make_pool(struct thin_meta *m, uint64_t nr_meta_blocks, uint64_t nr_data_blocks)
{
	struct btree top = meta_top_tree(m);
	struct btree details = meta_details_tree(m);
	int r = sm_create(&m->txn, SM_METADATA, nr_meta_blocks, &m->meta_sm);

	if (!r)
		r = sm_create(&m->txn, SM_DATA, 0, &m->data_sm);
	if (!r)
		r = btree_empty(&top, &m->sb.data_mapping_root);
	if (!r)
		r = btree_empty(&details, &m->sb.device_details_root);
	if (!r)
		r = sm_grow(m->data_sm, nr_data_blocks);
	m->changed = true;
	return r ? r : meta_commit(m, NULL);
}

int
meta_format(struct image *img, uint32_t data_block_sectors, uint64_t nr_data_blocks)
{
	struct thin_meta *m;
	uint64_t nr_meta_blocks;
	int r = check_sizes(img, data_block_sectors, nr_data_blocks, &nr_meta_blocks);

	if (r)
		return r;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->img = img;
	TAILQ_INIT(&m->devs);
	m->sb.data_block_sectors = data_block_sectors;
	m->sb.metadata_nr_blocks = nr_meta_blocks;
	m->frozen_sb = aligned_alloc(METADATA_BLOCK_SIZE, METADATA_BLOCK_SIZE);
	r = m->frozen_sb ? bc_open(img, nr_meta_blocks, FORMAT_CACHE_BYTES, &m->bc) : -ENOMEM;
	if (!r) {
		m->txn.bc = m->bc;
		r = make_pool(m, nr_meta_blocks, nr_data_blocks);
	}
	if (r == -ENOSPC)
		msg_error("%s: too small for the metadata of this pool; make it larger", img->name);
	meta_close(m);
	return r;
}
