/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "fuse/ops.h"

static void
set(struct fuse_conn_info *conn, unsigned capability, bool on)
{
	if (on)
		conn->want |= capability & conn->capable;
	else
		conn->want &= ~capability;
}

static void
ops_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct mount *m = userdata;

	conn->max_write = SESSION_IO_MAX;
	conn->max_readahead = SESSION_IO_MAX;
	conn->max_background = 64;
	set(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS, true);
	set(conn, FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_IOCTL_DIR, true);
	set(conn, FUSE_CAP_WRITEBACK_CACHE, m->writeback);
	/* O_TRUNC comes as a SETATTR of its own. */
	set(conn, FUSE_CAP_ATOMIC_O_TRUNC, false);
	/* With 1 MiB of payload splicing turns itself off anyway. */
	set(conn, FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE, false);
	/*
	 * Nothing changes a volume but what goes through the kernel, whose pages stay good when the
	 * time changes.
	 */
	set(conn, FUSE_CAP_AUTO_INVAL_DATA, false);
	set(conn, FUSE_CAP_EXPLICIT_INVAL_DATA, true);
}

/* No flush: there is nothing to do at a close, and without it the kernel stops asking. */
const struct fuse_lowlevel_ops ops_table = {
	.init = ops_init,
	.lookup = ops_lookup,
	.forget = ops_forget,
	.forget_multi = ops_forget_multi,
	.mknod = ops_mknod,
	.mkdir = ops_mkdir,
	.unlink = ops_unlink,
	.rmdir = ops_rmdir,
	.rename = ops_rename,
	.link = ops_link,
	.symlink = ops_symlink,
	.getattr = ops_getattr,
	.setattr = ops_setattr,
	.statfs = ops_statfs,
	.getxattr = ops_getxattr,
	.listxattr = ops_listxattr,
	.opendir = ops_opendir,
	.readdir = ops_readdir,
	.readdirplus = ops_readdirplus,
	.releasedir = ops_releasedir,
	.fsyncdir = ops_fsyncdir,
	.create = ops_create,
	.open = ops_open,
	.release = ops_release,
	.read = ops_read,
	.write = ops_write,
	.fsync = ops_fsync,
	.fallocate = ops_fallocate,
	.lseek = ops_lseek,
	.copy_file_range = ops_copy_file_range,
	.ioctl = ops_ioctl,
};
