/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dir_handle: an open directory, and what a command says to the daemon through it (control.c).
 */
#ifndef THINFS_FUSE_DIR_HANDLE_H
#define THINFS_FUSE_DIR_HANDLE_H

#include "fuse/session.h"

struct dir_handle {
	struct dir_handle *next, *prev; /* mount->lock */
	struct inode *inode; /* const; the kernel keeps it while the directory is open */

	struct mutex lock;
	char *text; /* lock: the report being read out */
	size_t text_len; /* lock */
	uint32_t text_what; /* lock */
	char *names; /* lock: of the snapshot being asked for, each ended by NUL */
	size_t names_len, nr_names; /* lock */
	uint32_t *ids; /* lock: of volumes, for CONTROL_IOC_FREED */
	size_t nr_ids; /* lock */
};

static inline struct dir_handle *
dir_handle_of(const struct fuse_file_info *fi)
{
	return (struct dir_handle *)(uintptr_t)fi->fh;
}

/* NULL: no memory. */
struct dir_handle *dir_handle_open(struct mount *m, struct inode *inode);
void dir_handle_close(struct mount *m, struct dir_handle *h);
/* All that are open, after the last request. */
void dir_handle_close_all(struct mount *m);

#endif
