/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pdata/format.h"
#include "pool/catalog_record.h"
#include "pool/pool.h"
#include "util/crc32c.h"

#define RECORD_MAGIC 0x315273666e696874ULL /* "thinfsR1" */
#define RECORD_VERSION 1U
#define RECORD_KNOWN_FLAGS                                                                         \
	(RECORD_READ_ONLY | RECORD_DELETED | RECORD_HIDDEN | RECORD_SHRINKING)

struct disk_record {
	struct le32 csum; /* CRC-32C of all that follows */
	struct le32 version;
	struct le64 magic;
	struct le32 id;
	struct le32 flags;
	struct le32 mode;
	struct le32 uid;
	struct le32 gid;
	struct le32 parent;
	struct le64 size;
	struct le64 btime_ns;
	struct le64 mtime_ns;
	struct le64 ctime_ns;
	struct le64 dir_btime_ns;
	struct le32 dir_mode;
	struct le32 dir_uid;
	struct le32 dir_gid;
	struct le32 padding;
	/* An external origin: how much of it is shown, and what tells that it is still the same. */
	struct le64 origin_end;
	struct le64 origin_size;
	struct le64 origin_mtime_ns;
	struct le64 origin_sum;
	struct le64 origin_unused;
	char name[RECORD_NAME_SIZE];
	char snapshot[RECORD_NAME_SIZE];
	char origin[RECORD_ORIGIN_SIZE];
	uint8_t unused[376];
};

static_assert(sizeof(struct disk_record) == RECORD_SIZE, "record");

static uint32_t
record_csum(const struct disk_record *d)
{
	return ~crc32c_raw(~0U, (const uint8_t *)d + sizeof(d->csum), sizeof(*d) - sizeof(d->csum));
}

void
record_encode(const struct record *r, void *out)
{
	struct disk_record *d = out;

	memset(d, 0, sizeof(*d));
	d->version = le32_make(RECORD_VERSION);
	d->magic = le64_make(RECORD_MAGIC);
	d->id = le32_make(r->id);
	d->flags = le32_make(r->flags);
	d->mode = le32_make(r->mode);
	d->uid = le32_make(r->uid);
	d->gid = le32_make(r->gid);
	d->parent = le32_make(r->parent);
	d->size = le64_make(r->size);
	d->btime_ns = le64_make((uint64_t)r->btime_ns);
	d->mtime_ns = le64_make((uint64_t)r->mtime_ns);
	d->ctime_ns = le64_make((uint64_t)r->ctime_ns);
	d->dir_btime_ns = le64_make((uint64_t)r->dir_btime_ns);
	d->dir_mode = le32_make(r->dir_mode);
	d->dir_uid = le32_make(r->dir_uid);
	d->dir_gid = le32_make(r->dir_gid);
	memcpy(d->name, r->name, strnlen(r->name, RECORD_NAME_SIZE - 1));
	memcpy(d->snapshot, r->snapshot, strnlen(r->snapshot, RECORD_NAME_SIZE - 1));
	memcpy(d->origin, r->origin, strnlen(r->origin, RECORD_ORIGIN_SIZE - 1));
	d->origin_end = le64_make(r->origin_end);
	d->origin_size = le64_make(r->origin_identity.size);
	d->origin_mtime_ns = le64_make((uint64_t)r->origin_identity.mtime_ns);
	d->origin_sum = le64_make(r->origin_identity.sum);
	d->csum = le32_make(record_csum(d));
}

static bool
all_zero(const void *data)
{
	const uint8_t *p = data;

	return !p[0] && !memcmp(p, p + 1, RECORD_SIZE - 1);
}

/* A name as it may lie on disk: ended, and a name. EMPTY_OK: or none. */
static bool
disk_name_ok(const char *name, bool empty_ok)
{
	if (!memchr(name, 0, RECORD_NAME_SIZE))
		return false;
	return (empty_ok && !name[0]) || name_check(name) == 0;
}

/* One that a file can be opened by, and no more of it than there was; or none, and nothing about it. */
static bool
disk_origin_ok(const struct disk_record *d)
{
	if (!memchr(d->origin, 0, RECORD_ORIGIN_SIZE))
		return false;
	if (!d->origin[0])
		return !le64_get(d->origin_end) && !le64_get(d->origin_size) &&
		       !le64_get(d->origin_mtime_ns) && !le64_get(d->origin_sum);
	return d->origin[0] == '/' && le64_get(d->origin_end) <= le64_get(d->origin_size) &&
	       le64_get(d->origin_end) <= le64_get(d->size);
}

enum record_state
record_decode(const void *data, uint32_t id, struct record *r)
{
	const struct disk_record *d = data;
	bool nameless;

	if (all_zero(data))
		return RECORD_NONE;
	if (le32_get(d->csum) != record_csum(d) || le32_get(d->version) != RECORD_VERSION ||
	    le64_get(d->magic) != RECORD_MAGIC || le32_get(d->id) != id)
		return RECORD_BAD;
	nameless = le32_get(d->flags) & (RECORD_DELETED | RECORD_HIDDEN);
	/* Hidden are the catalog itself, and what keeps the place of an empty snapshot, until it is gone. */
	if (le32_get(d->flags) & RECORD_HIDDEN &&
	    (d->name[0] || (!d->snapshot[0] && id != CATALOG_ID && !(le32_get(d->flags) & RECORD_DELETED))))
		return RECORD_BAD;
	if (le32_get(d->flags) & ~RECORD_KNOWN_FLAGS || le64_get(d->size) > VOL_SIZE_MAX ||
	    !disk_name_ok(d->name, nameless) || !disk_name_ok(d->snapshot, true) || !disk_origin_ok(d))
		return RECORD_BAD;
	if (!d->snapshot[0] && !strcmp(d->name, SNAPSHOTS_DIR))
		return RECORD_BAD;
	memset(r, 0, sizeof(*r));
	r->id = id;
	r->flags = le32_get(d->flags);
	r->mode = le32_get(d->mode) & 07777;
	r->uid = le32_get(d->uid);
	r->gid = le32_get(d->gid);
	r->parent = le32_get(d->parent);
	r->size = le64_get(d->size);
	r->btime_ns = (int64_t)le64_get(d->btime_ns);
	r->mtime_ns = (int64_t)le64_get(d->mtime_ns);
	r->ctime_ns = (int64_t)le64_get(d->ctime_ns);
	r->dir_btime_ns = (int64_t)le64_get(d->dir_btime_ns);
	r->dir_mode = le32_get(d->dir_mode) & 07777;
	r->dir_uid = le32_get(d->dir_uid);
	r->dir_gid = le32_get(d->dir_gid);
	memcpy(r->name, d->name, sizeof(r->name));
	memcpy(r->snapshot, d->snapshot, sizeof(r->snapshot));
	memcpy(r->origin, d->origin, sizeof(r->origin));
	r->origin_end = le64_get(d->origin_end);
	r->origin_identity.size = le64_get(d->origin_size);
	r->origin_identity.mtime_ns = (int64_t)le64_get(d->origin_mtime_ns);
	r->origin_identity.sum = le64_get(d->origin_sum);
	return RECORD_GOOD;
}

int
name_check(const char *name)
{
	if (strlen(name) > POOL_NAME_MAX)
		return -ENAMETOOLONG;
	if (!name[0] || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	return 0;
}
