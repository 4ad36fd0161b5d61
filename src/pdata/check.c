/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check: the superblock, and the order of the rest.
 *
 * The trees of devices come first: what they use is theirs, and a space map that claims the same
 * block is what is damaged.
 */
#include <config.h>

#include "pdata/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/check_internal.h"

/* --- reporting --- */

static const char *const use_names[] = {
	[USE_NONE] = "nothing",
	[USE_SUPERBLOCK] = "superblock",
	[USE_TOP] = "a node of the tree of devices",
	[USE_MAPPINGS] = "a node of mappings",
	[USE_DETAILS] = "a node of the details",
	[USE_METADATA_INDEX] = "index of the metadata space map",
	[USE_DATA_INDEX] = "a node of the data space map's index",
	[USE_METADATA_COUNTS] = "a node of the metadata space map's counts",
	[USE_DATA_COUNTS] = "a node of the data space map's counts",
	[USE_BITMAP] = "bitmap of a space map",
};

const char *
check_use_name(enum block_use use)
{
	return use_names[use];
}

static bool
is_of_maps(enum block_use use)
{
	return use >= USE_METADATA_INDEX;
}

static void
report(struct check *c, struct check_problem p, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

static void
report(struct check *c, struct check_problem p, const char *fmt, va_list ap)
{
	char text[CHECK_TEXT_MAX];

	switch (p.severity) {
	case CHECK_WARNING:
		c->result.nr_warnings++;
		break;
	case CHECK_LEAK:
		*(p.of_data ? &c->result.leaked_data : &c->result.leaked_metadata) += p.nr;
		break;
	case CHECK_ERROR:
		c->result.nr_errors++;
		c->result.nr_unmendable += !p.mendable;
		break;
	}
	vsnprintf(text, sizeof(text), fmt, ap);
	p.what = text;
	if (c->fn)
		c->fn(c->arg, &p);
}

void
check_problem(struct check *c, const struct check_problem *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(c, *p, fmt, ap);
	va_end(ap);
}

void
check_error(struct check *c, enum block_use use, uint64_t block, const char *fmt, ...)
{
	struct check_problem p = {
		.severity = CHECK_ERROR,
		.mendable = is_of_maps(use),
		.block = block,
		.nr = 1,
	};
	va_list ap;

	va_start(ap, fmt);
	report(c, p, fmt, ap);
	va_end(ap);
}

void
check_lose(struct check *c, enum block_use use)
{
	*(is_of_maps(use) ? &c->maps_lost : &c->trees_lost) = true;
	if (!is_of_maps(use) && use != USE_DETAILS)
		c->mappings_lost = true;
	c->result.partial = true;
}

/* --- blocks --- */

int
check_count(struct check *c, uint64_t block)
{
	return block < c->nr_blocks ? sm_counts_inc(&c->metadata, block) : 0;
}

bool
check_claim(struct check *c, uint64_t block, enum block_use use)
{
	if (block >= c->nr_blocks)
		check_error(c, use, block, "%s: there are only %" PRIu64 " metadata blocks",
			    use_names[use], c->nr_blocks);
	else if (c->seen[block].use != USE_NONE)
		check_error(c, use, block, "%s: it is also used as %s", use_names[use],
			    use_names[c->seen[block].use]);
	else {
		c->seen[block].use = (uint8_t)use;
		return true;
	}
	check_lose(c, use);
	return false;
}

bool
check_read(struct check *c, uint64_t block, enum block_use use, enum block_type type, void *data)
{
	int r = image_read(c->img, data, METADATA_BLOCK_SIZE, block * METADATA_BLOCK_SIZE);
	const char *fault = r ? NULL : block_fault(block, type, data);

	if (r) {
		c->result.unreadable = true;
		check_error(c, use, block, "%s: cannot be read: %s", use_names[use], strerror(-r));
	} else if (fault) {
		check_error(c, use, block, "%s: %s", use_names[use], fault);
	} else {
		return true;
	}
	check_lose(c, use);
	return false;
}

/* --- the superblock --- */

static void
check_features(struct check *c, const struct disk_superblock *d)
{
	uint32_t block = le32_get(d->data_block_size);

	if (le32_get(d->version) != SUPERBLOCK_VERSION)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: version %" PRIu32 " instead of %u",
			    le32_get(d->version), SUPERBLOCK_VERSION);
	if (le32_get(d->header.flags) & ~SUPERBLOCK_NEEDS_CHECK)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: unknown flags %#" PRIx32,
			    le32_get(d->header.flags));
	if (le32_get(d->incompat_flags) || le32_get(d->compat_ro_flags))
		check_error(c, USE_SUPERBLOCK, 0, "superblock: features that thinfs does not know "
			    "(flags %#" PRIx32 ", %#" PRIx32 ")", le32_get(d->incompat_flags),
			    le32_get(d->compat_ro_flags));
	if (le32_get(d->metadata_block_size) != METADATA_BLOCK_SIZE / SECTOR_SIZE)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: metadata blocks of %" PRIu32
			    " sectors instead of %u", le32_get(d->metadata_block_size),
			    METADATA_BLOCK_SIZE / SECTOR_SIZE);
	if (block < DATA_BLOCK_MIN_SECTORS || block > DATA_BLOCK_MAX_SECTORS ||
	    block % DATA_BLOCK_MIN_SECTORS)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: data blocks of %" PRIu32
			    " sectors are impossible", block);
	if (le32_get(d->time) > MAPPING_TIME_MAX)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: the snapshot clock, %" PRIu32
			    ", has run past 2^24: mappings may point to wrong blocks",
			    le32_get(d->time));
}

