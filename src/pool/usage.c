/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * usage: what removing volumes would give back.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

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

static int
add(struct meta_tally *tally, struct vol *v)
{
	uint64_t from = 0;
	bool more = true;
	int r = 0;

	while (more && !r) {
		r = vol_lock_shared(v);
		if (r)
			break;
		r = meta_tally_add(tally, v->dev, from, LEAVES_AT_ONCE, &from, &more);
		rwlock_unlock(&v->pool->meta_lock);
	}
	return r;
}

static int
compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

int
pool_freed_by(struct pool *p, uint32_t *ids, size_t nr, uint64_t *bytes)
{
	struct meta_tally *tally = meta_tally_new();
	struct vol *v;
	int r = tally ? 0 : -ENOMEM;

	if (nr)
		qsort(ids, nr, sizeof(*ids), compare_ids);
	for (size_t i = 0; i < nr && !r; i++) {
		if (i && ids[i] == ids[i - 1])
			continue;
		r = pool_lookup_id(p, ids[i], &v);
		if (r)
			break;
		r = add(tally, v);
		vol_put(v);
	}
	*bytes = r ? 0 : meta_tally_blocks(tally) * p->block_bytes;
	meta_tally_free(tally);
	return r;
}
