/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * meta_snap: the metadata snapshot, a view of the pool at one commit that user space may read
 * while the pool is live (format sheet, S 9.5).
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "pdata/thin_meta_internal.h"

int
meta_reserve_snap(struct thin_meta *m)
{
	struct superblock copy = m->sb;
	struct block *b;
	int r = meta_begin_change(m);

	if (r)
		return r;
	if (m->sb.held_root || m->changed)
		return -EBUSY;
	r = txn_new(&m->txn, BLOCK_SUPERBLOCK, &b);
	if (r)
		return meta_end_change(m, r);
	memset(&copy.data_sm_root, 0, sizeof(copy.data_sm_root));
	memset(&copy.metadata_sm_root, 0, sizeof(copy.metadata_sm_root));
	superblock_to_disk(&copy, b->nr, b->data);
	m->sb.held_root = b->nr;
	bc_put(b);
	r = txn_inc(&m->txn, m->sb.data_mapping_root);
	if (!r)
		r = txn_inc(&m->txn, m->sb.device_details_root);
	return meta_end_change(m, r);
}

int
meta_release_snap(struct thin_meta *m)
{
	struct btree top = meta_top_tree(m);
	struct btree details = meta_details_tree(m);
	uint64_t held = m->sb.held_root;
	struct superblock copy;
	struct block *b;
	int r = meta_begin_change(m);

	if (r)
		return r;
	if (!held)
		return -EINVAL;
	r = txn_read(&m->txn, held, BLOCK_SUPERBLOCK, &b);
	if (r)
		return r;
	superblock_from_disk(b->data, &copy);
	bc_put(b);
	m->sb.held_root = 0;
	r = btree_delete(&top, copy.data_mapping_root);
	if (!r)
		r = btree_delete(&details, copy.device_details_root);
	if (!r)
		r = txn_dec(&m->txn, held);
	return meta_end_change(m, r);
}
