/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "crash/load.h"
#include "crash/sector.h"

#define READ_SECTORS 2048U

bool
load_parse(struct load *l, const char *name, uint64_t id, const uint8_t *bytes, uint64_t first,
	   uint64_t nr, stamp *found)
{
	for (uint64_t i = 0; i < nr; i++) {
		enum sector_kind kind;
		struct sector s;

		kind = sector_parse(bytes + i * SECTOR_BYTES, &s);
		found[i] = kind == SECTOR_WHOLE ? stamp_data(s.gen) : 0;
		if (kind == SECTOR_ZERO || (kind == SECTOR_WHOLE && s.volume == id && s.nr == first + i))
			continue;
		if (kind == SECTOR_GARBAGE)
			load_problem(l, "%s: sector %" PRIu64 " holds garbage", name, first + i);
		else
			load_problem(l, "%s (%" PRIu64 "): sector %" PRIu64 " holds sector %" PRIu64
				     " of volume %" PRIu64, name, id, first + i, s.nr, s.volume);
		return false;
	}
	return true;
}

/* --- one file --- */

/* The size of what is at PATH, and the stamps of NR sectors; NULL, with errno: it cannot be read. */
static stamp *
read_stamps(struct load *l, const char *path, uint64_t id, uint64_t nr, uint64_t *size)
{
	stamp *found = calloc(nr + 1, sizeof(*found));
	uint8_t *buf = malloc(READ_SECTORS * SECTOR_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC), error = 0;
	uint64_t at = 0, end;
	struct stat st;

	if (!found || !buf)
		abort();
	if (fd < 0 || fstat(fd, &st)) {
		error = errno;
		goto out;
	}
	*size = (uint64_t)st.st_size;
	end = *size / SECTOR_BYTES < nr ? *size / SECTOR_BYTES : nr;
	while (at < end && !error) {
		uint64_t n = end - at < READ_SECTORS ? end - at : READ_SECTORS;
		ssize_t r = pread(fd, buf, n * SECTOR_BYTES, (off_t)(at * SECTOR_BYTES));

		if (r != (ssize_t)(n * SECTOR_BYTES))
			error = r < 0 ? errno : EIO;
		else if (!load_parse(l, path, id, buf, at, n, found + at))
			break;
		at += n;
	}
	l->nr_sectors += end;
out:
	if (fd >= 0)
		close(fd);
	free(buf);
	if (error) {
		free(found);
		errno = error;
		return NULL;
	}
	return found;
}

static void
check_stamps(struct load *l, const char *path, const stamp *found, uint64_t nr, const stamp *least,
	     const _Atomic stamp *zeroed, const stamp *zeroed_then, uint64_t upper)
{
	for (uint64_t i = 0; i < nr; i++) {
		stamp z = zeroed ? zeroed[i] : zeroed_then[i];

		if (stamp_allowed(found[i], least[i], z, upper))
			continue;
		load_problem(l, "%s: sector %" PRIu64 " is of generation %" PRIu64
			     ", but must be of %" PRIu64 " or later, to %" PRIu64, path, i,
			     found[i] >> 1, least[i] >> 1, upper);
		return;
	}
}

bool
load_check_frozen(struct load *l, const char *path, const struct snap *s, struct frozen *z)
{
	uint64_t size;
	stamp *found = read_stamps(l, path, z->id, z->nr, &size);

	if (!found)
		return false;
	l->nr_snap_files++;
	if (z->exact) {
		if (size != z->exact_size || memcmp(found, z->exact, z->nr * sizeof(*found)))
			load_problem(l, "%s: was frozen, and has changed", path);
	} else {
		if (!sizes_allow(&z->sizes, size))
			load_problem(l, "%s: has %" PRIu64 " bytes", path, size);
		check_stamps(l, path, found, z->nr, z->least, NULL, z->zeroed, s->upper);
	}
	free(z->exact);
	z->exact = found;
	z->exact_size = size;
	return true;
}

/* --- what is in a directory --- */

struct entry {
	char name[LEDGER_NAME * 2];
	int64_t dev, parent;
	bool used;
};

struct entries {
	struct entry *v;
	unsigned nr;
};

static int64_t
number(const char *path, const char *xattr)
{
	char value[32] = "";
	ssize_t n = getxattr(path, xattr, value, sizeof(value) - 1);

	return n > 0 ? strtoll(value, NULL, 10) : -1;
}

int64_t
load_device(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return number(path, "user.thinfs.id");
}

