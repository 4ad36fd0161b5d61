/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * format: making the two images of a new pool.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/image.h"
#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

#define MIN_BLOCK_BYTES ((uint64_t)DATA_BLOCK_MIN_SECTORS * SECTOR_SIZE)
#define MAX_BLOCK_BYTES ((uint64_t)DATA_BLOCK_MAX_SECTORS * SECTOR_SIZE)

/* Above this many blocks a larger block size is chosen, so that the metadata stay small. */
#define COMFORTABLE_BLOCKS (64ULL << 20)

/* S 1: 48 bytes a data block, at least 2 MiB. */
#define METADATA_BYTES_PER_BLOCK 48U
#define METADATA_BYTES_MIN (2ULL << 20)
#define METADATA_BYTES_MAX (METADATA_BLOCKS_MAX * METADATA_BLOCK_SIZE)

/* With less, the room that is kept so that volumes can always be removed is all there is. */
#define METADATA_BYTES_LEAST (64ULL * METADATA_BLOCK_SIZE)

struct target {
	const char *path;
	const char *what;
	bool absent;
	uint64_t size; /* wanted; 0: as it is */
	struct image *img;
};

static int
check_block_size(uint64_t bytes)
{
	if (bytes >= MIN_BLOCK_BYTES && bytes <= MAX_BLOCK_BYTES && bytes % MIN_BLOCK_BYTES == 0)
		return 0;
	msg_error("the block size must be a multiple of 64K between 64K and 1G");
	return -EINVAL;
}

static uint64_t
choose_block_size(uint64_t data_bytes)
{
	uint64_t bytes = MIN_BLOCK_BYTES;

	while (data_bytes / bytes > COMFORTABLE_BLOCKS && bytes < MAX_BLOCK_BYTES)
		bytes *= 2;
	return bytes;
}

static uint64_t
choose_metadata_size(uint64_t nr_data_blocks)
{
	uint64_t bytes = nr_data_blocks * METADATA_BYTES_PER_BLOCK;

	bytes += METADATA_BYTES_MIN - 1;
	bytes -= bytes % (1U << 20);
	return bytes < METADATA_BYTES_MAX ? bytes : METADATA_BYTES_MAX;
}

static int
target_open(struct target *t)
{
	struct stat st;
	int r;

	t->absent = stat(t->path, &st) && errno == ENOENT;
	if (t->absent && !t->size) {
		msg_error("%s: there is no such file; give the size of the %s image to make it",
			  t->path, t->what);
		return -ENOENT;
	}
	r = image_open_file(t->path, IMAGE_RDWR | (t->absent ? IMAGE_CREATE : 0), &t->img);
	if (r)
		return r;
	if (t->size) {
		uint64_t now;

		r = image_get_size(t->img, &now);
		if (!r && now != t->size && (t->absent || !t->img->is_block_device))
			r = image_resize(t->img, t->size);
		if (!r && t->img->is_block_device && now < t->size)
			r = -EFBIG;
		if (r)
			msg_error("%s: cannot make it %" PRIu64 " bytes large: %s", t->path, t->size,
				  strerror(-r));
		return r;
	}
	r = image_get_size(t->img, &t->size);
	if (!r && !t->size) {
		msg_error("%s: empty; give the size of the %s image", t->path, t->what);
		r = -EINVAL;
	}
	return r;
}

static void
target_close(struct target *t, bool failed)
{
	if (!t->img)
		return;
	image_close(t->img);
	if (failed && t->absent)
		unlink(t->path);
}

/* Whether the first bytes are anything but zeros. */
static int
holds_something(struct target *t, bool *something)
{
	static const uint8_t zero[METADATA_BLOCK_SIZE];
	uint8_t buf[METADATA_BLOCK_SIZE];
	size_t len = t->size < sizeof(buf) ? (size_t)t->size : sizeof(buf);
	int r = image_read(t->img, buf, len, 0);

	*something = !r && memcmp(buf, zero, len);
	if (r)
		msg_error("%s: cannot be read: %s", t->path, strerror(-r));
	return r;
}

static int
refuse_if_used(struct target *t)
{
	bool something;
	int r = t->absent ? 0 : holds_something(t, &something);

	if (r || t->absent || !something)
		return r;
	msg_error("%s: holds something already; --force formats it all the same, and what it "
		  "holds is lost", t->path);
	return -EEXIST;
}

int
format_metadata(struct image *meta, uint64_t block_bytes, uint64_t nr_data_blocks)
{
	uint64_t size;
	int r = image_get_size(meta, &size);

	if (r)
		return r;
	if (size < METADATA_BYTES_LEAST) {
		msg_error("%s: %" PRIu64 " bytes are too small for a pool's metadata; make it "
			  "%llu or more", meta->name, size, METADATA_BYTES_MIN);
		return -EINVAL;
	}
	/* It is small, and a commit that its filesystem has no space for would fail. */
	r = image_allocate(meta, 0, min_u64(size, METADATA_BYTES_MAX));
	if (r) {
		msg_error("%s: its filesystem has no room for the %" PRIu64 " bytes of metadata: %s",
			  meta->name, size, strerror(-r));
		return r;
	}
	return meta_format(meta, (uint32_t)(block_bytes / SECTOR_SIZE), nr_data_blocks);
}

static int
format_targets(struct target *data, struct target *meta, const struct pool_format_options *o)
{
	uint64_t block = o->block_bytes;
	int r = target_open(data);

	if (r)
		return r;
	if (!block)
		block = choose_block_size(data->size);
	if (data->size < block) {
		msg_error("%s: %" PRIu64 " bytes are less than one block of %" PRIu64, data->path,
			  data->size, block);
		return -EINVAL;
	}
	if (!meta->size)
		meta->size = o->metadata_bytes;
	if (!meta->size && access(meta->path, F_OK))
		meta->size = choose_metadata_size(data->size / block);
	r = target_open(meta);
	if (!r && !o->force)
		r = refuse_if_used(data);
	if (!r && !o->force)
		r = refuse_if_used(meta);
	/* Until the superblock is there, the old one must not be: it would point into the new maps. */
	if (!r)
		r = image_zero(meta->img, 0, METADATA_BLOCK_SIZE);
	if (!r)
		r = image_flush(meta->img);
	if (!r)
		r = format_metadata(meta->img, block, data->size / block);
	return r;
}

static bool
same_file(const char *a, const char *b)
{
	struct stat x, y;

	return !strcmp(a, b) ||
	       (!stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

int
format_check_two(const char *data_path, const char *meta_path)
{
	if (!same_file(data_path, meta_path))
		return 0;
	msg_error("%s and %s are the same file: data and metadata must be two images", data_path,
		  meta_path);
	return -EINVAL;
}

int
pool_format(const char *data_path, const char *meta_path, const struct pool_format_options *o)
{
	struct target data = {.path = data_path, .what = "data", .size = o->data_bytes};
	struct target meta = {.path = meta_path, .what = "metadata", .size = o->metadata_bytes};
	int r = o->block_bytes ? check_block_size(o->block_bytes) : 0;

	if (r)
		return r;
	r = format_check_two(data_path, meta_path);
	if (r)
		return r;
	r = format_targets(&data, &meta, o);
	target_close(&meta, r);
	target_close(&data, r);
	return r;
}
