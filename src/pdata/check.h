/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check: whether the metadata of a pool that nobody uses are whole, and mending them.
 *
 * Everything that is reached from the superblock is read, each block once however many share it,
 * past the engine's own way of reading: trees, what they point to, and both space maps, whose counts
 * are held against counts made anew (format sheet, S 8). What thin_check leaves out (S 15.1) is in it.
 *
 * Nothing is trusted, and the work is bounded by the size of the image: cycles, wrong depths and
 * blocks used twice are problems like others. Memory: 32 bytes a metadata block that is in use, the
 * counts (sm_counts.h), and what the trees say of each device.
 *
 * Problems of the space maps can be mended, because the trees of the devices say what every count
 * must be; so can a wrong number of mapped blocks. Damaged trees of devices cannot, without guessing.
 *
 * Locking: none; the caller has the image to itself, or shared for meta_check().
 */
#ifndef THINFS_PDATA_CHECK_H
#define THINFS_PDATA_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "io/image.h"

enum check_severity {
	CHECK_WARNING, /* a number that should be right, and that only space depends on (S 6.5) */
	CHECK_LEAK, /* blocks that are counted once, and nothing uses */
	CHECK_ERROR,
};

struct check_problem {
	enum check_severity severity;
	bool mendable; /* by meta_repair() */
	bool of_data; /* BLOCK and NR are of data blocks, not of metadata blocks */
	uint64_t block, nr; /* what it is about: NR blocks from BLOCK on */
	const char *what; /* without the number of the block */
};

/* Called for each problem as it is found. */
typedef void (*check_fn)(void *arg, const struct check_problem *p);

struct check_result {
	uint64_t nr_errors;
	uint64_t nr_unmendable; /* of them, those that meta_repair() cannot mend */
	uint64_t nr_warnings;
	uint64_t leaked_metadata, leaked_data; /* blocks */
	bool needs_check; /* the superblock says so; no problem by itself */
	bool partial; /* something could not be walked, so that not all counts were verified */
	bool unreadable; /* the image gave a read error */
	uint64_t nr_devices, nr_mappings; /* of the live pool, shared ones once for each device */
	uint64_t transaction;
};

/* FN may be NULL. 0 when the check was made: *result tells how it went. -ENOMEM otherwise. */
int meta_check(struct image *img, check_fn fn, void *arg, struct check_result *result);

enum repair_outcome {
	REPAIR_NOTHING_TO_DO,
	REPAIR_DONE,
	REPAIR_IMPOSSIBLE, /* there are errors that cannot be mended */
	REPAIR_NO_SPACE, /* no room for new space maps: the image must be made larger */
};

struct repair_result {
	enum repair_outcome outcome;
	struct check_result before;
	bool cleared_needs_check;
	bool rebuilt_maps; /* both space maps were made anew */
	uint64_t mended_details; /* devices whose number of mapped blocks was set right */
	uint64_t grown_to; /* metadata blocks, when that made room; 0: as it was */
};

/*
 * Check, then mend all or nothing. New space maps are written to blocks that are not in use and
 * become the pool's with the superblock, in one commit (meta_commit.c), so a crash leaves the old
 * metadata or the mended ones. When there is no room and the image is larger than the pool knows,
 * the pool takes in what there is. FN as above.
 * Nothing is written but for REPAIR_DONE, or when it fails. 0, the error of writing (a message said
 * so), -EUCLEAN (the same: the outcome is not clean), or -ENOMEM.
 */
int meta_repair(struct image *img, check_fn fn, void *arg, struct repair_result *result);

#endif
