/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * snapshot: what must wait for the kernel to write back its dirty pages, on a thread of its own.
 *
 * A snapshot holds every write that returned before it was asked for, also those that the kernel
 * has only in its page cache: mapped files, the write-back cache. So the kernel is told to drop
 * the pages of each volume, which makes it write the dirty ones first. It waits for those WRITEs
 * meanwhile: a thread that serves requests must not do it, as none might be left for them. The same goes for opening a
 * file that may be anywhere.
 */
#ifndef THINFS_FUSE_SNAPSHOT_H
#define THINFS_FUSE_SNAPSHOT_H

#include "fuse/session.h"

int snapshot_start(struct mount *m, struct jobs **out);
/*
 * Do what is queued and end the thread; requests that come later are refused. Once more is nothing.
 */
void snapshot_stop(struct mount *m);

/* After snapshot_stop() and the last request. */
void snapshot_free(struct mount *m);

/* These take over REQ. */
void snapshot_make(fuse_req_t req, const char *name, const struct pool_caller *caller);
void snapshot_remove(fuse_req_t req, const char *name);
/* Of NR volumes, whose names, each ended by NUL, take NAMES_LEN bytes. Answers an ioctl. */
void snapshot_make_some(fuse_req_t req, const char *name, const char *names, size_t names_len,
			size_t nr, const struct pool_caller *caller);
/* pool_clone() and pool_revert(); these take over the holds of the volumes as well, and answer ioctls. */
void snapshot_clone(fuse_req_t req, struct vol *from, const char *name,
		    const struct pool_caller *caller);
void snapshot_revert(fuse_req_t req, struct vol *vol, struct vol *from, const char *safety,
		     const struct pool_caller *caller);
/* pool_create_over(), which may wait for another filesystem; answers an ioctl. */
void snapshot_create_over(fuse_req_t req, const char *name, const char *origin, uint64_t size,
			  const struct pool_caller *caller);
/* lseek(2) for data or holes, with the dirty pages of that volume written first. */
void snapshot_seek(fuse_req_t req, struct inode *inode, off_t offset, int whence);

/*
 * Have the kernel write back all dirty pages, here and now. Not on a thread that serves requests.
 */
void snapshot_write_back(struct mount *m);

#endif
