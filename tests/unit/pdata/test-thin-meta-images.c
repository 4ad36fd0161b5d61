/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pools that the kernel made (format sheet, S 17.2): each is read whole, changed and committed.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit/pdata/meta_fixture.h"

#define IMAGE_MAX (192U << 20)
#define MAX_RUNS 32U

/* The image, unpacked, in memory. */
static void
load(struct fixture *f, const char *name)
{
	const char *top = getenv("top_srcdir");
	char command[4096];
	uint8_t *bytes = malloc(IMAGE_MAX);
	size_t size;
	FILE *pipe;

	snprintf(command, sizeof(command), "gzip -dc '%s/tests/data/dm-thin-images/%s.img.gz'",
		 top ? top : ".", name);
	pipe = popen(command, "r");
	cr_assert_not_null(pipe);
	size = fread(bytes, 1, IMAGE_MAX, pipe);
	cr_assert_eq(pclose(pipe), 0, "%s", command);
	fixture_image(f, size / METADATA_BLOCK_SIZE);
	cr_assert_eq(image_write(&f->img.image, bytes, size, 0), 0);
	free(bytes);
}

/* --- walking --- */

struct walk {
	struct thin_meta *m;
	uint64_t nr_devs, nr_mapped;
	uint32_t last_id;
};

static int
walk_dev(void *arg, uint32_t id)
{
	struct map_run runs[MAX_RUNS];
	struct walk *w = arg;
	struct dev_info info;
	struct thin_dev *d;
	uint64_t vblock = 0, len, mapped = 0;

	cr_assert_eq(dev_open(w->m, id, &d), 0);
	while (!dev_next_mapped(d, vblock, UINT64_MAX, &vblock, &len)) {
		uint64_t end = vblock + len;

		while (vblock < end) {
			unsigned nr;

			cr_assert_eq(dev_map(d, vblock, end - vblock, runs, MAX_RUNS, &nr), 0);
			for (unsigned i = 0; i < nr; i++) {
				cr_assert_eq(runs[i].vblock, vblock);
				cr_assert_neq(runs[i].dblock, MAP_HOLE);
				vblock += runs[i].len;
				mapped += runs[i].len;
			}
		}
	}
	dev_get_info(d, &info);
	cr_assert_eq(mapped, info.mapped_blocks, "device %u: %llu mapped, not %llu", id,
		     (unsigned long long)mapped, (unsigned long long)info.mapped_blocks);
	dev_close(d);
	w->nr_devs++;
	w->nr_mapped += mapped;
	w->last_id = id;
	return 0;
}

static struct walk
walk(struct thin_meta *m)
{
	struct walk w = {.m = m};

	cr_assert_eq(meta_for_each_dev(m, 0, walk_dev, &w), 0);
	return w;
}

/* --- changing --- */

/* A new device, a snapshot of the last one, some mappings changed in both. */
static void
change(struct fixture *f, const struct walk *w)
{
	struct thin_dev *d;
	uint64_t next;

	cr_assert_eq(meta_create_thin(f->m, 5000), 0);
	fixture_map(f, 5000, 3, 5);
	if (!w->nr_devs)
		return;
	cr_assert_eq(meta_tick(f->m), 0);
	cr_assert_eq(meta_create_snap(f->m, 5001, w->last_id), 0);
	fixture_map(f, w->last_id, 0, 5);
	cr_assert_eq(dev_open(f->m, w->last_id, &d), 0);
	cr_assert_eq(dev_unmap(d, 10, 700, 10000, META_TO_UNMAP, &next), 0);
	dev_close(d);
}

/* Damaged before: S 17.2. Its data map counts a block that nothing maps. */
static bool
is_leaky(const char *name)
{
	return !strncmp(name, "k16", 3);
}

