/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * property: a pool under test, its model, and the comparison of the two.
 *
 * property_ops.c does one random operation to both; property.c opens, crashes and compares. Whether what takes several
 * steps takes many small ones is of the seed.
 */
#ifndef THINFS_TESTS_PROPERTY_H
#define THINFS_TESTS_PROPERTY_H

#include "pool/pool.h"
#include "unit/kept_image.h"
#include "unit/pool/model.h"
#include "unit/random.h"

#define MAX_HANDLES 4U

struct property_config {
	const char *test;
	const char *dir; /* of image files; NULL: in memory */
	unsigned nr_ops;
	unsigned block_pages; /* data block, in pages of 64 KiB */
	unsigned data_blocks, meta_blocks;
	bool may_fill; /* the images are too small for it all */
	unsigned commits; /* of a thousand operations */
};

struct handle {
	struct vol *vol; /* NULL: free */
	uint32_t id;
};

struct property {
	struct property_config config;
	struct random_source rs;
	uint64_t seed;
	unsigned long op_nr;
	char op[256];
	struct kept_image data, meta;
	char origin[1000]; /* a file that volumes are made over */
	struct pool *pool;
	struct model m;
	struct handle handles[MAX_HANDLES];
	uint64_t nr_flushes; /* of the metadata, at the last known commit */
	unsigned next_name;
	uint8_t *buf, *other; /* MODEL_BYTES each */
};

/* Say what is wrong, with all that is needed to do it again, and fail the test. */
void fail(struct property *t, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));
/* What is done now, for fail(). */
void doing(struct property *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Bytes of the origin: an end that is no whole sector, let alone block. */
#define ORIGIN_BYTES (5U * PAGE_SIZE + 1234U)
uint8_t property_origin_byte(uint64_t at);

void property_open(struct property *t, const struct property_config *config, uint64_t seed);
void property_close(struct property *t);

/* One operation of those that programs do. */
void property_op(struct property *t);

/* The volume is held until vol_put(). */
struct vol *lookup(struct property *t, const struct model_vol *v);
void drop_handles(struct property *t);

void do_commit(struct property *t);
void do_sync_one(struct property *t, struct model_vol *v);
void do_abort(struct property *t);
void do_remount(struct property *t);
void do_crash(struct property *t);
/* A commit that the pool has made by itself. */
void note_commits(struct property *t);

/* The same names, and for each volume the same bytes. */
void compare_all(struct property *t);
void compare_vol(struct property *t, const struct model_vol *v);
/* Where AT, the next data and the next hole are. */
void compare_seek(struct property *t, const struct model_vol *v, uint64_t at);
/* After an operation on V that failed for lack of space: take what is there, if each sector is as BEFORE or as now. */
void adopt_partial(struct property *t, struct model_vol *v, const struct model_vol *before);
void property_audit(struct property *t);

#endif
