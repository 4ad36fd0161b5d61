/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies, clones and reverts. A copy is made of a file of a snapshot, which does not change: so that each sector
 * of it is known. A clone is whole or not there; a copy that was synced is whole; what is written to either
 * is not seen in the snapshot (load_check_frozen()). When the daemon was killed, they are looked at, and removed.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crash/load_worker.h"
#include "crash/sector.h"
#include "fuse/control_proto.h"

#define OWN_ID (1ULL << 60) /* of what is written to copies */
#define REVERT_ID (1ULL << 61)
#define REVERT_VOLUME LOAD_COPY_PREFIX "rev"
#define REVERT_OLD REVERT_VOLUME "@old"
#define REVERT_KEPT REVERT_VOLUME "@kept"
#define REVERT_SECTORS BUF_SECTORS

/* --- making them --- */

static bool
ask(struct worker *w, const char *snapshot, unsigned long request, struct control_clone *c)
{
	char path[400];
	int fd, r, error;

	snprintf(path, sizeof(path), "%.300s/.snapshots/%.40s", w->l->dir, snapshot);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	r = ioctl(fd, request, c);
	/* Closing a file is not waited for. */
	for (unsigned i = 0; r && errno == EBUSY && i < 200; i++) {
		usleep(10000);
		r = ioctl(fd, request, c);
	}
	error = errno;
	close(fd);
	errno = error;
	return r == 0;
}

static bool
clone_file(struct worker *w, const struct snap *s, const char *file, struct copy *c)
{
	struct control_clone args = {0};

	snprintf(args.from, sizeof(args.from), "%s", file);
	snprintf(args.to, sizeof(args.to), "%s", c->name);
	return ask(w, s->name, CONTROL_IOC_CLONE, &args);
}

static bool
copy_bytes(int in, int out, uint64_t size)
{
	while (size) {
		ssize_t n = copy_file_range(in, NULL, out, NULL, size, 0);

		if (n <= 0) {
			errno = n ? errno : EIO;
			return false;
		}
		size -= (uint64_t)n;
	}
	return true;
}

static bool
copy_file(struct worker *w, const struct snap *s, const char *file, struct copy *c)
{
	char from[500], to[400];
	int in, out, error;
	bool good;

	snprintf(from, sizeof(from), "%.300s/.snapshots/%.40s/%.40s", w->l->dir, s->name, file);
	path_of(w->l, c->name, to);
	in = open(from, O_RDONLY | O_CLOEXEC);
	out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	good = in >= 0 && out >= 0 && copy_bytes(in, out, c->size);
	if (good && below(w, 2)) {
		good = fsync(out) == 0;
		c->durable = good;
	}
	error = errno;
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	errno = error;
	return good;
}