/* How much there is of both devices. False, and said so, when that cannot be. */
static bool
check_sizes(struct check *c, uint64_t image_blocks)
{
	c->nr_blocks = le64_get(c->sb.metadata_sm_root.nr_blocks);
	c->nr_data_blocks = le64_get(c->sb.data_sm_root.nr_blocks);
	if (c->nr_blocks > image_blocks)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: the metadata have %" PRIu64
			    " blocks of 4096 bytes, the image only %" PRIu64 ": it is cut off",
			    c->nr_blocks, image_blocks);
	else if (!c->nr_blocks || c->nr_blocks > METADATA_BLOCKS_MAX)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: %" PRIu64
			    " metadata blocks are impossible", c->nr_blocks);
	else if (c->nr_data_blocks > DATA_BLOCKS_MAX ||
		 c->nr_data_blocks / BITMAP_ENTRIES > c->nr_blocks)
		check_error(c, USE_SUPERBLOCK, 0, "superblock: %" PRIu64
			    " data blocks are more than can be counted here", c->nr_data_blocks);
	else
		return true;
	return false;
}

/* False, and said so, when there is no going on from it. */
static bool
check_superblock(struct check *c, uint8_t *data)
{
	const struct disk_superblock *d = (const void *)data;
	uint64_t size = 0;
	int r = image_get_size(c->img, &size);

	if (!r && size < METADATA_BLOCK_SIZE) {
		check_error(c, USE_SUPERBLOCK, 0, "superblock: the image has only %" PRIu64 " bytes", size);
		return false;
	}
	if (!r)
		r = image_read(c->img, data, METADATA_BLOCK_SIZE, SUPERBLOCK_LOCATION);
	if (r) {
		c->result.unreadable = true;
		check_error(c, USE_SUPERBLOCK, 0, "superblock: cannot be read: %s", strerror(-r));
		return false;
	}
	if (le64_get(d->magic) != SUPERBLOCK_MAGIC) {
		check_error(c, USE_SUPERBLOCK, 0, "superblock: wrong magic number: not the metadata of "
			    "a thin pool; is it the data image?");
		return false;
	}
	if (block_fault(SUPERBLOCK_LOCATION, BLOCK_SUPERBLOCK, data)) {
		check_error(c, USE_SUPERBLOCK, 0, "superblock: %s",
			    block_fault(SUPERBLOCK_LOCATION, BLOCK_SUPERBLOCK, data));
		return false;
	}
	superblock_from_disk(data, &c->sb);
	c->result.needs_check = c->sb.needs_check;
	c->result.transaction = c->sb.trans_id;
	check_features(c, d);
	return check_sizes(c, size / METADATA_BLOCK_SIZE);
}

/* The metadata snapshot: S 9.5. */
static int
check_held(struct check *c)
{
	uint64_t held = c->sb.held_root;
	uint8_t *data = c->nodes;
	struct superblock copy;
	int r = check_count(c, held);

	if (r || !check_claim(c, held, USE_SUPERBLOCK) ||
	    !check_read(c, held, USE_SUPERBLOCK, BLOCK_SUPERBLOCK, data))
		return r;
	if (le64_get(((const struct disk_superblock *)(const void *)data)->magic) != SUPERBLOCK_MAGIC) {
		check_error(c, USE_SUPERBLOCK, held, "superblock of the metadata snapshot: wrong magic "
			    "number");
		check_lose(c, USE_SUPERBLOCK);
		return 0;
	}
	superblock_from_disk(data, &copy);
	return check_devices(c, &copy, true);
}

/* --- all of it --- */

static int
prepare(struct check *c)
{
	int r = sm_counts_init(&c->metadata, c->nr_blocks);

	if (!r)
		r = sm_counts_init(&c->data, c->nr_data_blocks);
	c->seen = calloc(c->nr_blocks, sizeof(*c->seen));
	if (!c->seen)
		r = -ENOMEM;
	if (r)
		return r;
	c->seen[SUPERBLOCK_LOCATION].use = USE_SUPERBLOCK;
	return check_count(c, SUPERBLOCK_LOCATION);
}

int
check_run(struct check *c, struct image *img, check_fn fn, void *arg)
{
	int r;

	*c = (struct check){.img = img, .fn = fn, .arg = arg};
	c->nodes = aligned_alloc(METADATA_BLOCK_SIZE, BTREE_MAX_DEPTH * METADATA_BLOCK_SIZE);
	if (!c->nodes)
		return -ENOMEM;
	if (!check_superblock(c, c->nodes)) {
		c->result.partial = true;
		return 0;
	}
	r = prepare(c);
	if (!r)
		r = check_devices(c, &c->sb, false);
	if (!r && c->sb.held_root)
		r = check_held(c);
	if (!r)
		r = sm_counts_copy(&c->trees, &c->metadata);
	return r ? r : check_maps(c);
}

void
check_end(struct check *c)
{
	sm_counts_free(&c->metadata);
	sm_counts_free(&c->data);
	sm_counts_free(&c->trees);
	free(c->seen);
	free(c->wrong);
	free(c->nodes);
}

int
meta_check(struct image *img, check_fn fn, void *arg, struct check_result *result)
{
	struct check c;
	int r = check_run(&c, img, fn, arg);

	*result = c.result;
	check_end(&c);
	return r;
}
