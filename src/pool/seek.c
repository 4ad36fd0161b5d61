/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * seek: where a volume has data and where it has holes, from the mappings alone. What shows the external origin is data,
 * whatever that has there.
 */
#include <config.h>

#include <errno.h>
#include <unistd.h>

#include "pool/pool_internal.h"

/* Mappings passed in one hold of meta_lock. */
#define SEEK_AT_ONCE 65536U

/* The first run of mapped blocks at or after FROM; *len 0: none. */
static int
next_mapped(struct vol *v, uint64_t from, uint64_t *start, uint64_t *len)
{
	int r = vol_lock_shared(v);

	if (r)
		return r;
	*len = 0;
	r = dev_next_mapped(v->dev, from, SEEK_AT_ONCE, start, len);
	rwlock_unlock(&v->pool->meta_lock);
	return r == -ENODATA ? 0 : r;
}

static off_t
seek_data(struct vol *v, uint64_t offset, uint64_t size)
{
	uint64_t start, len;
	int r;

	if (offset < vol_origin(v).end)
		return (off_t)offset;
	r = next_mapped(v, vol_block(v, offset), &start, &len);

	if (r)
		return r;
	if (!len || start > vol_block(v, size - 1))
		return -ENXIO;
	start *= v->pool->block_bytes;
	return (off_t)(start > offset ? start : offset);
}

static off_t
seek_hole(struct vol *v, uint64_t offset, uint64_t size)
{
	uint64_t origin_end = vol_origin(v).end;
	uint64_t at = vol_block(v, offset), start, len;

	if (offset < origin_end)
		at = vol_block(v, origin_end - 1) + 1;

	while (at <= vol_block(v, size - 1)) {
		int r = next_mapped(v, at, &start, &len);

		if (r)
			return r;
		if (!len || start > at)
			break;
		at = start + len;
	}
	if (at > vol_block(v, size - 1))
		return (off_t)size;
	at *= v->pool->block_bytes;
	return (off_t)(at > offset ? at : offset);
}

off_t
vol_seek(struct vol *v, off_t offset, int whence)
{
	uint64_t size = v->size;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (offset < 0 || (uint64_t)offset >= size)
		return -ENXIO;
	return whence == SEEK_DATA ? seek_data(v, (uint64_t)offset, size)
				   : seek_hole(v, (uint64_t)offset, size);
}
