/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * transport: how the kernel's requests come: read from /dev/fuse, or, faster, over io_uring (uring.h). Which, is settled in
 * the exchange of INIT. AUTO is io_uring where that can be had, else without a word /dev/fuse.
 *
 * Locking: the thread that mounts, where nothing else is said.
 */
#ifndef THINFS_FUSE_TRANSPORT_H
#define THINFS_FUSE_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

struct mount;

enum transport {
	TRANSPORT_AUTO,
	TRANSPORT_CLASSIC,
	TRANSPORT_IO_URING,
};

/* As in mount options and reports; TEXT is "auto", "classic" or "io_uring", or -EINVAL. */
int transport_parse(const char *text, enum transport *out);
const char *transport_name(enum transport t);

/* The three steps below: 0, or negative errno after a message, when M cannot have what was asked for by name. */

/* Before privileges are given up. */
int transport_prepare(struct mount *m);
/* The session is mounted, threads may be started. */
int transport_start(struct mount *m);
/* The kernel has the answer to INIT: m->transport says from now on what it is. */
int transport_settle(struct mount *m);
/* What to add to the flags of the answer to INIT, when the kernel offers OFFERED. The thread that answers it. */
uint64_t transport_init_flags(struct mount *m, uint64_t offered);

#endif
