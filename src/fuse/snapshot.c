/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuse/ops.h"
#include "fuse/parked.h"
#include "fuse/snapshot.h"

enum job_kind {
	JOB_MAKE,
	JOB_MAKE_SOME,
	JOB_REMOVE,
	JOB_SEEK,
	JOB_CLONE,
	JOB_REVERT,
	JOB_CREATE,
};

struct job {
	struct job *next;
	enum job_kind kind;
	fuse_req_t req;
	struct pool_caller caller;
	char name[POOL_NAME_MAX + 1];
	size_t nr; /* volumes in names */
	struct vol *from, *vol; /* clone and revert: held */
	struct inode *inode; /* seek: open, so that it stays */
	off_t offset;
	int whence;
	uint64_t size; /* create */
	char names[]; /* of volumes; create: the origin's path */
};

struct jobs {
	struct mount *m;
	pthread_t thread;
	struct mutex lock; /* a leaf */
	pthread_cond_t changed;
	struct job *first, **last; /* lock */
	bool stop; /* lock: take no more, end when all is done */
	pthread_cond_t written;
	bool writing; /* lock: a thread waits for the kernel to write back */
};

/* What that thread is told. */
struct write_back {
	struct mount *m;
	size_t nr;
	uint64_t *nodes;
};

/* How often to see whether the writes that are waited for wait themselves, for space. */
#define LOOK_MS 50

static void
write_back(const struct write_back *w)
{
	for (size_t i = 0; i < w->nr; i++)
		fuse_lowlevel_notify_inval_inode(w->m->se, w->nodes[i], 0, 0);
}

static void
set_writing(struct mount *m, bool writing)
{
	struct jobs *q = m->jobs;

	mutex_lock(&q->lock);
	q->writing = writing;
	pthread_cond_broadcast(&q->written);
	mutex_unlock(&q->lock);
}

static void *
write_back_run(void *arg)
{
	struct write_back *w = arg;
	struct mount *m = w->m;

	write_back(w);
	free(w->nodes);
	free(w);
	set_writing(m, false);
	return NULL;
}

/* Wait until no thread writes back; -ENOSPC when what it waits for waits for space. */
static int
wait_written(struct mount *m)
{
	struct jobs *q = m->jobs;
	bool full;
	int r = 0;

	mutex_lock(&q->lock);
	while (q->writing && !r) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += LOOK_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (cond_timedwait(&q->written, &q->lock, &until) && q->writing) {
			mutex_unlock(&q->lock);
			full = parked_any(m->parked);
			mutex_lock(&q->lock);
			r = full && q->writing ? -ENOSPC : 0;
		}
	}
	mutex_unlock(&q->lock);
	return r;
}

/*
 * Have the kernel write back what NODES name; takes them. In a full pool such writes wait for space, which
 * removing a snapshot may give; but that waits for the directory that the maker of this one holds.
 * So this one gives up then. The writes go on waiting.
 */
static int
write_back_or_full(struct mount *m, uint64_t *nodes, size_t nr)
{
	struct write_back *w = malloc(sizeof(*w));
	int r = w ? wait_written(m) : -ENOMEM;
	pthread_t thread;

	if (r) {
		free(nodes);
		free(w);
		return r;
	}
	*w = (struct write_back){m, nr, nodes};
	set_writing(m, true); /* nobody else starts one */
	r = -pthread_create(&thread, NULL, write_back_run, w);
	if (r) {
		set_writing(m, false);
		free(nodes);
		free(w);
		return r;
	}
	pthread_detach(thread);
	return wait_written(m);
}

static int
write_back_all(struct mount *m)
{
	uint64_t *nodes;
	size_t nr;
	int r = inode_collect_dirty(&m->inodes, &nodes, &nr);

	if (!r && nr)
		return write_back_or_full(m, nodes, nr);
	free(nodes);
	return r;
}

/*
 * Not in the main thread itself: while it waits for the kernel it could not be killed, and the unmounter would not
 * know that the daemon is dead. Writes that wait for space have been given up, and are gone soon.
 */
void
snapshot_write_back(struct mount *m)
{
	while (write_back_all(m) == -ENOSPC)
		;
}

static void
reply_made(struct mount *m, const struct job *j)
{
	struct inode *inode;
	struct voldir *dir;
	int r = pool_lookup_snapshot(m->pool, j->name, &dir);

	if (r == 0)
		r = inode_get_snapshot(&m->inodes, dir, &inode);
	if (r)
		ops_reply(j->req, r);
	else
		ops_reply_entry(j->req, inode);
}

