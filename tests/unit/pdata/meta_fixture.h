/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * meta_fixture: metadata in memory that can be opened again and audited.
 */
#ifndef THINFS_TESTS_META_FIXTURE_H
#define THINFS_TESTS_META_FIXTURE_H

#include <criterion/criterion.h>

#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "unit/audit.h"
#include "unit/kept_image.h"

#define FIXTURE_CACHE (1U << 20)

struct fixture {
	struct kept_image img;
	struct thin_meta *m;
};

static inline void
fixture_image(struct fixture *f, uint64_t nr_blocks)
{
	struct image *img;

	cr_assert_eq(image_open_memory("meta", nr_blocks * METADATA_BLOCK_SIZE, &img), 0);
	kept_image_init(&f->img, img);
	f->m = NULL;
}

static inline void
fixture_reopen(struct fixture *f)
{
	meta_close(f->m);
	f->m = NULL;
	cr_assert_eq(meta_open(&f->img.image, FIXTURE_CACHE, false, &f->m), 0);
}

static inline void
fixture_make(struct fixture *f, uint64_t nr_blocks, uint64_t nr_data_blocks)
{
	fixture_image(f, nr_blocks);
	cr_assert_eq(meta_format(&f->img.image, 128, nr_data_blocks), 0);
	fixture_reopen(f);
}

static inline void
fixture_free(struct fixture *f)
{
	meta_close(f->m);
	kept_image_free(&f->img);
}

/* Commit, and demand that the checkers are content. */
static inline void
fixture_commit(struct fixture *f)
{
	cr_assert_eq(meta_commit(f->m, NULL), 0);
	cr_assert(audit_image(f->img.inner, AUDIT_ALL), "the metadata are not clean");
}

/* Map NR blocks of a device, to new blocks that may lie anywhere: how many there was room for. */
static inline uint64_t
fixture_map(struct fixture *f, uint32_t id, uint64_t vblock, uint64_t nr)
{
	struct thin_dev *d;
	uint64_t done = 0;

	cr_assert_eq(dev_open(f->m, id, &d), 0);
	while (done < nr) {
		uint64_t dblock, got;

		if (meta_require(f->m, 1 + (unsigned)(nr / 64), 0, META_TO_ADD))
			break;
		if (meta_reserve_data(f->m, 0, nr - done, &dblock, &got))
			break;
		cr_assert_eq(dev_insert(d, vblock + done, dblock, got), 0);
		done += got;
	}
	dev_close(d);
	return done;
}

#endif
