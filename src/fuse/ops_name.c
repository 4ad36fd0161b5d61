/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names: which there are, and how they come, change and go.
 *
 * Only two directories change: the root has volumes, .snapshots has snapshots. What is in a
 * snapshot can be removed or moved to the root, nothing can be put there.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fuse/ops.h"
#include "fuse/snapshot.h"

struct pool_caller
ops_caller(fuse_req_t req, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct pool_caller){.uid = ctx->uid, .gid = ctx->gid, .mode = mode & 0777};
}

void
ops_reply_entry(fuse_req_t req, struct inode *inode)
{
	struct mount *m = session_of(req);
	struct fuse_entry_param entry;
	int r = ops_entry(m, inode, &entry);

	if (r) {
		inode_forget(&m->inodes, inode, 1);
		ops_reply(req, r);
	} else if (fuse_reply_entry(req, &entry) == -ENOENT) {
		/* The caller has gone: the kernel does not know the inode. */
		inode_forget(&m->inodes, inode, 1);
	}
}

static int
lookup_volume(struct mount *m, struct voldir *dir, const char *name, struct inode **out)
{
	struct vol *vol;
	int r = pool_lookup(m->pool, dir, name, &vol);

	return r ? r : inode_get_volume(&m->inodes, vol, out);
}

static int
lookup_snapshot(struct mount *m, const char *name, struct inode **out)
{
	struct voldir *dir;
	int r = pool_lookup_snapshot(m->pool, name, &dir);

	return r ? r : inode_get_snapshot(&m->inodes, dir, out);
}

void
ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = session_of(req);
	struct inode *dir = inode_of(&m->inodes, parent);
	struct inode *inode = NULL;
	int r = -ENOTDIR;

	if (strlen(name) > POOL_NAME_MAX) {
		r = -ENAMETOOLONG;
	} else if (dir->kind == INODE_ROOT && strcmp(name, SNAPSHOTS_NAME) == 0) {
		inode = &m->inodes.snapshots;
		r = 0;
	} else if (dir->kind == INODE_SNAPSHOTS) {
		r = lookup_snapshot(m, name, &inode);
	} else if (dir->dir) {
		r = lookup_volume(m, dir->dir, name, &inode);
	}

	if (r)
		ops_reply(req, r);
	else
		ops_reply_entry(req, inode);
}

void
ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nr)
{
	struct mount *m = session_of(req);

	inode_forget(&m->inodes, inode_of(&m->inodes, ino), nr);
	fuse_reply_none(req);
}

void
ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct mount *m = session_of(req);

	for (size_t i = 0; i < count; i++)
		inode_forget(&m->inodes, inode_of(&m->inodes, forgets[i].ino),
			     forgets[i].nlookup);
	fuse_reply_none(req);
}

void
ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct mount *m = session_of(req);
	struct inode *dir = inode_of(&m->inodes, parent);
	struct pool_caller caller = ops_caller(req, mode);
	struct inode *inode = NULL;
	struct vol *vol;
	int r = -EPERM;

	(void)rdev;
	if (dir->kind == INODE_ROOT && S_ISREG(mode))
		r = pool_create(m->pool, dir->dir, name, &caller, &vol);
	if (r == 0)
		r = inode_get_volume(&m->inodes, vol, &inode);

	if (r)
		ops_reply(req, r);
	else
		ops_reply_entry(req, inode);
}

void
ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct mount *m = session_of(req);
	struct pool_caller caller = ops_caller(req, mode);

	if (inode_of(&m->inodes, parent)->kind != INODE_SNAPSHOTS)
		ops_reply(req, -EPERM);
	else if (strlen(name) > POOL_NAME_MAX)
		ops_reply(req, -ENAMETOOLONG);
	else
		snapshot_make(req, name, &caller);
}

void
ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = session_of(req);
	struct inode *dir = inode_of(&m->inodes, parent);

	if (dir->kind == INODE_SNAPSHOTS)
		snapshot_remove(req, name);
	else if (dir->kind == INODE_ROOT && strcmp(name, SNAPSHOTS_NAME) == 0)
		ops_reply(req, -EPERM);
	else
		ops_reply(req, -ENOTDIR);
}

void
ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = session_of(req);
	struct inode *dir = inode_of(&m->inodes, parent);

	ops_reply(req, dir->dir ? pool_unlink(m->pool, dir->dir, name) : -EISDIR);
}

void
ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
	   const char *new_name, unsigned flags)
{
	struct mount *m = session_of(req);
	struct inode *from = inode_of(&m->inodes, parent);
	struct inode *to = inode_of(&m->inodes, new_parent);
	unsigned how = 0;
	int r;

	if (flags & RENAME_NOREPLACE)
		how |= POOL_RENAME_NOREPLACE;
	if (flags & RENAME_EXCHANGE)
		how |= POOL_RENAME_EXCHANGE;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		r = -EINVAL;
	else if (!from->dir || !to->dir)
		r = -EPERM; /* a snapshot as a whole keeps its name */
	else if ((from->kind == INODE_ROOT && strcmp(name, SNAPSHOTS_NAME) == 0) ||
		 (to->kind == INODE_ROOT && strcmp(new_name, SNAPSHOTS_NAME) == 0))
		r = -EPERM;
	else
		r = pool_rename(m->pool, from->dir, name, to->dir, new_name, how);
	ops_reply(req, r);
}

void
ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	(void)ino;
	(void)parent;
	(void)name;
	ops_reply(req, -EPERM); /* a volume has one name */
}

void
ops_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link;
	(void)parent;
	(void)name;
	ops_reply(req, -EPERM);
}
