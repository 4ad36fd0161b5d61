/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control: the daemon's side of control_proto.h.
 */
#include <config.h>

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuse/control_proto.h"
#include "fuse/dir_handle.h"
#include "fuse/ops.h"
#include "fuse/shrinker.h"
#include "fuse/snapshot.h"
#include "pdata/format.h"
#include "pool/report.h"

#define NAMES_MAX (16U << 20) /* bytes of names in one request for a snapshot */
#define IDS_MAX (16U << 20) /* no pool has more volumes */

static bool
is_owner(fuse_req_t req)
{
	uid_t uid = fuse_req_ctx(req)->uid;

	return uid == 0 || uid == session_of(req)->uid;
}

static void
do_info(fuse_req_t req)
{
	const struct mount *m = session_of(req);
	struct control_info info = {
		.magic = CONTROL_MAGIC,
		.version = CONTROL_VERSION,
		.pid = getpid(),
		.uid = m->uid,
	};

	strncpy(info.data_path, m->data_path, sizeof(info.data_path) - 1);
	strncpy(info.meta_path, m->meta_path, sizeof(info.meta_path) - 1);
	fuse_reply_ioctl(req, 0, &info, sizeof(info));
}

/* The text of a report for READER, from malloc; NULL: no memory. */
static char *
make_report(struct mount *m, uint32_t what, const struct pool_caller *reader)
{
	json_t *json = what == CONTROL_LIST ? report_list_for(m->pool, reader)
					    : report_status(m->pool);
	char *text;

	if (json && what == CONTROL_STATUS)
		json_object_set_new(json, "transport", json_string(transport_name(atomic_load(&m->transport))));
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return text;
}

/* Fill in *R from the handle's report, which is what READER may know; NULL: all. */
static int
read_report(struct mount *m, struct dir_handle *h, const struct pool_caller *reader,
	    struct control_read *r)
{
	char *text = NULL;
	int error = 0;

	if (r->report != CONTROL_LIST && r->report != CONTROL_STATUS)
		return -EINVAL;
	if (r->offset == 0) {
		text = make_report(m, r->report, reader);
		if (!text)
			return -ENOMEM;
	}

	mutex_lock(&h->lock);
	if (text) {
		free(h->text);
		h->text = text;
		h->text_len = strlen(text);
		h->text_what = r->report;
	}
	if (!h->text || h->text_what != r->report || r->offset > h->text_len) {
		error = -EINVAL;
	} else {
		size_t left = h->text_len - r->offset;

		r->total = h->text_len;
		r->len = (uint32_t)(left < sizeof(r->text) ? left : sizeof(r->text));
		memcpy(r->text, h->text + r->offset, r->len);
	}
	mutex_unlock(&h->lock);
	return error;
}

static void
do_read(fuse_req_t req, struct dir_handle *h, const void *in)
{
	struct control_read *r = session_buffer(); /* of this thread, and free now */
	struct pool_caller reader = ops_caller(req, 0);
	int error;

	memcpy(r, in, offsetof(struct control_read, text));
	memset(r->text, 0, sizeof(r->text));
	error = read_report(session_of(req), h, is_owner(req) ? NULL : &reader, r);
	if (error)
		ops_reply(req, error);
	else
		fuse_reply_ioctl(req, 0, r, sizeof(*r));
}

/* Whether LEN bytes are just NR strings. */
static bool
names_valid(const char *names, uint32_t len, uint32_t nr)
{
	uint32_t found = 0;

	if (len > sizeof(((struct control_snapshot *)0)->volumes))
		return false;
	for (uint32_t i = 0; i < len; i++)
		found += names[i] == '\0';
	return found == nr && (len == 0 || names[len - 1] == '\0');
}

