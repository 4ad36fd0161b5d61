/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The superblock: input is the beginning of block 0; its first byte says whether it is sealed.
 */
#include <config.h>

#include <string.h>

#include "fuzz/cow_image.h"
#include "fuzz/fuzz.h"
#include "pdata/block_cache.h"
#include "pdata/format.h"
#include "pdata/superblock.h"
#include "pdata/thin_meta.h"
#include "util/minmax.h"

static struct cow_image *img;

static int
init(void)
{
	img = cow_new("meta", METADATA_BLOCK_SIZE);
	return img ? 0 : -1;
}

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t how, again[METADATA_BLOCK_SIZE];
	struct superblock sb, back;
	struct disk_superblock *d;
	bool zero;

	fuzz_begin();
	cow_reset(img);
	how = fuzz_u8(&in);
	d = (struct disk_superblock *)cow_touch(img, 0);
	memcpy(d, in.p, min_u64(in.left, METADATA_BLOCK_SIZE));
	if (how & 1) {
		d->magic = le64_make(SUPERBLOCK_MAGIC);
		d->version = le32_make(SUPERBLOCK_VERSION);
	}
	if (how & 2)
		d->metadata_block_size = le32_make(METADATA_BLOCK_SIZE / SECTOR_SIZE);
	if (how & 4)
		d->data_block_size = le32_make(le32_get(d->data_block_size) / 128 * 128);
	if (!(how & 8))
		block_seal(0, BLOCK_SUPERBLOCK, d);
	fuzz_result(meta_is_unformatted(&img->image, &zero));
	superblock_magic_at(&img->image);
	if (fuzz_result(superblock_read(&img->image, how & 16, &sb)))
		return;
	if (sb.data_block_sectors % DATA_BLOCK_MIN_SECTORS || !sb.data_block_sectors)
		fuzz_fail("a block size of %u sectors is taken", sb.data_block_sectors);
	/* What is read is what was written. */
	superblock_to_disk(&sb, 0, again);
	superblock_from_disk(again, &back);
	if (memcmp(&sb.data_sm_root, &back.data_sm_root, sizeof(sb.data_sm_root)) ||
	    memcmp(&sb.metadata_sm_root, &back.metadata_sm_root, sizeof(sb.metadata_sm_root)) ||
	    sb.held_root != back.held_root || sb.data_mapping_root != back.data_mapping_root ||
	    sb.device_details_root != back.device_details_root || sb.time != back.time ||
	    sb.trans_id != back.trans_id || sb.needs_check != back.needs_check)
		fuzz_fail("a superblock changes when it is written");
}

const struct fuzz_target fuzz_superblock = {"superblock", init, run};
