/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/oracle_internal.h"

const uint8_t oracle_zero_sector[ORACLE_SECTOR];

static void *
must(void *p)
{
	if (!p)
		abort();
	return p;
}

bool
oracle_problem(struct oracle *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(o->problem, sizeof(o->problem), format, ap);
	va_end(ap);
	return false;
}

/* --- contents --- */

static struct volume *
find_volume(struct oracle *o, uint32_t id)
{
	for (size_t i = o->nr_volumes; i--;)
		if (o->volumes[i]->id == id)
			return o->volumes[i];
	return NULL;
}

static struct volume *
new_volume(struct oracle *o, uint32_t id)
{
	struct volume *v = must(calloc(1, sizeof(*v)));

	v->id = id;
	v->born = o->nr_ops;
	o->volumes = must(realloc(o->volumes, (o->nr_volumes + 1) * sizeof(struct volume *)));
	o->volumes[o->nr_volumes++] = v;
	return v;
}

/* The one that has the number now, or had it last. */
static struct volume *
get_volume(struct oracle *o, uint32_t id)
{
	const struct version *now = o->nr_versions ? oracle_now(o) : NULL;
	struct volume *v;

	for (unsigned i = 0; now && i < now->nr; i++)
		if (now->v[i].id == id && now->v[i].vol)
			return now->v[i].vol;
	v = find_volume(o, id);
	return v ? v : new_volume(o, id);
}

const uint8_t *
oracle_last_value(const struct history *h)
{
	return h->nr ? h->v[h->nr - 1]->bytes : oracle_zero_sector;
}

/* The next value of a sector, the same as the last one at first. */
static uint8_t *
add_value(struct oracle *o, struct history *h, bool sure)
{
	struct value *v = must(malloc(sizeof(*v)));

	v->op = o->nr_ops;
	v->sure = sure;
	memcpy(v->bytes, oracle_last_value(h), ORACLE_SECTOR);
	if (h->nr == h->cap) {
		h->cap = h->cap ? 2 * h->cap : 2;
		h->v = must(realloc(h->v, h->cap * sizeof(struct value *)));
	}
	h->v[h->nr++] = v;
	return v->bytes;
}

void
oracle_write(struct oracle *o, uint32_t id, const uint8_t *buf, uint64_t len, uint64_t offset,
	     bool sure)
{
	struct volume *vol = get_volume(o, id);
	uint64_t end = offset + len < ORACLE_BYTES ? offset + len : ORACLE_BYTES;

	while (offset < end) {
		uint64_t at = offset % ORACLE_SECTOR;
		uint64_t n = end - offset < ORACLE_SECTOR - at ? end - offset : ORACLE_SECTOR - at;
		uint8_t *to = add_value(o, &vol->sectors[offset / ORACLE_SECTOR], sure);

		if (buf)
			memcpy(to + at, buf, n);
		else
			memset(to + at, 0, n);
		buf = buf ? buf + n : NULL;
		offset += n;
	}
}

/*
 * After a kill, what was written past the end may be in the cache, and is cut off at the end when that
 * moves out: each value that the sector may have, with zeros from there on.
 */
void
oracle_extend(struct oracle *o, uint32_t id, uint64_t size)
{
	uint64_t at = size % ORACLE_SECTOR;
	struct history *h;
	unsigned nr;

	if (!o->killed || !at || size >= ORACLE_BYTES)
		return;
	h = &get_volume(o, id)->sectors[size / ORACLE_SECTOR];
	nr = (unsigned)h->nr;
	for (unsigned i = 0; i < nr; i++) {
		uint8_t *to;

		if (!memcmp(h->v[i]->bytes + at, oracle_zero_sector, ORACLE_SECTOR - at))
			continue;
		to = add_value(o, h, false);
		memcpy(to, h->v[i]->bytes, at);
		memset(to + at, 0, ORACLE_SECTOR - at);
	}
}

/* From this value on, those of a sector are what it may have now: the last sure one, and what came after. */
static uint32_t
first_now(const struct history *h)
{
	uint32_t first = h->nr;

	while (first && !h->v[first - 1]->sure)
		first--;
	return first ? first - 1 : 0;
}

static bool
is_sure(const struct history *h)
{
	return h->nr && h->v[first_now(h)]->sure;
}

/* What is not sure there is not sure here. */
static void
copy_sector(struct oracle *o, struct history *to, const struct history *from, bool sure)
{
	if (!is_sure(from))
		memset(add_value(o, to, sure), 0, ORACLE_SECTOR);
	for (uint32_t i = first_now(from); i < from->nr; i++)
		memcpy(add_value(o, to, sure && from->v[i]->sure), from->v[i]->bytes, ORACLE_SECTOR);
}

void
oracle_take(struct oracle *o, struct volume *to, const struct volume *from)
{
	for (unsigned i = 0; i < ORACLE_SECTORS; i++)
		if (from->sectors[i].nr)
			copy_sector(o, &to->sectors[i], &from->sectors[i], true);
}

void
oracle_snapshot(struct oracle *o, uint32_t id, uint32_t origin)
{
	oracle_take(o, get_volume(o, id), get_volume(o, origin));
}

