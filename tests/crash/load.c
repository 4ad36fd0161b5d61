/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands on standard input: "run SEED DIRECT", until the daemon has been killed; "check", with the pool
 * mounted again. Each is answered by a line: "done" or "bad".
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "crash/load_worker.h"
#include "crash/sector.h"

#define PROBLEMS_TOLD 20U

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

uint64_t
below(struct worker *w, uint64_t bound)
{
	return random_below(&w->rs, bound);
}

void
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

void
path_of(const struct load *l, const char *name, char path[400])
{
	snprintf(path, 400, "%.350s/%.40s", l->dir, name);
}

const char *
name_of(const struct file *f)
{
	return f->places[f->nr_places - 1].name;
}

void
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

void
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

bool
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
	return r == 0;
}

/* --- all of them --- */

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
	printf("# %" PRIu64 " operations, %" PRIu64 " fsyncs, %" PRIu64 " snapshots, %" PRIu64
	       " copies and clones, %" PRIu64 " reverts; looked at %" PRIu64 " files, %" PRIu64
	       " in snapshots, %" PRIu64 " sectors\n", l->nr_ops, l->nr_syncs, l->nr_snaps,
	       l->nr_copies, l->nr_reverts, l->nr_files, l->nr_snap_files, l->nr_sectors);
	ledger_free(&l->ledger);
	return l->nr_problems != 0;
}
