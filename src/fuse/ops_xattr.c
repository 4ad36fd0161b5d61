/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes: user.thinfs.*, computed, read-only, on volumes and what is in snapshots.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fuse/ops.h"

#define PREFIX "user.thinfs."

enum { XATTR_VALUE_MAX = 1024 }; /* the path of an origin */

struct xattr {
	const char *name;
	/* Writes the value, a string; -ENODATA: this volume has none. */
	int (*get)(struct vol *vol, const struct vol_attr *attr, char *value);
	bool costly; /* every volume has it; not to be computed only to list it */
};

static int
get_id(struct vol *vol, const struct vol_attr *attr, char *value)
{
	(void)vol;
	sprintf(value, "%" PRIu32, attr->id);
	return 0;
}

static int
get_mapped(struct vol *vol, const struct vol_attr *attr, char *value)
{
	(void)vol;
	sprintf(value, "%" PRIu64, attr->mapped_bytes);
	return 0;
}

static int
get_exclusive(struct vol *vol, const struct vol_attr *attr, char *value)
{
	uint64_t bytes = 0;
	int r = vol_exclusive(vol, &bytes);

	(void)attr;
	sprintf(value, "%" PRIu64, bytes);
	return r;
}

static int
get_parent(struct vol *vol, const struct vol_attr *attr, char *value)
{
	(void)vol;
	if (!attr->has_parent)
		return -ENODATA;
	sprintf(value, "%" PRIu32, attr->parent);
	return 0;
}

static int
get_snapshot(struct vol *vol, const struct vol_attr *attr, char *value)
{
	char name[POOL_NAME_MAX + 1];

	(void)attr;
	vol_get_name(vol, name, value);
	return value[0] ? 0 : -ENODATA;
}

static int
get_read_only(struct vol *vol, const struct vol_attr *attr, char *value)
{
	(void)vol;
	strcpy(value, attr->read_only ? "1" : "0");
	return 0;
}

static int
get_created(struct vol *vol, const struct vol_attr *attr, char *value)
{
	(void)vol;
	sprintf(value, "%lld.%09ld", (long long)attr->btime.tv_sec, attr->btime.tv_nsec);
	return 0;
}

static int
get_origin(struct vol *vol, const struct vol_attr *attr, char *value)
{
	(void)vol;
	if (!attr->origin)
		return -ENODATA;
	snprintf(value, XATTR_VALUE_MAX, "%s", attr->origin);
	return 0;
}

static const struct xattr xattrs[] = {
	{"id", get_id, false},
	{"mapped", get_mapped, false},
	{"exclusive", get_exclusive, true},
	{"parent", get_parent, false},
	{"snapshot", get_snapshot, false},
	{"read_only", get_read_only, false},
	{"created", get_created, false},
	{"origin", get_origin, false},
};

#define NR_XATTRS (sizeof(xattrs) / sizeof(xattrs[0]))

static void
reply_bytes(fuse_req_t req, const char *bytes, size_t len, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (size < len)
		ops_reply(req, -ERANGE);
	else
		fuse_reply_buf(req, bytes, len);
}

void
ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct inode *inode = inode_of(&session_of(req)->inodes, ino);
	char value[XATTR_VALUE_MAX];
	struct vol_attr attr;
	int r = -ENODATA;

	if (inode->kind == INODE_VOLUME && strncmp(name, PREFIX, strlen(PREFIX)) == 0) {
		for (size_t i = 0; i < NR_XATTRS; i++) {
			if (strcmp(name + strlen(PREFIX), xattrs[i].name) != 0)
				continue;
			r = vol_getattr(inode->vol, &attr);
			if (r == 0)
				r = xattrs[i].get(inode->vol, &attr, value);
			break;
		}
	}
	if (r)
		ops_reply(req, r);
	else
		reply_bytes(req, value, strlen(value), size);
}

void
ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct inode *inode = inode_of(&session_of(req)->inodes, ino);
	char value[XATTR_VALUE_MAX];
	struct vol_attr attr;
	char list[512];
	size_t len = 0;
	int r = 0;

	if (inode->kind == INODE_VOLUME) {
		r = vol_getattr(inode->vol, &attr);
		for (size_t i = 0; r == 0 && i < NR_XATTRS; i++) {
			if (xattrs[i].costly || xattrs[i].get(inode->vol, &attr, value) == 0)
				len += 1 + (size_t)snprintf(list + len, sizeof(list) - len,
							    PREFIX "%s", xattrs[i].name);
		}
	}
	if (r)
		ops_reply(req, r);
	else
		reply_bytes(req, list, len, size);
}