static void
list(struct load *l, const char *dir, bool directories, struct entries *out)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	*out = (struct entries){.nr = 0};
	if (!d) {
		load_problem(l, "%s: %s", dir, strerror(errno));
		return;
	}
	while ((e = readdir(d))) {
		struct entry *n;
		char path[700];

		if (e->d_name[0] == '.' || !strncmp(e->d_name, LOAD_COPY_PREFIX, strlen(LOAD_COPY_PREFIX)))
			continue;
		out->v = realloc(out->v, (out->nr + 1) * sizeof(*out->v));
		if (!out->v)
			abort();
		n = &out->v[out->nr++];
		*n = (struct entry){.dev = -1};
		snprintf(n->name, sizeof(n->name), "%.60s", e->d_name);
		if (directories)
			continue;
		snprintf(path, sizeof(path), "%.400s/%.60s", dir, n->name);
		n->dev = number(path, "user.thinfs.id");
		n->parent = number(path, "user.thinfs.parent");
	}
	closedir(d);
}

/* --- the top --- */

/* The last place of F with this name; -1: it never had it. */
static int
place_named(const struct file *f, const char *name)
{
	for (unsigned i = f->nr_places; i-- > 0;)
		if (!strcmp(f->places[i].name, name))
			return (int)i;
	return -1;
}

static struct file *
file_of(struct ledger *ledger, const struct entry *e)
{
	for (unsigned i = 0; i < ledger->nr_files; i++)
		if (ledger->files[i]->dev == e->dev)
			return ledger->files[i];
	/* Its making never returned. */
	for (unsigned i = 0; i < ledger->nr_files; i++)
		if (ledger->files[i]->dev == -1 && place_named(ledger->files[i], e->name) >= 0)
			return ledger->files[i];
	return NULL;
}

static void
find_files(struct load *l)
{
	struct ledger *ledger = &l->ledger;
	struct entries top;

	for (unsigned i = 0; i < ledger->nr_files; i++)
		ledger->files[i]->found = -1;
	list(l, l->dir, false, &top);
	for (unsigned i = 0; i < top.nr; i++) {
		struct file *f = file_of(ledger, &top.v[i]);
		int place = f ? place_named(f, top.v[i].name) : -1;

		if (place < 0 || f->found >= 0)
			load_problem(l, "%s: nobody made it, or it is there twice", top.v[i].name);
		else
			f->found = place;
		if (f)
			f->dev = top.v[i].dev;
	}
	free(top.v);
	for (unsigned i = 0; i < ledger->nr_files; i++) {
		struct file *f = ledger->files[i];

		if (f->found < 0)
			f->found = place_named(f, "");
		if (f->found < 0 || !place_allowed(ledger, f, (unsigned)f->found))
			load_problem(l, "volume %" PRIu64 " has the name '%s', which is lost or too old "
				     "(last '%s')", f->id, f->found < 0 ? "" : f->places[f->found].name,
				     f->places[f->nr_places - 1].name);
	}
}

/* A name that goes from one to the other is always there. Not known of one that may never have been. */
static void
check_pairs(struct load *l)
{
	struct ledger *ledger = &l->ledger;

	for (unsigned i = 0; i < ledger->nr_pairs; i++) {
		const struct pair *p = &ledger->pairs[i];
		bool a = p->a->found >= (int)p->place_a, b = p->b->found >= (int)p->place_b;
		bool a_never = place_allowed(ledger, p->a, 0) && !p->a->places[0].name[0];
		bool b_never = place_allowed(ledger, p->b, 0) && !p->b->places[0].name[0];

		if ((a && !b && !a_never) || (b && !a && !b_never))
			load_problem(l, "a rename over %s was done by half", p->b->places[p->place_b].name);
	}
}

/* Files that are long and of which nothing was written. */
static void
check_zeros(struct load *l, const char *path, uint64_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t step = 64U << 10;
	uint8_t bytes[SECTOR_BYTES];
	struct sector s;

	for (uint64_t at = 0; at + SECTOR_BYTES <= size; at += 16 * step + SECTOR_BYTES)
		if (pread(fd, bytes, sizeof(bytes), (off_t)at) != sizeof(bytes) ||
		    sector_parse(bytes, &s) != SECTOR_ZERO)
			load_problem(l, "%s: is not zero at %" PRIu64, path, at);
	close(fd);
}

