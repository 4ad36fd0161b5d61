/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is said not to depend on what is in a pool: how many metadata blocks it reads and writes, from a cache that is
 * cold, is the same with a thousand mappings as with a million, but for the height of the trees. And names by the thousand.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "io/image_fault.h"
#include "pdata/format.h"
#include "pool/pool.h"
#include "unit/kept_image.h"
#include "unit/pdata/meta_fixture.h"
#include "util/msg.h"

#define BLOCK 65536ULL
#define CACHE (4U << 20)
#define MANY_VOLUMES 100U
#define INDEX_LEAF_MIN 56U /* entries of a node of the data map's index: S 4.1 */

static const struct pool_caller caller = {.mode = 0700};

/* A pool whose volume "v" has so many mappings, in images as large as these need. */
struct scale {
	uint64_t mappings, data_blocks, meta_blocks;
};

static const struct scale small = {1000, 2 * BITMAP_ENTRIES, BITMAP_ENTRIES};
static const struct scale large = {1000000, 70 * BITMAP_ENTRIES, 4 * BITMAP_ENTRIES};

struct trial {
	const struct scale *scale;
	struct image *data, *counted; /* of the metadata */
	struct kept_image kept_data;
	struct fixture f; /* the metadata image */
	uint64_t written; /* metadata blocks */
	struct pool *p;
	struct vol *v;
};

struct cost {
	uint64_t reads, writes;
};

static void
ignore(const char *text)
{
	(void)text;
}

static void
on_event(void *arg, const struct image_event *event)
{
	struct trial *t = arg;

	if (event->op == IMAGE_OP_WRITE)
		t->written += event->len / METADATA_BLOCK_SIZE;
}

/* The mappings, straight into the metadata: no data are written. */
static void
make_mappings(struct trial *t)
{
	uint64_t left = t->scale->mappings;

	cr_assert_eq(meta_format(&t->f.img.image, BLOCK / SECTOR_SIZE, t->scale->data_blocks), 0);
	cr_assert_eq(meta_open(&t->f.img.image, 64U << 20, false, &t->f.m), 0);
	cr_assert_eq(meta_create_thin(t->f.m, 1), 0);
	while (left) {
		uint64_t nr = left < 4096 ? left : 4096;

		cr_assert_eq(fixture_map(&t->f, 1, t->scale->mappings - left, nr), nr);
		left -= nr;
	}
	cr_assert_eq(meta_commit(t->f.m, NULL), 0);
	meta_close(t->f.m);
	t->f.m = NULL;
}

static void
open_pool(struct trial *t)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;

	options.commit_interval_ms = 0;
	options.metadata_cache_bytes = CACHE;
	options.threads_later = true; /* and never: nothing goes on in the background */
	cr_assert_eq(pool_open_images(&t->kept_data.image, &t->f.img.image, &options, &t->p), 0);
	cr_assert_eq(pool_lookup(t->p, pool_top(t->p), "v", &t->v), 0);
}

static void
close_pool(struct trial *t)
{
	vol_put(t->v);
	cr_assert_eq(pool_close(t->p), 0);
}

/* Let the device have a name, and others beside it. */
static void
make_names(struct trial *t)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct vol *v;
	char name[16];

	options.commit_interval_ms = 0;
	cr_assert_eq(pool_open_images(&t->kept_data.image, &t->f.img.image, &options, &t->p), 0);
	cr_assert_eq(pool_rename(t->p, pool_top(t->p), "thin-1", pool_top(t->p), "v", 0), 0);
	for (unsigned i = 1; i < MANY_VOLUMES; i++) {
		snprintf(name, sizeof(name), "w%u", i);
		cr_assert_eq(pool_create(t->p, pool_top(t->p), name, &caller, &v), 0);
		cr_assert_eq(vol_truncate(v, BLOCK), 0);
		vol_put(v);
	}
	cr_assert_eq(pool_close(t->p), 0);
}

