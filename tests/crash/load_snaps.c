/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Those who make, read and remove snapshots, with what is copied out of them; and files that take long to be removed. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crash/load_worker.h"

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
	if (below(w, 2)) {
		read_snap(w, s);
		for (unsigned i = 0; i < 4 && !w->l->dead; i++)
			copy_some(w, s);
	}
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

void *
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
		if (below(w, 4) == 0)
			revert_some(w);
		else if (nr < 4)
			snap_make(w, ledger->files[0]);
		else
			snap_remove(w, there[below(w, nr)]);
	}
	return NULL;
}

void *
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
			if (o.fd >= 0)
				close(o.fd);
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
		close(o.fd);
		remove_file(w, f);
		if (below(w, 2))
			sync_dir(w);
	}
	return NULL;
}