/* A part of a sector is only known where all is sure. */
static void
copy_part(struct oracle *o, const struct volume *from, uint64_t src, uint32_t to, uint64_t dst, uint64_t len)
{
	const uint8_t *sector = oracle_last_value(&from->sectors[src / ORACLE_SECTOR]);

	oracle_write(o, to, sector + src % ORACLE_SECTOR, len, dst, true);
}

void
oracle_copy(struct oracle *o, uint32_t from, uint64_t src, uint32_t to, uint64_t dst, uint64_t len,
	    bool sure)
{
	struct volume *a = get_volume(o, from), *b = get_volume(o, to);

	while (len) {
		uint64_t n = ORACLE_SECTOR - src % ORACLE_SECTOR;

		n = n < len ? n : len;
		if (n == ORACLE_SECTOR && dst % ORACLE_SECTOR == 0)
			copy_sector(o, &b->sectors[dst / ORACLE_SECTOR], &a->sectors[src / ORACLE_SECTOR],
				    sure);
		else
			copy_part(o, a, src, to, dst, n);
		src += n;
		dst += n;
		len -= n;
	}
}

/* --- names --- */

static struct entry *
add_entry(struct version *v, const char *dir, const char *name)
{
	struct entry *e;

	v->v = must(realloc(v->v, (v->nr + 1) * sizeof(*v->v)));
	e = &v->v[v->nr++];
	memset(e, 0, sizeof(*e));
	snprintf(e->dir, sizeof(e->dir), "%.39s", dir);
	snprintf(e->name, sizeof(e->name), "%.39s", name);
	return e;
}

static void
list_dir(struct version *out, struct pool *p, struct voldir *dir)
{
	char name[POOL_NAME_MAX + 1], where[POOL_NAME_MAX + 1];
	uint64_t cookie = 0;
	struct vol *vol;

	while (!pool_next_volume(p, dir, cookie, &vol, &cookie)) {
		struct vol_attr attr = {.id = UINT32_MAX - 1};
		struct entry *e;

		vol_get_name(vol, name, where);
		vol_getattr(vol, &attr);
		e = add_entry(out, where, name);
		e->id = attr.id;
		e->parent = attr.parent;
		e->read_only = attr.read_only;
		e->size = attr.size;
		vol_put(vol);
	}
}

struct version
oracle_list(struct pool *p)
{
	char name[POOL_NAME_MAX + 1];
	struct version v = {0};
	struct voldir *dir;
	uint64_t cookie = 0;

	list_dir(&v, p, pool_top(p));
	while (!pool_next_snapshot(p, cookie, &dir, &cookie)) {
		voldir_get_name(dir, name);
		add_entry(&v, name, "")->id = ORACLE_DIR;
		list_dir(&v, p, dir);
		voldir_put(dir);
	}
	return v;
}

static bool
same_entry(const struct entry *a, const struct entry *b)
{
	return a->id == b->id && a->parent == b->parent && a->read_only == b->read_only &&
	       a->size == b->size && !strcmp(a->dir, b->dir) && !strcmp(a->name, b->name);
}

bool
oracle_same_version(const struct version *a, const struct version *b)
{
	if (a->nr != b->nr)
		return false;
	for (unsigned i = 0; i < a->nr; i++) {
		bool found = false;

		for (unsigned j = 0; j < b->nr && !found; j++)
			found = same_entry(&a->v[i], &b->v[j]);
		if (!found)
			return false;
	}
	return true;
}

const struct version *
oracle_now(const struct oracle *o)
{
	return &o->versions[o->nr_versions - 1];
}

static bool
has_id(const struct version *v, uint32_t id)
{
	for (unsigned i = 0; i < v->nr; i++)
		if (v->v[i].id == id)
			return true;
	return false;
}

static void
find_contents(struct oracle *o, struct version *v, bool born)
{
	for (unsigned i = 0; i < v->nr; i++) {
		struct entry *e = &v->v[i];

		if (e->id == ORACLE_DIR)
			continue;
		if (o->nr_versions && ((born && !has_id(oracle_now(o), e->id)) || e->id == o->replaced))
			e->vol = new_volume(o, e->id);
		else
			e->vol = get_volume(o, e->id);
	}
	o->replaced = ORACLE_DIR;
}

bool
oracle_same_contents(const struct version *v, const struct version *known)
{
	for (unsigned i = 0; i < v->nr; i++)
		for (unsigned j = 0; j < known->nr; j++)
			if (v->v[i].id == known->v[j].id && v->v[i].vol != known->v[j].vol)
				return false;
	return true;
}

/* V, which is the same as KNOWN, has its contents, too. */
static void
take_contents(struct version *v, const struct version *known)
{
	for (unsigned i = 0; i < v->nr; i++)
		for (unsigned j = 0; j < known->nr; j++)
			if (v->v[i].id == known->v[j].id)
				v->v[i].vol = known->v[j].vol;
}

/*
 * The pool is as it was: find out when, because a number may have had other contents then. Names alone tell, but
 * where something was done and undone; there the contents do.
 */
