/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uring_internal: what the parts of uring share: entries, the memory that requests lie in (uring_entry.c), the workers
 * that serve them (uring_worker.c), and the whole (uring.c).
 */
#ifndef THINFS_FUSE_URING_INTERNAL_H
#define THINFS_FUSE_URING_INTERNAL_H

#include <liburing.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "fuse/session.h"
#include "fuse/uring.h"
#include "fuse/uring_proto.h"
#include "util/lock.h"

#define URING_PAGE 4096U
#define URING_DEVICE 0 /* /dev/fuse, in the table of files that each ring has */
#define ENTRIES_MAX ((1U << 16) - 1)

/*
 * The memory of an entry. The kernel writes the headers to its beginning. For libfuse they are copied to just before the
 * payload, which stays where it is:
 *   [ struct uring_headers      struct fuse_in_header, first argument ][ payload ]
 *   0                                                                  URING_PAGE
 */

struct entry {
	struct entry *next; /* in queue->answered */
	struct queue *queue;
	uint64_t index;
	char *memory;
	struct iovec iov[2]; /* headers and payload, as REGISTER has it */
	_Atomic uint64_t interrupted; /* the kernel's number of the last request in it that was interrupted */
};

struct queue {
	struct uring *u;
	unsigned nr; /* of the processor */
	struct mutex lock; /* a leaf */
	struct entry *answered, **last; /* lock: by other threads than a worker that serves them */
	atomic_uint nr_answered; /* changed with the lock */
	unsigned nr_serving; /* lock: workers with an entry */
	struct uring_worker *workers;
	unsigned nr_workers;
};

struct uring_worker {
	struct queue *queue;
	unsigned index; /* in the queue */
	pthread_t thread;
	bool has_ring, has_thread;
	struct io_uring ring;
	int wake_fd; /* eventfd; a read of it is always in the ring */
	uint64_t wake_value;
	char *buffer; /* SESSION_IO_MAX bytes */
	atomic_bool idle; /* to be woken for an answer */
	atomic_bool poor; /* has no entry */
	unsigned nr_entries; /* with the kernel, and the one that is being served */
	bool nudge; /* after the next submission */
	uint64_t held_file; /* the node of the file whose request we lost, to be answered later; 0: of none */
	int refused; /* by the kernel, what we registered or answered: why; it may be the end of the connection */
};

enum phase {
	STARTING,
	REGISTERING,
	STOPPING,
};

struct uring {
	struct mount *m;
	int fd; /* /dev/fuse */
	struct queue *queues;
	unsigned nr_queues;
	struct io_uring last; /* for what is answered after the workers have gone */
	bool has_last;

	_Atomic uint64_t file; /* the node of one that was opened or used last; 0: none yet */
	atomic_uint nr_nudges;
	atomic_uint phase;
	struct mutex lock; /* a leaf */
	pthread_cond_t reported;
	unsigned nr_reports; /* lock: workers that have done what the phase asks for */
	int error; /* lock: of one that could not */
	unsigned nr_entries; /* lock */
	_Atomic(struct entry *) entries[ENTRIES_MAX];
};

static inline struct uring_headers *
headers(const struct entry *e)
{
	return (struct uring_headers *)e->memory;
}

static inline char *
payload(const struct entry *e)
{
	return e->memory + URING_PAGE;
}

/* --- uring_entry.c --- */

/* A new entry of Q, which the kernel does not know yet; freed with all others. NULL: no memory, or too many. Any thread. */
struct entry *entry_new(struct queue *q);
void entries_free(struct uring *u);

/* What libfuse is to call the request UNIQUE of the kernel's, which is in E. */
uint64_t entry_number(const struct entry *e, uint64_t unique);

/* A submission for RING, all zeros. Sends what is there when there is no room. */
struct io_uring_sqe *entry_sqe(struct io_uring *ring);
/* Put a command for E into RING; it goes with the next submission. */
void entry_prepare(struct io_uring *ring, struct entry *e, enum uring_command command);
/* Put the answer IOV into E: a struct fuse_out_header, and what follows. */
void entry_fill(struct entry *e, const struct iovec *iov, int nr_iov);

/* The first of Q that another thread has answered, or NULL. Q->lock is held, or there are no other threads. */
struct entry *entry_take_answered_locked(struct queue *q);

/* This thread begins to serve request NUMBER, ends it: whether it has been answered, by this thread. */
void entry_serve_begin(uint64_t number);
bool entry_serve_end(void);

/* --- uring_worker.c --- */

/* Have W end its sleep. Any thread. */
void worker_wake(struct uring_worker *w);
/* The thread of W, a struct uring_worker. It reports once in STARTING, and once in REGISTERING. */
void *worker_run(void *w);

/* --- uring.c --- */

/* A worker has done what the phase asks for, or could not. */
void uring_report(struct uring *u, int error);
/* Have this thread run on processor NR. Fails for one that is offline or not given to us. */
int uring_pin(unsigned nr);

#endif