static int
make_some(struct mount *m, const struct job *j)
{
	const char **volumes = calloc(j->nr, sizeof(*volumes));
	const char *name = j->names;
	int r;

	if (!volumes)
		return -ENOMEM;
	for (size_t i = 0; i < j->nr; i++) {
		volumes[i] = name;
		name += strlen(name) + 1;
	}
	r = pool_snapshot_some(m->pool, j->name, volumes, j->nr, &j->caller);
	free(volumes);
	return r;
}

static void
do_seek(struct mount *m, const struct job *j)
{
	uint64_t *node = malloc(sizeof(*node));
	off_t r;

	if (node) {
		*node = inode_node(&m->inodes, j->inode);
		write_back_or_full(m, node, 1);
	}
	/* What could not be written may be taken for a hole; in a full pool there is no better answer. */
	r = vol_seek(j->inode->vol, j->offset, j->whence);
	if (r < 0)
		ops_reply(j->req, (int)r);
	else
		fuse_reply_lseek(j->req, r);
}

/*
 * The kernel tells of a close after close(2) has returned, and later still when it is reading ahead. Who
 * closes a file and then removes the snapshot must not be told that it is in use.
 */
static int
retry_busy(struct mount *m, const struct job *j, int (*fn)(struct mount *m, const struct job *j))
{
	const struct timespec pause = {.tv_nsec = 10000000};
	int r = fn(m, j);

	for (int tries = 0; r == -EBUSY && tries < 25; tries++) {
		nanosleep(&pause, NULL);
		r = fn(m, j);
	}
	return r;
}

static int
remove_snapshot(struct mount *m, const struct job *j)
{
	return pool_remove_snapshot(m->pool, j->name);
}

static int
clone_volume(struct mount *m, const struct job *j)
{
	int r = write_back_all(m);

	return r ? r : pool_clone(m->pool, j->from, j->name, &j->caller);
}

static int
revert_volume(struct mount *m, const struct job *j)
{
	int r = write_back_all(m);

	return r ? r : pool_revert(m->pool, j->vol, j->from, j->name, &j->caller);
}

static void
do_clone(struct mount *m, const struct job *j)
{
	int r = retry_busy(m, j, j->kind == JOB_CLONE ? clone_volume : revert_volume);
	uint64_t node;

	/* Another size and other pages than the kernel knows. */
	if (!r && j->vol && inode_find_volume(&m->inodes, j->vol, &node))
		fuse_lowlevel_notify_inval_inode(m->se, node, 0, 0);
	vol_put(j->from);
	if (j->vol)
		vol_put(j->vol);
	if (r)
		ops_reply(j->req, r);
	else
		fuse_reply_ioctl(j->req, 0, NULL, 0);
}

static void
do_create(struct mount *m, const struct job *j)
{
	struct vol *v;
	int r = pool_create_over(m->pool, j->name, &j->caller, j->names, j->size, &v);

	if (!r)
		vol_put(v);
	if (r)
		ops_reply(j->req, r);
	else
		fuse_reply_ioctl(j->req, 0, NULL, 0);
}

static void
do_job(struct mount *m, const struct job *j)
{
	int r;

	switch (j->kind) {
	case JOB_MAKE:
		r = write_back_all(m);
		if (!r)
			r = pool_snapshot(m->pool, j->name, &j->caller);
		if (r)
			ops_reply(j->req, r);
		else
			reply_made(m, j);
		break;
	case JOB_MAKE_SOME:
		r = write_back_all(m);
		if (!r)
			r = make_some(m, j);
		if (r)
			ops_reply(j->req, r);
		else
			fuse_reply_ioctl(j->req, 0, NULL, 0);
		break;
	case JOB_REMOVE:
		ops_reply(j->req, retry_busy(m, j, remove_snapshot));
		break;
	case JOB_SEEK:
		do_seek(m, j);
		break;
	case JOB_CLONE:
	case JOB_REVERT:
		do_clone(m, j);
		break;
	case JOB_CREATE:
		do_create(m, j);
		break;
	}
}

static void *
jobs_run(void *arg)
{
	struct jobs *q = arg;

	pthread_setname_np(pthread_self(), "thinfs-snap");
	for (;;) {
		struct job *j;

		mutex_lock(&q->lock);
		while (!q->first && !q->stop)
			cond_wait(&q->changed, &q->lock);
		j = q->first;
		if (j) {
			q->first = j->next;
			if (!q->first)
				q->last = &q->first;
		}
		mutex_unlock(&q->lock);
		if (!j)
			return NULL;
		do_job(q->m, j);
		free(j);
	}
}

