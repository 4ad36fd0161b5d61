/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vol_origin: which external origin a volume has, and how much of it is shown.
 *
 * That is in the volume's record. A device that the kernel made has no record, and a mount option
 * says what its origin is; when it gets a record, that has the origin, too. What is shown ends at
 * the volume's size when it was made, and goes down when the volume is cut or its end is zeroed,
 * never up: what a file grows by is zeros.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

int
vol_origin_choose(struct pool *p)
{
	const struct pool_options *o = &p->options;
	int r = 0;

	if (!o->nr_origins)
		return 0;
	p->origin_choices = calloc(o->nr_origins, sizeof(*p->origin_choices));
	if (!p->origin_choices)
		return -ENOMEM;
	for (size_t i = 0; i < o->nr_origins && !r; i++) {
		p->origin_choices[i] = (struct origin_choice){o->origins[i].all, o->origins[i].id, NULL};
		if (strlen(o->origins[i].path) >= RECORD_ORIGIN_SIZE)
			r = -ENAMETOOLONG;
		else
			r = origin_find(&p->origins, o->origins[i].path, &p->origin_choices[i].origin);
	}
	return r;
}

/* The last one holds. */
static struct origin *
choice(const struct pool *p, uint32_t id, bool all)
{
	for (size_t i = p->options.nr_origins; i-- > 0;)
		if (p->origin_choices[i].all ? all : p->origin_choices[i].id == id)
			return p->origin_choices[i].origin;
	return NULL;
}

struct origin *
vol_origin_default(const struct pool *p, uint32_t id)
{
	struct origin *o = choice(p, id, false);

	return o ? o : choice(p, id, true);
}

/* Time may differ: a copy somewhere else is what this is for. */
static bool
is_the_same(const struct origin_identity *a, const struct origin_identity *b)
{
	return a->size == b->size && a->sum == b->sum;
}

int
vol_origin_load(struct vol *v, const struct record *r)
{
	struct origin *chosen = choice(v->pool, v->id, false), *o = NULL;
	int error;

	v->origin_moved = false;
	if (r->origin[0]) {
		error = origin_get(&v->pool->origins, r->origin, &r->origin_identity, &o);
		if (error)
			return error;
		v->origin_end = r->origin_end;
	}
	if (chosen && o && !is_the_same(origin_identity(chosen), origin_identity(o))) {
		msg_warn("origin=%" PRIu32 ":%s: is not what the volume %s was made over, which was %s; "
			 "the option is ignored", v->id, origin_path(chosen), r->name, r->origin);
	} else if (chosen && chosen != o) {
		if (!o)
			v->origin_end = min_u64(v->size, origin_identity(chosen)->size);
		v->origin_moved = true;
		o = chosen;
	}
	v->origin = o;
	return 0;
}

int
vol_keep_origin(struct vol *v)
{
	return v->origin ? vol_keep_size(v) : 0;
}

int
vol_origin_lower(struct vol *v, uint64_t end)
{
	int r;

	if (end >= vol_origin(v).end)
		return 0;
	r = pool_begin_change(v->pool, 2, 1, META_TO_UNMAP);
	if (r)
		return r;
	r = vol_record_changed(v);
	if (!r)
		v->origin_end = end;
	pool_end_change(v->pool);
	return r;
}
