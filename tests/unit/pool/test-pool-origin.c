/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External origins: what random operations (test-pool-property.c) would meet only by chance.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pdata/thin_meta.h"
#include "pool/origin.h"
#include "pool/pool.h"
#include "unit/audit.h"
#include "unit/scratch.h"
#include "util/msg.h"

#define BLOCK 65536U
#define BLOCKS 8U /* of an origin */

static const struct pool_caller caller = {.mode = 0644};

static struct image *meta;
static struct pool *pool;
static char dir[1000];
static uint8_t buf[BLOCKS * BLOCK];
static char told[1024];

static void
hear(const char *text)
{
	snprintf(told, sizeof(told), "%s", text);
}

static void
open_pool(unsigned data_blocks, bool discard_to_origin)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct image *data;

	msg_set_sink(hear);
	options.commit_interval_ms = 0;
	options.error_if_no_space = true;
	options.discard_to_origin = discard_to_origin;
	scratch_template(dir, sizeof(dir), "origin");
	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(image_open_memory("data", (uint64_t)data_blocks * BLOCK, &data), 0);
	cr_assert_eq(image_open_memory("meta", 256U * 4096, &meta), 0);
	cr_assert_eq(meta_format(meta, BLOCK / 512, data_blocks), 0);
	cr_assert_eq(pool_open_images(data, meta, &options, &pool), 0);
}

/* The file number N, all bytes of it N + 1. */
static const char *
make_file(unsigned n)
{
	static char path[sizeof(dir) + 16];
	int fd;

	snprintf(path, sizeof(path), "%s/%u", dir, n);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	memset(buf, (int)n + 1, sizeof(buf));
	cr_assert_eq(write(fd, buf, sizeof(buf)), (ssize_t)sizeof(buf));
	close(fd);
	return path;
}

static struct vol *
make_vol(unsigned n)
{
	char name[16];
	struct vol *v;

	snprintf(name, sizeof(name), "v%u", n);
	cr_assert_eq(pool_create_over(pool, name, &caller, make_file(n), UINT64_MAX, &v), 0);
	return v;
}

static void
end(void)
{
	char path[sizeof(dir) + 16];

	cr_assert_eq(pool_sync_wait(pool, NULL), 0);
	cr_assert(audit_image(meta, AUDIT_ALL));
	cr_assert_eq(pool_close(pool), 0);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "%s/%u", dir, i);
		unlink(path);
	}
	rmdir(dir);
}

/* Whether block N of V is all BYTE. */
static bool
block_is(struct vol *v, unsigned n, uint8_t byte)
{
	cr_assert_eq(vol_read(v, buf, BLOCK, (uint64_t)n * BLOCK), BLOCK);
	return buf[0] == byte && !memcmp(buf, buf + 1, BLOCK - 1);
}

static void
discard(struct vol *v, unsigned n)
{
	cr_assert_eq(vol_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (uint64_t)n * BLOCK, BLOCK), 0);
}

Test(pool_origin, nobody_writes_to_the_block_of_zeros)
{
	struct vol *v;

	open_pool(64, false);
	v = make_vol(0);
	discard(v, 0);
	cr_assert_eq(pool_sync_wait(pool, NULL), 0);
	/* By the counts it is this volume's alone now. */
	cr_assert_eq(vol_write(v, "data", 4, 100), 4);
	discard(v, 1);
	discard(v, 2);
	cr_assert_eq(pool_sync_wait(pool, NULL), 0);
	cr_assert(block_is(v, 1, 0));
	cr_assert_eq(vol_write(v, "more", 4, BLOCK), 4);
	cr_assert(block_is(v, 2, 0));
	cr_assert_eq(pool_sync_wait(pool, NULL), 0);
	cr_assert_eq(vol_write(v, "more", 4, 2 * BLOCK), 4);
	discard(v, 3);
	cr_assert(block_is(v, 3, 0));
	cr_assert(block_is(v, 4, 1));
	vol_put(v);
	end();
}

