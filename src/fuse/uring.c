/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "fuse/session.h"
#include "fuse/uring.h"
#include "fuse/uring_proto.h"
#include "util/msg.h"

#define PAGE 4096U
#define RING_ENTRIES 8U /* commands that are sent at once at most; more take more calls */
#define COMPLETIONS 64U

/*
 * Number of a request to libfuse: the entry's index + 1 above the kernel's own number, which cannot get so high in years.
 */
#define NUMBER_SHIFT 48
#define ENTRIES_MAX ((1U << 16) - 1)
#define NUDGE_UNIQUE (1ULL << (NUMBER_SHIFT - 1)) /* and what follows: of no request of the kernel's own */

/*
 * The memory of an entry. The kernel writes the headers to its beginning. For libfuse they are copied to just before the
 * payload, which stays where it is:
 *   [ struct uring_headers      struct fuse_in_header, first argument ][ payload ]
 *   0                                                                  PAGE
 */
#define ENTRY_BYTES (PAGE + SESSION_IO_MAX)
#define KEEP_BYTES (64U << 10) /* of the payload, for the next request */

struct entry {
	struct entry *next; /* in queue->answered */
	struct queue *queue;
	uint64_t index;
	char *memory;
	struct iovec iov[2]; /* headers and payload, as REGISTER has it */
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

	_Atomic uint64_t file; /* the node of one that was used last */
	atomic_uint nr_nudges;
	atomic_uint phase;
	struct mutex lock; /* a leaf */
	pthread_cond_t reported;
	unsigned nr_reports; /* lock: workers that have done what the phase asks for */
	int error; /* lock: of one that could not */
	unsigned nr_entries; /* lock */
	_Atomic(struct entry *) entries[ENTRIES_MAX];
};

/* What this thread serves. */
static __thread struct {
	uint64_t number; /* 0: nothing */
	bool answered;
} now;

/* --- entries --- */

static struct uring_headers *
headers(const struct entry *e)
{
	return (struct uring_headers *)e->memory;
}

static char *
payload(const struct entry *e)
{
	return e->memory + PAGE;
}

/* The kernel's number of the request that is or was in E. It has the same place in both headers. */
static uint64_t *
unique(const struct entry *e)
{
	return &((struct fuse_in_header *)headers(e)->in_out)->unique;
}

static uint64_t
number_of(const struct entry *e, uint64_t unique_of_it)
{
	return (unique_of_it & ((1ULL << NUMBER_SHIFT) - 1)) | (e->index + 1) << NUMBER_SHIFT;
}

