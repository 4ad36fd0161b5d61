/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contents of volumes.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuse/ops.h"
#include "fuse/parked.h"
#include "fuse/snapshot.h"

static bool
may_write(const struct fuse_file_info *fi)
{
	return (fi->flags & O_ACCMODE) != O_RDONLY;
}

/*
 * Direct I/O by default: no second copy of what the user of a volume caches itself, and writers in parallel.
 * libfuse 3.14 has no name for the latter, hence the answers to OPEN and CREATE as the kernel reads them.
 */
static struct fuse_open_out
open_out(const struct mount *m)
{
	return (struct fuse_open_out){
		.open_flags = m->page_cache ? FOPEN_KEEP_CACHE
					    : FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES,
	};
}

void
ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = session_of(req);
	struct inode *inode = inode_of(&m->inodes, ino);
	struct fuse_open_out out = open_out(m);
	int r = inode->kind == INODE_VOLUME ? inode_open(&m->inodes, inode, may_write(fi))
					    : -EISDIR;

	if (r)
		ops_reply(req, r);
	else if (fuse_reply_buf(req, (const char *)&out, sizeof(out)) == -ENOENT)
		inode_release(&m->inodes, inode, may_write(fi));
}

static void
entry_out(const struct fuse_entry_param *e, struct fuse_entry_out *out)
{
	const struct stat *st = &e->attr;

	*out = (struct fuse_entry_out){
		.nodeid = e->ino,
		.generation = e->generation,
		.entry_valid = (uint64_t)e->entry_timeout,
		.attr_valid = (uint64_t)e->attr_timeout,
		.attr = {
			.ino = st->st_ino,
			.size = (uint64_t)st->st_size,
			.blocks = (uint64_t)st->st_blocks,
			.atime = (uint64_t)st->st_atim.tv_sec,
			.mtime = (uint64_t)st->st_mtim.tv_sec,
			.ctime = (uint64_t)st->st_ctim.tv_sec,
			.atimensec = (uint32_t)st->st_atim.tv_nsec,
			.mtimensec = (uint32_t)st->st_mtim.tv_nsec,
			.ctimensec = (uint32_t)st->st_ctim.tv_nsec,
			.mode = st->st_mode,
			.nlink = (uint32_t)st->st_nlink,
			.uid = st->st_uid,
			.gid = st->st_gid,
			.blksize = (uint32_t)st->st_blksize,
		},
	};
}

/* The volume NAME, made, or found when it has come into being meanwhile and that is allowed. */
static int
create_or_find(fuse_req_t req, struct voldir *top, const char *name, mode_t mode, int flags,
	       struct vol **vol)
{
	struct mount *m = session_of(req);
	struct pool_caller caller = ops_caller(req, mode);
	int r = pool_create(m->pool, top, name, &caller, vol);

	if (r == -EEXIST && !(flags & O_EXCL))
		r = pool_lookup(m->pool, top, name, vol);
	return r;
}

void
ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	   struct fuse_file_info *fi)
{
	struct mount *m = session_of(req);
	struct inode *dir = inode_of(&m->inodes, parent);
	struct fuse_entry_param entry;
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out;
	struct inode *inode = NULL;
	struct vol *vol;
	int r = -EPERM;

	if (dir->kind == INODE_ROOT)
		r = create_or_find(req, dir->dir, name, mode, fi->flags, &vol);
	if (r == 0)
		r = inode_get_volume(&m->inodes, vol, &inode);
	if (r)
		goto err_reply;
	r = inode_open(&m->inodes, inode, may_write(fi));
	if (r)
		goto err_forget;
	r = ops_entry(m, inode, &entry);
	if (r)
		goto err_release;

	entry_out(&entry, &out.entry);
	out.open = open_out(m);
	if (fuse_reply_buf(req, (const char *)&out, sizeof(out)) == -ENOENT) {
		inode_release(&m->inodes, inode, may_write(fi));
		inode_forget(&m->inodes, inode, 1);
	}
	return;

err_release:
	inode_release(&m->inodes, inode, may_write(fi));
err_forget:
	inode_forget(&m->inodes, inode, 1);
err_reply:
	ops_reply(req, r);
}

