/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/sm_chunk.h"

/* Entries from NR_ENTRIES on do not exist: whatever an image says of them. */
static void
drop_past_end(struct sm_chunk *c, uint32_t nr_entries)
{
	uint32_t w = nr_entries / 32;

	if (w >= CHUNK_WORDS)
		return;
	c->counts[w] &= (1ULL << 2 * (nr_entries % 32)) - 1;
	memset(&c->counts[w + 1], 0, (CHUNK_WORDS - w - 1) * sizeof(*c->counts));
}

/* The 32 entries of a word of counts: one bit each, set where the count is not 0. */
static uint32_t
counted_entries(uint64_t word)
{
	uint64_t x = (word | word >> 1) & 0x5555555555555555ULL;

	x = (x | x >> 1) & 0x3333333333333333ULL;
	x = (x | x >> 2) & 0x0F0F0F0F0F0F0F0FULL;
	x = (x | x >> 4) & 0x00FF00FF00FF00FFULL;
	x = (x | x >> 8) & 0x0000FFFF0000FFFFULL;
	return (uint32_t)(x | x >> 16);
}

static void
fill_busy(struct sm_chunk *c, uint32_t nr_entries)
{
	uint32_t used = 0;

	drop_past_end(c, nr_entries);
	c->nr_usable = 0;
	for (uint32_t w = 0; w < CHUNK_WORDS; w++) {
		uint32_t counted = counted_entries(c->counts[w]);
		uint32_t exist = nr_entries >= 32 * (w + 1) ? ~0U :
				 nr_entries > 32 * w ? (1U << (nr_entries - 32 * w)) - 1 : 0;

		used += __builtin_popcount(counted);
		c->busy[w] = counted | ~exist;
		c->nr_usable += 32 - __builtin_popcount(c->busy[w]);
	}
	c->nr_free = BITMAP_ENTRIES - used;
}

static int
alloc_words(struct sm_chunk *c)
{
	c->counts = calloc(CHUNK_WORDS, sizeof(*c->counts));
	c->busy = calloc(CHUNK_WORDS, sizeof(*c->busy));
	if (c->counts && c->busy)
		return 0;
	chunk_unload(c);
	return -ENOMEM;
}

int
chunk_load_words(struct sm_chunk *c, const uint64_t *words, uint32_t nr_entries)
{
	int r = alloc_words(c);

	if (r)
		return r;
	memcpy(c->counts, words, CHUNK_WORDS * sizeof(*words));
	fill_busy(c, nr_entries);
	return 0;
}

int
chunk_load(struct sm_chunk *c, struct txn *t, uint32_t nr_entries)
{
	const struct disk_bitmap *disk;
	struct block *b;
	int r;

	if (c->counts)
		return 0;
	r = alloc_words(c);
	if (r)
		return r;
	if (c->blocknr) {
		r = txn_read(t, c->blocknr, BLOCK_BITMAP, &b);
		if (r) {
			chunk_unload(c);
			return r;
		}
		disk = b->data;
		for (uint32_t w = 0; w < CHUNK_WORDS; w++)
			c->counts[w] = le64_get(disk->words[w]);
		bc_put(b);
	}
	fill_busy(c, nr_entries);
	return 0;
}

void
chunk_unload(struct sm_chunk *c)
{
	free(c->counts);
	free(c->busy);
	c->counts = NULL;
	c->busy = NULL;
}

void
chunk_set_busy(struct sm_chunk *c, uint32_t entry, bool busy)
{
	uint32_t bit = 1U << (entry % 32);

	if (busy) {
		c->busy[entry / 32] |= bit;
		c->nr_usable--;
	} else {
		c->busy[entry / 32] &= ~bit;
		c->nr_usable++;
	}
}

/* Those of the 32 entries of word W that are in [from, to). */
static uint32_t
entries_between(uint32_t w, uint32_t from, uint32_t to)
{
	uint32_t start = 32 * w;
	uint32_t before_to = to >= start + 32 ? ~0U : to > start ? (1U << (to - start)) - 1 : 0;
	uint32_t before_from = from >= start + 32 ? ~0U : from > start ? (1U << (from - start)) - 1 : 0;

	return before_to & ~before_from;
}

void
chunk_tell_use(const struct sm_chunk *c, uint32_t from, uint32_t to, uint32_t *used, uint32_t *held)
{
	*used = *held = 0;
	for (uint32_t w = from / 32; 32 * w < to; w++) {
		uint32_t mask = entries_between(w, from, to), counted = counted_entries(c->counts[w]);

		*used += __builtin_popcount(counted & mask);
		*held += __builtin_popcount(c->busy[w] & ~counted & mask);
	}
}

uint32_t
chunk_hold(struct sm_chunk *c, uint32_t from, uint32_t to)
{
	uint32_t nr = 0;

	for (uint32_t w = from / 32; 32 * w < to; w++) {
		uint32_t mask = entries_between(w, from, to);

		nr += __builtin_popcount(~c->busy[w] & mask);
		c->busy[w] |= mask;
	}
	c->nr_usable -= nr;
	return nr;
}

uint32_t
chunk_release(struct sm_chunk *c, uint32_t from, uint32_t to)
{
	uint32_t nr = 0;

	for (uint32_t w = from / 32; 32 * w < to; w++) {
		uint32_t mask = entries_between(w, from, to) & c->busy[w] & ~counted_entries(c->counts[w]);

		nr += __builtin_popcount(mask);
		c->busy[w] &= ~mask;
	}
	c->nr_usable += nr;
	return nr;
}

uint32_t
chunk_find_usable(const struct sm_chunk *c, uint32_t from)
{
	uint32_t w = from / 32;
	uint32_t usable;

	if (from >= BITMAP_ENTRIES)
		return BITMAP_ENTRIES;
	usable = ~c->busy[w] & (~0U << (from % 32));
	while (!usable) {
		if (++w == CHUNK_WORDS)
			return BITMAP_ENTRIES;
		usable = ~c->busy[w];
	}
	return 32 * w + (uint32_t)__builtin_ctz(usable);
}

void
chunk_store(struct sm_chunk *c, void *data)
{
	struct disk_bitmap *disk = data;
	uint32_t used = 0;

	c->none_free_before = BITMAP_ENTRIES;
	for (uint32_t w = 0; w < CHUNK_WORDS; w++) {
		uint64_t word = c->counts ? c->counts[w] : 0;
		uint32_t counted = counted_entries(word);

		if (~counted && c->none_free_before == BITMAP_ENTRIES)
			c->none_free_before = 32 * w + (uint32_t)__builtin_ctz(~counted);
		used += __builtin_popcount(counted);
		disk->words[w] = le64_make(word);
	}
	c->nr_free = BITMAP_ENTRIES - used;
}
