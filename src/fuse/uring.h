/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uring: requests over io_uring in place of /dev/fuse.
 *
 * Each queue of the kernel's (one for each processor) has workers. They run where the scheduler has them: bound to their
 * processor, those of one busy queue would share it with the caller while others idle. Each has a ring of its own and, as
 * a rule, one entry in it. So a request is only ever given to a worker that is idle, as with threads that read /dev/fuse.
 * libfuse dispatches it, in the entry's own memory, and what it replies is put into the entry.
 *
 * A request that is answered later, by another thread, keeps its entry. Its worker then takes over one that was answered
 * meanwhile, waits for such a one, or makes a new one: half of a queue's workers always have one. A worker without an
 * entry, or else any that is idle, is woken to send off an answer of another thread; the entry is its own from then on.
 * Entries are never taken back, so that a queue may have more of them than workers after many answers came late; their
 * memory is given back to the system.
 *
 * FORGET and INTERRUPT always come over /dev/fuse, and notifications go there.
 *
 * To libfuse a request has another number than to the kernel: it says which entry holds it.
 *
 * A handler must not use the memory of a request any more that it has given to another thread to answer.
 */
#ifndef THINFS_FUSE_URING_H
#define THINFS_FUSE_URING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct mount;
struct uring;

/*
 * The rings, for THREADS workers a queue. With the privileges of the start: they may be needed. 0, -ENOSYS when this
 * was built without liburing, -ENXIO when there are processors that we may not use or see, or negative errno.
 */
int uring_create(struct mount *m, unsigned threads, struct uring **out);
/* The workers, idle. 0 or negative errno. */
int uring_start(struct uring *u);
/*
 * Have the kernel use them, once it has the answer to INIT with URING_INIT_FLAG. 0, or negative errno: it goes on with
 * /dev/fuse.
 */
int uring_register(struct uring *u);
/* End the workers. Answers are kept from now on. */
void uring_stop(struct uring *u);
/* Send what was kept, and free. All requests are answered. U may be NULL. */
void uring_destroy(struct uring *u);

/* Whether this is the answer to a request that came over a ring: then it is taken. Any thread. */
bool uring_reply(struct uring *u, const struct iovec *iov, int nr_iov);
/* The kernel's request UNIQUE is interrupted: what libfuse calls it; UNIQUE itself, if it is not in a ring. */
uint64_t uring_interrupt(struct uring *u, uint64_t unique);

#endif
