/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/seeds.h"
#include "pdata/btree_node.h"
#include "pdata/format.h"
#include "pdata/superblock.h"
#include "pdata/thin_meta.h"
#include "pool/catalog_record.h"
#include "pool/pool.h"

/* Of each kind one: the order is part of what the kept inputs mean. */
static const char *const kernel_images[] = {
	"k03-sharing-broken", "k05-held-root-diverged", "k07-discarded", "k10-shuffled",
	"k13-removed-singly", "k16-leak", "k12-deep-snapshots", "k20-three-bitmaps",
};
#define NR_KERNEL_IMAGES (sizeof(kernel_images) / sizeof(kernel_images[0]))

static struct seed seeds[NR_KERNEL_IMAGES + 1];
static unsigned nr_seeds;

enum block_type
seed_block_type(enum seed_class class)
{
	switch (class) {
	case SEED_SUPERBLOCK:
		return BLOCK_SUPERBLOCK;
	case SEED_INDEX:
		return BLOCK_INDEX;
	case SEED_META_BITMAP:
	case SEED_DATA_BITMAP:
		return BLOCK_BITMAP;
	default:
		return BLOCK_NODE;
	}
}

/* --- what is where; these images are sound --- */

static void
add_block(struct seed *s, enum seed_class class, uint64_t nr)
{
	uint32_t n = s->blocks[class].nr;

	for (uint32_t i = 0; i < n; i++)
		if (s->blocks[class].v[i] == nr)
			return;
	if (n < SEED_BLOCKS_MAX)
		s->blocks[class].v[s->blocks[class].nr++] = (uint32_t)nr;
}

/* The tree at ROOT, each node once; VALUE gets each entry of a leaf. */
static void
add_tree(struct seed *s, enum seed_class class, uint64_t root,
	 void (*value)(struct seed *s, uint64_t key, const void *value))
{
	const struct disk_node *n = (const void *)cow_look(s->meta, root);

	add_block(s, class, root);
	for (unsigned i = 0; i < node_nr(n); i++) {
		if (!node_is_leaf(n))
			add_tree(s, class, node_child(n, i), value);
		else if (value)
			value(s, node_key(n, i), node_value((struct disk_node *)n, i));
	}
}

static void
add_device(struct seed *s, uint64_t key, const void *value)
{
	const struct le64 *root = value;

	if (s->nr_devs < SEED_DEVS_MAX)
		s->devs[s->nr_devs++] = (uint32_t)key;
	add_tree(s, SEED_MAPPING, le64_get(*root), NULL);
}

static void
add_data_bitmap(struct seed *s, uint64_t key, const void *value)
{
	const struct disk_index_entry *e = value;

	(void)key;
	add_block(s, SEED_DATA_BITMAP, le64_get(e->blocknr));
}

static void
classify(struct seed *s)
{
	const struct disk_superblock *sb = (const void *)cow_look(s->meta, 0);
	uint64_t index_nr = le64_get(sb->metadata_sm_root.bitmap_root);
	const struct disk_index *index = (const void *)cow_look(s->meta, index_nr);

	add_block(s, SEED_SUPERBLOCK, SUPERBLOCK_LOCATION);
	add_tree(s, SEED_TOP, le64_get(sb->data_mapping_root), add_device);
	add_tree(s, SEED_DETAILS, le64_get(sb->device_details_root), NULL);
	add_tree(s, SEED_INDEX_TREE, le64_get(sb->data_sm_root.bitmap_root), add_data_bitmap);
	add_tree(s, SEED_COUNTS, le64_get(sb->data_sm_root.ref_count_root), NULL);
	add_tree(s, SEED_COUNTS, le64_get(sb->metadata_sm_root.ref_count_root), NULL);
	add_block(s, SEED_INDEX, index_nr);
	for (unsigned i = 0; i < METADATA_BITMAPS_MAX; i++)
		if (le64_get(index->entries[i].blocknr))
			add_block(s, SEED_META_BITMAP, le64_get(index->entries[i].blocknr));
}

/* --- the kernel's --- */

static int
read_image(const char *name, uint8_t **bytes, size_t *size)
{
	const char *top = getenv("top_srcdir");
	size_t room = 192U << 20;
	char command[4096];
	FILE *pipe;

	snprintf(command, sizeof(command), "gzip -dc '%s/tests/data/dm-thin-images/%s.img.gz'",
		 top ? top : ".", name);
	*bytes = malloc(room);
	pipe = *bytes ? popen(command, "r") : NULL;
	*size = pipe ? fread(*bytes, 1, room, pipe) : 0;
	if (!pipe || pclose(pipe) || !*size) {
		fprintf(stderr, "cannot read the image %s; is top_srcdir set?\n", name);
		free(*bytes);
		return -1;
	}
	return 0;
}

