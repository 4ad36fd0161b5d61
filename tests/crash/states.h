/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * states: what two disks with volatile write-back caches may hold when power is cut.
 *
 * A cut is a place in the log of the disks. It knows what the media hold for sure, by the flushes
 * before it, and what was written since. A state is built from it by choosing what of that was kept:
 * any subset of the writes, or of their sectors, in the order in which the cache got them - the cache
 * may write back in any order, but one sector never goes back to what it was before.
 * A flush that failed makes nothing sure: what was written before it may be there or not from then
 * on, until the same sectors are written and flushed again.
 */
#ifndef THINFS_TESTS_CRASH_STATES_H
#define THINFS_TESTS_CRASH_STATES_H

#include "crash/disks.h"
#include "crash/overlay.h"
#include "unit/random.h"

struct piece {
	uint64_t offset, len; /* whole sectors */
	const uint8_t *data; /* NULL: zeros, or if discarded, anything */
	bool discard;
	bool resize; /* nothing but this: the size becomes OFFSET */
	bool limbo; /* written before a flush that failed */
	size_t event;
};

struct medium {
	uint8_t *bytes; /* sure */
	uint64_t size;
	uint64_t shown; /* the image's size, sure; until it is, what is written behind it may be lost with it */
	uint64_t hash;
	struct piece *pieces; /* not sure, oldest first */
	size_t nr_pieces, cap_pieces;
};

struct cut {
	const struct disks *disks;
	uint64_t seed; /* what becomes of discarded sectors */
	size_t at; /* events before this one have been */
	struct medium media[NR_DISKS];
	struct overlay state[NR_DISKS]; /* the state that was built last */
};

/* At the start of the log; BYTES are copied. */
void cut_init(struct cut *c, const struct disks *d, const uint8_t *const bytes[NR_DISKS],
	      uint64_t seed);
void cut_free(struct cut *c);
/* To before event AT. */
void cut_advance(struct cut *c, size_t at);

/* How a state is chosen. */
struct choice {
	unsigned keep[NR_DISKS]; /* percent of the pieces */
	unsigned tear; /* percent of the kept pieces, of which only some sectors are there */
	bool superblock; /* block 0 of the metadata is kept in any case */
};

/* Build it in c->state; its hash. */
uint64_t cut_build(struct cut *c, const struct choice *choice, struct random_source *rs);

#endif
