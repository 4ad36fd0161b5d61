/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linear probing. An entry lies at the slot its hash says or after it, with no free slot in
 * between; removal moves later entries back to keep that so, which needs no tombstones.
 */
#include <config.h>

#include "util/u64map.h"

#include <errno.h>
#include <stdlib.h>

#define U64MAP_MIN_SLOTS 16

/* The finaliser of splitmix64: every bit of the key reaches the low bits. */
static uint64_t
hash(uint64_t key)
{
	key ^= key >> 30;
	key *= 0xbf58476d1ce4e5b9ULL;
	key ^= key >> 27;
	key *= 0x94d049bb133111ebULL;
	return key ^ key >> 31;
}

/* The slot of KEY, or the free one where it belongs. There is always a free one. */
static size_t
find_slot(const struct u64map *m, uint64_t key)
{
	size_t mask = m->nr_slots - 1;
	size_t i = (size_t)hash(key) & mask;

	while (m->used[i] && m->slots[i].key != key)
		i = (i + 1) & mask;
	return i;
}

static void
place(struct u64map *m, uint64_t key, uint64_t value)
{
	size_t i = find_slot(m, key);

	m->nr += !m->used[i];
	m->used[i] = 1;
	m->slots[i].key = key;
	m->slots[i].value = value;
}

static int
grow(struct u64map *m)
{
	struct u64map bigger = {
		.nr_slots = m->nr_slots ? 2 * m->nr_slots : U64MAP_MIN_SLOTS,
	};

	bigger.slots = calloc(bigger.nr_slots, sizeof(*bigger.slots));
	bigger.used = calloc(bigger.nr_slots, sizeof(*bigger.used));
	if (!bigger.slots || !bigger.used) {
		u64map_clear(&bigger);
		return -ENOMEM;
	}
	for (size_t i = 0; i < m->nr_slots; i++)
		if (m->used[i])
			place(&bigger, m->slots[i].key, m->slots[i].value);
	u64map_clear(m);
	*m = bigger;
	return 0;
}

int
u64map_set(struct u64map *m, uint64_t key, uint64_t value)
{
	/* At most three quarters full, or probing gets long. */
	if (4 * (m->nr + 1) > 3 * m->nr_slots && !u64map_get(m, key, NULL)) {
		int r = grow(m);

		if (r)
			return r;
	}
	place(m, key, value);
	return 0;
}

bool
u64map_get(const struct u64map *m, uint64_t key, uint64_t *value)
{
	size_t i;

	if (!m->nr)
		return false;
	i = find_slot(m, key);
	if (!m->used[i])
		return false;
	if (value)
		*value = m->slots[i].value;
	return true;
}

bool
u64map_remove(struct u64map *m, uint64_t key)
{
	size_t mask = m->nr_slots - 1;
	size_t hole, i;

	if (!m->nr)
		return false;
	hole = find_slot(m, key);
	if (!m->used[hole])
		return false;

	/* Fill the hole with a later entry whose home is not behind it, which leaves a new hole. */
	for (i = (hole + 1) & mask; m->used[i]; i = (i + 1) & mask) {
		size_t home = (size_t)hash(m->slots[i].key) & mask;

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->used[hole] = 0;
	m->nr--;
	return true;
}

void
u64map_clear(struct u64map *m)
{
	free(m->slots);
	free(m->used);
	*m = (struct u64map){0};
}

bool
u64map_next(const struct u64map *m, size_t *pos, uint64_t *key, uint64_t *value)
{
	for (; *pos < m->nr_slots; ++*pos) {
		if (!m->used[*pos])
			continue;
		*key = m->slots[*pos].key;
		*value = m->slots[*pos].value;
		++*pos;
		return true;
	}
	return false;
}
