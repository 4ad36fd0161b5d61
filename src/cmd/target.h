/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * target: the pool a command is about: mounted, named by a directory of the mount, or not
 * mounted, named by its two images.
 *
 * All functions print why they fail.
 */
#ifndef THINFS_CMD_TARGET_H
#define THINFS_CMD_TARGET_H

#include <jansson.h>
#include <stdbool.h>

#include "fuse/control_proto.h"
#include "pool/pool.h"

struct target {
	int fd; /* a directory of the mount; -1: not mounted */
	struct control_info info; /* of the mount's daemon */
	struct pool *pool; /* not mounted: open, read-only */
};

/* DIR, a directory in a mounted pool. 0 or EXIT_FAILED. */
int target_open_mount(const char *dir, struct target *t);
/* The one or two arguments ARGV[0..NR-1]: DIR, or DATA META. 0 or EXIT_FAILED. */
int target_open(char **argv, int nr, struct target *t);
void target_close(struct target *t);

/* Whether DIR is the top directory of the mount that T is in. */
bool target_is_top(const struct target *t, const char *dir);

/* What the pool or its daemon reports; the caller owns it. NULL after a message. */
json_t *target_report(struct target *t, enum control_report what);

/* Bytes that removing the NR volumes IDS of a mounted pool would free, all together. 0 or EXIT_FAILED. */
int target_freed_by(struct target *t, const uint32_t *ids, size_t nr, uint64_t *bytes);

/* Whether FD is a directory in a mounted pool: fills in *INFO. No message; errno tells. */
bool target_is_mount(int fd, struct control_info *info);

#endif