void
ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = session_of(req);

	inode_release(&m->inodes, inode_of(&m->inodes, ino), may_write(fi));
	ops_reply(req, 0);
	if (atomic_load(&m->leave_when_idle))
		session_wake(m);
}

void
ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct inode *inode = inode_of(&session_of(req)->inodes, ino);
	char *buf = session_buffer();
	ssize_t r;

	(void)fi;
	if (size > SESSION_IO_MAX)
		size = SESSION_IO_MAX; /* does not happen: INIT agreed on it */
	r = vol_read(inode->vol, buf, size, (uint64_t)offset);
	if (r < 0)
		ops_reply(req, (int)r);
	else
		fuse_reply_buf(req, buf, (size_t)r);
}

void
ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
	  struct fuse_file_info *fi)
{
	struct mount *m = session_of(req);
	struct inode *inode = inode_of(&m->inodes, ino);
	ssize_t r = vol_write(inode->vol, buf, size, (uint64_t)offset);

	(void)fi;
	if (r == -ENOSPC && parked_write(m->parked, req, inode->vol, buf, size, (uint64_t)offset))
		return;
	if (r < 0)
		ops_reply(req, (int)r);
	else
		fuse_reply_write(req, (size_t)r);
}

/* --- fsync --- */

struct sync_request {
	fuse_req_t req;
	struct mount *m;
};

static void
sync_done(void *arg, int error)
{
	struct sync_request *s = arg;
	struct mount *m = s->m;

	ops_reply(s->req, error);
	free(s);
	session_async_end(m);
}

void
ops_sync(fuse_req_t req, struct vol *vol)
{
	struct mount *m = session_of(req);
	struct sync_request *s = malloc(sizeof(*s));

	if (!s) {
		ops_reply(req, -ENOMEM);
		return;
	}
	*s = (struct sync_request){.req = req, .m = m};
	session_async_begin(m);
	pool_sync(m->pool, vol, sync_done, s);
}

void
ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	(void)fi;
	ops_sync(req, inode_of(&session_of(req)->inodes, ino)->vol);
}

/* --- allocation --- */

void
ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len,
	      struct fuse_file_info *fi)
{
	struct mount *m = session_of(req);
	struct inode *inode = inode_of(&m->inodes, ino);
	int r;

	(void)fi;
	if (offset < 0 || len <= 0) {
		ops_reply(req, -EINVAL);
		return;
	}
	r = vol_fallocate(inode->vol, mode, (uint64_t)offset, (uint64_t)len);
	/*
	 * Zeroing the edges may need space, as a write does. Who wants to reserve it is told at
	 * once.
	 */
	if (r == -ENOSPC && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) &&
	    parked_fallocate(m->parked, req, inode->vol, mode, (uint64_t)offset, (uint64_t)len))
		return;
	ops_reply(req, r);
}

void
ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct mount *m = session_of(req);
	struct inode *inode = inode_of(&m->inodes, ino);
	off_t r;

	(void)fi;
	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		ops_reply(req, -EINVAL);
		return;
	}
	if (m->writeback) {
		/* What the kernel has not written yet would be taken for a hole. */
		snapshot_seek(req, inode, offset, whence);
		return;
	}
	r = vol_seek(inode->vol, offset, whence);
	if (r < 0)
		ops_reply(req, (int)r);
	else
		fuse_reply_lseek(req, r);
}

/* Per request, so that a thread is not held for long; the caller asks again for the rest. */
#define COPY_MAX (1U << 30)

void
ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
		    fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
		    int flags)
{
	struct mount *m = session_of(req);
	struct inode *from = inode_of(&m->inodes, ino_in), *to = inode_of(&m->inodes, ino_out);
	ssize_t r = -EINVAL;

	(void)fi_in;
	(void)fi_out;
	if (off_in >= 0 && off_out >= 0 && !flags && from->kind == INODE_VOLUME &&
	    to->kind == INODE_VOLUME)
		r = vol_copy_range(from->vol, (uint64_t)off_in, to->vol, (uint64_t)off_out,
				   len < COPY_MAX ? len : COPY_MAX);
	/* The kernel then copies by reading and writing; writes wait for space. */
	if (r == -ENOSPC)
		r = -EOPNOTSUPP;
	if (r < 0)
		ops_reply(req, (int)r);
	else
		fuse_reply_write(req, (size_t)r);
}
