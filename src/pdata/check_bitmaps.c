/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_bitmaps: the counts that a space map holds against those that the walk has found, and the
 * numbers that are kept beside them (format sheet, S 6.2 to 6.5, S 8).
 */
#include <config.h>

#include <inttypes.h>

#include "pdata/check_internal.h"
#include "pdata/sm_chunk.h"
#include "util/minmax.h"

/* Neighbours that are wrong in the same way, told in one line. */
struct wrong_run {
	uint64_t start, nr;
	uint32_t stored, wanted;
};

struct bitmap_state {
	struct map_check *m;
	struct wrong_run wrong;
	uint64_t used; /* counted blocks, of all bitmaps that could be read */
	bool all_read;
	bool compare; /* the counts are known */
	bool index_lost; /* so that it has been told why bitmaps are missing */
};

static void
tell_wrong(struct bitmap_state *st)
{
	struct wrong_run *w = &st->wrong;
	bool leak = !w->wanted && w->stored == 1;
	struct check_problem p = {
		.severity = leak ? CHECK_LEAK : CHECK_ERROR,
		.mendable = true,
		.of_data = st->m->of_data,
		.block = w->start,
		.nr = w->nr,
	};

	if (w->nr && leak)
		check_problem(st->m->c, &p, "leaked: counted as used, but nothing uses it");
	else if (w->nr)
		check_problem(st->m->c, &p, "reference count %" PRIu32 " instead of %" PRIu32,
			      w->stored, w->wanted);
	w->nr = 0;
}

static void
add_wrong(struct bitmap_state *st, uint64_t block, uint32_t stored, uint32_t wanted)
{
	struct wrong_run *w = &st->wrong;

	if (w->nr && w->start + w->nr == block && w->stored == stored && w->wanted == wanted) {
		w->nr++;
		return;
	}
	tell_wrong(st);
	*w = (struct wrong_run){block, 1, stored, wanted};
}

/* A block whose bits say 3 has its count in the tree. What is not known is taken for right, if it can be. */
static uint32_t
large_count(struct map_check *m, uint64_t bitmap, uint64_t block, uint32_t wanted)
{
	uint64_t count = CHUNK_OVERFLOW;

	if (u64map_get(&m->large, block, &count))
		u64map_remove(&m->large, block);
	else if (m->large_lost)
		count = wanted < CHUNK_OVERFLOW ? CHUNK_OVERFLOW : wanted;
	else
		check_error(m->c, USE_BITMAP, bitmap, "bitmap: %s block %" PRIu64
			    " should have its count in the tree, and has none", m->name, block);
	return (uint32_t)count;
}

/* The counts of one bitmap; *used, *first_free: as its index entry should have them. */
static void
compare_counts(struct bitmap_state *st, uint64_t bitmap, uint64_t base, uint32_t nr_entries,
	       const struct disk_bitmap *d, uint32_t *used, uint32_t *first_free)
{
	const struct sm_counts *wanted = st->m->wanted;
	uint64_t words[CHUNK_WORDS];

	for (uint32_t i = 0; i < CHUNK_WORDS; i++)
		words[i] = le64_get(d->words[i]);
	*used = 0;
	*first_free = nr_entries;
	for (uint32_t e = 0; e < nr_entries; e++) {
		uint32_t stored = words_count(words, e);
		uint32_t want = sm_counts_get(wanted, base + e);

		*used += stored != 0;
		if (!stored && *first_free == nr_entries)
			*first_free = e;
		if (stored == CHUNK_OVERFLOW)
			stored = large_count(st->m, bitmap, base + e, want);
		if (st->compare && stored != want)
			add_wrong(st, base + e, stored, want);
	}
	for (uint32_t e = nr_entries; e < BITMAP_ENTRIES; e++) {
		if (!words_count(words, e))
			continue;
		check_error(st->m->c, USE_BITMAP, bitmap, "bitmap: counts past the end of the %s device",
			    st->m->name);
		return;
	}
}

/* The two numbers of the index entry that allocation leans on: S 6.5. */
static void
compare_hints(struct map_check *m, uint64_t i, uint32_t used, uint32_t first_free)
{
	const struct disk_index_entry *e = &m->index[i];
	struct check_problem p = {CHECK_WARNING, true, false, le64_get(e->blocknr), 1, NULL};

	if (le32_get(e->nr_free) != BITMAP_ENTRIES - used)
		check_problem(m->c, &p, "bitmap %" PRIu64 " of the %s space map: nr_free is %" PRIu32
			      " instead of %" PRIu32, i, m->name, le32_get(e->nr_free),
			      BITMAP_ENTRIES - used);
	if (le32_get(e->none_free_before) > first_free)
		check_problem(m->c, &p, "bitmap %" PRIu64 " of the %s space map: none_free_before is %"
			      PRIu32 ", but %" PRIu32 " is free", i, m->name,
			      le32_get(e->none_free_before), first_free);
}

static void
check_bitmap(struct bitmap_state *st, uint64_t i)
{
	struct map_check *m = st->m;
	struct check *c = m->c;
	uint64_t block = le64_get(m->index[i].blocknr);
	uint64_t base = i * BITMAP_ENTRIES;
	uint32_t nr_entries = (uint32_t)min_u64(m->nr_blocks - base, BITMAP_ENTRIES);
	uint32_t used, first_free;

	if (!block && !st->index_lost)
		check_error(c, USE_BITMAP, m->bitmap_root, "the %s space map has no bitmap %" PRIu64,
			    m->name, i);
	if (!block || !check_claim(c, block, USE_BITMAP) ||
	    !check_read(c, block, USE_BITMAP, BLOCK_BITMAP, c->nodes)) {
		check_lose(c, USE_BITMAP);
		st->all_read = false;
		return;
	}
	compare_counts(st, block, base, nr_entries, (const void *)c->nodes, &used, &first_free);
	compare_hints(m, i, used, first_free);
	st->used += used;
}

/* Counts in the tree that no bitmap has asked for. */
static void
tell_unasked(struct map_check *m)
{
	uint64_t block, count;
	size_t pos = 0;

	while (u64map_next(&m->large, &pos, &block, &count))
		check_error(m->c, m->counts_use, m->count_root, "%s block %" PRIu64
			    " has a count of %" PRIu64 " in the tree, but its bitmap does not say so",
			    m->name, block, count);
}

int
check_bitmaps(struct map_check *m)
{
	struct check *c = m->c;
	struct check_problem p = {CHECK_WARNING, true, false, SUPERBLOCK_LOCATION, 1, NULL};
	struct bitmap_state st = {.m = m, .all_read = true, .index_lost = c->maps_lost};

	/* What a space map itself uses is counted in that of metadata only. */
	st.compare = m->of_data ? !c->mappings_lost : !c->trees_lost && !c->maps_lost;
	for (uint64_t i = 0; i < m->nr_bitmaps; i++)
		check_bitmap(&st, i);
	tell_wrong(&st);
	if (!st.all_read)
		return 0;
	tell_unasked(m);
	if (st.used != m->nr_allocated)
		check_problem(c, &p, "superblock: nr_allocated of the %s space map is %" PRIu64
			      " instead of %" PRIu64, m->name, m->nr_allocated, st.used);
	return 0;
}
