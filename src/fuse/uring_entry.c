/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Entries: their memory, the commands about them, and answers. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fuse/uring_internal.h"

/*
 * Number of a request to libfuse: the entry's index + 1 above the kernel's own number, which cannot get so high in years.
 */
#define NUMBER_SHIFT 48
#define ENTRY_BYTES (URING_PAGE + SESSION_IO_MAX)
#define KEEP_BYTES (64U << 10) /* of the payload, for the next request */

/* What this thread serves. */
static __thread struct {
	uint64_t number; /* 0: nothing */
	bool answered;
} now;

/* --- entries --- */

/* The kernel's number of the request that is or was in E. It has the same place in both headers. */
static uint64_t *
unique(const struct entry *e)
{
	return &((struct fuse_in_header *)headers(e)->in_out)->unique;
}

uint64_t
entry_number(const struct entry *e, uint64_t unique_of_it)
{
	return (unique_of_it & ((1ULL << NUMBER_SHIFT) - 1)) | (e->index + 1) << NUMBER_SHIFT;
}

struct entry *
entry_new(struct queue *q)
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

void
entries_free(struct uring *u)
{
	for (unsigned i = 0; i < u->nr_entries; i++) {
		struct entry *e = u->entries[i];

		munmap(e->memory, ENTRY_BYTES);
		free(e);
	}
}

/* --- commands --- */

struct io_uring_sqe *
entry_sqe(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	while (!sqe) {
		io_uring_submit(ring);
		sqe = io_uring_get_sqe(ring);
	}
	memset(sqe, 0, 2 * sizeof(*sqe)); /* they are of 128 bytes */
	return sqe;
}

void
entry_prepare(struct io_uring *ring, struct entry *e, enum uring_command command)
{
	struct io_uring_sqe *sqe = entry_sqe(ring);
	struct uring_command_args *args = (void *)sqe->cmd;

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = URING_DEVICE;
	sqe->flags = IOSQE_FIXED_FILE;
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

/* --- answers --- */

/* A worker to send off what was answered: better one that has nothing else to do. */
static bool
wake_idle(struct queue *q, bool poor)
{
	for (unsigned i = 0; i < q->nr_workers; i++) {
		struct uring_worker *w = &q->workers[i];

		if (atomic_load(&w->poor) == poor && atomic_load(&w->idle) &&
		    atomic_exchange(&w->idle, false)) {
			worker_wake(w);
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

struct entry *
entry_take_answered_locked(struct queue *q)
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

void
entry_fill(struct entry *e, const struct iovec *iov, int nr_iov)
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
	if (!e || entry_number(e, *unique(e)) != head->unique)
		return false;
	if (now.number == head->unique) {
		entry_fill(e, iov, nr_iov);
		now.answered = true;
		return true;
	}
	/* The entry may be one too many from now on. */
	if (headers(e)->payload_bytes > KEEP_BYTES)
		madvise(payload(e) + KEEP_BYTES, SESSION_IO_MAX - KEEP_BYTES, MADV_DONTNEED);
	entry_fill(e, iov, nr_iov);
	hand_over(e);
	return true;
}

uint64_t
uring_interrupt(struct uring *u, uint64_t wanted)
{
	unsigned nr;

	mutex_lock(&u->lock);
	nr = u->nr_entries;
	mutex_unlock(&u->lock);
	for (unsigned i = 0; i < nr; i++) {
		struct entry *e = atomic_load(&u->entries[i]);

		if (__atomic_load_n(unique(e), __ATOMIC_RELAXED) == wanted) {
			atomic_store(&e->interrupted, wanted);
			return entry_number(e, wanted);
		}
	}
	return wanted;
}

void
entry_serve_begin(uint64_t number)
{
	now.number = number;
	now.answered = false;
}

bool
entry_serve_end(void)
{
	now.number = 0;
	return now.answered;
}
