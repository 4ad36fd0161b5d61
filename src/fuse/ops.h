/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ops: what the kernel can ask for, one function per operation as libfuse calls them.
 *
 * Each answers its request once, at once or from another thread later. Permissions are checked by
 * the kernel (default_permissions) from the attributes given to it, but for what the pool refuses.
 */
#ifndef THINFS_FUSE_OPS_H
#define THINFS_FUSE_OPS_H

#include <sys/stat.h>

#include "fuse/session.h"

/* Seconds that the kernel may rely on a name, and on attributes: both change behind its back when
 * the pool returns to the last commit, mapped blocks when space is reclaimed. */
#define OPS_ENTRY_TIMEOUT 5.0
#define OPS_ATTR_TIMEOUT 1.0

extern const struct fuse_lowlevel_ops ops_table;

/* ops_attr.c; 0 or negative errno */
int ops_stat(struct mount *m, const struct inode *inode, struct stat *st);
/* Of a volume that has no inode. */
int ops_stat_volume(struct mount *m, struct vol *vol, struct stat *st);
int ops_entry(struct mount *m, struct inode *inode, struct fuse_entry_param *entry);

/* ops_name.c: answer with INODE, whose lookup reference goes to the kernel or is dropped. */
void ops_reply_entry(fuse_req_t req, struct inode *inode);
static inline void
ops_reply(fuse_req_t req, int r)
{
	fuse_reply_err(req, -r);
}
struct pool_caller ops_caller(fuse_req_t req, mode_t mode);

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nr);
void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		const char *new_name, unsigned flags);
void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void ops_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);

/* ops_attr.c */
void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		 struct fuse_file_info *fi);
void ops_statfs(fuse_req_t req, fuse_ino_t ino);

/* ops_xattr.c */
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);

/* ops_dir.c */
void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		 struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		     struct fuse_file_info *fi);
void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

/* ops_file.c */
void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		struct fuse_file_info *fi);
void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
	       struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len,
		   struct fuse_file_info *fi);
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
void ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			 fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);
/* Commit; VOL as for pool_sync(). Answers REQ when it is done. */
void ops_sync(fuse_req_t req, struct vol *vol);

/* control.c */
void ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	       unsigned flags, const void *in, size_t in_size, size_t out_size);

#endif
