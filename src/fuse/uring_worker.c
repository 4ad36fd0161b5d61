/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Workers: each serves the requests of a ring. */
#include <config.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "fuse/uring_internal.h"
#include "util/clock.h"
#include "util/msg.h"

#define NUDGE_UNIQUE (1ULL << 47) /* and what follows: of no request of the kernel's own, nor what libfuse calls one */

#define LOOK_NS 3000 /* nanoseconds: look_for_work() */

static void
prepare_wake(struct uring_worker *w)
{
	struct io_uring_sqe *sqe = entry_sqe(&w->ring);

	io_uring_prep_read(sqe, w->wake_fd, &w->wake_value, sizeof(w->wake_value), 0);
	sqe->user_data = 0;
}

void
worker_wake(struct uring_worker *w)
{
	while (eventfd_write(w->wake_fd, 1) && errno == EINTR)
		;
}

/*
 * The kernel gives what is queued to an entry that commits, but not to one that is registered. So when the entries ran
 * out, and all that were in use are held, their requests waiting, those queued behind them would never be seen. Hence after
 * a REGISTER we ask for a request that means nothing, which gets the new entry and is committed: the reply to an
 * empty RETRIEVE of a file (the kernel refuses directories). The file of the request that we lost will do: while it is
 * not answered the kernel knows it, and its answer does what the nudge does. Else the one that was used last. It
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
			.nodeid = w->held_file ? w->held_file : atomic_load(&u->file),
		},
	};
	cpu_set_t usual;
	int r;

	w->nudge = false;
	w->held_file = 0;
	r = -pthread_getaffinity_np(pthread_self(), sizeof(usual), &usual);
	if (!r)
		r = uring_pin(w->queue->nr);
	if (r)
		return; /* offline: nobody runs there who could queue anything */
	/* ENOENT: the kernel knows no file, or no more; then none waits to be written back. */
	if (write(u->fd, &message, sizeof(message)) < 0 && errno != ENOTCONN && errno != ENODEV && errno != ENOENT)
		msg_warn("the kernel may not give us some requests over io_uring: %s", strerror(errno));
	pthread_setaffinity_np(pthread_self(), sizeof(usual), &usual);
}

/* The node of the file that a request is about; 0: of none, or nobody knows. */
static uint64_t
file_of(const struct fuse_in_header *in)
{
	switch (in->opcode) {
	case FUSE_OPEN:
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FSYNC:
	case FUSE_FALLOCATE:
	case FUSE_LSEEK:
	case FUSE_COPY_FILE_RANGE:
		return in->nodeid;
	default:
		return 0;
	}
}

/* Keep for nudge() what file may be used: FILE, or one that the request made whose answer is in E. */
static void
note_file(struct uring *u, struct entry *e, uint32_t opcode, uint64_t file)
{
	const struct fuse_out_header *out = (void *)headers(e)->in_out;

	if (opcode == FUSE_CREATE && out->error == 0)
		file = ((const struct fuse_entry_out *)payload(e))->nodeid;
	/* It rarely changes, and others read it. */
	if (file && atomic_load_explicit(&u->file, memory_order_relaxed) != file)
		atomic_store_explicit(&u->file, file, memory_order_relaxed);
}

/*
 * An INTERRUPT comes over /dev/fuse, and may be there before libfuse has been given the request UNIQUE, which lay in E.
 * libfuse then forgets it at the next request, and the kernel does not repeat it. So tell libfuse again.
 */
static void
repeat_interrupt(struct uring *u, struct entry *e, uint64_t unique)
{
	struct {
		struct fuse_in_header head;
		struct fuse_interrupt_in in;
	} message = {
		.head = {.len = sizeof(message), .opcode = FUSE_INTERRUPT, .unique = unique | 1},
		.in = {.unique = entry_number(e, unique)},
	};
	struct fuse_buf buf = {.size = sizeof(message), .mem = &message};

	if (atomic_load(&e->interrupted) == unique)
		fuse_session_process_buf(u->m->se, &buf);
}

