/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * disks: a data and a metadata image in memory for a pool, and the log of all that reaches them, of
 * both in one order.
 *
 *   pool -> front (mutants; sees failed flushes) -> image_fault (failures; observer) -> memory
 *
 * The images outlive being closed by a pool, so that the same bytes can be opened again. One thread.
 */
#ifndef THINFS_TESTS_CRASH_DISKS_H
#define THINFS_TESTS_CRASH_DISKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/image_fault.h"

#define DISK_SECTOR 512U

enum disk_nr {
	DATA_DISK,
	META_DISK,
	NR_DISKS
};

struct disk_event {
	enum disk_nr disk;
	enum image_op op;
	bool failed; /* a flush: what was written before it may be lost whatever comes */
	uint64_t offset, len; /* of a write: whole sectors; of a resize: the size, and 0 */
	uint8_t *data; /* of a write: the sectors as they were after it */
};

/* What a pool that is wrong would do; see also mutant.h. */
enum flush_mutant {
	FLUSH_RIGHT,
	FLUSH_DATA_LATE, /* the data are flushed after the superblock was written, not before */
	FLUSH_META_ONCE, /* not flushed before the superblock is written */
};

struct front_image {
	struct image image; /* what the pool gets */
	struct disks *disks;
	enum disk_nr nr;
};

struct disks {
	struct front_image front[NR_DISKS];
	struct image *fault[NR_DISKS];
	struct image *memory[NR_DISKS]; /* owned by fault */
	uint64_t size[NR_DISKS]; /* of the memory: as large as the images may become */
	uint64_t began[NR_DISKS], shown[NR_DISKS]; /* the images' sizes: at first, and now */
	struct disk_event *log;
	size_t nr_log, cap_log;
	enum flush_mutant mutant;
	bool files; /* in files: what is discarded becomes a hole; on a block device it may be anything then */
	bool dead; /* nothing gets through: the process that has them open is being killed */
	unsigned dies_in; /* so many operations; 0: it lives */
	bool late; /* a flush of the data is owed */
	bool beside; /* a flush of the data has begun and not been done */
	unsigned beside_in; /* so many writes and flushes of metadata come before it is */
	int beside_result;
	bool superblock_last; /* the last write of metadata was of block 0 */
};

/* Images that hold the first SHOWN of SIZE bytes; what is behind comes into them when they become larger. */
void disks_open(struct disks *d, const uint8_t *const bytes[NR_DISKS], const uint64_t size[NR_DISKS],
		const uint64_t shown[NR_DISKS], enum flush_mutant mutant);
void disks_close(struct disks *d);
/* The end of a call of the pool: a mutant's owed flush comes now at the latest. */
void disks_settle(struct disks *d);
/* The disks of an image that a pool got from here, or NULL. */
struct disks *disks_of(struct image *img);
/* A flush of the data, done when NR writes and flushes of metadata have been, or it is waited for: its result. */
void disks_flush_begin(struct disks *d, unsigned nr);
int disks_flush_end(struct disks *d);
/* Somebody makes an image larger, up to the whole size. */
void disks_enlarge(struct disks *d, enum disk_nr nr, uint64_t shown);
/* All bytes as they are now; free(). */
uint8_t *disks_copy(struct disks *d, enum disk_nr nr);

#endif
