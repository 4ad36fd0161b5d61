/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mount: serve a pool as a FUSE filesystem until it is unmounted.
 */
#ifndef THINFS_FUSE_MOUNT_H
#define THINFS_FUSE_MOUNT_H

#include <stdbool.h>

#include "fuse/transport.h"
#include "pool/pool.h"

struct mount_options {
	struct pool_options pool;
	unsigned threads; /* that serve requests; 0: twice the processors, at least 4 */
	enum transport transport;
	bool writeback_cache; /* the kernel's; implies page_cache */
	bool page_cache; /* files go through the kernel's page cache */
	bool allow_other, allow_root; /* users besides the one who mounts */
	const char *kernel_options; /* for mount(2): "noexec,noatime"; "" or NULL: none */
};

/*
 * Open the pool, mount it on DIR, and serve until it is unmounted or a signal ends it; then commit
 * and release the images.
 * The paths must be absolute. READY(arg) is called, on the calling thread, once the mount can be
 * used.
 * Blocks SIGTERM, SIGINT and SIGHUP in the calling thread, which must be the only one.
 *
 * 0, or negative errno after a message: it could not be mounted, or the last commit failed.
 */
int mount_serve(const char *data_path, const char *meta_path, const char *dir,
		const struct mount_options *options, void (*ready)(void *arg), void *arg);

#endif
