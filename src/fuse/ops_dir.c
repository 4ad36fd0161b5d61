/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading directories: streamed, an entry at a time from the pool.
 *
 * Offsets: what the kernel gives back to go on after an entry. Those of the fixed entries are
 * below FIRST_COOKIE, a volume's or snapshot's is its cookie in the pool plus FIRST_COOKIE.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "fuse/dir_handle.h"
#include "fuse/ops.h"

enum {
	OFFSET_DOT = 1,
	OFFSET_DOTDOT,
	OFFSET_SNAPSHOTS,
	FIRST_COOKIE = OFFSET_SNAPSHOTS,
};

void
ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = session_of(req);
	struct dir_handle *h = dir_handle_open(m, inode_of(&m->inodes, ino));

	if (!h) {
		ops_reply(req, -ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)h;
	if (fuse_reply_open(req, fi) == -ENOENT)
		dir_handle_close(m, h);
}

void
ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_handle_close(session_of(req), dir_handle_of(fi));
	ops_reply(req, 0);
}

void
ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	ops_sync(req, NULL);
}

/* A READDIR being answered. */
struct listing {
	fuse_req_t req;
	struct mount *m;
	bool plus;
	char *buf;
	size_t size, used;
};

/*
 * Add an entry, whose lookup reference (if INODE) goes to the kernel or is dropped. False: no room.
 */
static bool
add(struct listing *l, const char *name, struct inode *inode, const struct stat *st, off_t offset)
{
	char *at = l->buf + l->used;
	size_t room = l->size - l->used, need;
	struct fuse_entry_param entry = {.attr = *st};

	if (!l->plus) {
		need = fuse_add_direntry(l->req, at, room, name, st, offset);
	} else {
		if (inode && ops_entry(l->m, inode, &entry))
			entry = (struct fuse_entry_param){.attr = *st};
		need = fuse_add_direntry_plus(l->req, at, room, name, &entry, offset);
	}
	if (inode && (need > room || !entry.ino))
		inode_forget(&l->m->inodes, inode, 1);
	if (need > room)
		return false;
	l->used += need;
	return true;
}

static bool
add_fixed(struct listing *l, const struct inode *dir, off_t *offset)
{
	struct stat st;

	ops_stat(l->m, dir, &st);
	if (*offset < OFFSET_DOT) {
		if (!add(l, ".", NULL, &st, OFFSET_DOT))
			return false;
		*offset = OFFSET_DOT;
	}
	st.st_ino = dir->kind == INODE_SNAPSHOT ? INODE_NR_SNAPSHOTS : INODE_NR_ROOT;
	if (*offset < OFFSET_DOTDOT) {
		if (!add(l, "..", NULL, &st, OFFSET_DOTDOT))
			return false;
		*offset = OFFSET_DOTDOT;
	}
	if (*offset < OFFSET_SNAPSHOTS) {
		st.st_ino = INODE_NR_SNAPSHOTS;
		if (dir->kind == INODE_ROOT &&
		    !add(l, SNAPSHOTS_NAME, &l->m->inodes.snapshots, &st, OFFSET_SNAPSHOTS))
			return false;
		*offset = OFFSET_SNAPSHOTS;
	}
	return true;
}

static int
add_volumes(struct listing *l, struct voldir *dir, off_t offset)
{
	char name[POOL_NAME_MAX + 1], snapshot[POOL_NAME_MAX + 1];
	uint64_t cookie = (uint64_t)(offset - FIRST_COOKIE);
	struct inode *inode;
	struct stat st;
	struct vol *vol;
	int r;

	while ((r = pool_next_volume(l->m->pool, dir, cookie, &vol, &cookie)) == 0) {
		vol_get_name(vol, name, snapshot);
		/* Removed meanwhile, or not to be had: a damaged one must not hide the others. */
		if (!name[0] || ops_stat_volume(l->m, vol, &st)) {
			vol_put(vol);
			continue;
		}
		inode = NULL;
		if (!l->plus)
			vol_put(vol);
		else if (inode_get_volume(&l->m->inodes, vol, &inode))
			return -ENOMEM;
		if (!add(l, name, inode, &st, (off_t)cookie + FIRST_COOKIE))
			return 0;
	}
	return r == -ENOENT ? 0 : r;
}

static int
add_snapshots(struct listing *l, off_t offset)
{
	uint64_t cookie = (uint64_t)(offset - FIRST_COOKIE);
	char name[POOL_NAME_MAX + 1];
	struct voldir_attr attr;
	struct inode *inode;
	struct voldir *dir;
	int r;

	while ((r = pool_next_snapshot(l->m->pool, cookie, &dir, &cookie)) == 0) {
		struct stat st = {.st_mode = S_IFDIR};

		voldir_get_name(dir, name);
		if (!name[0]) {
			voldir_put(dir);
			continue;
		}
		voldir_getattr(dir, &attr);
		st.st_ino = INODE_NR_SNAPSHOT(attr.serial);
		inode = NULL;
		if (!l->plus)
			voldir_put(dir);
		else if (inode_get_snapshot(&l->m->inodes, dir, &inode))
			return -ENOMEM;
		if (!add(l, name, inode, &st, (off_t)cookie + FIRST_COOKIE))
			return 0;
	}
	return r == -ENOENT ? 0 : r;
}

static void
list(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
	struct listing l = {
		.req = req,
		.m = session_of(req),
		.plus = plus,
		.buf = session_buffer(),
		.size = size < SESSION_IO_MAX ? size : SESSION_IO_MAX,
	};
	struct inode *dir = dir_handle_of(fi)->inode;
	int r = 0;

	if (add_fixed(&l, dir, &offset))
		r = dir->dir ? add_volumes(&l, dir->dir, offset) : add_snapshots(&l, offset);
	/* What was added is the kernel's now, so that an error must wait for the next call. */
	if (r && !l.used)
		ops_reply(req, r);
	else
		fuse_reply_buf(req, l.buf, l.used);
}

void
ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)ino;
	list(req, size, offset, fi, false);
}

void
ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi)
{
	(void)ino;
	list(req, size, offset, fi, true);
}
