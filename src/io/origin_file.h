/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * origin_file: a file or block device that volumes show where they have no blocks of their own,
 * and what tells that it is still the same.
 *
 * It is opened read-only, and while requests are served, perhaps by the very thread that serves
 * them. So the way to it must not lead through the mount that is served: that would wait for
 * itself. Each step of the path is looked at before it is gone.
 */
#ifndef THINFS_IO_ORIGIN_FILE_H
#define THINFS_IO_ORIGIN_FILE_H

#include <stdint.h>
#include <sys/types.h>

#include "io/image.h"

/*
 * The size in bytes, the time of the last change (0 for a block device, which has none), and a sum
 * over samples of the content.
 *
 * Whoever writes to a file changes its time; who puts a copy of it in its place by cp -p, rsync -t
 * or tar keeps it, while device and inode numbers would change. The samples find a block device
 * that another one took the name of, and have a second use: who makes up a pool to be mounted by
 * somebody else cannot name a file there to read it, without knowing its content already; of a
 * small file, all of it.
 */
struct origin_identity {
	uint64_t size;
	int64_t mtime_ns;
	uint64_t sum;
};

/* What must not be an origin. */
struct origin_guard {
	bool has_mount;
	dev_t mount; /* the filesystem that is served */
	struct own_image {
		dev_t dev;
		ino_t ino;
		dev_t rdev; /* of a block device, else 0 */
	} own[2]; /* the pool's images; ino 0: none */
};

/*
 * Open PATH, absolute, and take its identity. It gets a shared lock, as by image_open_file(); who
 * has it open for writing and locked is in the way. No message: *why says in words what is wrong,
 * a constant or strerror()'s.
 */
int origin_file_open(const char *path, const struct origin_guard *guard, struct image **out,
		     struct origin_identity *identity, const char **why);
/* What tells without reading: size and time, of the open file. */
int origin_file_peek(struct image *img, struct origin_identity *identity);

/* The image that PATH, which is open, is: for the guard. */
struct own_image origin_own_image(const char *path);

#endif
