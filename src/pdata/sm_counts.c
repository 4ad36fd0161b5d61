/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "pdata/sm_counts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/sm_chunk.h"

int
sm_counts_init(struct sm_counts *s, uint64_t nr_blocks)
{
	uint64_t nr_chunks = (nr_blocks + BITMAP_ENTRIES - 1) / BITMAP_ENTRIES;

	*s = (struct sm_counts){.nr_blocks = nr_blocks, .nr_chunks = nr_chunks};
	s->chunks = calloc(nr_chunks ? nr_chunks : 1, sizeof(*s->chunks));
	return s->chunks ? 0 : -ENOMEM;
}

void
sm_counts_free(struct sm_counts *s)
{
	for (uint64_t i = 0; s->chunks && i < s->nr_chunks; i++)
		free(s->chunks[i]);
	free(s->chunks);
	u64map_clear(&s->large);
	*s = (struct sm_counts){0};
}

static uint64_t *
new_chunk(void)
{
	return calloc(CHUNK_WORDS, sizeof(uint64_t));
}

static int
copy_into(struct sm_counts *to, const struct sm_counts *from)
{
	uint64_t block, count;
	size_t pos = 0;
	int r = 0;

	for (uint64_t i = 0; i < from->nr_chunks; i++) {
		if (!from->chunks[i])
			continue;
		to->chunks[i] = new_chunk();
		if (!to->chunks[i])
			return -ENOMEM;
		memcpy(to->chunks[i], from->chunks[i], CHUNK_WORDS * sizeof(uint64_t));
	}
	while (!r && u64map_next(&from->large, &pos, &block, &count))
		r = u64map_set(&to->large, block, count);
	return r;
}

int
sm_counts_copy(struct sm_counts *to, const struct sm_counts *from)
{
	int r = sm_counts_init(to, from->nr_blocks);

	if (!r)
		r = copy_into(to, from);
	if (r)
		sm_counts_free(to);
	return r;
}

uint32_t
sm_counts_get(const struct sm_counts *s, uint64_t block)
{
	const uint64_t *words = s->chunks[block / BITMAP_ENTRIES];
	uint64_t count = words ? words_count(words, block % BITMAP_ENTRIES) : 0;

	if (count == CHUNK_OVERFLOW)
		u64map_get(&s->large, block, &count);
	return (uint32_t)count;
}

int
sm_counts_inc(struct sm_counts *s, uint64_t block)
{
	uint64_t **words = &s->chunks[block / BITMAP_ENTRIES];
	uint32_t count;
	int r = 0;

	if (!*words)
		*words = new_chunk();
	if (!*words)
		return -ENOMEM;
	count = sm_counts_get(s, block);
	if (count == UINT32_MAX)
		return 0;
	if (count + 1 >= CHUNK_OVERFLOW)
		r = u64map_set(&s->large, block, count + 1);
	if (!r && count < CHUNK_OVERFLOW)
		words_set_count(*words, block % BITMAP_ENTRIES, count + 1);
	return r;
}
