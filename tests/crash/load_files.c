/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Those who write, cut, punch, rename and remove files of their own, and write to the shared one. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crash/load_worker.h"
#include "crash/sector.h"

/* --- contents --- */

static bool
transfer(struct worker *w, struct own *o, uint64_t first, uint64_t nr)
{
	ssize_t n = pwrite(o->fd, w->buf, nr * SECTOR_BYTES, (off_t)(first * SECTOR_BYTES));

	if (n == (ssize_t)(nr * SECTOR_BYTES))
		return true;
	failed(w->l, "write to", name_of(o->file), n < 0 ? errno : EIO);
	return false;
}

static void
write_sectors(struct worker *w, struct own *o, uint64_t first, uint64_t nr)
{
	struct ledger *ledger = &w->l->ledger;
	stamp s = ledger_begin(ledger, o->file, first, first + nr, false);
	bool grows = first + nr > o->sectors;

	for (uint64_t i = 0; i < nr; i++) {
		struct sector id = {o->file->id, first + i, s >> 1};

		sector_fill(w->buf + i * SECTOR_BYTES, &id);
	}
	if (grows)
		ledger_size(o->file, o->sectors * SECTOR_BYTES, (first + nr) * SECTOR_BYTES);
	if (!transfer(w, o, first, nr))
		return;
	ledger_end(o->file, first, first + nr, s);
	if (grows) {
		ledger_sized(ledger, o->file);
		o->sectors = first + nr;
	}
}

static struct own *
some_own(struct worker *w)
{
	struct own *o = &w->own[below(w, OWN_FILES)];

	return o->file ? o : NULL;
}

static void
some_range(struct worker *w, const struct own *o, uint64_t *first, uint64_t *nr)
{
	static const uint64_t lengths[] = {1, 3, 8, 20, 128, 128, 200, 512};
	uint64_t end = o->sectors + 128 < o->file->nr ? o->sectors + 128 : o->file->nr;

	*nr = 1 + below(w, lengths[below(w, 8)]);
	*first = below(w, end);
	if (below(w, 3) == 0) {
		*first -= *first % 128;
		*nr = 128;
	}
	if (*nr > o->file->nr - *first)
		*nr = o->file->nr - *first;
}

static void
op_write(struct worker *w)
{
	struct own *o = some_own(w);
	uint64_t first, nr;

	if (!o)
		return;
	some_range(w, o, &first, &nr);
	write_sectors(w, o, first, nr);
}

static void
op_write_shared(struct worker *w)
{
	/* Mostly where others write, and where it was written before. */
	uint64_t nr = below(w, 4) ? 6 : SHARED_SECTORS / STRIPE / NR_WRITERS;
	uint64_t stripe = below(w, nr) * NR_WRITERS + w->nr;
	uint64_t first = below(w, STRIPE);

	write_sectors(w, &w->shared, stripe * STRIPE + first, 1 + below(w, STRIPE - first));
}

