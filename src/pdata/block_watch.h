/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * block_watch: a set of block numbers, a bit each.
 *
 * Locking: any thread may add, remove and ask; who grows, clears or frees it is alone with it.
 */
#ifndef THINFS_PDATA_BLOCK_WATCH_H
#define THINFS_PDATA_BLOCK_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* All zeros: empty, for no blocks. */
struct block_watch {
	_Atomic uint32_t *words;
	uint64_t nr_words;
};

/* For NR_BLOCKS blocks at least. Without memory for it, blocks beyond are not watched: they are never in it. */
void block_watch_grow(struct block_watch *w, uint64_t nr_blocks);
void block_watch_clear(struct block_watch *w);
void block_watch_free(struct block_watch *w);

void block_watch_add(struct block_watch *w, uint64_t nr);
void block_watch_remove(struct block_watch *w, uint64_t nr);
bool block_watch_has(const struct block_watch *w, uint64_t nr);

#endif
