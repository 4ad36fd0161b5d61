/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mutant: pools that are wrong in the ways that matter, to show that the exploration would find it.
 *
 * Those that concern flushes are in disks.h. The others are functions put in the place of the engine's by the linker
 * (--wrap), which do the same, and one thing wrong.
 */
#ifndef THINFS_TESTS_CRASH_MUTANT_H
#define THINFS_TESTS_CRASH_MUTANT_H

enum mutant {
	MUTANT_NONE,
	MUTANT_REUSE_DATA, /* blocks freed in a transaction are handed out again in it */
	MUTANT_REUSE_METADATA,
	MUTANT_NO_CONFIRM, /* the superblock that one who was killed left in the cache is not flushed */
	MUTANT_SHARE_UNCOUNTED, /* a block that a copy shares has no reference more than before */
	MUTANT_SHARE_NEW, /* an entry that a copy made looks as if its device alone had the block */
	MUTANT_SHARE_SOURCE_NEW, /* so does the source's */
	MUTANT_REVERT_TWICE, /* what a volume had is kept by a commit, what it is to have comes in the next one */
	MUTANT_REVERT_FORGETS, /* the safety snapshot has no record: its name is in memory only */
	MUTANT_PUNCH_EARLY, /* before the commit that frees the block */
	MUTANT_PUNCH_LATE, /* when the block may have been handed out again */
	MUTANT_ORIGIN_UNSAID, /* how much of an external origin is shown goes down in memory only */
	MUTANT_ZEROS_UNCOUNTED, /* what is mapped to the block of zeros is not counted there */
	MUTANT_ZEROS_STALE, /* the block of zeros is used on when it was freed, and is somebody else's */
	MUTANT_UNSHRUNK, /* what was cut off, but for the first step, is left mapped, and not remembered */
};

extern enum mutant mutant;

struct image;

/* The data image of the pool that is wrong, for those that punch it themselves. */
extern struct image *mutant_data;

#endif
