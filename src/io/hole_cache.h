/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hole_cache: where an image is known to be a hole, so that not each new block costs a system call that waits for the
 * writers of the file.
 *
 * A few ranges, of which each byte reads as zero. Asking the file gives one; whoever writes tells so after it has
 * written, and before anybody else may ask about the place. It is right only where nobody else writes to the file.
 *
 * Locking: none needed. Cost of telling: a look at one line of the processor's cache, which changes only when what is
 * written was a hole.
 */
#ifndef THINFS_IO_HOLE_CACHE_H
#define THINFS_IO_HOLE_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/lock.h"

#define HOLES_KNOWN 4U

struct hole_cache {
	struct mutex mutex; /* to change them */
	unsigned next; /* which is forgotten next */
	char apart[CACHE_LINE];
	struct {
		_Atomic uint64_t begin, end; /* bytes; empty: none */
	} known[HOLES_KNOWN];
};

void hole_cache_init(struct hole_cache *h);
void hole_cache_destroy(struct hole_cache *h);

/* Something has been written to [offset, offset + len), or was tried to. */
void hole_cache_written(struct hole_cache *h, uint64_t offset, uint64_t len);
/* How far the hole at OFFSET goes, up to END, asking the file. One that knows no holes says that all is data. */
uint64_t hole_ask(int fd, uint64_t offset, uint64_t end);
/* Whether all of it is a hole. FD: the file, which is asked if that is not known. */
bool hole_cache_is_hole(struct hole_cache *h, int fd, uint64_t offset, uint64_t len);

#endif