/* Have libfuse dispatch the request in E. Whether it is answered; else E is another thread's by now. */
static bool
dispatch(struct uring_worker *w, struct entry *e)
{
	struct uring_headers *h = headers(e);
	struct fuse_in_header *in = (struct fuse_in_header *)h->in_out;
	size_t first = in->len - sizeof(*in) - h->payload_bytes; /* bytes of the first argument */
	struct fuse_buf buf = {.size = in->len};
	uint64_t unique = in->unique;
	uint32_t opcode = in->opcode;
	uint64_t file = file_of(in);

	if (in->opcode == FUSE_NOTIFY_REPLY || h->payload_bytes > SESSION_IO_MAX ||
	    first > sizeof(h->op_in)) {
		struct fuse_out_header out = {.error = in->opcode == FUSE_NOTIFY_REPLY ? 0 : -EIO};
		struct iovec iov = {&out, sizeof(out)};

		entry_fill(e, &iov, 1);
		return true;
	}
	buf.mem = payload(e) - first - sizeof(*in);
	memcpy(buf.mem, in, sizeof(*in));
	memcpy(payload(e) - first, h->op_in, first);
	in = buf.mem;
	in->unique = entry_number(e, in->unique);
	entry_serve_begin(in->unique);
	session_set_buffer(h->payload_bytes ? w->buffer : payload(e));
	fuse_session_process_buf(w->queue->u->m->se, &buf);
	if (!entry_serve_end()) {
		repeat_interrupt(w->queue->u, e, unique);
		w->held_file = file;
		return false;
	}
	note_file(w->queue->u, e, opcode, file);
	return true;
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
	e = entry_take_answered_locked(q);
	needed = !e && !w->refused && q->nr_serving < wanted;
	mutex_unlock(&q->lock);
	if (needed) {
		e = entry_new(q);
		command = URING_REGISTER;
	}
	atomic_store(&w->poor, e == NULL);
	if (!e)
		return;
	entry_prepare(&w->ring, e, command);
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
		e = entry_take_answered_locked(q);
		mutex_unlock(&q->lock);
		if (!e)
			break;
		entry_prepare(&w->ring, e, URING_COMMIT);
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
		entry_prepare(&w->ring, e, URING_COMMIT);
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

static bool
has_work(const struct uring_worker *w)
{
	return io_uring_cq_ready(&w->ring) || IO_URING_READ_ONCE(*w->ring.sq.kflags) & IORING_SQ_TASKRUN ||
	       atomic_load_explicit(&w->queue->nr_answered, memory_order_relaxed);
}

/*
 * Send off what is answered, and stay awake a moment: who got the answer mostly asks for more at once, and waking a thread
 * that has gone to sleep costs both sides longer than that.
 */
static bool
look_for_work(struct uring_worker *w)
{
	int64_t until_ns;

	io_uring_submit(&w->ring);
	if (has_work(w))
		return true;
	until_ns = monotonic_ns() + LOOK_NS;
	while (monotonic_ns() < until_ns)
		if (has_work(w))
			return true;
	return false;
}

static void
wait_for_work(struct uring_worker *w)
{
	if (w->nudge) {
		io_uring_submit(&w->ring);
		nudge(w);
	}
	if (look_for_work(w))
		return;
	atomic_store(&w->idle, true);
	/* After this whoever answers sees us idle; what was answered before, we see. */
	if (atomic_load(&w->queue->nr_answered) == 0)
		io_uring_submit_and_wait(&w->ring, 1);
	atomic_store(&w->idle, false);
}

void *
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
	uring_report(u, r);
	while (!r && atomic_load(&u->phase) == STARTING) {
		io_uring_submit_and_wait(&w->ring, 1);
		serve_completions(w);
	}
	if (!r && atomic_load(&u->phase) == REGISTERING) {
		get_entry(w, w->queue->nr_workers);
		io_uring_submit(&w->ring);
		w->nudge = false; /* nothing is queued before all queues are ready */
		serve_completions(w);
		uring_report(u, w->nr_entries ? 0 : w->refused ? w->refused : -ENOMEM);
	}
	while (!r && atomic_load(&u->phase) != STOPPING) {
		serve_completions(w);
		send_answered(w);
		wait_for_work(w);
	}
	io_uring_submit(&w->ring);
	return NULL;
}
