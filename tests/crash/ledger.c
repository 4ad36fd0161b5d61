/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "crash/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *
must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void *
copy(const void *from, size_t nr, size_t size)
{
	void *to = must(malloc(nr ? nr * size : 1));

	if (nr)
		memcpy(to, from, nr * size);
	return to;
}

static stamp *
copy_stamps(_Atomic stamp *from, uint64_t nr)
{
	stamp *to = must(malloc(nr ? nr * sizeof(*to) : 1));

	for (uint64_t i = 0; i < nr; i++)
		to[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
	return to;
}

void
ledger_init(struct ledger *l)
{
	memset(l, 0, sizeof(*l));
	pthread_mutex_init(&l->lock, NULL);
	l->next_id = 1;
}

uint64_t
ledger_now(struct ledger *l)
{
	return atomic_fetch_add(&l->clock, 1) + 1;
}

/* --- files and their names --- */

static unsigned
add_place(struct file *f, const char *name)
{
	f->places = must(realloc(f->places, (f->nr_places + 1) * sizeof(*f->places)));
	f->places[f->nr_places] = (struct place){.done = 0};
	snprintf(f->places[f->nr_places].name, LEDGER_NAME, "%s", name);
	return f->nr_places++;
}

struct file *
ledger_add(struct ledger *l, uint64_t nr)
{
	struct file *f = must(calloc(1, sizeof(*f)));

	f->nr = nr;
	f->dev = -1;
	f->done = must(calloc(nr + 1, sizeof(stamp)));
	f->zeroed = must(calloc(nr + 1, sizeof(stamp)));
	f->durable = must(calloc(nr + 1, sizeof(stamp)));
	pthread_mutex_init(&f->lock, NULL);
	f->sizes.v = must(calloc(1, sizeof(*f->sizes.v)));
	f->sizes.nr = 1;
	f->sizes.v[0].done = 1;
	add_place(f, "");
	f->places[0].done = 1;
	pthread_mutex_lock(&l->lock);
	f->id = l->next_id++;
	if (l->nr_files == LEDGER_FILES)
		abort();
	l->files[l->nr_files++] = f;
	pthread_mutex_unlock(&l->lock);
	return f;
}

unsigned
ledger_place(struct ledger *l, struct file *f, const char *name)
{
	unsigned place;

	pthread_mutex_lock(&l->lock);
	place = add_place(f, name);
	pthread_mutex_unlock(&l->lock);
	return place;
}

void
ledger_placed(struct ledger *l, struct file *f, unsigned place)
{
	pthread_mutex_lock(&l->lock);
	f->places[place].done = ledger_now(l);
	pthread_mutex_unlock(&l->lock);
}

void
ledger_replace(struct ledger *l, struct file *a, struct file *b)
{
	pthread_mutex_lock(&l->lock);
	l->pairs[l->nr_pairs] = (struct pair){.a = a, .b = b};
	l->pairs[l->nr_pairs].place_b = add_place(b, a->places[a->nr_places - 1].name);
	l->pairs[l->nr_pairs].place_a = add_place(a, "");
	l->nr_pairs++;
	pthread_mutex_unlock(&l->lock);
}

void
ledger_replaced(struct ledger *l, struct file *a, struct file *b)
{
	pthread_mutex_lock(&l->lock);
	a->places[a->nr_places - 1].done = b->places[b->nr_places - 1].done = ledger_now(l);
	pthread_mutex_unlock(&l->lock);
}

bool
place_allowed(const struct ledger *l, const struct file *f, unsigned which)
{
	for (unsigned i = which + 1; i < f->nr_places; i++)
		if (f->places[i].done && f->places[i].done <= l->names_durable)
			return false;
	return true;
}

/* --- contents --- */

stamp
ledger_begin(struct ledger *l, struct file *f, uint64_t first, uint64_t end, bool zero)
{
	uint64_t gen = ledger_now(l);
	stamp s = zero ? stamp_zero(gen) : stamp_data(gen);

	for (uint64_t i = first; zero && i < end && i < f->nr; i++)
		atomic_store_explicit(&f->zeroed[i], s, memory_order_relaxed);
	return s;
}

void
ledger_end(struct file *f, uint64_t first, uint64_t end, stamp s)
{
	for (uint64_t i = first; i < end && i < f->nr; i++)
		atomic_store_explicit(&f->done[i], s, memory_order_relaxed);
}

void
ledger_size(struct file *f, uint64_t from, uint64_t to)
{
	struct sizes *z = &f->sizes;

	pthread_mutex_lock(&f->lock);
	z->v = must(realloc(z->v, (z->nr + 1) * sizeof(*z->v)));
	z->v[z->nr++] = (struct size_change){.start = from < to ? from : to, .end = to};
	pthread_mutex_unlock(&f->lock);
}

void
ledger_sized(struct ledger *l, struct file *f)
{
	pthread_mutex_lock(&f->lock);
	f->sizes.v[f->sizes.nr - 1].done = ledger_now(l);
	pthread_mutex_unlock(&f->lock);
}

bool
sizes_allow(const struct sizes *z, uint64_t size)
{
	if (z->any || size == z->v[0].end)
		return true;
	for (unsigned i = 1; i < z->nr; i++)
		if (size == z->v[i].end || (size > z->v[i].start && size <= z->v[i].end))
			return true;
	return false;
}

bool
stamp_allowed(stamp found, stamp least, stamp zeroed, uint64_t upper)
{
	if (stamp_is_zero(found))
		return stamp_is_zero(least) || zeroed > least;
	return found >= least && found <= stamp_zero(upper);
}

/* The last change of the size that had returned by WHEN is the first of all that remain. */
static void
forget_sizes(struct sizes *z, uint64_t when)
{
	unsigned first = 0;

	for (unsigned i = 0; i < z->nr; i++)
		if (z->v[i].done && z->v[i].done <= when)
			first = i;
	memmove(z->v, z->v + first, (z->nr - first) * sizeof(*z->v));
	z->nr -= first;
	z->forgotten += first;
	z->v[0].start = z->v[0].end;
}

void
ledger_sync(struct ledger *l, struct file *f, struct syncing *s)
{
	s->done = f ? copy_stamps(f->done, f->nr) : NULL;
	s->began = ledger_now(l);
}

void
ledger_synced(struct ledger *l, struct file *f, struct syncing *s, bool success)
{
	uint64_t before = l->names_durable;

	while (success && before < s->began &&
	       !atomic_compare_exchange_weak(&l->names_durable, &before, s->began))
		;
	if (f && success) {
		pthread_mutex_lock(&f->lock);
		for (uint64_t i = 0; i < f->nr; i++)
			if (s->done[i] > f->durable[i])
				f->durable[i] = s->done[i];
		forget_sizes(&f->sizes, s->began);
		pthread_mutex_unlock(&f->lock);
	}
	free(s->done);
}

/* --- snapshots --- */

static unsigned
last_done(const struct file *f)
{
	unsigned done = 0;

	for (unsigned p = 0; p < f->nr_places; p++)
		if (f->places[p].done)
			done = p;
	return done;
}

static void
freeze(struct frozen *z, struct file *f)
{
	unsigned long forgotten;

	*z = (struct frozen){.file = f, .id = f->id, .nr = f->nr, .first_place = last_done(f)};
	pthread_mutex_lock(&f->lock);
	z->least = copy_stamps(f->done, f->nr);
	z->sizes = f->sizes;
	forgotten = f->sizes.forgotten;
	z->sizes.v = copy(f->sizes.v, f->sizes.nr, sizeof(*f->sizes.v));
	pthread_mutex_unlock(&f->lock);
	forget_sizes(&z->sizes, UINT64_MAX);
	z->sizes.forgotten = forgotten;
}

struct snap *
ledger_snap(struct ledger *l, const char *name, struct file *only)
{
	struct snap *s = must(calloc(1, sizeof(*s)));

	snprintf(s->name, sizeof(s->name), "%s", name);
	s->only = only;
	pthread_mutex_lock(&l->lock);
	s->nr_files = l->nr_files;
	s->files = must(calloc(l->nr_files + 1, sizeof(*s->files)));
	for (unsigned i = 0; i < l->nr_files; i++)
		if (!only || l->files[i] == only)
			freeze(&s->files[s->nr++], l->files[i]);
	if (l->nr_snaps == LEDGER_SNAPS)
		abort();
	l->snaps[l->nr_snaps++] = s;
	pthread_mutex_unlock(&l->lock);
	return s;
}

/* The changes of the size that were begun while the snapshot was made. */
static void
add_sizes(struct sizes *then, const struct sizes *now)
{
	/* An fsync meanwhile may have shortened the list. */
	then->any = then->forgotten != now->forgotten;
	then->v = must(realloc(then->v, (then->nr + now->nr) * sizeof(*then->v)));
	memcpy(then->v + then->nr, now->v, now->nr * sizeof(*then->v));
	then->nr += now->nr;
}

static void
close_frozen(struct frozen *z)
{
	struct file *f = z->file;

	z->zeroed = copy_stamps(f->zeroed, f->nr);
	z->nr_places = f->nr_places - z->first_place;
	z->places = copy(f->places + z->first_place, z->nr_places, sizeof(*z->places));
	z->dev = f->dev;
	pthread_mutex_lock(&f->lock);
	add_sizes(&z->sizes, &f->sizes);
	pthread_mutex_unlock(&f->lock);
}

/* A file that came while the snapshot was made: it may be in it, or not. */
static void
freeze_new(struct frozen *z, struct file *f)
{
	freeze(z, f);
	z->first_place = 0;
	memset(z->least, 0, f->nr * sizeof(stamp));
	z->sizes.forgotten = 0;
	z->sizes.v[0] = (struct size_change){.start = 0, .end = z->sizes.v[0].end};
	z->sizes.v = must(realloc(z->sizes.v, 2 * sizeof(*z->sizes.v)));
	z->sizes.v[1] = z->sizes.v[0];
	z->sizes.v[0] = (struct size_change){.done = 1};
	z->sizes.nr = 2;
}

void
ledger_snapped(struct ledger *l, struct snap *s, bool returned)
{
	unsigned nr_new;

	pthread_mutex_lock(&l->lock);
	s->upper = ledger_now(l);
	nr_new = s->only ? 0 : l->nr_files - s->nr_files;
	s->files = must(realloc(s->files, (s->nr + nr_new + 1) * sizeof(*s->files)));
	for (unsigned i = 0; i < nr_new; i++)
		freeze_new(&s->files[s->nr++], l->files[s->nr_files + i]);
	for (unsigned i = 0; i < s->nr; i++)
		close_frozen(&s->files[i]);
	s->is_closed = true;
	s->made = returned ? s->upper : 0;
	pthread_mutex_unlock(&l->lock);
}

/* --- after a check --- */

static void
free_snap(struct snap *s)
{
	for (unsigned i = 0; i < s->nr; i++) {
		free(s->files[i].least);
		free(s->files[i].zeroed);
		free(s->files[i].sizes.v);
		free(s->files[i].places);
		free(s->files[i].exact);
	}
	free(s->files);
	free(s);
}

void
ledger_drop_snap(struct ledger *l, unsigned nr)
{
	free_snap(l->snaps[nr]);
	l->snaps[nr] = l->snaps[--l->nr_snaps];
}

void
ledger_drop(struct ledger *l, unsigned nr)
{
	struct file *f = l->files[nr];

	free(f->done);
	free(f->zeroed);
	free(f->durable);
	free(f->sizes.v);
	free(f->places);
	pthread_mutex_destroy(&f->lock);
	free(f);
	l->files[nr] = l->files[--l->nr_files];
}

void
ledger_keep(struct ledger *l, struct file *f, const stamp *found, uint64_t size)
{
	stamp now = stamp_zero(l->clock);

	for (uint64_t i = 0; i < f->nr; i++) {
		stamp s = stamp_is_zero(found[i]) ? now : found[i];

		f->done[i] = f->durable[i] = s;
		f->zeroed[i] = stamp_is_zero(found[i]) ? now : 0;
	}
	f->sizes.nr = 1;
	f->sizes.v[0] = (struct size_change){.start = size, .end = size, .done = 1};
	f->places[0] = f->places[f->found];
	f->places[0].done = 1;
	f->nr_places = 1;
}

void
ledger_keep_snap(struct snap *s)
{
	s->made = 1;
	s->removing = s->removed = 0;
	for (unsigned i = 0; i < s->nr; i++)
		s->files[i].file = NULL;
	s->only = NULL;
}

void
ledger_free(struct ledger *l)
{
	while (l->nr_snaps)
		ledger_drop_snap(l, 0);
	while (l->nr_files)
		ledger_drop(l, 0);
	pthread_mutex_destroy(&l->lock);
}
