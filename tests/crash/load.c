/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands on standard input: "run SEED DIRECT", until the daemon has been killed; "check", with the pool
 * mounted again. Each is answered by a line: "done" or "bad".
 */
#include <config.h>

#include "crash/load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "crash/sector.h"

#define BUF_SECTORS 512U
#define PROBLEMS_TOLD 20U

struct own {
	struct file *file;
	int fd;
	uint64_t sectors; /* its size */
};

struct worker {
	struct load *l;
	unsigned nr;
	pthread_t thread;
	struct random_source rs;
	struct own own[OWN_FILES]; /* file NULL: none */
	struct own shared;
	unsigned next_name;
	uint8_t *buf;
};

void
load_problem(struct load *l, const char *format, ...)
{
	va_list ap;
	char text[300];

	if (atomic_fetch_add(&l->nr_problems, 1) >= PROBLEMS_TOLD)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	printf("# %s\n", text);
}

static uint64_t
below(struct worker *w, uint64_t bound)
{
	return random_below(&w->rs, bound);
}

/* A call has failed with ERROR: that is right if the daemon has died, or is dying. */
static void
failed(struct load *l, const char *what, const char *name, int error)
{
	struct statvfs st;

	for (unsigned tries = 0; tries < 100 && !l->dead; tries++) {
		if (statvfs(l->dir, &st) && (errno == ENOTCONN || errno == ECONNABORTED))
			l->dead = true;
		else
			usleep(20000);
	}
	if (!l->dead) {
		load_problem(l, "%s %s: %s, though the daemon lives", what, name, strerror(error));
		l->dead = true;
	}
}

static void
path_of(const struct load *l, const char *name, char *path)
{
	snprintf(path, 400, "%.350s/%.40s", l->dir, name);
}

