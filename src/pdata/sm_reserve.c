/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sm_reserve: handing out blocks, and taking in new ones.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/space_map_internal.h"
#include "util/minmax.h"

/* The first block in [from, to) that is not busy; TO when there is none. */
static int
find_usable(struct space_map *sm, uint64_t from, uint64_t to, uint64_t *block)
{
	*block = to;
	while (from < to) {
		uint64_t index = from / BITMAP_ENTRIES;
		struct sm_chunk *c = &sm->chunks[index];
		uint32_t entry;
		int r;

		if (c->counts ? c->nr_usable : c->nr_free || !c->blocknr) {
			r = sm_get_chunk(sm, index, &c);
			if (r)
				return r;
			entry = chunk_find_usable(c, from % BITMAP_ENTRIES);
			if (entry < BITMAP_ENTRIES) {
				uint64_t found = index * BITMAP_ENTRIES + entry;

				if (found < to)
					*block = found;
				return 0;
			}
		}
		from = (index + 1) * BITMAP_ENTRIES;
	}
	return 0;
}

/* Mark up to WANT usable blocks from START on as busy. START is usable. */
static int
hold_run(struct space_map *sm, uint64_t start, uint64_t want, uint64_t *got)
{
	uint64_t n = 0;

	while (n < want && start + n < sm->nr_blocks) {
		uint64_t block = start + n;
		struct sm_chunk *c;
		int r = sm_get_chunk(sm, block / BITMAP_ENTRIES, &c);

		if (r && n)
			break;
		if (r)
			return r;
		if (chunk_is_busy(c, block % BITMAP_ENTRIES))
			break;
		chunk_set_busy(c, block % BITMAP_ENTRIES, true);
		n++;
	}
	sm->nr_held += n;
	*got = n;
	return 0;
}

int
sm_reserve(struct space_map *sm, uint64_t goal, uint64_t want, uint64_t *start, uint64_t *got)
{
	uint64_t block;
	int r;

	if (goal >= sm->nr_blocks)
		goal = 0;
	r = find_usable(sm, goal, sm->nr_blocks, &block);
	if (!r && block == sm->nr_blocks) {
		r = find_usable(sm, 0, goal, &block);
		if (!r && block == goal)
			return -ENOSPC;
	}
	if (!r)
		r = hold_run(sm, block, want, got);
	if (r)
		return r;
	*start = block;
	sm->cursor = block + *got;
	return 0;
}

void
sm_unreserve(struct space_map *sm, uint64_t start, uint64_t nr)
{
	uint64_t end = min_u64(start + nr, min_u64(sm->nr_blocks, sm->fence));

	while (start < end) {
		uint64_t next = min_u64(end, (start / BITMAP_ENTRIES + 1) * BITMAP_ENTRIES);
		uint32_t from = start % BITMAP_ENTRIES;
		struct sm_chunk *c = &sm->chunks[start / BITMAP_ENTRIES];

		/* A reservation from before an abort is known no longer. */
		if (c->counts)
			sm->nr_held -= chunk_release(c, from, from + (uint32_t)(next - start));
		start = next;
	}
}

int
sm_alloc(struct space_map *sm, uint64_t *block)
{
	uint64_t got;
	int r = sm_reserve(sm, sm->cursor, 1, block, &got);

	return r ? r : sm_inc(sm, *block);
}

int
sm_grow(struct space_map *sm, uint64_t nr_blocks)
{
	uint64_t nr_chunks = sm_chunks_for(nr_blocks);
	uint64_t old = sm->nr_blocks;
	struct sm_chunk *chunks, *last;

	if (nr_blocks < old || (sm->kind == SM_METADATA && nr_chunks > METADATA_BITMAPS_MAX) ||
	    nr_blocks > DATA_BLOCKS_MAX)
		return -EINVAL;
	if (nr_chunks > sm->nr_chunks) {
		chunks = reallocarray(sm->chunks, nr_chunks, sizeof(*chunks));
		if (!chunks)
			return -ENOMEM;
		memset(chunks + sm->nr_chunks, 0, (nr_chunks - sm->nr_chunks) * sizeof(*chunks));
		sm->chunks = chunks;
		for (uint64_t i = sm->nr_chunks; i < nr_chunks; i++)
			sm_mark_dirty(sm, &chunks[i]);
	}
	last = sm->nr_chunks ? &sm->chunks[sm->nr_chunks - 1] : NULL;
	if (last && last->counts)
		for (uint64_t b = old; b < nr_blocks && b < sm->nr_chunks * BITMAP_ENTRIES; b++)
			chunk_set_busy(last, b % BITMAP_ENTRIES, false);
	sm->nr_chunks = nr_chunks;
	sm->nr_blocks = nr_blocks;
	return 0;
}