static void
find_old_contents(struct oracle *o, struct pool *p, struct version *v)
{
	bool found = false;

	find_contents(o, v, false);
	for (size_t i = o->nr_versions; i--;) {
		const struct version *known = &o->versions[i];

		if (!oracle_same_version(v, known) || (found && oracle_same_contents(v, known)))
			continue;
		if (found && oracle_check_version(o, p, v, SIZE_MAX, false))
			return;
		take_contents(v, known);
		found = true;
	}
}

const struct version *
oracle_look(struct oracle *o, struct pool *p, bool born)
{
	struct version v = oracle_list(p);

	v.op = o->nr_ops;
	v.data = o->reverted ? 0 : o->committed == v.op && v.op ? v.op - 1 : v.op;
	if (o->reverted)
		find_old_contents(o, p, &v);
	if (o->nr_versions && o->replaced == ORACLE_DIR && oracle_same_version(&v, oracle_now(o)) &&
	    (!o->reverted || oracle_same_contents(&v, oracle_now(o)))) {
		free(v.v);
		return oracle_now(o);
	}
	if (!o->reverted)
		find_contents(o, &v, born);
	o->versions = must(realloc(o->versions, (o->nr_versions + 1) * sizeof(*o->versions)));
	o->versions[o->nr_versions++] = v;
	return oracle_now(o);
}

void
oracle_replaced(struct oracle *o, uint32_t id)
{
	o->replaced = id;
}

void
oracle_committed(struct oracle *o)
{
	o->committed = o->nr_ops;
}

static void
make_unsure(struct history *h, uint32_t op)
{
	for (uint32_t i = h->nr; i-- && h->v[i]->op > op;)
		h->v[i]->sure = false;
}

/* What is not durable may be lost from now on, and so may what is copied from it. */
static void
make_all_unsure(struct oracle *o)
{
	uint32_t durable = 0;

	for (size_t i = 0; i < o->nr_syncs; i++)
		if (o->syncs[i].id == ORACLE_DIR && o->syncs[i].op > durable)
			durable = o->syncs[i].op;
	for (size_t i = 0; i < o->nr_volumes; i++)
		for (unsigned j = 0; j < ORACLE_SECTORS; j++)
			make_unsure(&o->volumes[i]->sectors[j], durable);
}

void
oracle_reverted(struct oracle *o)
{
	if (!o->reverted)
		make_all_unsure(o);
	o->reverted = true;
}

void
oracle_killed(struct oracle *o, struct pool *p)
{
	make_all_unsure(o);
	o->killed = true;
	o->reverted = true;
	oracle_look(o, p, false);
	o->reverted = false;
}

/* --- operations --- */

void
oracle_begin(struct oracle *o, size_t events)
{
	o->nr_ops++;
	o->begins = must(realloc(o->begins, (o->nr_ops + 1) * sizeof(*o->begins)));
	o->begins[o->nr_ops] = events;
}

void
oracle_synced(struct oracle *o, size_t events, uint32_t id)
{
	o->syncs = must(realloc(o->syncs, (o->nr_syncs + 1) * sizeof(*o->syncs)));
	o->syncs[o->nr_syncs++] = (struct sync){.at = events, .op = o->nr_ops, .id = id};
}

bool
oracle_read_entry(struct oracle *o, struct pool *p, const struct entry *e, uint8_t *buf)
{
	struct vol *vol;
	ssize_t n = pool_lookup_id(p, e->id, &vol);

	if (!n) {
		n = vol_read(vol, buf, ORACLE_BYTES, 0);
		vol_put(vol);
	}
	if (n == (ssize_t)(e->size < ORACLE_BYTES ? e->size : ORACLE_BYTES))
		return true;
	return oracle_problem(o, "'%s/%s' (device %u) of %llu bytes: reading gives %zd", e->dir, e->name,
		       e->id, (unsigned long long)e->size, n);
}

void
oracle_init(struct oracle *o, struct pool *p)
{
	uint8_t *buf = must(malloc(ORACLE_BYTES));
	const struct version *v;

	memset(o, 0, sizeof(*o));
	o->replaced = ORACLE_DIR;
	o->begins = must(calloc(1, sizeof(*o->begins)));
	v = oracle_look(o, p, false);
	oracle_synced(o, 0, ORACLE_DIR);
	for (unsigned i = 0; i < v->nr; i++) {
		if (v->v[i].id == ORACLE_DIR)
			continue;
		if (!oracle_read_entry(o, p, &v->v[i], buf))
			abort();
		oracle_write(o, v->v[i].id, buf, v->v[i].size, 0, true);
	}
	free(buf);
}

void
oracle_free(struct oracle *o)
{
	for (size_t i = 0; i < o->nr_volumes; i++) {
		for (unsigned j = 0; j < ORACLE_SECTORS; j++) {
			struct history *h = &o->volumes[i]->sectors[j];

			while (h->nr)
				free(h->v[--h->nr]);
			free(h->v);
		}
		free(o->volumes[i]);
	}
	for (size_t i = 0; i < o->nr_versions; i++)
		free(o->versions[i].v);
	free(o->volumes);
	free(o->versions);
	free(o->syncs);
	free(o->begins);
}