/* Some pages of its own, among what is shared. */
static void
write_to_copy(struct worker *w, struct copy *c)
{
	uint64_t pages = c->size / SECTOR_BYTES / 8;
	char path[400];
	int fd;

	path_of(w->l, c->name, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	c->written = true;
	for (unsigned i = 0; fd >= 0 && pages && i < 8; i++) {
		uint64_t first = below(w, pages) * 8;

		for (unsigned k = 0; k < 8; k++) {
			struct sector id = {OWN_ID, first + k, 1};

			sector_fill(w->buf + k * SECTOR_BYTES, &id);
		}
		if (pwrite(fd, w->buf, 8 * SECTOR_BYTES, (off_t)(first * SECTOR_BYTES)) < 0) {
			failed(w->l, "write to", path, errno);
			break;
		}
	}
	if (fd < 0)
		failed(w->l, "open", path, errno);
	else
		close(fd);
}

static void
forget(struct copy *c)
{
	free(c->exact);
	memset(c, 0, sizeof(*c));
}

static void
remove_copy(struct worker *w, struct copy *c)
{
	char path[400];

	path_of(w->l, c->name, path);
	c->going = true;
	if (unlink(path))
		failed(w->l, "unlink", path, errno);
	else if (sync_dir(w))
		forget(c);
}

/* A file of the snapshot of which all is known. */
static struct frozen *
some_frozen(struct worker *w, struct snap *s)
{
	for (unsigned tries = 0; s->nr && tries < 10; tries++) {
		struct frozen *z = &s->files[below(w, s->nr)];

		if (z->exact && z->nr && z->nr_places == 1 && z->places[0].name[0] &&
		    z->exact_size <= z->nr * SECTOR_BYTES)
			return z;
	}
	return NULL;
}

void
copy_some(struct worker *w, struct snap *s)
{
	struct copy *c = &w->l->copies[below(w, LOAD_COPIES)];
	const struct frozen *z = some_frozen(w, s);
	bool good;

	if (c->name[0]) {
		remove_copy(w, c);
		return;
	}
	if (!z)
		return;
	c->id = z->id;
	c->size = z->exact_size;
	c->exact = malloc((z->nr + 1) * sizeof(*c->exact));
	if (!c->exact)
		abort();
	memcpy(c->exact, z->exact, z->nr * sizeof(*c->exact));
	c->whole = below(w, 2);
	snprintf(c->name, sizeof(c->name), LOAD_COPY_PREFIX "%" PRIu64, ledger_now(&w->l->ledger));
	good = c->whole ? clone_file(w, s, z->places[0].name, c) : copy_file(w, s, z->places[0].name, c);
	if (!good) {
		failed(w->l, c->whole ? "clone to" : "copy to", c->name, errno);
		return;
	}
	w->l->nr_copies++;
	if (c->whole && below(w, 2))
		c->durable = sync_dir(w);
	if (below(w, 2))
		write_to_copy(w, c);
}

/* --- going back --- */

static bool
write_whole(struct worker *w, uint64_t gen)
{
	char path[400];
	bool good;
	int fd;

	path_of(w->l, REVERT_VOLUME, path);
	for (uint64_t i = 0; i < REVERT_SECTORS; i++) {
		struct sector id = {REVERT_ID, i, gen};

		sector_fill(w->buf + i * SECTOR_BYTES, &id);
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	good = fd >= 0 && pwrite(fd, w->buf, REVERT_SECTORS * SECTOR_BYTES, 0) == REVERT_SECTORS * SECTOR_BYTES &&
	       fsync(fd) == 0;
	if (!good)
		failed(w->l, "write to", path, errno);
	if (fd >= 0)
		close(fd);
	return good;
}

static bool
change_snapshot(struct worker *w, const char *name, int (*change)(const char *path))
{
	char path[400];

	snprintf(path, sizeof(path), "%.300s/.snapshots/%s", w->l->dir, name);
	if (!change(path))
		return true;
	failed(w->l, "mkdir or rmdir", path, errno);
	return false;
}

static int
make_dir(const char *path)
{
	return mkdir(path, 0755);
}

void
revert_some(struct worker *w)
{
	struct reverting *r = &w->l->reverting;
	struct control_clone args = {.from = REVERT_VOLUME, .to = REVERT_VOLUME, .safety = REVERT_KEPT};

	r->phase = REVERT_UNKNOWN;
	r->gen += 2;
	if (!write_whole(w, r->gen) || !change_snapshot(w, REVERT_OLD, make_dir) ||
	    !write_whole(w, r->gen + 1))
		return;
	if (!sync_dir(w))
		return;
	r->phase = REVERT_CALLED;
	if (!ask(w, REVERT_OLD, CONTROL_IOC_REVERT, &args)) {
		failed(w->l, "revert", REVERT_VOLUME, errno);
		return;
	}
	w->l->nr_reverts++;
	if (!sync_dir(w))
		return;
	r->phase = REVERT_DURABLE;
	usleep((useconds_t)below(w, 20000));
	if (w->l->dead)
		return;
	r->phase = REVERT_UNKNOWN;
	if (change_snapshot(w, REVERT_KEPT, rmdir))
		change_snapshot(w, REVERT_OLD, rmdir);
}

/* --- looking at them --- */

/* Sector NR of copy C. */
static bool
sector_allowed(const struct copy *c, const uint8_t *bytes, uint64_t nr)
{
	struct sector s;

	switch (sector_parse(bytes, &s)) {
	case SECTOR_ZERO:
		return !c->exact[nr] || (!c->whole && !c->durable);
	case SECTOR_WHOLE:
		if (s.volume == OWN_ID)
			return c->written && s.nr == nr;
		return s.volume == c->id && s.nr == nr && stamp_data(s.gen) == c->exact[nr];
	default:
		return false;
	}
}

static void
check_contents(struct load *l, const struct copy *c, const char *path, int fd)
{
	uint8_t bytes[SECTOR_BYTES];
	struct stat st;

	if (fstat(fd, &st)) {
		load_problem(l, "%s: %s", path, strerror(errno));
		return;
	}
	if ((uint64_t)st.st_size > c->size ||
	    ((c->whole || c->durable) && (uint64_t)st.st_size != c->size))
		load_problem(l, "%s: a %s of %" PRIu64 " bytes has %" PRIu64, path,
			     c->whole ? "clone" : "copy", c->size, (uint64_t)st.st_size);
	for (uint64_t i = 0; (i + 1) * SECTOR_BYTES <= (uint64_t)st.st_size; i++) {
		if (pread(fd, bytes, sizeof(bytes), (off_t)(i * SECTOR_BYTES)) != sizeof(bytes)) {
			load_problem(l, "%s: reading: %s", path, strerror(errno));
			return;
		}
		if (!sector_allowed(c, bytes, i)) {
			load_problem(l, "%s: sector %" PRIu64 " of a %s is not as it was copied", path, i,
				     c->whole ? "clone" : "copy");
			return;
		}
		l->nr_sectors++;
	}
}

static void
check_copy(struct load *l, struct copy *c)
{
	char path[400];
	int fd;

	path_of(l, c->name, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT || (c->durable && !c->going))
			load_problem(l, "%s: %s, though it was durable", path, strerror(errno));
		return;
	}
	check_contents(l, c, path, fd);
	close(fd);
	if (unlink(path))
		load_problem(l, "unlink %s: %s", path, strerror(errno));
}

/* The one generation that all of a file is of; 0: more than one, or none, or it is not there. */
static uint64_t
generation(struct load *l, const char *below_mount)
{
	uint8_t bytes[SECTOR_BYTES];
	uint64_t gen = 0;
	struct sector s;
	char path[500];
	int fd;

	snprintf(path, sizeof(path), "%.400s/%.80s", l->dir, below_mount);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	for (uint64_t i = 0; fd >= 0 && i < REVERT_SECTORS; i++) {
		if (pread(fd, bytes, sizeof(bytes), (off_t)(i * SECTOR_BYTES)) != sizeof(bytes) ||
		    sector_parse(bytes, &s) != SECTOR_WHOLE || s.volume != REVERT_ID || s.nr != i ||
		    (gen && s.gen != gen)) {
			gen = 0;
			break;
		}
		gen = s.gen;
	}
	if (fd >= 0)
		close(fd);
	return gen;
}

static void
check_reverted(struct load *l)
{
	static const char *const snapshots[] = {REVERT_OLD, REVERT_KEPT};
	const struct reverting *r = &l->reverting;
	uint64_t now = generation(l, REVERT_VOLUME);
	uint64_t kept = generation(l, ".snapshots/" REVERT_KEPT "/" REVERT_VOLUME);
	bool before = now == r->gen + 1 && !kept, after = now == r->gen && kept == r->gen + 1;
	char path[400];

	if ((r->phase == REVERT_CALLED && !before && !after) || (r->phase == REVERT_DURABLE && !after))
		load_problem(l, "a revert to %" PRIu64 "%s: the volume has %" PRIu64 ", kept is %" PRIu64,
			     r->gen, r->phase == REVERT_DURABLE ? ", durable" : "", now, kept);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%.300s/.snapshots/%s", l->dir, snapshots[i]);
		if (rmdir(path) && errno != ENOENT)
			load_problem(l, "%s: %s", path, strerror(errno));
	}
	path_of(l, REVERT_VOLUME, path);
	if (unlink(path) && errno != ENOENT)
		load_problem(l, "%s: %s", path, strerror(errno));
	l->reverting.phase = REVERT_UNKNOWN;
}

void
load_check_copies(struct load *l)
{
	for (unsigned i = 0; i < LOAD_COPIES; i++) {
		if (l->copies[i].name[0])
			check_copy(l, &l->copies[i]);
		forget(&l->copies[i]);
	}
	check_reverted(l);
}
