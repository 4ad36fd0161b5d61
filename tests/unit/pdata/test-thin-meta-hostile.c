/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Metadata that lie: every damage ends in an error, none in a crash or a loop.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pdata/block_cache.h"
#include "pdata/superblock.h"
#include "pdata/thin_meta_internal.h"
#include "unit/pdata/meta_fixture.h"
#include "unit/random.h"
#include "util/msg.h"

#define NR_BLOCKS 512U
#define MAX_DEVS 16U

struct victim {
	struct fixture f;
	char *bytes; /* as it was before the damage */
	uint64_t size;
	bool reachable[NR_BLOCKS];
	struct superblock sb;
};

static void
ignore(const char *text)
{
	(void)text;
}

/* Devices with trees of two levels, shared in part, a count tree that is in use. */
static void
make_victim(struct victim *v)
{
	struct fixture *f = &v->f;

	msg_set_sink(ignore);
	fixture_make(f, NR_BLOCKS, 20000);
	cr_assert_eq(meta_create_thin(f->m, 0), 0);
	cr_assert_eq(fixture_map(f, 0, 0, 900), 900);
	for (uint32_t id = 1; id < 6; id++) {
		cr_assert_eq(meta_tick(f->m), 0);
		cr_assert_eq(meta_create_snap(f->m, id, 0), 0);
		cr_assert_eq(fixture_map(f, 0, id * 7, 1), 1);
		cr_assert_eq(meta_commit(f->m, NULL), 0);
	}
	fixture_commit(f);
	cr_assert_eq(superblock_read(&f->img.image, true, &v->sb), 0);
	for (uint64_t b = 1; b < NR_BLOCKS; b++) {
		uint32_t count;

		cr_assert_eq(sm_count(f->m->meta_sm, b, &count), 0);
		v->reachable[b] = count > 0;
	}
	meta_close(f->m);
	f->m = NULL;
	v->bytes = kept_image_copy(&f->img, &v->size);
}

static void
free_victim(struct victim *v)
{
	free(v->bytes);
	fixture_free(&v->f);
}

/* --- looking at all of it, and taking all of it down --- */

struct ids {
	uint32_t v[MAX_DEVS];
	unsigned nr;
};

static int
add_id(void *arg, uint32_t id)
{
	struct ids *ids = arg;

	if (ids->nr == MAX_DEVS)
		return 1;
	ids->v[ids->nr++] = id;
	return 0;
}

static int
walk(struct thin_meta *m, uint32_t id)
{
	struct thin_dev *d;
	uint64_t vblock = 0, len;
	int r = dev_open(m, id, &d);

	if (r)
		return r;
	for (unsigned i = 0; i < 5000 && !r; i++) {
		struct map_run runs[8];
		unsigned nr;

		r = dev_next_mapped(d, vblock, 100, &vblock, &len);
		if (!r)
			r = dev_map(d, vblock, len, runs, 8, &nr);
		vblock += len;
	}
	dev_close(d);
	return r == -ENODATA ? 0 : r;
}

static int
use(struct thin_meta *m)
{
	struct ids ids = {0};
	int r = meta_for_each_dev(m, 0, add_id, &ids);

	for (unsigned i = 0; i < ids.nr && r >= 0; i++)
		r = walk(m, ids.v[i]);
	if (r < 0)
		return r;
	r = meta_create_thin(m, 777);
	for (unsigned i = 0; i < ids.nr && !r; i++)
		r = meta_delete_thin(m, ids.v[i]);
	return r ? r : meta_commit(m, NULL);
}

/* The first error that doing everything meets. The image is then as it was before. */
static int
try_all(struct victim *v)
{
	struct thin_meta *m;
	int r;

	alarm(60); /* instead of an endless loop */
	r = meta_open(&v->f.img.image, FIXTURE_CACHE, false, &m);
	if (!r) {
		r = use(m);
		meta_close(m);
	}
	kept_image_restore(&v->f.img, v->bytes, v->size);
	return r;
}

/* --- damage --- */

static void
read_node(struct victim *v, uint64_t b, void *data)
{
	memcpy(data, v->bytes + b * METADATA_BLOCK_SIZE, METADATA_BLOCK_SIZE);
}

static void
write_sealed(struct victim *v, uint64_t b, enum block_type type, void *data)
{
	cr_assert_eq(block_write_sealed(&v->f.img.image, b, type, data), 0);
}

/* Whether the block verifies as a node. */
static bool
is_node(struct victim *v, uint64_t b)
{
	return v->reachable[b] &&
	       !block_verify("meta", b, BLOCK_NODE, v->bytes + b * METADATA_BLOCK_SIZE);
}

Test(thin_meta_hostile, the_victim_is_sound)
{
	struct victim v;

	make_victim(&v);
	cr_assert_eq(try_all(&v), 0);
	free_victim(&v);
}

