/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "pdata/block_watch.h"

void
block_watch_grow(struct block_watch *w, uint64_t nr_blocks)
{
	uint64_t nr_words = nr_blocks / 32 + 1;
	_Atomic uint32_t *grown;

	if (nr_words <= w->nr_words)
		return;
	grown = reallocarray((void *)w->words, nr_words, sizeof(*grown));
	if (!grown)
		return;
	memset((void *)(grown + w->nr_words), 0, (nr_words - w->nr_words) * sizeof(*grown));
	w->words = grown;
	w->nr_words = nr_words;
}

void
block_watch_clear(struct block_watch *w)
{
	for (uint64_t i = 0; i < w->nr_words; i++)
		w->words[i] = 0;
}

void
block_watch_free(struct block_watch *w)
{
	free((void *)w->words);
}

void
block_watch_add(struct block_watch *w, uint64_t nr)
{
	if (nr / 32 < w->nr_words)
		atomic_fetch_or(&w->words[nr / 32], 1U << nr % 32);
}

void
block_watch_remove(struct block_watch *w, uint64_t nr)
{
	if (nr / 32 < w->nr_words)
		atomic_fetch_and(&w->words[nr / 32], ~(1U << nr % 32));
}

bool
block_watch_has(const struct block_watch *w, uint64_t nr)
{
	return nr / 32 < w->nr_words && w->words[nr / 32] >> nr % 32 & 1;
}
