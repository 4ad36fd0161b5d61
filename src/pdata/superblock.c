/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/block_cache.h"
#include "pdata/superblock.h"
#include "util/msg.h"

void
superblock_to_disk(const struct superblock *sb, uint64_t blocknr, void *data)
{
	struct disk_superblock *d = data;

	memset(d, 0, sizeof(*d));
	d->header.blocknr = le64_make(blocknr);
	d->header.flags = le32_make(sb->needs_check ? SUPERBLOCK_NEEDS_CHECK : 0);
	memcpy(d->uuid, sb->uuid, sizeof(d->uuid));
	d->magic = le64_make(SUPERBLOCK_MAGIC);
	d->version = le32_make(SUPERBLOCK_VERSION);
	d->time = le32_make(sb->time);
	d->trans_id = le64_make(sb->trans_id);
	d->held_root = le64_make(sb->held_root);
	d->data_sm_root = sb->data_sm_root;
	d->metadata_sm_root = sb->metadata_sm_root;
	d->data_mapping_root = le64_make(sb->data_mapping_root);
	d->device_details_root = le64_make(sb->device_details_root);
	d->data_block_size = le32_make(sb->data_block_sectors);
	d->metadata_block_size = le32_make(METADATA_BLOCK_SIZE / SECTOR_SIZE);
	d->metadata_nr_blocks = le64_make(sb->metadata_nr_blocks);
	d->compat_flags = le32_make(sb->compat_flags);
}

void
superblock_from_disk(const void *data, struct superblock *sb)
{
	const struct disk_superblock *d = data;

	memcpy(sb->uuid, d->uuid, sizeof(sb->uuid));
	sb->needs_check = le32_get(d->header.flags) & SUPERBLOCK_NEEDS_CHECK;
	sb->time = le32_get(d->time);
	sb->trans_id = le64_get(d->trans_id);
	sb->held_root = le64_get(d->held_root);
	sb->data_sm_root = d->data_sm_root;
	sb->metadata_sm_root = d->metadata_sm_root;
	sb->data_mapping_root = le64_get(d->data_mapping_root);
	sb->device_details_root = le64_get(d->device_details_root);
	sb->data_block_sectors = le32_get(d->data_block_size);
	sb->metadata_nr_blocks = le64_get(d->metadata_nr_blocks);
	sb->compat_flags = le32_get(d->compat_flags);
}

static int
check_fields(const struct image *img, bool read_only, const struct disk_superblock *d)
{
	uint32_t block = le32_get(d->data_block_size);

	if (le32_get(d->version) != SUPERBLOCK_VERSION) {
		msg_error("%s: metadata version %" PRIu32 ", thinfs knows version %u", img->name,
			  le32_get(d->version), SUPERBLOCK_VERSION);
		return -EOPNOTSUPP;
	}
	if (le32_get(d->incompat_flags) || (!read_only && le32_get(d->compat_ro_flags))) {
		msg_error("%s: uses features that thinfs does not know (flags %#" PRIx32
			  ", %#" PRIx32 ")%s", img->name, le32_get(d->incompat_flags),
			  le32_get(d->compat_ro_flags),
			  le32_get(d->incompat_flags) ? "" : "; it can be mounted with -o ro");
		return -EOPNOTSUPP;
	}
	if (le32_get(d->metadata_block_size) != METADATA_BLOCK_SIZE / SECTOR_SIZE) {
		msg_error("%s: metadata blocks of %" PRIu32 " sectors; dm-thin knows only %u",
			  img->name, le32_get(d->metadata_block_size),
			  METADATA_BLOCK_SIZE / SECTOR_SIZE);
		return -EINVAL;
	}
	if (block < DATA_BLOCK_MIN_SECTORS || block > DATA_BLOCK_MAX_SECTORS ||
	    block % DATA_BLOCK_MIN_SECTORS) {
		msg_error("%s: data blocks of %" PRIu32 " sectors are impossible (%u to %u, "
			  "multiples of %u); check it with 'thinfs check'", img->name, block,
			  DATA_BLOCK_MIN_SECTORS, DATA_BLOCK_MAX_SECTORS, DATA_BLOCK_MIN_SECTORS);
		return -EINVAL;
	}
	return 0;
}

static int
read_block_0(struct image *img, void **out)
{
	void *data = aligned_alloc(METADATA_BLOCK_SIZE, METADATA_BLOCK_SIZE);
	int r;

	if (!data)
		return -ENOMEM;
	r = image_read(img, data, METADATA_BLOCK_SIZE, 0);
	if (r) {
		free(data);
		return r;
	}
	*out = data;
	return 0;
}

int
superblock_read(struct image *img, bool read_only, struct superblock *sb)
{
	struct disk_superblock *d;
	void *data;
	int r = read_block_0(img, &data);

	if (r) {
		msg_error("%s: cannot read the superblock: %s", img->name, strerror(-r));
		return r;
	}
	d = data;
	if (le64_get(d->magic) != SUPERBLOCK_MAGIC) {
		msg_error("%s: not the metadata of a thin pool (wrong magic number); are the data "
			  "and the metadata image in the right order?", img->name);
		r = -EUCLEAN;
	}
	if (!r)
		r = block_verify(img->name, SUPERBLOCK_LOCATION, BLOCK_SUPERBLOCK, data);
	if (!r)
		r = check_fields(img, read_only, d);
	if (!r)
		superblock_from_disk(data, sb);
	free(data);
	return r;
}

bool
superblock_magic_at(struct image *img)
{
	void *data;
	bool found;

	if (read_block_0(img, &data))
		return false;
	found = le64_get(((struct disk_superblock *)data)->magic) == SUPERBLOCK_MAGIC;
	free(data);
	return found;
}