static int
load_kernel_image(struct seed *s, const char *name)
{
	static const uint8_t zeros[COW_PAGE];
	const struct disk_superblock *sb;
	uint64_t block, nr_blocks;
	uint8_t *bytes;
	size_t size;

	if (read_image(name, &bytes, &size))
		return -1;
	s->name = name;
	s->meta = cow_new("meta", size);
	for (size_t at = 0; s->meta && at < size; at += COW_PAGE)
		if (memcmp(bytes + at, zeros, COW_PAGE))
			image_write(&s->meta->image, bytes + at, COW_PAGE, at);
	free(bytes);
	if (!s->meta)
		return -1;
	cow_keep(s->meta);
	classify(s);
	sb = (const void *)cow_look(s->meta, 0);
	block = (uint64_t)le32_get(sb->data_block_size) * SECTOR_SIZE;
	nr_blocks = le64_get(sb->data_sm_root.nr_blocks);
	s->data = cow_new("data", nr_blocks * block);
	return s->data ? 0 : -1;
}

/* --- with names --- */

#define NAMED_META_BLOCKS 256U
#define NAMED_DATA_BLOCKS 128U
#define NAMED_BLOCK_SECTORS 128U

static int
make_volumes(struct pool *p)
{
	static const char *const names[] = {"alpha", "beta", "gamma", "delta"};
	struct pool_caller caller = {.mode = 0640};
	static uint8_t bytes[70000];
	int r = 0;

	memset(bytes, 'x', sizeof(bytes));
	for (unsigned i = 0; i < 4 && !r; i++) {
		struct vol *v;

		r = pool_create(p, pool_top(p), names[i], &caller, &v);
		if (r)
			return r;
		if (vol_write(v, bytes, sizeof(bytes), i * 300000) < 0)
			r = -1;
		vol_put(v);
		if (!r && i % 2)
			r = pool_snapshot(p, names[i], &caller);
	}
	if (!r)
		r = pool_snapshot(p, "beta@one", &caller);
	return r;
}

/* Where the records are: one after another in the catalog's first block, and its own in the last. */
static int
find_records(struct seed *s)
{
	struct thin_meta *m;
	struct thin_dev *d;
	uint64_t vblock = 0, len;

	if (meta_open(&s->meta->image, 1U << 20, true, &m))
		return -1;
	if (dev_open(m, CATALOG_ID, &d)) {
		meta_close(m);
		return -1;
	}
	while (!dev_next_mapped(d, vblock, 1, &vblock, &len)) {
		struct map_run run;
		unsigned nr;

		if (dev_map(d, vblock++, 1, &run, 1, &nr))
			break;
		for (uint64_t at = 0; at < NAMED_BLOCK_SECTORS * SECTOR_SIZE; at += RECORD_SIZE) {
			uint64_t place = run.dblock * NAMED_BLOCK_SECTORS * SECTOR_SIZE + at;
			const uint8_t *page = cow_look(s->data, place / COW_PAGE);

			if (page[place % COW_PAGE + 4] && s->nr_records < SEED_DEVS_MAX)
				s->records[s->nr_records++] = place;
		}
	}
	dev_close(d);
	meta_close(m);
	return s->nr_records ? 0 : -1;
}

static int
make_named(struct seed *s)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct pool *p;
	int r;

	options.commit_interval_ms = 0;
	options.metadata_cache_bytes = 1U << 20;
	s->name = "named";
	s->meta = cow_new("meta", NAMED_META_BLOCKS * METADATA_BLOCK_SIZE);
	s->data = cow_new("data", NAMED_DATA_BLOCKS * NAMED_BLOCK_SECTORS * SECTOR_SIZE);
	if (!s->meta || !s->data)
		return -1;
	r = meta_format(&s->meta->image, NAMED_BLOCK_SECTORS, NAMED_DATA_BLOCKS);
	if (!r)
		r = pool_open_images(&s->data->image, &s->meta->image, &options, &p);
	if (r)
		return -1;
	r = make_volumes(p);
	if (pool_close(p) || r)
		return -1;
	cow_keep(s->meta);
	cow_keep(s->data);
	classify(s);
	return find_records(s);
}

int
seeds_load(void)
{
	if (nr_seeds)
		return 0;
	for (size_t i = 0; i < NR_KERNEL_IMAGES; i++)
		if (load_kernel_image(&seeds[i], kernel_images[i]))
			return -1;
	if (make_named(&seeds[NR_KERNEL_IMAGES])) {
		fprintf(stderr, "cannot make a pool with names\n");
		return -1;
	}
	nr_seeds = NR_KERNEL_IMAGES + 1;
	return 0;
}

unsigned
seeds_nr(void)
{
	return nr_seeds;
}

struct seed *
seeds_get(unsigned i)
{
	struct seed *s = &seeds[i % nr_seeds];

	cow_reset(s->meta);
	cow_reset(s->data);
	return s;
}
