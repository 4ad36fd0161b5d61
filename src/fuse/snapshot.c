/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuse/ops.h"
#include "fuse/snapshot.h"

enum job_kind {
	JOB_MAKE,
	JOB_MAKE_SOME,
	JOB_REMOVE,
	JOB_SEEK,
};

struct job {
	struct job *next;
	enum job_kind kind;
	fuse_req_t req;
	struct pool_caller caller;
	char name[POOL_NAME_MAX + 1];
	size_t nr; /* volumes in names */
	struct inode *inode; /* seek: open, so that it stays */
	off_t offset;
	int whence;
	char names[];
};

struct jobs {
	struct mount *m;
	pthread_t thread;
	pthread_mutex_t lock; /* a leaf */
	pthread_cond_t changed;
	struct job *first, **last; /* lock */
	bool stop; /* lock: take no more, end when all is done */
};

void
snapshot_write_back(struct mount *m)
{
	uint64_t *nodes;
	size_t nr;

	if (inode_collect_dirty(&m->inodes, &nodes, &nr))
		return;
	for (size_t i = 0; i < nr; i++)
		fuse_lowlevel_notify_inval_inode(m->se, nodes[i], 0, 0);
	free(nodes);
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
	off_t r;

	fuse_lowlevel_notify_inval_inode(m->se, inode_node(&m->inodes, j->inode), 0, 0);
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
remove_snapshot(struct mount *m, const char *name)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	int r = pool_remove_snapshot(m->pool, name);

	for (int tries = 0; r == -EBUSY && tries < 25; tries++) {
		nanosleep(&pause, NULL);
		r = pool_remove_snapshot(m->pool, name);
	}
	return r;
}

static void
do_job(struct mount *m, const struct job *j)
{
	int r;

	switch (j->kind) {
	case JOB_MAKE:
		snapshot_write_back(m);
		r = pool_snapshot(m->pool, j->name, &j->caller);
		if (r)
			ops_reply(j->req, r);
		else
			reply_made(m, j);
		break;
	case JOB_MAKE_SOME:
		snapshot_write_back(m);
		r = make_some(m, j);
		if (r)
			ops_reply(j->req, r);
		else
			fuse_reply_ioctl(j->req, 0, NULL, 0);
		break;
	case JOB_REMOVE:
		ops_reply(j->req, remove_snapshot(m, j->name));
		break;
	case JOB_SEEK:
		do_seek(m, j);
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

		pthread_mutex_lock(&q->lock);
		while (!q->first && !q->stop)
			pthread_cond_wait(&q->changed, &q->lock);
		j = q->first;
		if (j) {
			q->first = j->next;
			if (!q->first)
				q->last = &q->first;
		}
		pthread_mutex_unlock(&q->lock);
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
	int r;

	if (!q)
		return -ENOMEM;
	q->m = m;
	q->last = &q->first;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->changed, NULL);
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

	pthread_mutex_lock(&q->lock);
	running = !q->stop;
	q->stop = true;
	pthread_cond_signal(&q->changed);
	pthread_mutex_unlock(&q->lock);
	if (running)
		pthread_join(q->thread, NULL);
}

void
snapshot_free(struct mount *m)
{
	pthread_cond_destroy(&m->jobs->changed);
	pthread_mutex_destroy(&m->jobs->lock);
	free(m->jobs);
	m->jobs = NULL;
}

/* J is of MALLOC, or NULL: no memory. */
static void
queue(fuse_req_t req, struct job *j)
{
	struct jobs *q = session_of(req)->jobs;
	bool stop;

	if (!j) {
		ops_reply(req, -ENOMEM);
		return;
	}
	pthread_mutex_lock(&q->lock);
	stop = q->stop;
	if (!stop) {
		*q->last = j;
		q->last = &j->next;
		pthread_cond_signal(&q->changed);
	}
	pthread_mutex_unlock(&q->lock);
	if (stop) {
		free(j);
		ops_reply(req, -ESHUTDOWN);
	}
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