Test(pool_origin, blocks_of_zeros_share_one)
{
	struct pool_status before, after;
	struct vol *v, *w;

	open_pool(64, false);
	v = make_vol(0);
	w = make_vol(1);
	discard(v, 0);
	pool_get_status(pool, &before);
	for (unsigned i = 1; i < BLOCKS - 1; i++) {
		discard(v, i);
		discard(w, i);
	}
	pool_get_status(pool, &after);
	cr_assert_eq(before.data_used, after.data_used);
	for (unsigned i = 0; i < BLOCKS - 1; i++)
		cr_assert(block_is(v, i, 0) && block_is(w, i, i ? 0 : 2));
	cr_assert(block_is(v, BLOCKS - 1, 1));
	vol_put(v);
	vol_put(w);
	end();
}

Test(pool_origin, without_a_free_block_zeros_go_in_place)
{
	struct vol *v, *filler;

	open_pool(12, false);
	v = make_vol(0);
	memset(buf, 77, BLOCK);
	cr_assert_eq(vol_write(v, buf, BLOCK, BLOCK), BLOCK);
	cr_assert_eq(pool_create(pool, pool_top(pool), "filler", &caller, &filler), 0);
	for (uint64_t at = 0; vol_write(filler, buf, BLOCK, at) == BLOCK; at += BLOCK)
		;
	cr_assert_eq(pool_get_mode(pool), POOL_OUT_OF_DATA_SPACE);
	discard(v, 1);
	cr_assert(block_is(v, 1, 0));
	cr_assert(block_is(v, 0, 1));
	cr_assert_eq(vol_truncate(filler, 0), 0);
	vol_put(filler);
	vol_put(v);
	end();
}

static unsigned
nr_open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned nr = 0;

	while (readdir(d))
		nr++;
	closedir(d);
	return nr;
}

Test(pool_origin, open_files_have_a_bound)
{
	enum { MANY = 2 * ORIGINS_OPEN_MAX + 5 };
	struct vol *v[MANY];
	unsigned before;

	open_pool(16, false);
	before = nr_open_files();
	for (unsigned i = 0; i < MANY; i++)
		v[i] = make_vol(i);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < MANY; i++)
			cr_assert(block_is(v[i], 3, (uint8_t)(i + 1)));
	cr_assert_eq(nr_open_files(), before + ORIGINS_OPEN_MAX);
	for (unsigned i = 0; i < MANY; i++)
		vol_put(v[i]);
	end();
}

Test(pool_origin, the_mount_itself_is_never_entered)
{
	char link[sizeof(dir) + 16];
	struct vol *v, *none;
	struct stat st;

	open_pool(16, false);
	v = make_vol(0);
	cr_assert_eq(stat(dir, &st), 0);
	pool_avoid_mount(pool, st.st_dev);
	cr_assert_eq(pool_create_over(pool, "x", &caller, make_file(1), UINT64_MAX, &none), -EXDEV);
	snprintf(link, sizeof(link), "%s/2", dir);
	cr_assert_eq(symlink("0", link), 0);
	cr_assert_eq(pool_create_over(pool, "x", &caller, link, UINT64_MAX, &none), -EXDEV);
	/* One that was a file elsewhere when the pool was made */
	cr_assert_eq(vol_read(v, buf, 1, 0), -EIO);
	cr_assert(strstr(told, "within this pool's own mount"), "%s", told);
	vol_put(v);
	end();
}

Test(pool_origin, one_that_fails_leaves_what_is_mapped)
{
	struct vol *v;

	open_pool(16, true);
	v = make_vol(0);
	memset(buf, 9, BLOCK);
	cr_assert_eq(vol_write(v, buf, BLOCK, 0), BLOCK);
	cr_assert_eq(truncate(make_file(0), 100), 0);
	cr_assert_eq(vol_read(v, buf, 1, BLOCK), -EIO);
	cr_assert(strstr(told, "v0: its external origin") && strstr(told, "has 100 bytes, not 524288"), "%s", told);
	told[0] = '\0';
	cr_assert_eq(vol_write(v, "x", 1, BLOCK), -EIO);
	cr_assert_str_eq(told, "", "it is said once, not: %s", told);
	cr_assert(block_is(v, 0, 9));
	memset(buf, 8, BLOCK);
	cr_assert_eq(vol_write(v, buf, BLOCK, 3 * BLOCK), BLOCK);
	cr_assert(block_is(v, 3, 8));
	vol_put(v);
	end();
}
