/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "fuse/session.h"
#include "fuse/transport.h"
#include "fuse/uring.h"

/* Of newer kernels than the header: shared mmap of files that are opened with FOPEN_DIRECT_IO. */
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif

#define WRITE_HEADER (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define PAGE 4096U
#define RECEIVE_BYTES (SESSION_IO_MAX + PAGE) /* what libfuse asks for: header and payload */
#define KICK_SIGNAL SIGUSR2

/*
 * One mapping per worker, never freed while it runs:
 *   [ buffer for READ, 1 MiB ][ page: its last 80 bytes begin a request ][ payload, 1 MiB ][ page ]
 */
#define WORKER_BYTES (SESSION_IO_MAX + PAGE + SESSION_IO_MAX + PAGE)

struct worker {
	struct mount *m;
	pthread_t thread;
	char *memory;
	unsigned index;
};

static __thread char *worker_memory;

void *
session_buffer(void)
{
	return worker_memory;
}

void
session_set_buffer(void *buffer)
{
	worker_memory = buffer;
}

void
session_wake(struct mount *m)
{
	while (eventfd_write(m->wake_fd, 1) && errno == EINTR)
		;
}

void
session_async_begin(struct mount *m)
{
	mutex_lock(&m->lock);
	m->nr_async++;
	mutex_unlock(&m->lock);
}

void
session_async_end(struct mount *m)
{
	mutex_lock(&m->lock);
	if (--m->nr_async == 0)
		pthread_cond_broadcast(&m->idle);
	mutex_unlock(&m->lock);
}

void
session_async_wait(struct mount *m)
{
	mutex_lock(&m->lock);
	while (m->nr_async)
		cond_wait(&m->idle, &m->lock);
	mutex_unlock(&m->lock);
}

/* --- what libfuse reads and writes passes here --- */

static void
see_init(struct mount *m, const void *buf, size_t len)
{
	const struct fuse_in_header *head = buf;
	const struct fuse_init_in *in = (const void *)(head + 1);

	if (len < sizeof(*head) + offsetof(struct fuse_init_in, unused) ||
	    head->opcode != FUSE_INIT)
		return;
	m->init_unique = head->unique;
	m->init_flags = in->flags;
	if (in->flags & FUSE_INIT_EXT)
		m->init_flags |= (uint64_t)in->flags2 << 32;
}

/*
 * Ask for what libfuse 3.14 has no name for:
 * - shared mmap together with direct I/O;
 * - HANDLE_KILLPRIV_V2: no file here ever has a set-id bit, so there is nothing to take away at a write. Without
 *   it, the kernel asks for an extended attribute before each write that goes through its page cache.
 */
static void
amend_init_reply(struct mount *m, struct iovec *iov, int nr_iov)
{
	struct fuse_init_out *out;

	if (nr_iov < 2 || iov[1].iov_len < sizeof(*out))
		return;
	out = iov[1].iov_base;
	out->flags |= m->init_flags & FUSE_HANDLE_KILLPRIV_V2;
	if (m->init_flags & FUSE_INIT_EXT) {
		uint64_t more = (m->init_flags & FUSE_DIRECT_IO_ALLOW_MMAP) |
				transport_init_flags(m, m->init_flags);

		out->flags |= FUSE_INIT_EXT;
		out->flags2 |= (uint32_t)(more >> 32);
	}
}

/* What is to be interrupted may have come over a ring. */
static void
see_interrupt(struct mount *m, void *buf, size_t len)
{
	struct fuse_in_header *head = buf;
	struct fuse_interrupt_in *in = (void *)(head + 1);

	if (len >= sizeof(*head) + sizeof(*in) && head->opcode == FUSE_INTERRUPT)
		in->unique = uring_interrupt(m->uring, in->unique);
}

