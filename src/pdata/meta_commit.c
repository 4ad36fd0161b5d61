/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * meta_commit: the order in which a transaction reaches the disk (format sheet, S 7.4).
 *
 *   data image flushed          by the caller, after meta_freeze(): what the new mappings point to
 *   metadata blocks written     meanwhile or then: to places that nothing committed points to
 *   metadata image flushed
 *   superblock written          alone: this is the commit
 *   metadata image flushed
 *
 * A crash before the superblock is there leaves the last transaction, after it the new one. No
 * step is tried again after an error: a flush that failed once may succeed the next time without
 * having written anything.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "pdata/thin_meta_internal.h"
#include "util/msg.h"

int
meta_freeze(struct thin_meta *m)
{
	int r = meta_begin_change(m);

	if (!r)
		r = meta_flush_devs(m);
	/* The data map lives in metadata blocks, so it comes before the map of those. */
	if (!r)
		r = sm_flush(m->data_sm, &m->sb.data_sm_root);
	if (!r)
		r = sm_flush(m->meta_sm, &m->sb.metadata_sm_root);
	if (r) {
		m->broken = true;
		return r;
	}
	superblock_to_disk(&m->sb, SUPERBLOCK_LOCATION, m->frozen_sb);
	bc_freeze(m->bc);
	sm_freeze(m->data_sm);
	sm_freeze(m->meta_sm);
	m->open_txn++;
	m->changed = false;
	return 0;
}

static int
failed(struct thin_meta *m, const char *what, int error)
{
	if (error)
		msg_error("%s: %s failed: %s", m->img->name, what, strerror(-error));
	return error;
}

int
meta_write_blocks(struct thin_meta *m)
{
	int r = failed(m, "writing metadata blocks", bc_write(m->bc));

	return r ? r : failed(m, "flushing the metadata image", image_flush(m->img));
}

int
meta_write_superblock(struct thin_meta *m)
{
	int r;

	m->unflushed = true;
	r = block_write_sealed(m->img, SUPERBLOCK_LOCATION, BLOCK_SUPERBLOCK, m->frozen_sb);
	if (r)
		return failed(m, "writing the superblock", r);
	r = image_flush(m->img);
	m->unflushed = r;
	return failed(m, "flushing the metadata image after the superblock", r);
}

int
meta_write(struct thin_meta *m)
{
	int r = meta_write_blocks(m);

	return r ? r : meta_write_superblock(m);
}

int
meta_durable(struct thin_meta *m, struct runs *freed)
{
	bc_thaw(m->bc);
	sm_durable(m->meta_sm, NULL);
	return sm_durable(m->data_sm, freed);
}

int
meta_commit(struct thin_meta *m, struct image *data)
{
	int r;

	if (!m->changed && !m->broken)
		return 0;
	r = meta_freeze(m);
	if (!r && data)
		r = image_flush(data);
	if (!r)
		r = meta_write(m);
	if (r) {
		m->broken = true;
		return r;
	}
	return meta_durable(m, NULL);
}

/* As it is, byte for byte: a failed flush may have left it clean in the cache, and then flushing does nothing. */
int
meta_confirm(struct thin_meta *m)
{
	int r = image_read(m->img, m->frozen_sb, METADATA_BLOCK_SIZE, SUPERBLOCK_LOCATION);

	if (!r)
		r = image_flush(m->img);
	if (!r)
		r = image_write(m->img, m->frozen_sb, METADATA_BLOCK_SIZE, SUPERBLOCK_LOCATION);
	if (!r)
		r = image_flush(m->img);
	if (r)
		msg_error("%s: writing the superblock back failed: %s", m->img->name, strerror(-r));
	return r;
}

int
meta_mark_needs_check(struct thin_meta *m)
{
	int r;

	if (m->changed || m->broken)
		return -EBUSY;
	m->sb.needs_check = true;
	superblock_to_disk(&m->sb, SUPERBLOCK_LOCATION, m->frozen_sb);
	r = block_write_sealed(m->img, SUPERBLOCK_LOCATION, BLOCK_SUPERBLOCK, m->frozen_sb);
	return r ? r : image_flush(m->img);
}

int
meta_abort(struct thin_meta *m)
{
	struct superblock sb;
	int r;

	m->broken = true;
	m->in_doubt |= m->unflushed;
	m->pinned = MAP_HOLE;
	meta_close_maps(m);
	bc_drop_all(m->bc);
	r = superblock_read(m->img, m->read_only, &sb);
	if (r)
		return r;
	m->sb = sb;
	bc_set_nr_blocks(m->bc, le64_get(sb.metadata_sm_root.nr_blocks));
	r = meta_open_maps(m);
	if (!r)
		r = meta_reload_devs(m);
	if (r)
		return r;
	m->open_txn++;
	m->changed = false;
	m->broken = false;
	return 0;
}
