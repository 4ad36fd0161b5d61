/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * catalog: the records of all devices, kept in the thin device CATALOG_ID of the same pool (design, section 3).
 *
 * A block of the catalog that changed is written whole to a newly allocated data block at each
 * commit, so a crash leaves the old block or the new one. What goes into it is taken together with
 * the metadata of the same commit, under one hold of meta_lock: names and mappings are of one instant.
 *
 * Locking: meta_lock exclusive, but for catalog_write().
 */
#ifndef THINFS_POOL_CATALOG_H
#define THINFS_POOL_CATALOG_H

#include <bsd/sys/queue.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;
struct record;
struct vol;

/* Read the catalog, if there is one: FN gets each good record. *nr_bad: how many are not. */
int catalog_load(struct pool *p, int (*fn)(void *arg, const struct record *r), void *arg,
		 uint64_t *nr_bad);
void catalog_close(struct pool *p);

/*
 * Make sure that the records of NR devices with numbers from ID on, and one more, can be written by the next commit; makes
 * the catalog if need be. -ENOSPC; -EOPNOTSUPP: its number is taken.
 */
int catalog_require(struct pool *p, uint32_t id, uint64_t nr);
/* Whether it will not say -ENOSPC for NR new devices. meta_lock. */
bool catalog_has_room(struct pool *p, uint64_t nr);
/* Give back blocks that were provided for and that are at FIRST or behind it. meta_lock exclusive. */
void catalog_leave(struct pool *p, uint64_t first);
/* The record of ID changed, or went. The caller has asked catalog_require(), or it frees space. 0 or -ENOMEM */
int catalog_changed(struct pool *p, uint32_t id);

/* Data blocks that writers must leave for the catalog. */
uint64_t catalog_reserve(const struct pool *p);

struct catalog_write {
	uint64_t dblock;
	uint8_t *packed; /* records without the zeros at their ends, each after a struct packed_record */
	size_t packed_len;
	uint64_t len; /* up to the end of the last record; the rest of the block is to be zero */
	STAILQ_ENTRY(catalog_write) link;
};

STAILQ_HEAD(catalog_batch, catalog_write);

/*
 * Before catalog_stage(), without a lock, by the one who commits: have data blocks for all that changed that can really be written,
 * should the filesystem of the data image be full. Of what it refuses, catalog_stage() makes nothing.
 */
void catalog_prepare(struct pool *p);
/* Whether there are blocks for all that changed. */
bool catalog_fits(struct pool *p);
/* Map new blocks for all that changed, and take what is to be written there. Blocks for which there is no space stay changed, and catalog.incomplete is set. */
int catalog_stage(struct pool *p, struct catalog_batch *batch);
/* Write it. No lock. */
int catalog_write(struct pool *p, struct catalog_batch *batch);
void catalog_batch_free(struct catalog_batch *batch);

#endif