static void
op_zero(struct worker *w)
{
	int mode = (below(w, 2) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
	struct own *o = some_own(w);
	uint64_t first, nr;
	stamp s;

	if (!o)
		return;
	some_range(w, o, &first, &nr);
	if (below(w, 3) == 0)
		nr = o->file->nr - first;
	s = ledger_begin(&w->l->ledger, o->file, first, first + nr, true);
	if (fallocate(o->fd, mode, (off_t)(first * SECTOR_BYTES), (off_t)(nr * SECTOR_BYTES)))
		failed(w->l, "fallocate", name_of(o->file), errno);
	else
		ledger_end(o->file, first, first + nr, s);
}

static void
op_truncate(struct worker *w)
{
	struct own *o = some_own(w);
	uint64_t to;
	stamp s;

	if (!o)
		return;
	to = below(w, 3) ? below(w, o->sectors + 1) : below(w, o->file->nr);
	s = ledger_begin(&w->l->ledger, o->file, to, o->file->nr, true);
	ledger_size(o->file, to > o->sectors ? o->sectors * SECTOR_BYTES : to * SECTOR_BYTES,
		    to * SECTOR_BYTES);
	if (ftruncate(o->fd, (off_t)(to * SECTOR_BYTES))) {
		failed(w->l, "truncate", name_of(o->file), errno);
		return;
	}
	ledger_end(o->file, to, o->file->nr, s);
	ledger_sized(&w->l->ledger, o->file);
	o->sectors = to;
}

/* Whoever wrote last reads that, and nothing else. */
static void
op_read(struct worker *w)
{
	struct own *o = some_own(w);
	stamp found[BUF_SECTORS];
	uint64_t first, nr;
	ssize_t n;

	if (!o || !o->sectors)
		return;
	first = below(w, o->sectors);
	nr = o->sectors - first < 256 ? o->sectors - first : 256;
	n = pread(o->fd, w->buf, nr * SECTOR_BYTES, (off_t)(first * SECTOR_BYTES));
	if (n != (ssize_t)(nr * SECTOR_BYTES)) {
		failed(w->l, "read of", name_of(o->file), n < 0 ? errno : EIO);
		return;
	}
	if (!load_parse(w->l, name_of(o->file), o->file->id, w->buf, first, nr, found))
		return;
	for (uint64_t i = 0; i < nr; i++) {
		stamp want = o->file->done[first + i];

		if (stamp_is_zero(want) ? !stamp_is_zero(found[i]) : found[i] != want)
			load_problem(w->l, "%s: sector %" PRIu64 " reads as %" PRIu64
				     ", written last was %" PRIu64, name_of(o->file), first + i,
				     found[i], want);
	}
}

static void
op_sync(struct worker *w)
{
	struct own *o = below(w, 4) ? some_own(w) : &w->shared;
	struct syncing s;
	int r;

	if (!o)
		return;
	ledger_sync(&w->l->ledger, o->file, &s);
	r = below(w, 2) ? fsync(o->fd) : fdatasync(o->fd);
	ledger_synced(&w->l->ledger, o->file, &s, r == 0);
	if (r)
		failed(w->l, "fsync of", name_of(o->file), errno);
	else
		w->l->nr_syncs++;
}

/* --- names --- */

static int
open_file(struct worker *w, const char *name, int flags)
{
	char path[400];

	path_of(w->l, name, path);
	if (w->l->direct && below(w, 2))
		flags |= O_DIRECT;
	return open(path, O_RDWR | O_CLOEXEC | flags, 0644);
}

static void
new_name(struct worker *w, char *name)
{
	snprintf(name, LEDGER_NAME, "w%u-%" PRIu64, w->nr, ledger_now(&w->l->ledger));
}

static void
create(struct worker *w, struct own *o)
{
	struct ledger *ledger = &w->l->ledger;
	char name[LEDGER_NAME];
	unsigned place;

	new_name(w, name);
	*o = (struct own){.file = ledger_add(ledger, OWN_SECTORS)};
	place = ledger_place(ledger, o->file, name);
	o->fd = open_file(w, name, O_CREAT | O_EXCL);
	if (o->fd < 0) {
		failed(w->l, "create", name, errno);
		return;
	}
	ledger_placed(ledger, o->file, place);
	o->file->dev = load_device(o->fd);
}

static void
close_own(struct own *o)
{
	if (o->file && o->fd >= 0)
		close(o->fd);
	o->file = NULL;
}

static void
op_rename(struct worker *w)
{
	char name[LEDGER_NAME], from[400], to[400];
	struct own *o = some_own(w);
	unsigned place;

	if (!o)
		return;
	path_of(w->l, name_of(o->file), from);
	new_name(w, name);
	path_of(w->l, name, to);
	place = ledger_place(&w->l->ledger, o->file, name);
	if (rename(from, to))
		failed(w->l, "rename to", name, errno);
	else
		ledger_placed(&w->l->ledger, o->file, place);
}

static void
op_replace(struct worker *w)
{
	struct own *a = &w->own[0], *b = &w->own[1];
	char from[400], to[400];

	if (!a->file || !b->file)
		return;
	path_of(w->l, name_of(b->file), from);
	path_of(w->l, name_of(a->file), to);
	ledger_replace(&w->l->ledger, a->file, b->file);
	if (rename(from, to)) {
		failed(w->l, "rename over", name_of(b->file), errno);
		return;
	}
	ledger_replaced(&w->l->ledger, a->file, b->file);
	close_own(a);
}

static void
op_unlink(struct worker *w)
{
	struct own *o = some_own(w);

	if (!o)
		return;
	if (below(w, 2)) {
		/* Open or not, when it goes. */
		close(o->fd);
		o->fd = -1;
	}
	remove_file(w, o->file);
	close_own(o);
}

static void
op_create(struct worker *w)
{
	for (unsigned i = 0; i < OWN_FILES; i++) {
		if (w->own[i].file)
			continue;
		create(w, &w->own[i]);
		return;
	}
}

/* --- the thread --- */

static void
adopt(struct worker *w, const char *prefix)
{
	struct ledger *ledger = &w->l->ledger;
	unsigned nr = 0;

	pthread_mutex_lock(&ledger->lock);
	for (unsigned i = 0; i < ledger->nr_files; i++) {
		struct file *f = ledger->files[i];
		bool shared = !strcmp(name_of(f), SHARED_NAME);
		struct own *o = shared ? &w->shared : &w->own[nr];

		if (!shared && (nr == OWN_FILES || strncmp(name_of(f), prefix, strlen(prefix))))
			continue;
		nr += !shared;
		*o = (struct own){.file = f, .fd = open_file(w, name_of(f), 0)};
		o->sectors = f->sizes.v[0].end / SECTOR_BYTES;
		if (o->fd < 0)
			failed(w->l, "open", name_of(f), errno);
	}
	pthread_mutex_unlock(&ledger->lock);
}

void *
write_all(void *arg)
{
	static const struct {
		void (*fn)(struct worker *w);
		unsigned weight;
	} ops[] = {
		{op_write, 40}, {op_write_shared, 20}, {op_sync, 14}, {op_zero, 5}, {op_truncate, 4},
		{op_read, 6}, {op_create, 4}, {op_rename, 2}, {op_replace, 2}, {op_unlink, 2},
	};
	struct worker *w = arg;
	char prefix[16];

	snprintf(prefix, sizeof(prefix), "w%u-", w->nr);
	adopt(w, prefix);
	remove_rest(w, prefix);
	while (!w->l->dead) {
		unsigned at = (unsigned)below(w, 99), i = 0;

		for (; at >= ops[i].weight; i++)
			at -= ops[i].weight;
		ops[i].fn(w);
		w->l->nr_ops++;
	}
	for (unsigned i = 0; i < OWN_FILES; i++)
		close_own(&w->own[i]);
	close_own(&w->shared);
	return NULL;
}
