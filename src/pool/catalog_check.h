/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * catalog_check: which records of a pool that is not mounted are damaged (design, section 3).
 *
 * Only reads. The metadata must have passed meta_check(): this reads them as the engine does.
 */
#ifndef THINFS_POOL_CATALOG_CHECK_H
#define THINFS_POOL_CATALOG_CHECK_H

#include <stdint.h>

#include "io/image.h"

struct catalog_check_result {
	uint64_t nr_good, nr_bad; /* records; both 0: there is no catalog */
};

/* FN gets the device id of each damaged record; may be NULL. 0 or negative errno, of reading. */
int catalog_check(struct image *data, struct image *meta, void (*fn)(void *arg, uint32_t id), void *arg,
		  struct catalog_check_result *result);

#endif