static ssize_t
session_read(int fd, void *buf, size_t len, void *userdata)
{
	struct mount *m = userdata;
	ssize_t r = read(fd, buf, len < RECEIVE_BYTES ? len : RECEIVE_BYTES);

	if (r > 0 && !atomic_load_explicit(&m->ready, memory_order_relaxed))
		see_init(m, buf, r);
	if (r > 0 && m->uring)
		see_interrupt(m, buf, r);
	return r;
}

static ssize_t
session_writev(int fd, struct iovec *iov, int nr_iov, void *userdata)
{
	struct mount *m = userdata;
	const struct fuse_out_header *head = iov[0].iov_base;
	bool init = false;
	ssize_t r;

	if (m->uring && uring_reply(m->uring, iov, nr_iov))
		return head->len;
	if (!atomic_load_explicit(&m->ready, memory_order_relaxed)) {
		init = m->init_unique && head->unique == m->init_unique && head->error == 0;
		if (init)
			amend_init_reply(m, iov, nr_iov);
	}
	do
		r = writev(fd, iov, nr_iov);
	while (r < 0 && errno == EINTR);
	if (init && r > 0) {
		atomic_store(&m->ready, true);
		session_wake(m);
	}
	return r;
}

static void
on_kick(int sig)
{
	(void)sig; /* only there to interrupt a read */
}

int
session_attach(struct mount *m)
{
	static const struct fuse_custom_io io = {
		.read = session_read,
		.writev = session_writev,
	};

	struct sigaction kick = {.sa_handler = on_kick};

	sigaction(KICK_SIGNAL, &kick, NULL);
	return fuse_session_custom_io(m->se, &io, fuse_session_fd(m->se));
}

/* --- workers --- */

static void *
worker_run(void *arg)
{
	struct worker *w = arg;
	struct mount *m = w->m;
	struct fuse_buf buf = {0};
	char name[16];

	snprintf(name, sizeof(name), "thinfs-%u", w->index);
	pthread_setname_np(pthread_self(), name);
	worker_memory = w->memory;

	while (!fuse_session_exited(m->se)) {
		int r;

		buf.mem = w->memory + SESSION_IO_MAX + PAGE - WRITE_HEADER;
		r = fuse_session_receive_buf(m->se, &buf);
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r <= 0)
			break;
		fuse_session_process_buf(m->se, &buf);
	}
	fuse_session_exit(m->se);
	atomic_store(&m->ended, true);
	session_wake(m);
	return NULL;
}

int
session_start(struct mount *m, unsigned nr)
{
	int r = 0;

	if (!m->workers)
		m->workers = calloc(m->max_workers, sizeof(*m->workers));
	if (!m->workers)
		return -ENOMEM;
	for (; m->nr_workers < nr; m->nr_workers++) {
		struct worker *w = &m->workers[m->nr_workers];

		*w = (struct worker){.m = m, .index = m->nr_workers};
		w->memory = mmap(NULL, WORKER_BYTES, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (w->memory == MAP_FAILED) {
			r = -ENOMEM;
			break;
		}
		r = -pthread_create(&w->thread, NULL, worker_run, w);
		if (r) {
			munmap(w->memory, WORKER_BYTES);
			break;
		}
	}
	return r;
}

/*
 * A worker may be about to read when the signal comes and not be interrupted by it: so it is
 * sent until the worker has gone.
 */
static void
end_worker(struct worker *w)
{
	for (;;) {
		struct timespec until;

		pthread_kill(w->thread, KICK_SIGNAL);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 10 * 1000 * 1000;
		if (until.tv_nsec >= 1000 * 1000 * 1000) {
			until.tv_nsec -= 1000 * 1000 * 1000;
			until.tv_sec++;
		}
		if (pthread_timedjoin_np(w->thread, NULL, &until) == 0)
			return;
	}
}

void
session_stop(struct mount *m)
{
	fuse_session_exit(m->se);
	for (unsigned i = 0; i < m->nr_workers; i++) {
		end_worker(&m->workers[i]);
		munmap(m->workers[i].memory, WORKER_BYTES);
	}
	free(m->workers);
	m->workers = NULL;
	m->nr_workers = 0;
}
