/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "pdata/format.h"
#include "pdata/space_map.h"
#include "pdata/txn.h"

int
txn_read(struct txn *t, uint64_t nr, enum block_type type, struct block **out)
{
	return bc_read(t->bc, nr, type, out);
}

int
txn_new(struct txn *t, enum block_type type, struct block **out)
{
	uint64_t nr;
	int r = sm_alloc(t->sm, &nr);

	if (!r && nr < t->nr_known)
		t->known[nr / 32] &= ~(3ULL << 2 * (nr % 32));
	return r ? r : bc_new(t->bc, nr, type, out);
}

/* B (held) has become *OUT (held): a copy of its own for one who shared or had it committed. */
static int
copy_block(struct txn *t, struct block *b, enum block_type type, struct block **out)
{
	struct block *copy;
	int r = txn_new(t, type, &copy);

	if (r)
		return r;
	memcpy(copy->data, b->data, METADATA_BLOCK_SIZE);
	r = txn_dec(t, b->nr);
	if (r) {
		bc_put(copy);
		return r;
	}
	*out = copy;
	return 0;
}

int
txn_shadow(struct txn *t, uint64_t nr, enum block_type type, struct block **out, bool *shared)
{
	struct block *b;
	uint32_t count;
	int r = sm_count(t->sm, nr, &count);

	if (r)
		return r;
	*shared = count > 1;
	r = bc_read(t->bc, nr, type, &b);
	if (r)
		return r;
	/* A block can be new and shared: two snapshots in one transaction (S 7.1). */
	if (bc_is_dirty(b) && !*shared) {
		*out = b;
		return 0;
	}
	r = copy_block(t, b, type, out);
	bc_put(b);
	return r;
}

int
txn_inc(struct txn *t, uint64_t nr)
{
	return sm_inc(t->sm, nr);
}

int
txn_dec(struct txn *t, uint64_t nr)
{
	uint32_t count;
	int r = sm_dec(t->sm, nr);

	if (!r)
		r = sm_count(t->sm, nr, &count);
	if (!r && count == 0)
		bc_forget(t->bc, nr);
	return r;
}

int
txn_leave(struct txn *t, uint64_t nr)
{
	sm_dropped_any(t->sm);
	return txn_dec(t, nr);
}

int
txn_count(struct txn *t, uint64_t nr, uint32_t *count)
{
	return sm_count(t->sm, nr, count);
}