static void
trial_make(struct trial *t, const struct scale *scale)
{
	struct image *meta;

	*t = (struct trial){.scale = scale};
	msg_set_sink(ignore);
	cr_assert_eq(image_open_memory("data", scale->data_blocks * BLOCK, &t->data), 0);
	cr_assert_eq(image_open_memory("meta", scale->meta_blocks * METADATA_BLOCK_SIZE, &meta), 0);
	cr_assert_eq(image_fault_wrap(meta, &t->counted), 0);
	image_fault_observe(t->counted, on_event, t);
	kept_image_init(&t->kept_data, t->data);
	kept_image_init(&t->f.img, t->counted);
	make_mappings(t);
	make_names(t);
}

static void
trial_end(struct trial *t)
{
	cr_assert(audit_check(t->f.img.inner, AUDIT_EXACT), "the metadata are not clean");
	fixture_free(&t->f);
	kept_image_free(&t->kept_data);
}


/* --- what is done, each with the commit that makes it durable --- */

static void
mount_it(struct trial *t)
{
	(void)t;
}

static void
look(struct trial *t)
{
	struct pool_status status;
	struct vol_attr attr;

	pool_get_status(t->p, &status);
	cr_assert_eq(status.nr_volumes, MANY_VOLUMES);
	cr_assert_geq(status.data_used, t->scale->mappings);
	cr_assert_eq(vol_getattr(t->v, &attr), 0);
	cr_assert_eq(attr.mapped_bytes, t->scale->mappings * BLOCK);
}

static void
snapshot_one(struct trial *t)
{
	cr_assert_eq(pool_snapshot(t->p, "v@one", &caller), 0);
}

static void
snapshot_all(struct trial *t)
{
	cr_assert_eq(pool_snapshot(t->p, "all", &caller), 0);
}

static void
remove_snapshot(struct trial *t)
{
	cr_assert_eq(pool_remove_snapshot(t->p, "v@one"), 0);
}

static void
clone_it(struct trial *t)
{
	cr_assert_eq(pool_clone(t->p, t->v, "clone", &caller), 0);
}

static void
first_write(struct trial *t)
{
	cr_assert_eq(vol_write(t->v, "x", 1, (t->scale->mappings + 100) * BLOCK), 1);
}

static void
overwrite(struct trial *t)
{
	cr_assert_eq(vol_write(t->v, "x", 1, t->scale->mappings / 2 * BLOCK), 1);
}

static void
unlink_it(struct trial *t)
{
	cr_assert_eq(pool_unlink(t->p, pool_top(t->p), "v"), 0);
}

/* In this order. */
static const struct step {
	const char *name;
	void (*fn)(struct trial *t);
	unsigned paths; /* ways through the volume's tree, each of which is a node longer in the large pool */
} steps[] = {
	{"mount", mount_it, 0},
	{"look at status and sizes", look, 0},
	{"overwrite", overwrite, 1},
	{"first write", first_write, 1},
	{"snapshot of a volume", snapshot_one, 0},
	{"write what the snapshot shares", overwrite, 1},
	{"remove the snapshot", remove_snapshot, 1},
	{"snapshot of a hundred volumes", snapshot_all, 0},
	{"clone", clone_it, 0},
	{"remove the volume", unlink_it, 0},
};

#define NR_STEPS (sizeof(steps) / sizeof(steps[0]))

/* A step in a pool that has just been opened, up to its being durable; the opening is not counted but for the first. */
static struct cost
cost_of(struct trial *t, const struct step *step)
{
	uint64_t reads = image_fault_count(t->counted, IMAGE_OP_READ), writes = t->written;

	open_pool(t);
	if (step->fn != mount_it) {
		reads = image_fault_count(t->counted, IMAGE_OP_READ);
		writes = t->written;
	}
	step->fn(t);
	cr_assert_eq(pool_sync_wait(t->p, NULL), 0);
	reads = image_fault_count(t->counted, IMAGE_OP_READ) - reads;
	writes = t->written - writes;
	close_pool(t);
	return (struct cost){reads, writes};
}

static void
take_all(const struct scale *scale, struct cost costs[NR_STEPS])
{
	struct trial t;

	trial_make(&t, scale);
	for (size_t i = 0; i < NR_STEPS; i++)
		costs[i] = cost_of(&t, &steps[i]);
	trial_end(&t);
}

static uint64_t
bitmaps(uint64_t blocks)
{
	return (blocks + BITMAP_ENTRIES - 1) / BITMAP_ENTRIES;
}

