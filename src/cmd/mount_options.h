/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mount_options: the text after -o.
 */
#ifndef THINFS_CMD_MOUNT_OPTIONS_H
#define THINFS_CMD_MOUNT_OPTIONS_H

#include "fuse/mount.h"

#define MOUNT_KERNEL_OPTIONS_MAX 256

struct mount_option_text {
	struct mount_options options;
	char kernel[MOUNT_KERNEL_OPTIONS_MAX]; /* what options.kernel_options points to */
	struct pool_origin_option *origins; /* what options.pool.origins points to; paths as they were given */
};

void mount_options_init(struct mount_option_text *o);
/*
 * Take in TEXT, options separated by commas; -o may be given more than once, the later holds. 0 or
 * EXIT_USAGE after a message.
 */
int mount_options_parse(struct mount_option_text *o, char **argv, const char *text);

/* Whether all of them together make sense. 0 or EXIT_USAGE after a message. */
int mount_options_check(const struct mount_option_text *o, char **argv);
void mount_options_free(struct mount_option_text *o);

#endif
