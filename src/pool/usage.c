/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "pool/pool_internal.h"

/* In one hold of meta_lock. */
#define LEAVES_AT_ONCE 64U

int
vol_exclusive(struct vol *v, uint64_t *bytes)
{
	uint64_t from = 0, blocks;
	bool more = true;

	*bytes = 0;
	while (more) {
		int r = vol_lock_shared(v);

		if (r)
			return r;
		r = dev_exclusive(v->dev, from, LEAVES_AT_ONCE, &blocks, &from, &more);
		rwlock_unlock(&v->pool->meta_lock);
		if (r)
			return r;
		*bytes += blocks * v->pool->block_bytes;
	}
	return 0;
}