static const char *
name_of(const struct file *f)
{
	return f->places[f->nr_places - 1].name;
}

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
remove_file(struct worker *w, struct file *f)
{
	unsigned place;
	char path[400];

	path_of(w->l, name_of(f), path);
	place = ledger_place(&w->l->ledger, f, "");
	if (unlink(path))
		failed(w->l, "unlink", path, errno);
	else
		ledger_placed(&w->l->ledger, f, place);
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

/* --- threads --- */

/* Files that have come back with a kill, of which the worker has enough. */
static void
remove_rest(struct worker *w, const char *prefix)
{
	struct ledger *ledger = &w->l->ledger;
	struct file *rest[LEDGER_FILES];
	unsigned nr = 0;

	pthread_mutex_lock(&ledger->lock);
	for (unsigned i = 0; i < ledger->nr_files; i++) {
		struct file *f = ledger->files[i];

		if (f != w->own[0].file && f != w->own[1].file &&
		    !strncmp(name_of(f), prefix, strlen(prefix)))
			rest[nr++] = f;
	}
	pthread_mutex_unlock(&ledger->lock);
	for (unsigned i = 0; i < nr && !w->l->dead; i++)
		remove_file(w, rest[i]);
}

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

static void *
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

static void
sync_dir(struct worker *w)
{
	struct syncing s;
	int fd = open(w->l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = -1;

	if (fd >= 0) {
		ledger_sync(&w->l->ledger, NULL, &s);
		r = fsync(fd);
		ledger_synced(&w->l->ledger, NULL, &s, r == 0);
	}
	if (r)
		failed(w->l, "fsync of", w->l->dir, errno);
	if (fd >= 0)
		close(fd);
}

static void
read_snap(struct worker *w, struct snap *s)
{
	for (unsigned i = 0; i < s->nr && !w->l->dead; i++) {
		char path[500];

		/* What may have more than one name is looked at when all is quiet. */
		if (s->files[i].nr_places != 1 || !s->files[i].places[0].name[0])
			continue;
		snprintf(path, sizeof(path), "%.300s/.snapshots/%.40s/%.40s", w->l->dir, s->name,
			 s->files[i].places[0].name);
		if (!load_check_frozen(w->l, path, s, &s->files[i]))
			failed(w->l, "look at", path, errno);
	}
}

static void
snap_make(struct worker *w, struct file *shared)
{
	bool one = below(w, 3) == 0;
	char name[LEDGER_NAME], path[400];
	struct snap *s;

	snprintf(name, sizeof(name), one ? SHARED_NAME "@%" PRIu64 : "s%" PRIu64,
		 ledger_now(&w->l->ledger));
	snprintf(path, sizeof(path), "%.300s/.snapshots/%s", w->l->dir, name);
	s = ledger_snap(&w->l->ledger, name, one ? shared : NULL);
	if (mkdir(path, 0755)) {
		failed(w->l, "mkdir", path, errno);
		return;
	}
	ledger_snapped(&w->l->ledger, s, true);
	w->l->nr_snaps++;
	if (below(w, 2))
		sync_dir(w);
	if (below(w, 2))
		read_snap(w, s);
}

static void
snap_remove(struct worker *w, struct snap *s)
{
	char path[400];

	snprintf(path, sizeof(path), "%.300s/.snapshots/%.40s", w->l->dir, s->name);
	s->removing = ledger_now(&w->l->ledger);
	if (rmdir(path)) {
		failed(w->l, "rmdir", path, errno);
		return;
	}
	s->removed = ledger_now(&w->l->ledger);
	if (below(w, 2))
		sync_dir(w);
}

static void *
snap_all(void *arg)
{
	struct worker *w = arg;
	struct ledger *ledger = &w->l->ledger;

	while (!w->l->dead) {
		struct snap *there[LEDGER_SNAPS];
		unsigned nr = 0;

		usleep((useconds_t)below(w, 60000));
		for (unsigned i = 0; i < ledger->nr_snaps; i++)
			if (!ledger->snaps[i]->removing)
				there[nr++] = ledger->snaps[i];
		if (nr < 4)
			snap_make(w, ledger->files[0]);
		else
			snap_remove(w, there[below(w, nr)]);
	}
	return NULL;
}

static void *
bulk_all(void *arg)
{
	struct worker *w = arg;
	struct ledger *ledger = &w->l->ledger;

	remove_rest(w, "bulk-");
	while (!w->l->dead) {
		struct file *f = ledger_add(ledger, 0);
		char name[LEDGER_NAME], path[400];
		struct own o = {.file = f};
		unsigned place;

		snprintf(name, sizeof(name), "bulk-%" PRIu64, ledger_now(ledger));
		path_of(w->l, name, path);
		place = ledger_place(ledger, f, name);
		o.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		ledger_size(f, 0, BULK_BYTES);
		if (o.fd < 0 || fallocate(o.fd, 0, 0, BULK_BYTES)) {
			failed(w->l, "fallocate", name, errno);
			close_own(&o);
			break;
		}
		ledger_placed(ledger, f, place);
		ledger_sized(ledger, f);
		if (below(w, 2))
			sync_dir(w);
		if (below(w, 2)) {
			ledger_size(f, 0, 0);
			if (ftruncate(o.fd, 0))
				failed(w->l, "truncate", name, errno);
			else
				ledger_sized(ledger, f);
		}
		close_own(&o);
		remove_file(w, f);
		if (below(w, 2))
			sync_dir(w);
	}
	return NULL;
}

static void
make_shared(struct load *l)
{
	struct worker w = {.l = l};
	struct syncing s;
	struct file *f;
	char path[400];
	int fd;

	f = ledger_add(&l->ledger, SHARED_SECTORS);
	ledger_placed(&l->ledger, f, ledger_place(&l->ledger, f, SHARED_NAME));
	path_of(l, SHARED_NAME, path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ledger_size(f, 0, SHARED_SECTORS * SECTOR_BYTES);
	if (fd < 0 || ftruncate(fd, SHARED_SECTORS * SECTOR_BYTES)) {
		load_problem(l, "%s: %s", path, strerror(errno));
	} else {
		ledger_sized(&l->ledger, f);
		f->dev = load_device(fd);
		ledger_sync(&l->ledger, f, &s);
		ledger_synced(&l->ledger, f, &s, fsync(fd) == 0);
		sync_dir(&w);
	}
	close(fd);
}

void
load_run(struct load *l)
{
	struct worker w[NR_WRITERS + 2];

	l->dead = false;
	if (!l->ledger.nr_files)
		make_shared(l);
	for (unsigned i = 0; i < NR_WRITERS + 2; i++) {
		w[i] = (struct worker){.l = l, .nr = i, .rs = {l->seed * 1000 + i}};
		if (posix_memalign((void **)&w[i].buf, 4096, BUF_SECTORS * SECTOR_BYTES) ||
		    pthread_create(&w[i].thread, NULL, i < NR_WRITERS ? write_all :
				   i == NR_WRITERS ? snap_all : bulk_all, &w[i]))
			abort();
	}
	for (unsigned i = 0; i < NR_WRITERS + 2; i++) {
		pthread_join(w[i].thread, NULL);
		free(w[i].buf);
	}
}

int
main(int argc, char **argv)
{
	static struct load load;
	struct load *l = &load;
	char line[100];
	unsigned direct;

	if (argc != 2)
		return 2;
	l->dir = argv[1];
	ledger_init(&l->ledger);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		unsigned before = l->nr_problems;

		if (sscanf(line, "run %" SCNu64 " %u", &l->seed, &direct) == 2) {
			l->direct = direct;
			load_run(l);
		} else if (!strcmp(line, "check\n")) {
			load_check(l);
		} else {
			return 2;
		}
		printf(l->nr_problems > before ? "bad\n" : "done\n");
	}
	printf("# %" PRIu64 " operations, %" PRIu64 " fsyncs, %" PRIu64 " snapshots; looked at %" PRIu64
	       " files, %" PRIu64 " in snapshots, %" PRIu64 " sectors\n", l->nr_ops, l->nr_syncs,
	       l->nr_snaps, l->nr_files, l->nr_snap_files, l->nr_sectors);
	ledger_free(&l->ledger);
	return l->nr_problems != 0;
}
