/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "unit/pool/property_ops.h"

uint64_t
below(struct property *t, uint64_t bound)
{
	return random_below(&t->rs, bound);
}

bool
percent(struct property *t, unsigned p)
{
	return below(t, 100) < p;
}

const struct pool_caller property_caller = {.uid = 1, .gid = 1, .mode = 0644};

/* --- choosing --- */

struct model_vol *
any_vol(struct property *t)
{
	const struct model_state *s = &t->m.now;

	return s->nr_vols ? s->vols[below(t, s->nr_vols)] : NULL;
}

struct model_vol *
named_vol(struct property *t, bool in_snapshot)
{
	for (unsigned tries = 0; tries < 20; tries++) {
		struct model_vol *v = any_vol(t);

		if (v && v->name[0] && (v->snapshot[0] != '\0') == in_snapshot)
			return v;
	}
	return NULL;
}

struct model_vol *
some_vol(struct property *t)
{
	struct model_vol *v = percent(t, 80) ? named_vol(t, false) : NULL;

	return v ? v : any_vol(t);
}

unsigned
nr_top(struct property *t)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < t->m.now.nr_vols; i++)
		nr += t->m.now.vols[i]->name[0] && !t->m.now.vols[i]->snapshot[0];
	return nr;
}

bool
is_open(struct property *t, const struct model_vol *v)
{
	for (unsigned i = 0; i < MAX_HANDLES; i++)
		if (t->handles[i].vol && t->handles[i].id == v->id)
			return true;
	return false;
}

/* --- errors --- */

bool
no_space(struct property *t, int r, int expected)
{
	if (r == expected)
		return false;
	if (r == -ENOSPC && t->config.may_fill)
		return true;
	fail(t, "%s, not %s", r ? strerror(-r) : "no error", expected ? strerror(-expected) : "0");
}

/* --- images --- */

/* They become larger by some blocks, and the pool is told, or finds out. */
static void
op_grow(struct property *t)
{
	bool data = percent(t, 50);
	struct image *img = data ? t->data.inner : t->meta.inner;
	uint64_t unit = data ? (uint64_t)t->config.block_pages * PAGE_SIZE : 4096;
	uint64_t first = data ? t->config.data_blocks : t->config.meta_blocks;
	uint64_t size;
	int r = 0;

	if (image_get_size(img, &size))
		fail(t, "no size");
	size += (1 + below(t, 3)) * unit;
	if (size > (first + first / 8) * unit)
		return;
	doing(t, "the %s image grows to %llu bytes", data ? "data" : "metadata", (ull)size);
	if (image_resize(img, size))
		fail(t, "not made larger");
	if (percent(t, 70))
		r = pool_adopt_growth(t->pool);
	no_space(t, r, 0);
}

/* --- one of them --- */

static const struct {
	void (*fn)(struct property *t);
	unsigned weight;
} ops[] = {
	{op_write, 400}, {op_read, 200}, {op_truncate, 60}, {op_fallocate, 120}, {op_seek, 60},
	{op_create, 10}, {op_create_over, 20}, {op_unlink, 20}, {op_rename, 20}, {op_open, 30}, {op_setattr, 20},
	{op_snapshot, 30}, {op_remove_snapshot, 20}, {op_copy, 80},
	{op_clone, 20}, {op_revert, 20}, {op_promise, 20}, {op_grow, 2},
};

#define NR_OPS (sizeof(ops) / sizeof(ops[0]))

void
property_op(struct property *t)
{
	unsigned total = 0, at;

	for (size_t i = 0; i < NR_OPS; i++)
		total += ops[i].weight;
	at = (unsigned)below(t, total);
	for (size_t i = 0; i < NR_OPS; i++) {
		if (at < ops[i].weight) {
			ops[i].fn(t);
			return;
		}
		at -= ops[i].weight;
	}
}