static void
check_file(struct load *l, struct file *f)
{
	const char *name = f->places[f->found].name;
	char path[500];
	uint64_t size;
	stamp *found;

	snprintf(path, sizeof(path), "%.400s/%.40s", l->dir, name);
	found = read_stamps(l, path, f->id, f->nr, &size);
	if (!found) {
		load_problem(l, "%s: %s", path, strerror(errno));
		return;
	}
	l->nr_files++;
	if (!sizes_allow(&f->sizes, size))
		load_problem(l, "%s: has %" PRIu64 " bytes, %" PRIu64 " were durable", path, size,
			     f->sizes.v[0].end);
	check_stamps(l, path, found, f->nr, f->durable, f->zeroed, NULL, l->ledger.clock);
	if (!f->nr)
		check_zeros(l, path, size);
	ledger_keep(&l->ledger, f, found, size);
	free(found);
}

/* --- snapshots --- */

static bool
may_be_called(const struct frozen *z, const char *name)
{
	for (unsigned i = 0; i < z->nr_places; i++)
		if (!strcmp(z->places[i].name, name))
			return true;
	return false;
}

/* Two may have had the name at the time; the parent tells which it is. */
static struct frozen *
frozen_of(struct snap *s, const struct entry *e)
{
	struct frozen *one = NULL;

	for (unsigned i = 0; i < s->nr; i++) {
		struct frozen *z = &s->files[i];

		if (z->found || !may_be_called(z, e->name))
			continue;
		if (z->dev >= 0 && z->dev == e->parent)
			return z;
		if (!one && z->dev < 0)
			one = z;
	}
	return one;
}

static void
check_snap(struct load *l, struct snap *s)
{
	struct entries in;
	char path[500];

	snprintf(path, sizeof(path), "%.400s/.snapshots/%.40s", l->dir, s->name);
	list(l, path, false, &in);
	for (unsigned i = 0; i < s->nr; i++)
		s->files[i].found = false;
	for (unsigned i = 0; i < in.nr; i++) {
		struct frozen *z = frozen_of(s, &in.v[i]);
		char file[600];

		snprintf(file, sizeof(file), "%.500s/%.60s", path, in.v[i].name);
		if (!z) {
			load_problem(l, "%s: no such volume was there", file);
			continue;
		}
		z->found = true;
		if (!load_check_frozen(l, file, s, z))
			load_problem(l, "%s: %s", file, strerror(errno));
		/* From now on it has this name only. */
		z->places[0] = (struct place){.done = 1};
		snprintf(z->places[0].name, LEDGER_NAME, "%.31s", in.v[i].name);
		z->nr_places = 1;
	}
	for (unsigned i = 0; i < s->nr; i++) {
		struct frozen *z = &s->files[i];

		if (!z->found && !may_be_called(z, ""))
			load_problem(l, "%s: lacks %s", path, z->places[0].name);
		if (!z->found) {
			z->places[0].name[0] = '\0';
			z->nr_places = 1;
		}
	}
	free(in.v);
}

static bool
snap_allowed(const struct ledger *l, const struct snap *s, bool there)
{
	if (there)
		return !s->removed || s->removed > l->names_durable;
	return s->removing || !s->made || s->made > l->names_durable;
}

static void
check_snaps(struct load *l)
{
	struct ledger *ledger = &l->ledger;
	struct entries there;
	char path[500];

	snprintf(path, sizeof(path), "%.400s/.snapshots", l->dir);
	list(l, path, true, &there);
	for (unsigned i = ledger->nr_snaps; i-- > 0;) {
		struct snap *s = ledger->snaps[i];
		bool found = false;

		for (unsigned j = 0; j < there.nr; j++)
			if (!strcmp(there.v[j].name, s->name))
				found = there.v[j].used = true;
		if (!snap_allowed(ledger, s, found))
			load_problem(l, "snapshot %s is %s", s->name, found ? "back" : "lost");
		if (found) {
			check_snap(l, s);
			ledger_keep_snap(s);
		} else {
			ledger_drop_snap(ledger, i);
		}
	}
	for (unsigned j = 0; j < there.nr; j++)
		if (!there.v[j].used)
			load_problem(l, "snapshot %s: nobody made it", there.v[j].name);
	free(there.v);
}

void
load_check(struct load *l)
{
	struct ledger *ledger = &l->ledger;

	for (unsigned i = 0; i < ledger->nr_snaps; i++)
		if (!ledger->snaps[i]->is_closed)
			ledger_snapped(ledger, ledger->snaps[i], false);
	load_check_copies(l);
	find_files(l);
	check_pairs(l);
	check_snaps(l);
	ledger->nr_pairs = 0;
	for (unsigned i = ledger->nr_files; i-- > 0;) {
		struct file *f = ledger->files[i];

		if (f->found >= 0 && f->places[f->found].name[0])
			check_file(l, f);
		else
			ledger_drop(ledger, i);
	}
}
