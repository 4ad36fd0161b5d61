/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sm_chunk: the part of a space map that one bitmap block describes (format sheet, S 6.2).
 *
 * In memory there are two views of it: the counts as they will be written, and which blocks are
 * busy, that is may not be handed out. Both are loaded together when first needed.
 *
 * Entries are numbered from 0 within the chunk. Locking: the space map's.
 */
#ifndef THINFS_PDATA_SM_CHUNK_H
#define THINFS_PDATA_SM_CHUNK_H

#include <stdbool.h>
#include <stdint.h>

#include "pdata/format.h"
#include "pdata/txn.h"

#define CHUNK_WORDS 510U /* of 32 entries */
#define CHUNK_OVERFLOW 3U /* 3 or more: the count is in the count tree */

struct sm_chunk {
	uint64_t blocknr; /* the bitmap block; 0: none yet, all counts are 0 */
	uint32_t nr_free; /* as in the index: entries with count 0, those past the end too (S 6.5) */
	uint32_t none_free_before;
	uint32_t nr_usable; /* entries that are not busy; only when loaded */
	bool dirty; /* differs from its block */
	bool placed; /* has a block of the open transaction, to be filled */
	uint64_t *counts; /* CHUNK_WORDS words in host order; NULL: not loaded */
	uint32_t *busy; /* CHUNK_WORDS words, one bit an entry */
};

/* NR_ENTRIES: how many of the entries exist; the rest counts as busy. Does nothing if loaded. */
int chunk_load(struct sm_chunk *c, struct txn *t, uint32_t nr_entries);
/* The same for a chunk that is not loaded, with the counts in WORDS (CHUNK_WORDS, host order) instead of its block's. */
int chunk_load_words(struct sm_chunk *c, const uint64_t *words, uint32_t nr_entries);
void chunk_unload(struct sm_chunk *c);

/* 0 ... CHUNK_OVERFLOW, of an entry in the words of a bitmap */
static inline unsigned
words_count(const uint64_t *words, uint32_t entry)
{
	unsigned raw = (words[entry / 32] >> (2 * (entry % 32))) & 3;

	return ((raw & 1) << 1) | (raw >> 1); /* the lower bit is the higher one: trap 2 */
}

static inline void
words_set_count(uint64_t *words, uint32_t entry, unsigned count)
{
	unsigned shift = 2 * (entry % 32);
	uint64_t raw = ((count & 1) << 1) | (count >> 1);
	uint64_t *word = &words[entry / 32];

	*word = (*word & ~(3ULL << shift)) | raw << shift;
}

static inline unsigned
chunk_count(const struct sm_chunk *c, uint32_t entry)
{
	return words_count(c->counts, entry);
}

static inline void
chunk_set_count(struct sm_chunk *c, uint32_t entry, unsigned count)
{
	words_set_count(c->counts, entry, count);
}

static inline bool
chunk_is_busy(const struct sm_chunk *c, uint32_t entry)
{
	return c->busy[entry / 32] >> (entry % 32) & 1;
}

void chunk_set_busy(struct sm_chunk *c, uint32_t entry, bool busy);

/* Of the entries in [from, to): how many have a count, and how many are busy without one. Of a chunk that is loaded, as below. */
void chunk_tell_use(const struct sm_chunk *c, uint32_t from, uint32_t to, uint32_t *used, uint32_t *held);
/* Let all that are not be busy; or none be that has no count. How many have changed. */
uint32_t chunk_hold(struct sm_chunk *c, uint32_t from, uint32_t to);
uint32_t chunk_release(struct sm_chunk *c, uint32_t from, uint32_t to);

/* The first entry >= FROM that is not busy; BITMAP_ENTRIES: none. */
uint32_t chunk_find_usable(const struct sm_chunk *c, uint32_t from);

/* Bring nr_free and none_free_before up to date and write the bitmap to its block DATA. */
void chunk_store(struct sm_chunk *c, void *data);

#endif
