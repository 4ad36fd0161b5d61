/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check_fixture: a pool whose metadata have a bit of everything, ways to damage them, and what the check says then.
 */
#ifndef THINFS_TESTS_CHECK_FIXTURE_H
#define THINFS_TESTS_CHECK_FIXTURE_H

#include "pdata/block_cache.h"
#include "pdata/check.h"
#include "pdata/format.h"
#include "pdata/superblock.h"
#include "unit/pdata/meta_fixture.h"

#define NR_BLOCKS 160U
#define NR_DATA 4000U

struct said {
	char text[20000];
	struct check_result result;
};

/* A sink for messages. */
void ignore(const char *text);
/* Must not fail; what it says is in S. */
void check(struct image *img, struct said *s);
bool all_well(const struct check_result *r);

/* Devices that share in part; mappings of two levels; counts of 3 and more in both maps. */
void make_pool(struct fixture *f);
struct superblock superblock_of(struct fixture *f);
void get_block(struct fixture *f, uint64_t nr, void *data);
void put_block(struct fixture *f, uint64_t nr, enum block_type type, void *data);
/* The first one. */
uint64_t bitmap_of(struct fixture *f, bool of_data);
/* 0 to 3 */
void set_count(struct fixture *f, bool of_data, uint32_t entry, unsigned count);
void flip(struct fixture *f, uint64_t nr);
void set_needs_check(struct fixture *f);
/* Device ID's details say one mapped block more than there are. */
void set_wrong_details(struct fixture *f, unsigned id);

/* All that can be mended, a kind each. */
#define NR_DAMAGES 4U
extern void (*const damages[NR_DAMAGES])(struct fixture *f);
void damage_counts(struct fixture *f);
void damage_details(struct fixture *f);

#endif