int
snapshot_start(struct mount *m, struct jobs **out)
{
	struct jobs *q = calloc(1, sizeof(*q));
	pthread_condattr_t monotonic;
	int r;

	if (!q)
		return -ENOMEM;
	q->m = m;
	q->last = &q->first;
	mutex_init(&q->lock, "the jobs", LOCK_LEAF);
	pthread_cond_init(&q->changed, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&q->written, &monotonic);
	pthread_condattr_destroy(&monotonic);
	r = -pthread_create(&q->thread, NULL, jobs_run, q);
	if (r)
		free(q);
	else
		*out = q;
	return r;
}

/* The queue itself stays, closed, for requests that workers still have: freed with the mount. */
void
snapshot_stop(struct mount *m)
{
	struct jobs *q = m->jobs;
	bool running;

	mutex_lock(&q->lock);
	running = !q->stop;
	q->stop = true;
	pthread_cond_signal(&q->changed);
	mutex_unlock(&q->lock);
	if (running)
		pthread_join(q->thread, NULL);
}

void
snapshot_free(struct mount *m)
{
	mutex_lock(&m->jobs->lock);
	while (m->jobs->writing)
		cond_wait(&m->jobs->written, &m->jobs->lock);
	mutex_unlock(&m->jobs->lock);
	pthread_cond_destroy(&m->jobs->written);
	pthread_cond_destroy(&m->jobs->changed);
	mutex_destroy(&m->jobs->lock);
	free(m->jobs);
	m->jobs = NULL;
}

/* J is of malloc, or NULL: no memory. Whether it will be done; REQ is answered otherwise. */
static bool
queue(fuse_req_t req, struct job *j)
{
	struct jobs *q = session_of(req)->jobs;
	bool stop;

	if (!j) {
		ops_reply(req, -ENOMEM);
		return false;
	}
	mutex_lock(&q->lock);
	stop = q->stop;
	if (!stop) {
		*q->last = j;
		q->last = &j->next;
		pthread_cond_signal(&q->changed);
	}
	mutex_unlock(&q->lock);
	if (stop) {
		free(j);
		ops_reply(req, -ESHUTDOWN);
	}
	return !stop;
}

static struct job *
new_job(fuse_req_t req, enum job_kind kind, const char *name, const char *names, size_t names_len)
{
	struct job *j = malloc(sizeof(*j) + names_len);

	if (!j)
		return NULL;
	*j = (struct job){.req = req, .kind = kind};
	if (name)
		strncpy(j->name, name, sizeof(j->name) - 1);
	if (names_len)
		memcpy(j->names, names, names_len);
	return j;
}

void
snapshot_make(fuse_req_t req, const char *name, const struct pool_caller *caller)
{
	struct job *j = new_job(req, JOB_MAKE, name, NULL, 0);

	if (j)
		j->caller = *caller;
	queue(req, j);
}

void
snapshot_remove(fuse_req_t req, const char *name)
{
	queue(req, new_job(req, JOB_REMOVE, name, NULL, 0));
}

void
snapshot_make_some(fuse_req_t req, const char *name, const char *names, size_t names_len, size_t nr,
		   const struct pool_caller *caller)
{
	struct job *j = new_job(req, JOB_MAKE_SOME, name, names, names_len);

	if (j) {
		j->caller = *caller;
		j->nr = nr;
	}
	queue(req, j);
}

void
snapshot_seek(fuse_req_t req, struct inode *inode, off_t offset, int whence)
{
	struct job *j = new_job(req, JOB_SEEK, NULL, NULL, 0);

	if (j) {
		j->inode = inode;
		j->offset = offset;
		j->whence = whence;
	}
	queue(req, j);
}

static void
queue_clone(fuse_req_t req, enum job_kind kind, struct vol *vol, struct vol *from, const char *name,
	    const struct pool_caller *caller)
{
	struct job *j = new_job(req, kind, name, NULL, 0);

	if (j) {
		j->vol = vol;
		j->from = from;
		j->caller = *caller;
	}
	if (queue(req, j))
		return;
	vol_put(from);
	if (vol)
		vol_put(vol);
}

void
snapshot_clone(fuse_req_t req, struct vol *from, const char *name,
	       const struct pool_caller *caller)
{
	queue_clone(req, JOB_CLONE, NULL, from, name, caller);
}

void
snapshot_revert(fuse_req_t req, struct vol *vol, struct vol *from, const char *safety,
		const struct pool_caller *caller)
{
	queue_clone(req, JOB_REVERT, vol, from, safety, caller);
}

void
snapshot_create_over(fuse_req_t req, const char *name, const char *origin, uint64_t size,
		     const struct pool_caller *caller)
{
	struct job *j = new_job(req, JOB_CREATE, name, origin, strlen(origin) + 1);

	if (j) {
		j->size = size;
		j->caller = *caller;
	}
	queue(req, j);
}
