/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sector: 512 bytes that tell which volume they are of, where in it, and which write they came with. All
 * that follows is made from these three, so that no part can be of something else.
 */
#ifndef THINFS_TESTS_CRASH_SECTOR_H
#define THINFS_TESTS_CRASH_SECTOR_H

#include <stdint.h>
#include <string.h>

#define SECTOR_BYTES 512U
#define SECTOR_WORDS (SECTOR_BYTES / 8)
#define SECTOR_MAGIC 0x7265746365537954ULL

struct sector {
	uint64_t volume, nr, gen;
};

enum sector_kind {
	SECTOR_ZERO,
	SECTOR_WHOLE,
	SECTOR_GARBAGE,
};

static inline void
sector_fill(uint8_t *bytes, const struct sector *s)
{
	uint64_t words[SECTOR_WORDS] = {SECTOR_MAGIC, s->volume, s->nr, s->gen};
	uint64_t x = s->volume * 0x9e3779b97f4a7c15ULL ^ s->nr * 0xbf58476d1ce4e5b9ULL ^ s->gen;

	for (unsigned i = 4; i < SECTOR_WORDS; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		words[i] = x;
	}
	memcpy(bytes, words, sizeof(words));
}

static inline enum sector_kind
sector_parse(const uint8_t *bytes, struct sector *s)
{
	static const uint8_t zeros[SECTOR_BYTES];
	uint8_t again[SECTOR_BYTES];
	uint64_t words[4];

	if (!memcmp(bytes, zeros, SECTOR_BYTES))
		return SECTOR_ZERO;
	memcpy(words, bytes, sizeof(words));
	*s = (struct sector){words[1], words[2], words[3]};
	sector_fill(again, s);
	return memcmp(bytes, again, SECTOR_BYTES) ? SECTOR_GARBAGE : SECTOR_WHOLE;
}

#endif
