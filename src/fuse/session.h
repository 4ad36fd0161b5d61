/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session: a mount while it is served, and the threads that serve it.
 *
 * The threads get requests from /dev/fuse themselves, or over io_uring (transport.h), and give them to libfuse to
 * dispatch, each in memory that is placed so that the payload of a WRITE lies on a page boundary.
 *
 * Threads of a mount:
 *   main      signals, the end (mount.c)
 *   workers   requests (session.c, ops_*.c); never wait for a commit, nor for the kernel
 *   jobs      what must wait for the kernel: snapshots (snapshot.c)
 *   parked    writes that wait for space (parked.c)
 *   shrinker  while the pool is being shrunk (shrinker.c)
 */
#ifndef THINFS_FUSE_SESSION_H
#define THINFS_FUSE_SESSION_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "fuse/inode.h"
#include "fuse/unmounter.h"
#include "fuse/transport.h"
#include "pool/pool.h"
#include "util/lock.h"

#define SESSION_IO_MAX (1U << 20) /* bytes of the largest READ or WRITE */

struct dir_handle;
struct jobs;
struct parked;
struct shrinker;
struct uring;
struct worker;

struct mount {
	struct pool *pool;
	struct fuse_session *se;
	const char *data_path, *meta_path, *dir;
	bool page_cache; /* no FOPEN_DIRECT_IO */
	bool writeback; /* the kernel may hold writes that returned */
	bool read_only;
	uid_t uid; /* who mounted: owns the top and .snapshots */
	gid_t gid;
	unsigned dev_major, dev_minor; /* of the mounted filesystem; 0: not known */
	uint64_t block_bytes;
	struct timespec mounted_at;

	struct inode_table inodes;
	struct jobs *jobs;
	struct parked *parked;
	struct shrinker *shrinker;

	struct worker *workers; /* that read /dev/fuse: room for max_workers */
	unsigned nr_workers, max_workers;

	enum transport transport_wanted;
	atomic_uint transport; /* enum transport; AUTO: not settled yet */
	struct uring *uring; /* NULL: none. Set while there is one thread */
	unsigned uring_threads; /* for each processor */

	struct unmounter unmounter; /* the main thread */

	int wake_fd; /* eventfd that the main thread watches */
	atomic_bool ready; /* the kernel has the answer to INIT */
	atomic_bool ended; /* a worker saw the end of the session */
	atomic_bool shutdown; /* asked to leave at once */
	atomic_bool leave_when_idle; /* asked to leave at the last close */

	uint64_t init_unique; /* of INIT, and the flags that the kernel offered in it */
	uint64_t init_flags;

	struct mutex lock;
	pthread_cond_t idle; /* nr_async has become 0 */
	unsigned nr_async; /* lock: requests whose answer comes from a thread of the pool */
	struct dir_handle *dir_handles; /* lock: all that are open */
};

static inline struct mount *
session_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/*
 * Have the threads of M read and write the session's device through this file. 0 or negative errno.
 */
int session_attach(struct mount *m);
/* Start workers until there are NR, of m->max_workers at most; 0 or negative errno. */
int session_start(struct mount *m, unsigned nr);
/* End all workers, also those that wait for a request, and free them. */
void session_stop(struct mount *m);

/*
 * The calling worker's buffer of SESSION_IO_MAX bytes, page-aligned. A request that is not answered at once may not
 * use it any more after its handler.
 */
void *session_buffer(void);
void session_set_buffer(void *buffer);

/* Have the main thread look at the flags of M. */
void session_wake(struct mount *m);

/* Count a request that a thread of the pool will answer, and its answer. */
void session_async_begin(struct mount *m);
void session_async_end(struct mount *m);
void session_async_wait(struct mount *m);

#endif
