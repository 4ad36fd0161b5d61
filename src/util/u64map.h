/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * u64map: a hash table from 64-bit keys to 64-bit values, open addressing, grows by doubling.
 *
 * A zeroed struct is an empty map. No lock inside. Memory: at most 32 bytes an entry at the usual
 * fill. Keys may be anything.
 */
#ifndef THINFS_UTIL_U64MAP_H
#define THINFS_UTIL_U64MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct u64map_slot {
	uint64_t key;
	uint64_t value;
};

struct u64map {
	struct u64map_slot *slots;
	uint8_t *used; /* per slot: 0 free, 1 used */
	size_t nr_slots; /* a power of two, or 0 */
	size_t nr; /* entries */
};

/* 0 or -ENOMEM, then nothing has changed. */
int u64map_set(struct u64map *m, uint64_t key, uint64_t value);
bool u64map_get(const struct u64map *m, uint64_t key, uint64_t *value);
/* Whether the key was there. */
bool u64map_remove(struct u64map *m, uint64_t key);
/* Forget all entries and free the memory. */
void u64map_clear(struct u64map *m);

/* Iterate: start with *pos = 0; false at the end. The map must not change meanwhile. */
bool u64map_next(const struct u64map *m, size_t *pos, uint64_t *key, uint64_t *value);

#endif
