/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "pool/origin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool/pool_internal.h"
#include "util/clock.h"
#include "util/minmax.h"
#include "util/msg.h"

/* How often to look whether an open one has changed, and whether one that was missing is back. */
#define LOOK_AGAIN_NS 1000000000LL

enum origin_state {
	ORIGIN_CLOSED,
	ORIGIN_OPENING, /* by a thread that others wait for */
	ORIGIN_OPEN,
};

struct origin {
	struct origins *table; /* const */
	char *path; /* const */
	struct origin_identity identity; /* const: what it must be */
	RB_ENTRY(origin) link;
	/* lock of the table */
	enum origin_state state;
	unsigned users; /* that read it now */
	bool changed; /* found since it was opened: closed by its last user */
	bool told; /* that something is wrong with it */
	int64_t looked_ns; /* when it was opened, last looked at, or could not be opened */
	bool failed; /* then */
	uint64_t used; /* nr_used of the table */
	struct image *image; /* const while there are users */
};

static int
compare_numbers(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int
compare_origins(struct origin *a, struct origin *b)
{
	int r = strcmp(a->path, b->path);

	if (!r)
		r = compare_numbers(a->identity.size, b->identity.size);
	if (!r)
		r = compare_numbers((uint64_t)a->identity.mtime_ns, (uint64_t)b->identity.mtime_ns);
	return r ? r : compare_numbers(a->identity.sum, b->identity.sum);
}

RB_PROTOTYPE(origin_tree, origin, link, )
RB_GENERATE(origin_tree, origin, link, compare_origins)

void
origins_init(struct origins *t)
{
	mutex_init(&t->lock, "the table of origins", LOCK_LEAF);
	pthread_cond_init(&t->opened, NULL);
	RB_INIT(&t->all);
}

void
origins_destroy(struct origins *t)
{
	struct origin *o;

	while ((o = RB_MIN(origin_tree, &t->all))) {
		RB_REMOVE(origin_tree, &t->all, o);
		image_close(o->image);
		free(o->path);
		free(o);
	}
	pthread_cond_destroy(&t->opened);
	mutex_destroy(&t->lock);
}

int
origin_get(struct origins *t, const char *path, const struct origin_identity *identity,
	   struct origin **out)
{
	struct origin *o = calloc(1, sizeof(*o)), *there;

	if (o)
		o->path = strdup(path);
	if (!o || !o->path) {
		free(o);
		return -ENOMEM;
	}
	o->table = t;
	o->identity = *identity;
	mutex_lock(&t->lock);
	there = RB_INSERT(origin_tree, &t->all, o);
	mutex_unlock(&t->lock);
	if (there) {
		free(o->path);
		free(o);
	}
	*out = there ? there : o;
	return 0;
}

int
origin_find(struct origins *t, const char *path, struct origin **out)
{
	struct origin_identity identity;
	struct image *img;
	const char *why;
	int r;

	lock_order_assert_below(RANK_META, "opening an origin");
	r = origin_file_open(path, &t->guard, &img, &identity, &why);
	if (r) {
		msg_error("%s: cannot be an external origin: it %s%s", path,
			  r == -EXDEV || r == -EINVAL || r == -EBUSY ? "" : "cannot be opened: ", why);
		return r;
	}
	/* Opened again by the first reader: this one knows nothing of the bound. */
	image_close(img);
	return origin_get(t, path, &identity, out);
}

const char *
origin_path(const struct origin *o)
{
	return o->path;
}

const struct origin_identity *
origin_identity(const struct origin *o)
{
	return &o->identity;
}

/* --- whether it is what it was --- */

/* Some archives keep whole seconds only. */
static bool
same_time(int64_t a, int64_t b)
{
	const int64_t second = 1000000000;

	return a == b || ((a % second == 0 || b % second == 0) && a / second == b / second);
}

static bool
same_file(const struct origin *o, const struct origin_identity *now)
{
	return now->size == o->identity.size && same_time(now->mtime_ns, o->identity.mtime_ns);
}

static void
say_missing(const struct origin *o, const struct vol *v, const char *why)
{
	char name[RECORD_NAME_SIZE], snapshot[RECORD_NAME_SIZE];

	vol_get_name((struct vol *)v, name, snapshot);
	msg_error("%s%s%s: its external origin %s: %s; put it back, or say where it is now by the mount option "
		  "origin=%" PRIu32 ":FILE. Until then, what was never written to the volume cannot be read",
		  snapshot, snapshot[0] ? "/" : "", name, o->path, why, v->id);
}

static void
say_changed(const struct origin *o, const struct vol *v, const struct origin_identity *now)
{
	const struct origin_identity *was = &o->identity;
	char name[RECORD_NAME_SIZE], snapshot[RECORD_NAME_SIZE], what[200];

	vol_get_name((struct vol *)v, name, snapshot);
	if (now->size != was->size)
		snprintf(what, sizeof(what), "has %" PRIu64 " bytes, not %" PRIu64, now->size, was->size);
	else if (now->sum != was->sum)
		snprintf(what, sizeof(what), "has other content");
	else
		snprintf(what, sizeof(what), "was written to, or replaced; if its content is the same, run "
			 "'touch -d @%" PRId64 ".%09" PRId64 "' on it", was->mtime_ns / 1000000000,
			 was->mtime_ns % 1000000000);
	msg_error("%s%s%s: its external origin %s is not what it was: it %s. Put the old one back; until then, "
		  "what was never written to the volume cannot be read", snapshot, snapshot[0] ? "/" : "", name,
		  o->path, what);
}

/* --- opening --- */

/* No lock held: 0, or -EIO after a message unless TOLD. */
static int
open_checked(const struct origin *o, const struct vol *v, bool told, struct image **out)
{
	struct origin_identity now = {0};
	const char *why;
	int r = origin_file_open(o->path, &o->table->guard, out, &now, &why);

	if (r) {
		if (!told)
			say_missing(o, v, why);
		return -EIO;
	}
	if (same_file(o, &now) && now.sum == o->identity.sum)
		return 0;
	if (!told)
		say_changed(o, v, &now);
	image_close(*out);
	return -EIO;
}

/* Descriptors have a bound: one that nobody reads, not for the longest time. Lock held; the caller closes it. */
static struct image *
take_oldest(struct origins *t)
{
	struct origin *o, *oldest = NULL;
	struct image *image;

	if (t->nr_open < ORIGINS_OPEN_MAX)
		return NULL;
	RB_FOREACH(o, origin_tree, &t->all)
		if (o->state == ORIGIN_OPEN && !o->users && (!oldest || o->used < oldest->used))
			oldest = o;
	if (!oldest)
		return NULL;
	image = oldest->image;
	oldest->image = NULL;
	oldest->state = ORIGIN_CLOSED;
	t->nr_open--;
	return image;
}

/* Lock held, and given up meanwhile. */
static int
open_locked(struct origin *o, const struct vol *v)
{
	struct origins *t = o->table;
	struct image *old = take_oldest(t), *image = NULL;
	bool told = o->told;
	int r;

	o->state = ORIGIN_OPENING;
	mutex_unlock(&t->lock);
	image_close(old);
	r = open_checked(o, v, told, &image);
	mutex_lock(&t->lock);
	o->state = r ? ORIGIN_CLOSED : ORIGIN_OPEN;
	o->image = r ? NULL : image;
	o->failed = r;
	o->told = r;
	o->changed = false;
	o->looked_ns = monotonic_ns();
	t->nr_open += !r;
	pthread_cond_broadcast(&t->opened);
	return r;
}

static void
release(struct origin *o)
{
	struct origins *t = o->table;
	struct image *old = NULL;

	mutex_lock(&t->lock);
	if (!--o->users && o->changed) {
		old = o->image;
		o->image = NULL;
		o->state = ORIGIN_CLOSED;
		o->changed = false;
		t->nr_open--;
	}
	mutex_unlock(&t->lock);
	image_close(old);
}

/* Open O is in use by the caller: see whether it has changed since. */
static int
look_again(struct origin *o, const struct vol *v)
{
	struct origin_identity now = {.sum = o->identity.sum};
	int r = origin_file_peek(o->image, &now);

	if (!r && same_file(o, &now))
		return 0;
	say_changed(o, v, &now);
	mutex_lock(&o->table->lock);
	o->changed = o->told = o->failed = true;
	mutex_unlock(&o->table->lock);
	return -EIO;
}

/* Have it open until release(). */
static int
acquire(struct origin *o, const struct vol *v)
{
	struct origins *t = o->table;
	bool look = false;
	int64_t now = monotonic_ns();
	int r = 0;

	lock_order_assert_below(RANK_META, "I/O on an origin");
	mutex_lock(&t->lock);
	while (o->state == ORIGIN_OPENING)
		cond_wait(&t->opened, &t->lock);
	if (o->changed || (o->failed && now - o->looked_ns < LOOK_AGAIN_NS))
		r = -EIO;
	else if (o->state == ORIGIN_CLOSED)
		r = open_locked(o, v);
	if (!r) {
		o->users++;
		o->used = ++t->nr_used;
		look = now - o->looked_ns >= LOOK_AGAIN_NS;
		if (look)
			o->looked_ns = now;
	}
	mutex_unlock(&t->lock);
	if (!r && look) {
		r = look_again(o, v);
		if (r)
			release(o);
	}
	return r;
}

/* --- reading --- */

int
origin_read(const struct origin_view *view, const struct vol *v, void *buf, uint64_t len,
	    uint64_t offset)
{
	uint64_t n = offset < view->end ? min_u64(len, view->end - offset) : 0;
	int r;

	memset((uint8_t *)buf + n, 0, len - n);
	if (!n)
		return 0;
	r = acquire(view->origin, v);
	if (r)
		return r;
	r = image_read(view->origin->image, buf, n, offset);
	release(view->origin);
	return r;
}

bool
origin_is_zero(const struct origin_view *view, const struct vol *v, uint64_t offset, uint64_t len)
{
	bool zero;

	if (offset >= view->end)
		return true;
	if (acquire(view->origin, v))
		return false;
	zero = image_is_hole(view->origin->image, offset, min_u64(len, view->end - offset));
	release(view->origin);
	return zero;
}