/* What a mount reads of all bitmaps there are: those of the metadata, and a leaf of the index for some of the data's. */
static uint64_t
read_by_mount(const struct scale *scale)
{
	return bitmaps(scale->meta_blocks) + bitmaps(scale->data_blocks) / INDEX_LEAF_MIN;
}

Test(pool_scale, a_thousand_times_as_many_mappings_cost_no_more_blocks, .timeout = 120)
{
	struct cost few[NR_STEPS], many[NR_STEPS];

	take_all(&small, few);
	take_all(&large, many);
	for (size_t i = 0; i < NR_STEPS; i++) {
		uint64_t more = steps[i].paths + 1; /* the data map's index is a node higher, too */
		uint64_t at_mount = i ? 0 : read_by_mount(&large) - read_by_mount(&small);

		printf("# %s: %llu reads and %llu writes; %llu and %llu with more\n", steps[i].name,
		       (unsigned long long)few[i].reads, (unsigned long long)few[i].writes,
		       (unsigned long long)many[i].reads, (unsigned long long)many[i].writes);
		cr_expect_leq(many[i].reads, few[i].reads + more + at_mount, "%s: %llu reads, not %llu",
			      steps[i].name, (unsigned long long)many[i].reads, (unsigned long long)few[i].reads);
		cr_expect_leq(many[i].writes, few[i].writes + more, "%s: %llu writes, not %llu", steps[i].name,
			      (unsigned long long)many[i].writes, (unsigned long long)few[i].writes);
	}
}

/* --- many names --- */

#define LARGE_BLOCK (4ULL << 20) /* the records of 2048 devices, which are written a MiB at a time */
#define NR_NAMES 1500U

static void
check_names(struct pool *p, unsigned every)
{
	for (unsigned i = 1; i <= NR_NAMES; i++) {
		struct vol_attr attr;
		struct vol *v;
		char name[16];
		int r;

		snprintf(name, sizeof(name), "n%u", i);
		r = pool_lookup(p, pool_top(p), name, &v);
		cr_assert_eq(r, i % every ? 0 : -ENOENT, "%s: %d", name, r);
		if (r)
			continue;
		cr_assert_eq(vol_getattr(v, &attr), 0);
		cr_assert_eq(attr.size, i * 512U, "the size of %s", name);
		vol_put(v);
	}
}

Test(pool_scale, names_of_a_large_block_are_all_there_again)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct kept_image data, meta;
	struct image *img;
	struct pool *p;
	struct vol *v;
	char name[16];

	msg_set_sink(ignore);
	options.commit_interval_ms = 0;
	cr_assert_eq(image_open_memory("data", 64 * LARGE_BLOCK, &img), 0);
	kept_image_init(&data, img);
	cr_assert_eq(image_open_memory("meta", 16U << 20, &img), 0);
	kept_image_init(&meta, img);
	cr_assert_eq(meta_format(&meta.image, LARGE_BLOCK / SECTOR_SIZE, 64), 0);
	cr_assert_eq(pool_open_images(&data.image, &meta.image, &options, &p), 0);
	for (unsigned i = 1; i <= NR_NAMES; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		cr_assert_eq(pool_create(p, pool_top(p), name, &caller, &v), 0);
		cr_assert_eq(vol_truncate(v, i * 512U), 0);
		vol_put(v);
	}
	cr_assert_eq(pool_close(p), 0);
	cr_assert_eq(pool_open_images(&data.image, &meta.image, &options, &p), 0);
	check_names(p, NR_NAMES + 1);
	for (unsigned i = 7; i <= NR_NAMES; i += 7) {
		snprintf(name, sizeof(name), "n%u", i);
		cr_assert_eq(pool_unlink(p, pool_top(p), name), 0);
	}
	cr_assert_eq(pool_close(p), 0);
	cr_assert_eq(pool_open_images(&data.image, &meta.image, &options, &p), 0);
	check_names(p, 7);
	cr_assert_eq(pool_close(p), 0);
	cr_assert(audit_check(meta.inner, AUDIT_EXACT), "the metadata are not clean");
	kept_image_free(&meta);
	kept_image_free(&data);
}
