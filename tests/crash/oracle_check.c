/* SPDX-License-Identifier: GPL-2.0-or-later */
/* oracle_check: whether a pool is what it may be after a cut, by what the oracle has been told. */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/oracle_internal.h"

/* The operation up to which all data of volume ID are durable. */
static uint32_t
synced_op(const struct oracle *o, uint32_t id, size_t at)
{
	uint32_t op = 0;

	for (size_t i = 0; i < o->nr_syncs; i++) {
		const struct sync *s = &o->syncs[i];

		if (s->at <= at && (s->id == ORACLE_DIR || s->id == id) && s->op > op)
			op = s->op;
	}
	return op;
}

static bool
is_allowed(const struct oracle *o, const struct history *h, uint32_t low, size_t at,
	   const uint8_t *is, size_t len)
{
	uint32_t i = h->nr;

	for (; i--;) {
		const struct value *v = h->v[i];

		if (o->begins[v->op] > at)
			continue;
		if (!memcmp(v->bytes, is, len))
			return true;
		if (v->op <= low && v->sure)
			return false;
	}
	return !memcmp(oracle_zero_sector, is, len);
}

/* Where the bytes of a bad sector come from, for the message. */
static const char *
describe(const struct oracle *o, const struct entry *e, const uint8_t *is, uint64_t at)
{
	static char text[120];

	for (size_t i = 0; i < o->nr_volumes; i++)
		for (unsigned j = 0; j < ORACLE_SECTORS; j++)
			for (uint32_t k = 0; k < o->volumes[i]->sectors[j].nr; k++) {
				const struct value *v = o->volumes[i]->sectors[j].v[k];

				if (memcmp(v->bytes, is, 16) || !memcmp(is, oracle_zero_sector, 16))
					continue;
				snprintf(text, sizeof(text), "bytes of device %u at %u, operation %u",
					 o->volumes[i]->id, j * ORACLE_SECTOR, v->op);
				if (o->volumes[i]->id == e->id && j == at / ORACLE_SECTOR)
					return text;
			}
	if (!memcmp(is, oracle_zero_sector, 16))
		return "zeros";
	if (!text[0])
		snprintf(text, sizeof(text), "garbage %02x %02x %02x %02x", is[0], is[1], is[2], is[3]);
	return text;
}

static bool
check_volume(struct oracle *o, struct pool *p, const struct entry *e, uint32_t low, size_t at)
{
	static uint8_t buf[ORACLE_BYTES];

	if (!oracle_read_entry(o, p, e, buf))
		return false;
	for (uint64_t i = 0; i < e->size && i < ORACLE_BYTES; i += ORACLE_SECTOR) {
		const struct history *h = &e->vol->sectors[i / ORACLE_SECTOR];
		size_t len = e->size - i < ORACLE_SECTOR ? e->size - i : ORACLE_SECTOR;

		if (!memcmp(oracle_last_value(h), buf + i, len) && (!h->nr || o->begins[h->v[h->nr - 1]->op] <= at))
			continue;
		if (!is_allowed(o, h, low, at, buf + i, len))
			return oracle_problem(o, "'%s/%s' (device %u, %llu bytes) at %llu, durable to operation "
				       "%u: %s%s", e->dir, e->name, e->id,
				       (unsigned long long)e->size, (unsigned long long)i, low,
				       describe(o, e, buf + i, i),
				       memcmp(oracle_last_value(h), buf + i, 16) ? "" : ", further on");
	}
	return true;
}

static void
print_version(const struct version *v, char *out, size_t size)
{
	size_t n = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < v->nr && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, " %s/%s=%u%s:%llu", v->v[i].dir, v->v[i].name,
				      v->v[i].id, v->v[i].read_only ? "r" : "",
				      (unsigned long long)v->v[i].size);
}

static bool
same_names(const struct entry *a, const struct entry *b)
{
	return a->id == b->id && a->parent == b->parent && a->read_only == b->read_only &&
	       !strcmp(a->dir, b->dir) && !strcmp(a->name, b->name);
}

/* Whether nothing that a sync of volume ID makes durable differs. */
static bool
same_for(const struct version *a, const struct version *b, uint32_t id)
{
	if (a->nr != b->nr)
		return false;
	for (unsigned i = 0; i < a->nr; i++) {
		bool found = false;

		for (unsigned j = 0; j < b->nr && !found; j++)
			found = same_names(&a->v[i], &b->v[j]) &&
				(a->v[i].id != id || a->v[i].size == b->v[j].size);
		if (!found)
			return false;
	}
	return true;
}

/* The first version that may be there after the sync. */
static size_t
first_version(const struct oracle *o, const struct sync *s)
{
	size_t i = 0;

	while (i + 1 < o->nr_versions && o->versions[i + 1].op <= s->op)
		i++;
	/* Sizes of other volumes may be older. */
	while (s->id != ORACLE_DIR && i && same_for(&o->versions[i], &o->versions[i - 1], s->id))
		i--;
	return i;
}

/* The first version that may be there after a cut before event AT. */
static size_t
first_allowed(const struct oracle *o, size_t at)
{
	size_t first = 0;

	for (size_t i = 0; i < o->nr_syncs && o->syncs[i].at <= at; i++) {
		size_t after = first_version(o, &o->syncs[i]);

		if (after > first)
			first = after;
	}
	return first;
}

bool
oracle_check_version(struct oracle *o, struct pool *p, const struct version *v, size_t at, bool live)
{
	for (unsigned i = 0; i < v->nr; i++) {
		uint32_t low = synced_op(o, v->v[i].id, at);

		if (v->v[i].id == ORACLE_DIR)
			continue;
		if (low < v->data)
			low = v->data;
		if (low < v->v[i].vol->born)
			low = v->v[i].vol->born;
		if (live)
			low = o->nr_ops;
		if (!check_volume(o, p, &v->v[i], low, at))
			return false;
	}
	return true;
}

static bool
never_was(struct oracle *o, const struct version *found, const struct version *first)
{
	char a[240], b[240];

	print_version(found, a, sizeof(a));
	print_version(first, b, sizeof(b));
	return oracle_problem(o, "names and sizes were never so since operation %u:%s; then:%s", first->op, a, b);
}

/*
 * Each version that is as FOUND and may be there; of those with the same contents, the earliest says least of how
 * new these must be.
 */
static bool
check_found(struct oracle *o, struct pool *p, const struct version *found, size_t at, bool live)
{
	size_t first = first_allowed(o, at);
	const struct version *tried = NULL;

	for (size_t i = first; i < o->nr_versions && o->begins[o->versions[i].op] <= at; i++) {
		const struct version *v = &o->versions[i];

		if (!oracle_same_version(found, v) || (tried && oracle_same_contents(v, tried)))
			continue;
		if (oracle_check_version(o, p, v, at, live))
			return true;
		tried = v;
	}
	return tried ? false : never_was(o, found, &o->versions[first]);
}

bool
oracle_check(struct oracle *o, struct pool *p, size_t at, bool live)
{
	struct version found = oracle_list(p);
	bool good = check_found(o, p, &found, at, live);

	free(found.v);
	return good;
}