static struct entry *
new_entry(struct queue *q)
{
	struct uring *u = q->u;
	struct entry *e = calloc(1, sizeof(*e));
	bool room;

	if (!e)
		return NULL;
	e->queue = q;
	e->memory = mmap(NULL, ENTRY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (e->memory == MAP_FAILED) {
		free(e);
		return NULL;
	}
	e->iov[0] = (struct iovec){headers(e), sizeof(struct uring_headers)};
	e->iov[1] = (struct iovec){payload(e), SESSION_IO_MAX};

	mutex_lock(&u->lock);
	room = u->nr_entries < ENTRIES_MAX;
	if (room) {
		e->index = u->nr_entries++;
		atomic_store(&u->entries[e->index], e);
	}
	mutex_unlock(&u->lock);
	if (!room) {
		munmap(e->memory, ENTRY_BYTES);
		free(e);
		return NULL;
	}
	return e;
}

static void
free_entries(struct uring *u)
{
	for (unsigned i = 0; i < u->nr_entries; i++) {
		struct entry *e = u->entries[i];

		munmap(e->memory, ENTRY_BYTES);
		free(e);
	}
}

/* --- commands --- */

static struct io_uring_sqe *
get_sqe(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	while (!sqe) {
		io_uring_submit(ring);
		sqe = io_uring_get_sqe(ring);
	}
	memset(sqe, 0, 2 * sizeof(*sqe)); /* they are of 128 bytes */
	return sqe;
}

/* Put a command for E into RING; it goes with the next submission. */
static void
prepare(struct io_uring *ring, struct entry *e, enum uring_command command)
{
	struct io_uring_sqe *sqe = get_sqe(ring);
	struct uring_command_args *args = (void *)sqe->cmd;

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = e->queue->u->fd;
	sqe->cmd_op = command;
	sqe->user_data = (uintptr_t)e;
	args->queue = (uint16_t)e->queue->nr;
	if (command == URING_REGISTER) {
		sqe->addr = (uintptr_t)e->iov;
		sqe->len = 2;
	} else {
		args->commit_id = headers(e)->commit_id;
	}
}

static void
prepare_wake(struct uring_worker *w)
{
	struct io_uring_sqe *sqe = get_sqe(&w->ring);

	io_uring_prep_read(sqe, w->wake_fd, &w->wake_value, sizeof(w->wake_value), 0);
	sqe->user_data = 0;
}

static void
wake(struct uring_worker *w)
{
	uint64_t one = 1;
	ssize_t r;

	do
		r = write(w->wake_fd, &one, sizeof(one));
	while (r < 0 && errno == EINTR);
}

/* --- answers --- */

/* A worker to send off what was answered: better one that has nothing else to do. */
static bool
wake_idle(struct queue *q, bool poor)
{
	for (unsigned i = 0; i < q->nr_workers; i++) {
		struct uring_worker *w = &q->workers[i];

		if (atomic_load(&w->poor) == poor && atomic_load(&w->idle) &&
		    atomic_exchange(&w->idle, false)) {
			wake(w);
			return true;
		}
	}
	return false;
}

/* If all are busy, the first that is not will see it. */
static void
hand_over(struct entry *e)
{
	struct queue *q = e->queue;

	e->next = NULL;
	mutex_lock(&q->lock);
	*q->last = e;
	q->last = &e->next;
	atomic_fetch_add(&q->nr_answered, 1);
	mutex_unlock(&q->lock);
	if (!wake_idle(q, true))
		wake_idle(q, false);
}

static struct entry *
take_answered_locked(struct queue *q)
{
	struct entry *e = q->answered;

	if (!e)
		return NULL;
	q->answered = e->next;
	if (!q->answered)
		q->last = &q->answered;
	atomic_fetch_sub(&q->nr_answered, 1);
	return e;
}

static void
fill(struct entry *e, const struct iovec *iov, int nr_iov)
{
	struct uring_headers *h = headers(e);
	struct fuse_out_header *out = (void *)h->in_out;
	size_t len = 0;

	out->error = ((const struct fuse_out_header *)iov[0].iov_base)->error;
	for (int i = 1; i < nr_iov; i++) {
		if (len + iov[i].iov_len > SESSION_IO_MAX) {
			out->error = -EIO; /* not ours: no answer is so long */
			len = 0;
			break;
		}
		if (iov[i].iov_base != payload(e) + len)
			memmove(payload(e) + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	out->len = (uint32_t)(sizeof(*out) + len);
	h->payload_bytes = (uint32_t)len;
}

bool
uring_reply(struct uring *u, const struct iovec *iov, int nr_iov)
{
	const struct fuse_out_header *head = iov[0].iov_base;
	uint64_t index = head->unique >> NUMBER_SHIFT;
	struct entry *e;

	if (index == 0)
		return false;
	e = atomic_load(&u->entries[index - 1]);
	if (!e || number_of(e, *unique(e)) != head->unique)
		return false;
	if (now.number == head->unique) {
		fill(e, iov, nr_iov);
		now.answered = true;
		return true;
	}
	/* The entry may be one too many from now on. */
	if (headers(e)->payload_bytes > KEEP_BYTES)
		madvise(payload(e) + KEEP_BYTES, SESSION_IO_MAX - KEEP_BYTES, MADV_DONTNEED);
	fill(e, iov, nr_iov);
	hand_over(e);
	return true;
}

uint64_t
uring_number(struct uring *u, uint64_t wanted)
{
	unsigned nr;

	mutex_lock(&u->lock);
	nr = u->nr_entries;
	mutex_unlock(&u->lock);
	for (unsigned i = 0; i < nr; i++) {
		struct entry *e = atomic_load(&u->entries[i]);

		if (__atomic_load_n(unique(e), __ATOMIC_RELAXED) == wanted)
			return number_of(e, wanted);
	}
	return wanted;
}

/* --- workers --- */

/* Have this thread run on processor NR. Fails for one that is offline or not given to us. */
static int
pin(unsigned nr)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(nr, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

/*
 * The kernel gives what is queued to an entry that commits, but not to one that is registered. So when the entries ran
 * out, and all that were in use are held, their requests waiting, those queued behind them would never be seen. Hence after
 * a REGISTER we ask for a request that means nothing, which gets the new entry and is committed: the reply to an
 * empty RETRIEVE of a file (the kernel refuses directories): the one that was used last. It
 * goes to the queue of the processor that we run on, which for that moment must be this queue's.
 */
static void
nudge(struct uring_worker *w)
{
	struct uring *u = w->queue->u;
	struct {
		struct fuse_out_header head;
		struct fuse_notify_retrieve_out out;
	} message = {
		.head = {.len = sizeof(message), .error = FUSE_NOTIFY_RETRIEVE},
		.out = {
			.notify_unique = NUDGE_UNIQUE + 2 * atomic_fetch_add(&u->nr_nudges, 1),
			.nodeid = atomic_load(&u->file),
		},
	};

	cpu_set_t usual;
	int r;

	w->nudge = false;
	r = -pthread_getaffinity_np(pthread_self(), sizeof(usual), &usual);
	if (!r)
		r = pin(w->queue->nr);
	if (r)
		return; /* offline: nobody runs there who could queue anything */
	if (write(u->fd, &message, sizeof(message)) < 0 && errno != ENOTCONN && errno != ENODEV)
		msg_warn("the kernel may not give us some requests over io_uring: %s", strerror(errno));
	pthread_setaffinity_np(pthread_self(), sizeof(usual), &usual);
}

/* Have libfuse dispatch the request in E. Whether it is answered; else E is another thread's by now. */
static bool
dispatch(struct uring_worker *w, struct entry *e)
{
	struct uring_headers *h = headers(e);
	struct fuse_in_header *in = (struct fuse_in_header *)h->in_out;
	size_t first = in->len - sizeof(*in) - h->payload_bytes; /* bytes of the first argument */
	struct fuse_buf buf = {.size = in->len};

	if (in->opcode == FUSE_NOTIFY_REPLY || h->payload_bytes > SESSION_IO_MAX ||
	    first > sizeof(h->op_in)) {
		struct fuse_out_header out = {.error = in->opcode == FUSE_NOTIFY_REPLY ? 0 : -EIO};
		struct iovec iov = {&out, sizeof(out)};

		fill(e, &iov, 1);
		return true;
	}
	buf.mem = payload(e) - first - sizeof(*in);
	memcpy(buf.mem, in, sizeof(*in));
	memcpy(payload(e) - first, h->op_in, first);
	if (in->opcode == FUSE_WRITE || in->opcode == FUSE_READ || in->opcode == FUSE_FSYNC)
		atomic_store_explicit(&w->queue->u->file, in->nodeid, memory_order_relaxed);
	in = buf.mem;
	in->unique = number_of(e, in->unique);
	now.number = in->unique;
	now.answered = false;
	session_set_buffer(h->payload_bytes ? w->buffer : payload(e));
	fuse_session_process_buf(w->queue->u->m->se, &buf);
	now.number = 0;
	return now.answered;
}

/*
 * W has no entry. Get it one that was answered, or a new one if fewer than WANTED workers have one. If it gets neither,
 * it waits for the former.
 */
static void
get_entry(struct uring_worker *w, unsigned wanted)
{
	struct queue *q = w->queue;
	enum uring_command command = URING_COMMIT;
	struct entry *e;
	bool needed;

	mutex_lock(&q->lock);
	e = take_answered_locked(q);
	needed = !e && !w->refused && q->nr_serving < wanted;
	mutex_unlock(&q->lock);
	if (needed) {
		e = new_entry(q);
		command = URING_REGISTER;
	}
	atomic_store(&w->poor, e == NULL);
	if (!e)
		return;
	prepare(&w->ring, e, command);
	w->nudge = command == URING_REGISTER;
	w->nr_entries++;
	mutex_lock(&q->lock);
	q->nr_serving++;
	mutex_unlock(&q->lock);
}

static unsigned
enough_workers(const struct queue *q)
{
	return (q->nr_workers + 1) / 2;
}

static void
lose_entry(struct uring_worker *w)
{
	if (--w->nr_entries)
		return;
	mutex_lock(&w->queue->lock);
	w->queue->nr_serving--;
	mutex_unlock(&w->queue->lock);
	get_entry(w, enough_workers(w->queue));
}

/* Send off what others have answered. */
static void
send_answered(struct uring_worker *w)
{
	struct queue *q = w->queue;
	struct entry *e;

	while (atomic_load(&q->nr_answered)) {
		if (w->nr_entries == 0) {
			get_entry(w, enough_workers(q));
			continue;
		}
		mutex_lock(&q->lock);
		e = take_answered_locked(q);
		mutex_unlock(&q->lock);
		if (!e)
			break;
		prepare(&w->ring, e, URING_COMMIT);
		w->nr_entries++;
	}
}

static void
complete(struct uring_worker *w, struct entry *e, int result)
{
	if (!e) {
		prepare_wake(w);
	} else if (result) {
		w->refused = result;
		lose_entry(w);
	} else if (dispatch(w, e)) {
		prepare(&w->ring, e, URING_COMMIT);
		if (io_uring_cq_ready(&w->ring))
			io_uring_submit(&w->ring); /* others need not wait for the next request */
	} else {
		lose_entry(w);
	}
}

static void
serve_completions(struct uring_worker *w)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&w->ring, &cqe) == 0) {
		struct entry *e = (struct entry *)(uintptr_t)cqe->user_data;
		int result = cqe->res;

		io_uring_cqe_seen(&w->ring, cqe);
		complete(w, e, result);
	}
}

static void
report(struct uring *u, int error)
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

static void
wait_for_work(struct uring_worker *w)
{
	if (w->nudge) {
		io_uring_submit(&w->ring);
		nudge(w);
	}
	atomic_store(&w->idle, true);
	/* After this whoever answers sees us idle; what was answered before, we see. */
	if (atomic_load(&w->queue->nr_answered) == 0)
		io_uring_submit_and_wait(&w->ring, 1);
	atomic_store(&w->idle, false);
}

static void *
worker_run(void *arg)
{
	struct uring_worker *w = arg;
	struct uring *u = w->queue->u;
	char name[16];
	int r;

	snprintf(name, sizeof(name), "thinfs-%u.%u", w->queue->nr, w->index);
	pthread_setname_np(pthread_self(), name);
	/* liburing 2.3 does not export io_uring_enable_rings(). */
	r = io_uring_register((unsigned)w->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (!r) {
		prepare_wake(w);
		r = io_uring_submit(&w->ring);
		r = r < 0 ? r : 0;
	}
	report(u, r);
	while (!r && atomic_load(&u->phase) == STARTING) {
		io_uring_submit_and_wait(&w->ring, 1);
		serve_completions(w);
	}
	if (!r && atomic_load(&u->phase) == REGISTERING) {
		get_entry(w, w->queue->nr_workers);
		io_uring_submit(&w->ring);
		w->nudge = false; /* nothing is queued before all queues are ready */
		serve_completions(w);
		report(u, w->nr_entries ? 0 : w->refused ? w->refused : -ENOMEM);
	}
	while (!r && atomic_load(&u->phase) != STOPPING) {
		serve_completions(w);
		send_answered(w);
		wait_for_work(w);
	}
	io_uring_submit(&w->ring);
	return NULL;
}

/* --- the whole --- */

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
	/* The thread that enables it is the one that uses it. */
	int r = make_ring(&w->ring, IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
					    IORING_SETUP_DEFER_TASKRUN);

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

int
uring_create(struct mount *m, unsigned threads, struct uring **out)
{
	struct uring *u = calloc(1, sizeof(*u));
	unsigned nr = (unsigned)get_nprocs_conf();
	int r;

	if (!u)
		return -ENOMEM;
	u->m = m;
	mutex_init(&u->lock, "uring->lock", LOCK_LEAF);
	pthread_cond_init(&u->reported, NULL);
	u->queues = calloc(nr, sizeof(*u->queues));
	r = u->queues ? make_ring(&u->last, 0) : -ENOMEM;
	u->has_last = !r;
	while (!r && u->nr_queues < nr) {
		r = make_queue(&u->queues[u->nr_queues], u, u->nr_queues, threads);
		u->nr_queues++;
	}
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
			wake(&u->queues[i].workers[k]);
	}
	return n ? wait_reports(u, n) : 0;
}

/* Others may run where we may not: we could not nudge the queue of such a processor. */
static bool
may_run_everywhere(const struct uring *u)
{
	unsigned nr = 0;
	cpu_set_t usual;

	if (pthread_getaffinity_np(pthread_self(), sizeof(usual), &usual))
		return false;
	for (unsigned i = 0; i < u->nr_queues; i++)
		nr += pin(u->queues[i].nr) == 0;
	pthread_setaffinity_np(pthread_self(), sizeof(usual), &usual);
	return nr >= (unsigned)get_nprocs();
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

int
uring_start(struct uring *u)
{
	int r = may_run_everywhere(u) ? 0 : -ENXIO, failed;

	u->fd = fuse_session_fd(u->m->se);
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

int
uring_register(struct uring *u)
{
	return begin(u, REGISTERING, nr_threads(u));
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

	while ((e = take_answered_locked(q)) != NULL) {
		prepare(ring, e, URING_COMMIT);
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
	free_entries(u);
	free(u->queues);
	mutex_destroy(&u->lock);
	pthread_cond_destroy(&u->reported);
	free(u);
}
