/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "fuse/uring_internal.h"

#define RING_ENTRIES 8U /* commands that are sent at once at most; more take more calls */
#define COMPLETIONS 64U
#define POSSIBLE "/sys/devices/system/cpu/possible" /* where get_nprocs_conf() looks */

int
uring_pin(unsigned nr)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(nr, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

void
uring_report(struct uring *u, int error)
{
	mutex_lock(&u->lock);
	u->nr_reports++;
	if (error)
		u->error = error;
	pthread_cond_signal(&u->reported);
	mutex_unlock(&u->lock);
}

/* Wait for N reports of the present phase. */
static int
wait_reports(struct uring *u, unsigned n)
{
	int r;

	mutex_lock(&u->lock);
	while (u->nr_reports < n)
		cond_wait(&u->reported, &u->lock);
	r = u->error;
	u->nr_reports = 0;
	mutex_unlock(&u->lock);
	return r;
}

static int
make_ring(struct io_uring *ring, unsigned flags)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_CQSIZE | flags,
		.cq_entries = COMPLETIONS,
	};

	return io_uring_queue_init_params(RING_ENTRIES, ring, &params);
}

static int
make_worker(struct uring_worker *w)
{
	/* The thread that enables it is the one that uses it. It can see whether there is something for it: look_for_work(). */
	int r = make_ring(&w->ring, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
					    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG);

	if (r)
		return r;
	w->has_ring = true;
	w->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (w->wake_fd < 0)
		return -errno;
	w->buffer = mmap(NULL, SESSION_IO_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return w->buffer == MAP_FAILED ? -ENOMEM : 0;
}

static int
make_queue(struct queue *q, struct uring *u, unsigned nr, unsigned nr_workers)
{
	*q = (struct queue){.u = u, .nr = nr, .last = &q->answered};
	mutex_init(&q->lock, "a queue of answers", LOCK_LEAF);
	q->workers = calloc(nr_workers, sizeof(*q->workers));
	if (!q->workers)
		return -ENOMEM;
	for (unsigned i = 0; i < nr_workers; i++) {
		struct uring_worker *w = &q->workers[i];
		int r;

		*w = (struct uring_worker){
			.queue = q, .index = i, .wake_fd = -1, .buffer = MAP_FAILED};
		q->nr_workers++;
		r = make_worker(w);
		if (r)
			return r;
	}
	return 0;
}

/* Of NR processors, those that we may run on. */
static unsigned
usable_processors(unsigned nr, bool *usable)
{
	unsigned n = 0;
	cpu_set_t usual;

	if (pthread_getaffinity_np(pthread_self(), sizeof(usual), &usual))
		return 0;
	for (unsigned i = 0; i < nr; i++) {
		usable[i] = uring_pin(i) == 0;
		n += usable[i];
	}
	pthread_setaffinity_np(pthread_self(), sizeof(usual), &usual);
	return n;
}

/* Two descriptors for each of many threads may be more than programs get if they do not ask. */
static void
allow_descriptors(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

/*
 * Processors, also those that may come; 0: nobody knows. Where /sys is hidden, the C library counts those that are
 * online. The kernel would wait for the queues of the others, and hold back all requests.
 */
static unsigned
possible_processors(void)
{
	return access(POSSIBLE, R_OK) ? 0 : (unsigned)get_nprocs_conf();
}

/*
 * A processor that may come has one worker for the time being: there may be hundreds of them. Others may run where
 * we may not: we could not nudge the queue of such a one.
 */
static int
make_queues(struct uring *u, unsigned nr, unsigned threads)
{
	bool *usable = calloc(nr, sizeof(*usable));
	int r = 0;

	u->queues = calloc(nr, sizeof(*u->queues));
	if (!usable || !u->queues)
		r = -ENOMEM;
	else if (nr == 0 || usable_processors(nr, usable) < (unsigned)get_nprocs())
		r = -ENXIO;
	while (!r && u->nr_queues < nr) {
		unsigned i = u->nr_queues++;

		r = make_queue(&u->queues[i], u, i, usable[i] ? threads : 1);
	}
	free(usable);
	return r;
}

int
uring_create(struct mount *m, unsigned threads, struct uring **out)
{
	struct uring *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	u->m = m;
	mutex_init(&u->lock, "uring->lock", LOCK_LEAF);
	pthread_cond_init(&u->reported, NULL);
	allow_descriptors();
	r = make_ring(&u->last, 0);
	u->has_last = !r;
	if (!r)
		r = make_queues(u, possible_processors(), threads);
	if (r)
		uring_destroy(u);
	else
		*out = u;
	return r;
}

/* Begin PHASE, in which N workers report. */
static int
begin(struct uring *u, enum phase phase, unsigned n)
{
	atomic_store(&u->phase, phase);
	for (unsigned i = 0; i < u->nr_queues; i++) {
		for (unsigned k = 0; k < u->queues[i].nr_workers; k++)
			worker_wake(&u->queues[i].workers[k]);
	}
	return n ? wait_reports(u, n) : 0;
}

static unsigned
nr_threads(const struct uring *u)
{
	unsigned n = 0;

	for (unsigned i = 0; i < u->nr_queues; i++) {
		for (unsigned k = 0; k < u->queues[i].nr_workers; k++)
			n += u->queues[i].workers[k].has_thread;
	}
	return n;
}

/* Each command would else count itself in and out of the one file that all processors use. */
static int
register_device(struct uring *u)
{
	int r = io_uring_register_files(&u->last, &u->fd, 1);

	for (unsigned i = 0; i < u->nr_queues && !r; i++) {
		for (unsigned k = 0; k < u->queues[i].nr_workers && !r; k++)
			r = io_uring_register_files(&u->queues[i].workers[k].ring, &u->fd, 1);
	}
	return r;
}

int
uring_start(struct uring *u)
{
	int r, failed;

	u->fd = fuse_session_fd(u->m->se);
	r = register_device(u);
	for (unsigned i = 0; i < u->nr_queues && !r; i++) {
		for (unsigned k = 0; k < u->queues[i].nr_workers && !r; k++) {
			struct uring_worker *w = &u->queues[i].workers[k];

			r = -pthread_create(&w->thread, NULL, worker_run, w);
			w->has_thread = !r;
		}
	}
	failed = wait_reports(u, nr_threads(u));
	if (!r)
		r = failed;
	if (r)
		uring_stop(u);
	return r;
}

/*
 * Since INIT the kernel holds all requests back until each queue has an entry, or until it had to refuse one. What
 * failed on our side it does not know: have it refuse one, of a queue that there is not.
 */
static void
decline(struct uring *u)
{
	struct queue none = {.u = u, .nr = UINT16_MAX};
	struct entry e = {.queue = &none};

	entry_prepare(&u->last, &e, URING_REGISTER);
	io_uring_submit(&u->last);
}

int
uring_register(struct uring *u)
{
	int r = begin(u, REGISTERING, nr_threads(u));

	for (unsigned i = 0; i < u->nr_queues; i++) {
		unsigned nr;

		mutex_lock(&u->queues[i].lock);
		nr = u->queues[i].nr_serving;
		mutex_unlock(&u->queues[i].lock);
		if (nr == 0) {
			decline(u);
			return r ? r : -ENOMEM;
		}
	}
	return 0;
}

void
uring_stop(struct uring *u)
{
	begin(u, STOPPING, 0);
	for (unsigned i = 0; i < u->nr_queues; i++) {
		for (unsigned k = 0; k < u->queues[i].nr_workers; k++) {
			struct uring_worker *w = &u->queues[i].workers[k];

			if (w->has_thread)
				pthread_join(w->thread, NULL);
			w->has_thread = false;
		}
	}
}

static void
free_queue(struct queue *q)
{
	struct io_uring *ring = &q->u->last;
	struct entry *e;

	while ((e = entry_take_answered_locked(q)) != NULL) {
		entry_prepare(ring, e, URING_COMMIT);
		io_uring_submit(ring);
	}
	for (unsigned i = 0; i < q->nr_workers; i++) {
		struct uring_worker *w = &q->workers[i];

		if (w->has_ring)
			io_uring_queue_exit(&w->ring);
		if (w->wake_fd >= 0)
			close(w->wake_fd);
		if (w->buffer != MAP_FAILED)
			munmap(w->buffer, SESSION_IO_MAX);
	}
	free(q->workers);
	mutex_destroy(&q->lock);
}

void
uring_destroy(struct uring *u)
{
	if (!u)
		return;
	for (unsigned i = 0; i < u->nr_queues; i++)
		free_queue(&u->queues[i]);
	if (u->has_last)
		io_uring_queue_exit(&u->last);
	entries_free(u);
	free(u->queues);
	mutex_destroy(&u->lock);
	pthread_cond_destroy(&u->reported);
	free(u);
}
