/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * privileges: giving up what a process does not need.
 *
 * They are of the calling thread; threads and processes that it starts later inherit what is left. So this is for
 * the time before there are threads.
 */
#ifndef THINFS_FUSE_PRIVILEGES_H
#define THINFS_FUSE_PRIVILEGES_H

#include <stdbool.h>
#include <stdint.h>

#define PRIVILEGE(capability) (1ULL << (capability)) /* CAP_... of linux/capability.h */

bool privileges_has(unsigned capability);
/*
 * Keep no capabilities but those of KEEP that there are, and never get any again, not by running a set-uid program
 * either. 0 or negative errno.
 */
int privileges_keep(uint64_t keep);

#endif