static int
add_names(struct dir_handle *h, const struct control_snapshot *s)
{
	char *names;
	int r = 0;

	mutex_lock(&h->lock);
	if (h->names_len + s->len > NAMES_MAX) {
		r = -E2BIG;
	} else if (s->len) {
		names = realloc(h->names, h->names_len + s->len);
		if (names) {
			memcpy(names + h->names_len, s->volumes, s->len);
			h->names = names;
			h->names_len += s->len;
			h->nr_names += s->nr;
		} else {
			r = -ENOMEM;
		}
	}
	mutex_unlock(&h->lock);
	return r;
}

static void
do_snapshot(fuse_req_t req, struct dir_handle *h, const void *in)
{
	struct control_snapshot *s = session_buffer();
	struct pool_caller caller;
	size_t len, nr;
	char *names;
	int r = 0;

	memcpy(s, in, sizeof(*s));
	if (!is_owner(req))
		r = -EACCES; /* as for mkdir in .snapshots */
	else if (session_of(req)->read_only)
		r = -EROFS;
	else if (memchr(s->name, '\0', sizeof(s->name)) == NULL ||
		 !names_valid(s->volumes, s->len, s->nr))
		r = -EINVAL;
	else
		r = add_names(h, s);
	if (r || s->more) {
		if (r)
			ops_reply(req, r);
		else
			fuse_reply_ioctl(req, 0, NULL, 0);
		return;
	}

	mutex_lock(&h->lock);
	names = h->names;
	len = h->names_len;
	nr = h->nr_names;
	h->names = NULL;
	h->names_len = h->nr_names = 0;
	mutex_unlock(&h->lock);

	caller = ops_caller(req, s->mode);
	if (nr == 0)
		ops_reply(req, -EINVAL);
	else
		snapshot_make_some(req, s->name, names, len, nr, &caller);
	free(names);
}

static int
add_ids(struct dir_handle *h, const struct control_freed *f)
{
	uint32_t *ids;
	int r = 0;

	mutex_lock(&h->lock);
	if (h->nr_ids + f->nr > IDS_MAX) {
		r = -E2BIG;
	} else if (f->nr) {
		ids = reallocarray(h->ids, h->nr_ids + f->nr, sizeof(*ids));
		if (ids) {
			memcpy(ids + h->nr_ids, f->ids, f->nr * sizeof(*ids));
			h->ids = ids;
			h->nr_ids += f->nr;
		} else {
			r = -ENOMEM;
		}
	}
	mutex_unlock(&h->lock);
	return r;
}

static void
do_freed(fuse_req_t req, struct dir_handle *h, const void *in)
{
	struct control_freed *f = session_buffer();
	uint32_t *ids = NULL;
	size_t nr = 0;
	int r = 0;

	memcpy(f, in, sizeof(*f));
	if (!is_owner(req))
		r = -EACCES; /* as for removing them */
	else if (f->nr > sizeof(f->ids) / sizeof(f->ids[0]))
		r = -EINVAL;
	if (!r)
		r = add_ids(h, f);
	if (!r && !f->more) {
		mutex_lock(&h->lock);
		ids = h->ids;
		nr = h->nr_ids;
		h->ids = NULL;
		h->nr_ids = 0;
		mutex_unlock(&h->lock);
		r = pool_freed_by(session_of(req)->pool, ids, nr, &f->bytes);
		free(ids);
	}
	if (r)
		ops_reply(req, r);
	else
		fuse_reply_ioctl(req, 0, f, sizeof(*f));
}

