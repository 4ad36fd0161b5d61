/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * parked: writes that found no space, waiting for some.
 *
 * They are copied and tried again by a thread of their own, in the order they came, whenever the
 * pool says that there may be space, until no_space_timeout; then all fail, and what comes later too, until the pool is in
 * write mode again. While any wait, it looks each second whether the images have grown. No thread that serves requests waits.
 */
#ifndef THINFS_FUSE_PARKED_H
#define THINFS_FUSE_PARKED_H

#include "fuse/session.h"

/* 0 or negative errno. Sets the space hook of the pool. */
int parked_start(struct mount *m, struct parked **out);
/* Fail all that wait with -ENOSPC, and what comes later at once. Any thread. */
void parked_give_up(struct parked *p);
/* Give up, end the thread, free. No request may be under way. */
void parked_stop(struct parked *p);

/* Whether any write waits. */
bool parked_any(struct parked *p);

/* Take over REQ, or false: it cannot wait, answer -ENOSPC. */
bool parked_write(struct parked *p, fuse_req_t req, struct vol *vol, const void *buf, size_t len,
		  uint64_t offset);
bool parked_fallocate(struct parked *p, fuse_req_t req, struct vol *vol, int mode, uint64_t offset,
		      uint64_t len);

#endif
