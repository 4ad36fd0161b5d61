/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mountinfo: what is mounted where, from /proc/self/mountinfo; asks no filesystem unless
 * said otherwise, so that it works on mounts whose daemon has died or hangs.
 */
#ifndef THINFS_FUSE_MOUNTINFO_H
#define THINFS_FUSE_MOUNTINFO_H

#include <stdbool.h>

#define MOUNT_TYPE "fuse.thinfs"

struct mount_entry {
	unsigned dev_major, dev_minor;
	const char *dir; /* where */
	const char *type;
	const char *source;
};

/*
 * Call FN for each mount, in the order they were made, until it returns other than 0: that is
 * returned. Or negative errno.
 */
int mountinfo_for_each(int (*fn)(const struct mount_entry *e, void *arg), void *arg);

struct mount_found {
	bool found;
	bool is_thinfs;
	unsigned dev_major, dev_minor;
};

/* The topmost mount on DIR, an absolute path without symbolic links. 0 or negative errno. */
int mountinfo_find(const char *dir, struct mount_found *found);

/*
 * Whether the daemon of the mount on DIR has died. Asks it, so that the kernel's memory of its
 * attributes does not deceive.
 */
bool mountinfo_is_dead(const char *dir);

/*
 * Unmount what is topmost on DIR: umount2(2), or fusermount3 for who may not do that. LAZY: also
 * when it is in use. 0 or negative errno, -EBUSY in use;
 * no message. May wait for the mount's daemon to write what the kernel holds.
 */
int mountinfo_unmount(const char *dir, bool lazy);

#endif
