/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pools with damaged metadata: what cannot be read keeps nobody from the rest, as long as the pool is only read.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

#include "pool/catalog_record.h"
#include "pool/pool.h"
#include "unit/damage.h"
#include "unit/kept_image.h"

TestSuite(pool_damage, .timeout = 120);

#define BLOCK (64U << 10)
#define NR_DATA_BLOCKS 256U
#define NR_META_BLOCKS 256U

struct images {
	struct kept_image data, meta;
};

static void
images_init(struct images *im)
{
	struct image *img;

	msg_set_sink(damage_listen);
	cr_assert_eq(image_open_memory("data", (uint64_t)NR_DATA_BLOCKS * BLOCK, &img), 0);
	kept_image_init(&im->data, img);
	cr_assert_eq(image_open_memory("meta", NR_META_BLOCKS * METADATA_BLOCK_SIZE, &img), 0);
	kept_image_init(&im->meta, img);
}

static void
images_free(struct images *im)
{
	kept_image_free(&im->data);
	kept_image_free(&im->meta);
}

static int
open_pool(struct images *im, bool read_only, struct pool **p)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;

	options.read_only = read_only;
	options.commit_interval_ms = 0;
	return pool_open_images(&im->data.image, &im->meta.image, &options, p);
}

static void
write_volume(struct pool *p, const char *name, char fill)
{
	struct pool_caller caller = {.mode = 0600};
	char bytes[3000];
	struct vol *v;

	memset(bytes, fill, sizeof(bytes));
	cr_assert_eq(pool_create(p, pool_top(p), name, &caller, &v), 0);
	cr_assert_eq(vol_write(v, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
	vol_put(v);
}

/* Volumes a, b and c, devices 0, 1 and 2, full of their letters. */
static void
make_pool(struct images *im)
{
	struct pool *p;

	images_init(im);
	cr_assert_eq(open_pool(im, false, &p), 0);
	write_volume(p, "a", 'a');
	write_volume(p, "b", 'b');
	write_volume(p, "c", 'c');
	cr_assert_eq(pool_close(p), 0);
}

/* The first byte of a volume, or the error. */
static int
first_byte(struct pool *p, const char *name)
{
	struct vol *v;
	ssize_t n;
	char c;
	int r = pool_lookup(p, pool_top(p), name, &v);

	if (r)
		return r;
	n = vol_read(v, &c, 1, 0);
	vol_put(v);
	return n < 0 ? (int)n : n == 0 ? 0 : c;
}

Test(pool_damage, a_damaged_device_does_not_hide_the_others)
{
	struct images im;
	struct pool *p;

	make_pool(&im);
	damage_flip(&im.meta.image, damage_dev_root(&im.meta.image, 1));
	cr_assert_eq(open_pool(&im, true, &p), 0);
	cr_assert_eq(first_byte(p, "a"), 'a');
	cr_assert_eq(first_byte(p, "b"), -EUCLEAN);
	cr_assert_eq(first_byte(p, "c"), 'c');
	pool_close(p);
	images_free(&im);
}

/* Without the catalog's root all devices are nameless, and the damaged one's size is not known. */
Test(pool_damage, without_names_what_can_be_read_is_shown_by_number)
{
	struct images im;
	struct pool *p;

	make_pool(&im);
	damage_flip(&im.meta.image, damage_dev_root(&im.meta.image, CATALOG_ID));
	damage_flip(&im.meta.image, damage_dev_root(&im.meta.image, 1));
	cr_assert_neq(open_pool(&im, false, &p), 0, "a pool without its names must not be written");
	cr_assert_eq(open_pool(&im, true, &p), 0);
	cr_assert_eq(first_byte(p, "thin-0"), 'a');
	cr_assert_eq(first_byte(p, "thin-1"), -EUCLEAN);
	cr_assert_eq(first_byte(p, "thin-2"), 'c');
	pool_close(p);
	images_free(&im);
}
