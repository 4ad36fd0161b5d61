/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * origin: external origins, the files and block devices that volumes show where they have no
 * blocks of their own (format sheet, S 10).
 *
 * Volumes over the same file share one struct origin, which lives as long as the pool; the file
 * itself is opened when it is first read, and not more than ORIGINS_OPEN_MAX are open at a time,
 * but for those in use. When it is not there, or is not what it was (struct origin_identity),
 * reading it is -EIO, and a message names it; it is tried again after a second, so that nothing
 * has to be remounted when it has come back.
 *
 * Locking: a leaf, not held across I/O. No metadata lock may be held by who opens or reads.
 */
#ifndef THINFS_POOL_ORIGIN_H
#define THINFS_POOL_ORIGIN_H

#include <bsd/sys/tree.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/origin_file.h"
#include "util/lock.h"

#define ORIGINS_OPEN_MAX 32U

struct origin;
struct vol;

RB_HEAD(origin_tree, origin);

struct origins {
	struct mutex lock;
	pthread_cond_t opened;
	struct origin_guard guard; /* const while calls are under way */
	struct origin_tree all; /* lock */
	unsigned nr_open; /* lock */
	uint64_t nr_used; /* lock: times that one was used */
};

void origins_init(struct origins *t);
void origins_destroy(struct origins *t);

/* The one at PATH that is IDENTITY, known from then on. Nothing is opened. -ENOMEM */
int origin_get(struct origins *t, const char *path, const struct origin_identity *identity,
	       struct origin **out);
/* The one that is at PATH now. Prints why there is none. I/O, which may wait for long. */
int origin_find(struct origins *t, const char *path, struct origin **out);

const char *origin_path(const struct origin *o);
const struct origin_identity *origin_identity(const struct origin *o);

/* What a volume shows of one: the first END bytes. */
struct origin_view {
	struct origin *origin; /* NULL: none, END is 0 then */
	uint64_t end;
};

/*
 * LEN bytes at OFFSET of what is seen of the origin, zeros beyond. -EIO: it cannot be opened, or
 * has changed; a message, for volume V, says so once.
 */
int origin_read(const struct origin_view *view, const struct vol *v, void *buf, uint64_t len,
		uint64_t offset);
/* Whether all of it is known to be zeros, without reading. */
bool origin_is_zero(const struct origin_view *view, const struct vol *v, uint64_t offset, uint64_t len);

#endif