static void
open_walk_and_change(const char *name)
{
	struct fixture f;
	struct walk before, after;

	load(&f, name);
	fixture_reopen(&f);
	before = walk(f.m);
	if (meta_require(f.m, 4, 3, META_TO_ADD) == 0) {
		change(&f, &before);
		cr_assert_eq(meta_commit(f.m, NULL), 0, "%s", name);
	} else {
		cr_assert(is_leaky(name), "%s has no room", name);
	}
	if (!is_leaky(name))
		cr_assert(audit_image(f.img.inner, AUDIT_ALL), "%s is not clean", name);
	after = walk(f.m);
	fixture_reopen(&f);
	cr_assert_eq(walk(f.m).nr_mapped, after.nr_mapped);
	fixture_free(&f);
}

static const char *const clean_images[] = {
	"k00-fresh", "k01-one-thin", "k02-snapshot", "k03-sharing-broken", "k04-held-root",
	"k05-held-root-diverged", "k06-held-root-released", "k07-discarded", "k08-empty-100",
	"k09-ascending", "k10-shuffled", "k11-descending", "k12-deep-snapshots",
	"k13-removed-singly", "k14-removed-more", "k15-metadata-grown", "k16-leak",
	"k17-needs-check", "k18-nrfree-after-restore-and-grow", "k20-three-bitmaps",
};

Test(thin_meta_images, pools_of_the_kernel_are_read_and_changed)
{
	for (size_t i = 0; i < sizeof(clean_images) / sizeof(clean_images[0]); i++)
		open_walk_and_change(clean_images[i]);
}

Test(thin_meta_images, every_device_can_be_removed_from_pools_of_the_kernel)
{
	for (size_t i = 0; i < sizeof(clean_images) / sizeof(clean_images[0]); i++) {
		struct fixture f;
		struct meta_info info;
		struct walk w;

		load(&f, clean_images[i]);
		fixture_reopen(&f);
		meta_get_info(f.m, &info);
		if (info.held_root)
			cr_assert_eq(meta_release_snap(f.m), 0);
		while ((w = walk(f.m)).nr_devs) {
			cr_assert_eq(meta_delete_thin(f.m, w.last_id), 0);
			cr_assert_eq(meta_commit(f.m, NULL), 0);
		}
		meta_get_info(f.m, &info);
		cr_assert_eq(info.used_data_blocks, is_leaky(clean_images[i]), "%s: %llu left",
			     clean_images[i], (unsigned long long)info.used_data_blocks);
		if (!is_leaky(clean_images[i]))
			cr_assert(audit_image(f.img.inner, AUDIT_ALL), "%s", clean_images[i]);
		fixture_free(&f);
	}
}

Test(thin_meta_images, a_pool_restored_with_wrong_hints_and_grown_can_be_filled)
{
	struct meta_info info;
	struct fixture f;

	load(&f, "k18-nrfree-after-restore-and-grow");
	fixture_reopen(&f);
	meta_get_info(f.m, &info);
	cr_assert_eq(info.nr_data_blocks, 200);
	cr_assert_eq(meta_create_thin(f.m, 77), 0);
	cr_assert_eq(fixture_map(&f, 77, 0, 200), info.free_data_blocks);
	cr_assert_eq(info.free_data_blocks, 200 - info.used_data_blocks);
	fixture_commit(&f);
	fixture_free(&f);
}

/* Its mappings name blocks that are there, but two name the same: S 16, trap 1. */
Test(thin_meta_images, a_pool_whose_clock_went_too_far_is_read_but_takes_no_snapshot)
{
	struct fixture f;

	load(&f, "k19-timewrap");
	fixture_reopen(&f);
	walk(f.m);
	cr_assert_eq(meta_tick(f.m), -EOVERFLOW);
	fixture_free(&f);
}

Test(thin_meta_images, a_pool_that_needs_a_check_says_so)
{
	struct meta_info info;
	struct fixture f;

	load(&f, "k17-needs-check");
	fixture_reopen(&f);
	meta_get_info(f.m, &info);
	cr_assert(info.needs_check);
	fixture_free(&f);
}
