/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both space maps of a seed, with lies in their roots, index, bitmaps and counts, used through space_map.h.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "fuzz/edits.h"
#include "pdata/space_map_internal.h"
#include "pdata/superblock.h"

#define MAX_OPS 32U
#define CACHE_BYTES (1U << 20)

struct maps {
	struct seed *s;
	struct superblock sb;
	struct block_cache *bc;
	struct txn txn;
	struct space_map *meta, *data;
};

static int
open_map(struct maps *m, enum space_map_kind kind, const struct disk_sm_root *root, struct space_map **out,
	 uint8_t how)
{
	int r = sm_open(&m->txn, kind, root, out);

	if (!r && how & 1)
		r = sm_check_counts(*out);
	if (!r && how & 2)
		r = sm_recount(*out, 0);
	return r;
}

static int
open_maps(struct maps *m, uint8_t how)
{
	uint64_t nr;
	int r = superblock_read(&m->s->meta->image, false, &m->sb);

	if (r)
		return r;
	nr = le64_get(m->sb.metadata_sm_root.nr_blocks);
	if (nr > m->s->meta->nr_pages)
		return -EINVAL;
	r = bc_open(&m->s->meta->image, nr, CACHE_BYTES, &m->bc);
	m->txn.bc = m->bc;
	if (!r)
		r = open_map(m, SM_METADATA, &m->sb.metadata_sm_root, &m->meta, how);
	if (!r)
		r = open_map(m, SM_DATA, &m->sb.data_sm_root, &m->data, how);
	return r;
}

/* Bring it all down, and take it for durable. */
static int
commit(struct maps *m)
{
	struct disk_sm_root root;
	int r = sm_flush(m->data, &root);

	if (!r)
		r = sm_flush(m->meta, &root);
	if (r)
		return r;
	bc_freeze(m->bc);
	sm_freeze(m->data);
	sm_freeze(m->meta);
	r = bc_write(m->bc);
	bc_thaw(m->bc);
	if (!r)
		r = sm_durable(m->data, NULL);
	return r ? r : sm_durable(m->meta, NULL);
}

static int
reserve(struct maps *m, struct space_map *sm, struct fuzz_input *in)
{
	uint64_t goal = edits_number(m->s, in, 0), want = fuzz_u16(in) + 1U, start, got;
	uint32_t count;
	int r = sm_reserve(sm, goal, want, &start, &got);

	if (r)
		return r == -ENOSPC ? 0 : r;
	if (!got || got > want || start >= sm_nr_blocks(sm) || got > sm_nr_blocks(sm) - start)
		fuzz_fail("reserved what is not there");
	r = sm_count(sm, start, &count);
	if (!r && count)
		fuzz_fail("reserved what is in use");
	if (!r && got > 1)
		sm_unreserve(sm, start + 1, got - 1);
	return r ? r : sm_inc(sm, start);
}

static int
alloc(struct maps *m)
{
	uint64_t block;
	uint32_t count;
	int r = sm_alloc(m->meta, &block);

	if (r)
		return r == -ENOSPC ? 0 : r;
	if (block >= sm_nr_blocks(m->meta) || fuzz_result(sm_count(m->meta, block, &count)) || count != 1)
		fuzz_fail("block %llu was handed out wrongly", (unsigned long long)block);
	return 0;
}

static int
grow(struct maps *m, struct space_map *sm, struct fuzz_input *in)
{
	uint64_t nr = sm_nr_blocks(sm) + fuzz_u16(in);
	int r;

	if (sm == m->meta) {
		if (nr > m->s->meta->nr_pages)
			nr = m->s->meta->nr_pages;
		bc_set_nr_blocks(m->bc, nr);
	}
	r = sm_grow(sm, nr);
	return r == -EINVAL ? 0 : r;
}

/* 0: go on. */
static int
operate(struct maps *m, struct fuzz_input *in, unsigned op)
{
	struct space_map *sm = op & 0x80 ? m->meta : m->data;
	uint64_t block = edits_number(m->s, in, 0);
	struct sm_change change;
	uint32_t count;

	switch (op % 10) {
	case 0:
		return fuzz_result(sm_count(sm, block, &count)) > 0;
	case 1:
	case 2:
		/* Not counted and not reserved is refused, and nothing has changed. */
		return fuzz_result(sm_inc(sm, block)) > 0;
	case 3:
	case 4:
		return fuzz_result(sm_dec(sm, block)) > 0;
	case 5:
		return alloc(m);
	case 6:
		return reserve(m, sm, in);
	case 7:
		return grow(m, sm, in);
	case 8:
		return commit(m);
	default:
		change = (struct sm_change){block, fuzz_u16(in), fuzz_u16(in)};
		sm_flush_cost(sm, &change);
		if (sm_nr_free(sm) > sm_nr_blocks(sm))
			fuzz_fail("more blocks are free than there are");
		return 0;
	}
}

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct maps m = {.s = NULL};
	int r;

	fuzz_begin();
	m.s = seeds_get(fuzz_u8(&in));
	edits_apply(m.s, &in, EDIT(SEED_SUPERBLOCK) | EDIT(SEED_INDEX) | EDIT(SEED_INDEX_TREE) | EDIT(SEED_COUNTS) |
		    EDIT(SEED_META_BITMAP) | EDIT(SEED_DATA_BITMAP));
	r = fuzz_result(open_maps(&m, fuzz_u8(&in)));
	for (unsigned i = 0; i < MAX_OPS && in.left && !r; i++)
		r = fuzz_result(operate(&m, &in, fuzz_u8(&in)));
	sm_close(m.data);
	sm_close(m.meta);
	bc_close(m.bc);
}

const struct fuzz_target fuzz_spacemap = {"spacemap", seeds_load, run};
