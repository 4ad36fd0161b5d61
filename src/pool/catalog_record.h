/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * catalog_record: what the catalog says about one thin device, and how that lies on disk.
 *
 * A record is RECORD_SIZE bytes at the offset id * RECORD_SIZE of the catalog's thin device. All
 * zero: there is none. The catalog's own record, at its end, marks the device as a catalog.
 */
#ifndef THINFS_POOL_CATALOG_RECORD_H
#define THINFS_POOL_CATALOG_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "io/origin_file.h"
#include "util/le.h"

#define CATALOG_ID 16777215U /* the catalog's own thin device: DEV_ID_MAX */
#define SNAPSHOTS_DIR ".snapshots"

#define RECORD_SIZE 2048U
#define RECORD_NAME_SIZE 256U /* with the NUL */
#define RECORD_ORIGIN_SIZE 1024U
#define RECORD_NO_PARENT UINT32_MAX

enum record_flags {
	RECORD_READ_ONLY = 1, /* a snapshot that was not made writable */
	RECORD_DELETED = 2, /* has no name any more; its space is to be taken back */
	RECORD_HIDDEN = 4, /* not shown: the catalog itself, the place-holder of an empty snapshot */
	RECORD_SHRINKING = 8, /* mappings wholly beyond the size are still to be removed */
};

struct record {
	uint32_t id;
	uint32_t flags;
	uint32_t mode, uid, gid; /* permission bits only */
	uint32_t parent; /* RECORD_NO_PARENT: none */
	uint64_t size; /* bytes */
	int64_t btime_ns, mtime_ns, ctime_ns; /* since 1970 */
	/* Of the snapshot's directory, the same in all that are in it. */
	uint32_t dir_mode, dir_uid, dir_gid;
	int64_t dir_btime_ns;
	char name[RECORD_NAME_SIZE];
	char snapshot[RECORD_NAME_SIZE]; /* "": in the top directory */
	char origin[RECORD_ORIGIN_SIZE]; /* path of the external origin; "": none, then the rest is 0 */
	uint64_t origin_end; /* bytes of it that are shown */
	struct origin_identity origin_identity;
};

enum record_state {
	RECORD_NONE, /* all zero */
	RECORD_GOOD,
	RECORD_BAD,
};

/* OUT: RECORD_SIZE bytes. */
void record_encode(const struct record *r, void *out);
/* The record that should be ID's. Trusts nothing. */
enum record_state record_decode(const void *data, uint32_t id, struct record *r);

/* Whether NAME may be a volume's or a snapshot's: 1 to 255 bytes, no '/', not "." or "..". 0 or negative errno. */
int name_check(const char *name);

#endif