Test(thin_meta_hostile, a_wrong_checksum_anywhere_is_found)
{
	uint8_t byte;
	struct victim v;
	unsigned nr = 0, nr_unused = 0;

	make_victim(&v);
	for (uint64_t b = 0; b < NR_BLOCKS; b++) {
		uint64_t at = b * METADATA_BLOCK_SIZE + 100;
		int r;

		if (b && !v.reachable[b])
			continue;
		byte = (uint8_t)v.bytes[at] ^ 4;
		cr_assert_eq(image_write(&v.f.img.image, &byte, 1, at), 0);
		r = try_all(&v);
		/* Of two bitmaps of the data map, nobody needs the one. */
		cr_assert(r == -EUCLEAN || r == 0, "block %llu: %d", (unsigned long long)b, r);
		nr += r == -EUCLEAN;
		nr_unused += r == 0;
	}
	cr_assert_gt(nr, 20);
	cr_assert_leq(nr_unused, 1);
	free_victim(&v);
}

Test(thin_meta_hostile, a_node_that_leads_back_to_an_ancestor_is_found)
{
	uint8_t data[METADATA_BLOCK_SIZE];
	struct disk_node *n = (struct disk_node *)data;
	struct victim v;
	unsigned nr = 0;

	make_victim(&v);
	for (uint64_t b = 1; b < NR_BLOCKS; b++) {
		if (!is_node(&v, b))
			continue;
		read_node(&v, b, data);
		if (le32_get(n->header.flags) != NODE_INTERNAL)
			continue;
		for (unsigned i = 0; i < le32_get(n->nr_entries); i++) {
			struct le64 *children = &n->keys[le32_get(n->max_entries)];

			read_node(&v, b, data);
			children[i] = le64_make(b);
			write_sealed(&v, b, BLOCK_NODE, data);
			cr_assert_eq(try_all(&v), -EUCLEAN, "node %llu, child %u",
				     (unsigned long long)b, i);
			nr++;
		}
	}
	cr_assert_gt(nr, 4);
	free_victim(&v);
}

Test(thin_meta_hostile, roots_outside_the_device_are_found)
{
	static const uint64_t wrong[] = {NR_BLOCKS, 1ULL << 40, UINT64_MAX, 0};
	static const size_t roots[] = {
		offsetof(struct disk_superblock, data_mapping_root),
		offsetof(struct disk_superblock, device_details_root),
		offsetof(struct disk_superblock, data_sm_root.bitmap_root),
		offsetof(struct disk_superblock, data_sm_root.ref_count_root),
		offsetof(struct disk_superblock, metadata_sm_root.bitmap_root),
		offsetof(struct disk_superblock, metadata_sm_root.ref_count_root),
		offsetof(struct disk_superblock, metadata_sm_root.nr_blocks),
	};
	uint8_t data[METADATA_BLOCK_SIZE];
	struct victim v;

	make_victim(&v);
	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
		for (size_t k = 0; k < sizeof(wrong) / sizeof(wrong[0]); k++) {
			int r;

			read_node(&v, 0, data);
			if (!memcmp(data + roots[i], &wrong[k], sizeof(wrong[k])))
				continue;
			memcpy(data + roots[i], &wrong[k], sizeof(wrong[k]));
			write_sealed(&v, 0, BLOCK_SUPERBLOCK, data);
			r = try_all(&v);
			cr_assert(r == -EUCLEAN || r == -EINVAL, "root %zu, %llx: %d", i,
				  (unsigned long long)wrong[k], r);
		}
	}
	free_victim(&v);
}

/* Values that are near what they should be, and some that are not. */
static uint64_t
some_lie(struct random_source *rs, uint64_t truth)
{
	switch (random_below(rs, 6)) {
	case 0:
		return random_below(rs, NR_BLOCKS);
	case 1:
		return random_u64(rs);
	case 2:
		return truth ^ 1ULL << random_below(rs, 64);
	case 3:
		return UINT64_MAX;
	case 4:
		return random_below(rs, 40000) << MAPPING_TIME_BITS;
	default:
		return truth + random_below(rs, 5) - 2;
	}
}

static enum block_type
type_of(struct victim *v, uint64_t b)
{
	for (enum block_type t = BLOCK_SUPERBLOCK; t <= BLOCK_INDEX; t++)
		if (!block_verify("meta", b, t, v->bytes + b * METADATA_BLOCK_SIZE))
			return t;
	return BLOCK_NODE;
}

Test(thin_meta_hostile, lies_with_a_right_checksum_never_crash)
{
	struct random_source rs = random_start("lies_with_a_right_checksum_never_crash");
	uint8_t data[METADATA_BLOCK_SIZE];
	unsigned found = 0;
	struct victim v;

	make_victim(&v);
	for (unsigned i = 0; i < 4000; i++) {
		uint64_t b, word;
		size_t at;

		do
			b = random_below(&rs, NR_BLOCKS);
		while (b && !v.reachable[b]);
		read_node(&v, b, data);
		for (unsigned k = 0; k <= random_below(&rs, 3); k++) {
			at = 16 + 4 * random_below(&rs, random_below(&rs, 2) ? 40 : 1018);
			memcpy(&word, data + at, sizeof(word));
			word = some_lie(&rs, word);
			memcpy(data + at, &word, random_below(&rs, 2) ? 8 : 4);
		}
		write_sealed(&v, b, type_of(&v, b), data);
		found += try_all(&v) != 0;
	}
	fprintf(stderr, "# %u lies were found\n", found);
	cr_assert_gt(found, 0);
	free_victim(&v);
}
