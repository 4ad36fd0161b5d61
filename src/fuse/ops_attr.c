/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attributes, of files and of the whole.
 */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "fuse/ops.h"

#define MAX_DEVICES 16777215ULL /* device ids have 24 bits; the highest is the catalog's */

static void
stat_from_attr(const struct mount *m, const struct vol_attr *attr, struct stat *st)
{
	*st = (struct stat){
		.st_ino = INODE_NR_VOLUME(attr->id),
		.st_mode = S_IFREG | (attr->mode & 0777),
		.st_nlink = attr->deleted ? 0 : 1,
		.st_uid = attr->uid,
		.st_gid = attr->gid,
		.st_size = (off_t)attr->size,
		.st_blocks = (blkcnt_t)(attr->mapped_bytes / 512),
		.st_blksize = (blksize_t)m->block_bytes,
		.st_atim = attr->mtime, /* reading leaves no trace */
		.st_mtim = attr->mtime,
		.st_ctim = attr->ctime,
	};
}

int
ops_stat_volume(struct mount *m, struct vol *vol, struct stat *st)
{
	struct vol_attr attr;
	int r = vol_getattr(vol, &attr);

	if (r == 0)
		stat_from_attr(m, &attr, st);
	return r;
}

/* The root and .snapshots belong to whoever mounted, and are as old as the mount. */
static void
stat_fixed_dir(const struct mount *m, const struct inode *inode, struct stat *st)
{
	*st = (struct stat){
		.st_mode = S_IFDIR | 0755,
		.st_uid = m->uid,
		.st_gid = m->gid,
		.st_blksize = (blksize_t)m->block_bytes,
		.st_atim = m->mounted_at,
		.st_mtim = m->mounted_at,
		.st_ctim = m->mounted_at,
	};
	if (inode->kind == INODE_ROOT) {
		st->st_ino = INODE_NR_ROOT;
		st->st_nlink = 3;
	} else {
		st->st_ino = INODE_NR_SNAPSHOTS;
		st->st_nlink = 1; /* find(1) and fts(3) take that as "not counted" */
	}
}

static void
stat_snapshot(const struct mount *m, struct voldir *dir, struct stat *st)
{
	struct voldir_attr attr;

	voldir_getattr(dir, &attr);
	*st = (struct stat){
		.st_ino = INODE_NR_SNAPSHOT(attr.serial),
		.st_mode = S_IFDIR | (attr.mode & 0777),
		.st_nlink = 2,
		.st_uid = attr.uid,
		.st_gid = attr.gid,
		.st_blksize = (blksize_t)m->block_bytes,
		.st_atim = attr.btime,
		.st_mtim = attr.btime,
		.st_ctim = attr.btime,
	};
}

int
ops_stat(struct mount *m, const struct inode *inode, struct stat *st)
{
	switch (inode->kind) {
	case INODE_VOLUME:
		return ops_stat_volume(m, inode->vol, st);
	case INODE_SNAPSHOT:
		stat_snapshot(m, inode->dir, st);
		return 0;
	default:
		stat_fixed_dir(m, inode, st);
		return 0;
	}
}

int
ops_entry(struct mount *m, struct inode *inode, struct fuse_entry_param *entry)
{
	struct vol_attr attr;
	int r = 0;

	*entry = (struct fuse_entry_param){
		.ino = inode_node(&m->inodes, inode),
		.attr_timeout = OPS_ATTR_TIMEOUT,
		.entry_timeout = OPS_ENTRY_TIMEOUT,
	};
	if (inode->kind == INODE_VOLUME) {
		r = vol_getattr(inode->vol, &attr);
		if (r == 0) {
			entry->generation = attr.generation;
			stat_from_attr(m, &attr, &entry->attr);
		}
	} else {
		r = ops_stat(m, inode, &entry->attr);
	}
	return r;
}

static void
reply_attr(fuse_req_t req, const struct inode *inode)
{
	struct stat st;
	int r = ops_stat(session_of(req), inode, &st);

	if (r)
		ops_reply(req, r);
	else
		fuse_reply_attr(req, &st, OPS_ATTR_TIMEOUT);
}

void
ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	reply_attr(req, inode_of(&session_of(req)->inodes, ino));
}

static unsigned
fields_to_set(const struct stat *from, int to_set, struct vol_attr *attr)
{
	unsigned which = 0;

	*attr = (struct vol_attr){
		.mode = from->st_mode & 0777,
		.uid = from->st_uid,
		.gid = from->st_gid,
		.mtime = from->st_mtim,
	};
	if (to_set & FUSE_SET_ATTR_MODE)
		which |= VOL_SET_MODE;
	if (to_set & FUSE_SET_ATTR_UID)
		which |= VOL_SET_UID;
	if (to_set & FUSE_SET_ATTR_GID)
		which |= VOL_SET_GID;
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		which |= VOL_SET_MTIME;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		clock_gettime(CLOCK_REALTIME, &attr->mtime);
	return which;
}

static int
set_volume(struct inode *inode, const struct stat *from, int to_set)
{
	struct vol_attr attr;
	unsigned which = fields_to_set(from, to_set, &attr);
	int r = 0;

	if (to_set & FUSE_SET_ATTR_SIZE)
		r = from->st_size < 0 ? -EINVAL : vol_truncate(inode->vol, from->st_size);
	if (r == 0 && which)
		r = vol_setattr(inode->vol, which, &attr);
	return r;
}

/* The times of directories are not kept; setting them is no error, so that cp -a and touch work. */
static int
set_dir(struct inode *inode, const struct stat *from, int to_set)
{
	struct vol_attr attr;
	unsigned which = fields_to_set(from, to_set, &attr) & ~(unsigned)VOL_SET_MTIME;

	if (to_set & FUSE_SET_ATTR_SIZE)
		return -EISDIR;
	if (!which)
		return 0;
	return inode->kind == INODE_SNAPSHOT ? voldir_setattr(inode->dir, which, &attr) : -EPERM;
}

void
ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
	    struct fuse_file_info *fi)
{
	struct inode *inode = inode_of(&session_of(req)->inodes, ino);
	int r;

	(void)fi;
	if (inode->kind == INODE_VOLUME)
		r = set_volume(inode, attr, to_set);
	else
		r = set_dir(inode, attr, to_set);

	if (r)
		ops_reply(req, r);
	else
		reply_attr(req, inode);
}

/* The block is the data block: the loop device takes its discard granularity from it. */
void
ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *m = session_of(req);
	struct pool_status status;
	struct statvfs vfs = {0};

	(void)ino;
	pool_get_status(m->pool, &status);
	vfs.f_bsize = vfs.f_frsize = status.block_bytes;
	vfs.f_blocks = status.data_blocks;
	vfs.f_bfree = status.data_blocks - status.data_used;
	vfs.f_bavail = status.data_available;
	vfs.f_files = status.nr_volumes + status.nr_snapshots;
	vfs.f_ffree = vfs.f_favail = MAX_DEVICES - vfs.f_files;
	vfs.f_namemax = POOL_NAME_MAX;
	fuse_reply_statfs(req, &vfs);
}