static bool
is_string(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static void
do_clone(fuse_req_t req, struct inode *dir, const struct control_clone *c, bool revert)
{
	struct pool_caller caller = ops_caller(req, 0755);
	struct mount *m = session_of(req);
	struct vol *from, *to = NULL;
	int r = 0;

	if (!is_owner(req))
		r = -EACCES;
	else if (m->read_only)
		r = -EROFS;
	else if (!dir->dir || !is_string(c->from, sizeof(c->from)) ||
		 !is_string(c->to, sizeof(c->to)) || !is_string(c->safety, sizeof(c->safety)))
		r = -EINVAL;
	if (!r)
		r = pool_lookup(m->pool, dir->dir, c->from, &from);
	if (!r && revert) {
		r = pool_lookup(m->pool, pool_top(m->pool), c->to, &to);
		if (r)
			vol_put(from);
	}
	if (r)
		ops_reply(req, r);
	else if (revert)
		snapshot_revert(req, to, from, c->safety, &caller);
	else
		snapshot_clone(req, from, c->to, &caller);
}

static void
do_resize(fuse_req_t req, const struct control_resize *in)
{
	struct mount *m = session_of(req);
	struct control_resize c = *in;
	struct pool_status st;

	if (!is_owner(req)) {
		ops_reply(req, -EACCES);
		return;
	}
	c.error = m->read_only ? -EROFS : pool_resize(m->pool, c.data, c.metadata);
	pool_get_status(m->pool, &st);
	c.data = st.data_blocks * st.block_bytes;
	c.metadata = st.meta_blocks * METADATA_BLOCK_SIZE;
	c.block = (uint32_t)st.block_bytes;
	fuse_reply_ioctl(req, 0, &c, sizeof(c));
}

static void
do_shrink(fuse_req_t req, const struct control_shrink *in)
{
	struct control_shrink c = *in;
	int r = is_owner(req) ? shrinker_control(session_of(req)->shrinker, &c) : -EACCES;

	if (r)
		ops_reply(req, r);
	else
		fuse_reply_ioctl(req, 0, &c, sizeof(c));
}

static void
do_create(fuse_req_t req, const struct inode *dir, const struct control_create *c)
{
	struct pool_caller caller = ops_caller(req, c->mode & 0777);
	int r = 0;

	if (!is_owner(req))
		r = -EACCES;
	else if (session_of(req)->read_only)
		r = -EROFS;
	else if (dir->kind != INODE_ROOT)
		r = -EPERM;
	else if (!is_string(c->name, sizeof(c->name)) || !is_string(c->origin, sizeof(c->origin)) ||
		 c->origin[0] != '/')
		r = -EINVAL;
	if (r)
		ops_reply(req, r);
	else
		snapshot_create_over(req, c->name, c->origin, c->size, &caller);
}

static void
do_shutdown(fuse_req_t req)
{
	struct mount *m = session_of(req);

	if (!is_owner(req)) {
		ops_reply(req, -EPERM);
		return;
	}
	fuse_reply_ioctl(req, 0, NULL, 0);
	atomic_store(&m->shutdown, true);
	session_wake(m);
}

void
ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	  unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	struct dir_handle *h;

	(void)arg;
	if (!(flags & FUSE_IOCTL_DIR)) {
		ops_reply(req, -ENOTTY);
		return;
	}
	h = dir_handle_of(fi);
	if (cmd == CONTROL_IOC_INFO && out_size == sizeof(struct control_info))
		do_info(req);
	else if (cmd == CONTROL_IOC_READ && in_size == sizeof(struct control_read))
		do_read(req, h, in);
	else if (cmd == CONTROL_IOC_SNAPSHOT && in_size == sizeof(struct control_snapshot))
		do_snapshot(req, h, in);
	else if ((cmd == CONTROL_IOC_CLONE || cmd == CONTROL_IOC_REVERT) &&
		 in_size == sizeof(struct control_clone))
		do_clone(req, inode_of(&session_of(req)->inodes, ino), in,
			 cmd == CONTROL_IOC_REVERT);
	else if (cmd == CONTROL_IOC_FREED && in_size == sizeof(struct control_freed))
		do_freed(req, h, in);
	else if (cmd == CONTROL_IOC_RESIZE && in_size == sizeof(struct control_resize))
		do_resize(req, in);
	else if (cmd == CONTROL_IOC_SHRINK && in_size == sizeof(struct control_shrink))
		do_shrink(req, in);
	else if (cmd == CONTROL_IOC_CREATE && in_size == sizeof(struct control_create))
		do_create(req, inode_of(&session_of(req)->inodes, ino), in);
	else if (cmd == CONTROL_IOC_SHUTDOWN)
		do_shutdown(req);
	else
		ops_reply(req, -ENOTTY);
}
