/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * superblock: block 0, from which everything of a pool is reached (format sheet, S 3).
 */
#ifndef THINFS_PDATA_SUPERBLOCK_H
#define THINFS_PDATA_SUPERBLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "io/image.h"
#include "pdata/format.h"

/* In host order; what thinfs does not use (uuid, compatible flags) is kept as it was found. */
struct superblock {
	uint8_t uuid[16];
	bool needs_check;
	uint32_t time;
	uint64_t trans_id;
	uint64_t held_root;
	struct disk_sm_root data_sm_root;
	struct disk_sm_root metadata_sm_root;
	uint64_t data_mapping_root;
	uint64_t device_details_root;
	uint32_t data_block_sectors;
	uint64_t metadata_nr_blocks; /* at format time */
	uint32_t compat_flags;
};

/*
 * Read and verify. -EUCLEAN, -EOPNOTSUPP (a feature that thinfs does not know) or -EINVAL, with a
 * message that says which field is wrong; read errors as they are.
 */
int superblock_read(struct image *img, bool read_only, struct superblock *sb);

/* BLOCKNR 0, or where the copy of a metadata snapshot lies; DATA: METADATA_BLOCK_SIZE bytes, to be sealed. */
void superblock_to_disk(const struct superblock *sb, uint64_t blocknr, void *data);
void superblock_from_disk(const void *data, struct superblock *sb);

/* Whether block 0 begins like a superblock, damaged or not: for telling swapped images. */
bool superblock_magic_at(struct image *img);

#endif
