/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "util/runs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Room for NR more. */
static int
reserve(struct runs *r, size_t nr)
{
	size_t cap = r->cap ? r->cap : 16;
	struct run *v;

	if (r->cap - r->nr >= nr)
		return 0;
	while (cap - r->nr < nr)
		cap *= 2;
	v = reallocarray(r->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;
	r->v = v;
	r->cap = cap;
	return 0;
}

int
runs_add(struct runs *r, uint64_t start, uint64_t len)
{
	struct run *last = r->nr ? &r->v[r->nr - 1] : NULL;
	int err;

	if (!len)
		return 0;
	/* A run that ends at 2^64 has the end 0, and touches nothing there. */
	if (last && start && last->start + last->len == start) {
		last->len += len;
	} else if (last && last->start && start + len == last->start) {
		last->start = start;
		last->len += len;
	} else {
		err = reserve(r, 1);
		if (err)
			return err;
		r->v[r->nr++] = (struct run){start, len};
	}
	r->total += len;
	return 0;
}

int
runs_move(struct runs *to, struct runs *from)
{
	struct runs empty = {0};
	int err;

	if (!to->nr) { /* take the memory over instead */
		runs_clear(to);
		*to = *from;
		*from = empty;
		return 0;
	}
	if (from->nr) {
		err = reserve(to, from->nr);
		if (err)
			return err;
		memcpy(to->v + to->nr, from->v, from->nr * sizeof(*to->v));
		to->nr += from->nr;
		to->total += from->total;
	}
	runs_clear(from);
	return 0;
}

void
runs_clip(struct runs *r, uint64_t end)
{
	size_t nr = 0;

	r->total = 0;
	for (size_t i = 0; i < r->nr; i++) {
		struct run run = r->v[i];

		if (run.start >= end)
			continue;
		if (run.len > end - run.start)
			run.len = end - run.start;
		r->v[nr++] = run;
		r->total += run.len;
	}
	r->nr = nr;
	if (!nr)
		runs_clear(r);
}

static int
compare_runs(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

void
runs_normalise(struct runs *r)
{
	size_t nr = 0;

	if (!r->nr)
		return;
	qsort(r->v, r->nr, sizeof(*r->v), compare_runs);

	r->total = 0;
	for (size_t i = 0; i < r->nr; i++) {
		struct run *last = nr ? &r->v[nr - 1] : NULL;
		struct run next = r->v[i];

		/* Compared by lengths: a run may end at 2^64, where its end would be 0. */
		if (last && next.start - last->start <= last->len) {
			uint64_t reach = next.start - last->start + next.len;

			if (reach > last->len) {
				r->total += reach - last->len;
				last->len = reach;
			}
		} else {
			r->v[nr++] = next;
			r->total += next.len;
		}
	}
	r->nr = nr;
}

void
runs_clear(struct runs *r)
{
	free(r->v);
	*r = (struct runs){0};
}
