/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image_lock: one user of an image at a time, and who that is.
 *
 * Open file description locks: they belong to the open file, survive a fork into the background
 * and go with the last descriptor. What qemu and fcntl(2) users lock is seen, flock(2) is not: on some filesystems
 * it would be in the way of these locks.
 */
#ifndef THINFS_IO_IMAGE_LOCK_H
#define THINFS_IO_IMAGE_LOCK_H

#include <stdbool.h>

/*
 * Lock all of FD without waiting. On failure prints the reason; -EBUSY when another one holds a
 * lock in the way, whose process is named if /proc shows it, or when a loop device is on the file.
 */
int image_lock(int fd, bool exclusive, const char *path);

/* Print who uses the block device PATH, which could not be opened for exclusive use. */
void image_report_busy_device(const char *path);

#endif
