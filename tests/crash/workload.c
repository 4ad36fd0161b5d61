/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/workload_ops.h"

const struct pool_caller workload_caller = {.uid = 1, .gid = 1, .mode = 0644};

/* Which is between the steps of an operation; NULL: none that may be interrupted. */
static struct workload *between;

void __real_pool_end_change(struct pool *p);
void __wrap_pool_end_change(struct pool *p);

uint64_t
below(struct workload *w, uint64_t bound)
{
	return random_below(&w->rs, bound);
}

bool
whole_sectors(const struct workload *w)
{
	return w->may_fail || w->errors;
}

void
trace(struct workload *w, const char *format, ...)
{
	va_list ap;

	if (!w->trace)
		return;
	printf("#   operation %u, event %zu: ", w->oracle->nr_ops, w->disks->nr_log);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
}

/* Whether the pool has committed since the operation began. */
static bool
has_committed(struct workload *w)
{
	for (size_t i = w->oracle->begins[w->oracle->nr_ops]; i < w->disks->nr_log; i++)
		if (w->disks->log[i].disk == META_DISK)
			return true;
	return false;
}

static bool
ended_with(struct workload *w, int r, bool born)
{
	between = NULL;
	disks_settle(w->disks);
	if (pool_get_mode(w->pool) >= POOL_READ_ONLY)
		oracle_reverted(w->oracle);
	if (has_committed(w))
		oracle_committed(w->oracle);
	oracle_look(w->oracle, w->pool, born);
	if (!r)
		return true;
	w->errors++;
	trace(w, "failed: %s", strerror(-r));
	return false;
}

bool
ended(struct workload *w, int r)
{
	return ended_with(w, r, false);
}

bool
ended_birth(struct workload *w, int r)
{
	return ended_with(w, r, true);
}

/*
 * After each step of an operation of several (the linker has the engine come here): others may have the pool commit
 * just then. So a crash can come between any two of them.
 */
void
__wrap_pool_end_change(struct pool *p)
{
	struct workload *w = between;

	__real_pool_end_change(p);
	if (!w || !w->pool || below(w, 3))
		return;
	between = NULL;
	if (!pool_sync_wait(p, NULL)) {
		disks_settle(w->disks);
		oracle_committed(w->oracle);
		oracle_look(w->oracle, p, false);
	}
	between = w;
}

/* --- choosing --- */

static bool
is_of(const struct entry *e, enum which which)
{
	if (e->id == ORACLE_DIR)
		return false;
	switch (which) {
	case TOP:
		return !e->dir[0];
	case SNAPSHOT:
		return e->dir[0] != '\0';
	case ANY_WRITABLE:
		return !e->read_only;
	default:
		return true;
	}
}

unsigned
count(struct workload *w, enum which which)
{
	const struct version *v = oracle_now(w->oracle);
	unsigned nr = 0;

	for (unsigned i = 0; i < v->nr; i++)
		nr += is_of(&v->v[i], which);
	return nr;
}

bool
choose(struct workload *w, enum which which, struct entry *e)
{
	const struct version *v = oracle_now(w->oracle);
	unsigned nr = count(w, which);

	if (!nr)
		return false;
	nr = (unsigned)below(w, nr);
	for (unsigned i = 0; i < v->nr; i++)
		if (is_of(&v->v[i], which) && !nr--)
			*e = v->v[i];
	return true;
}

struct vol *
lookup(struct workload *w, const struct entry *e)
{
	struct vol *vol;

	return pool_lookup_id(w->pool, e->id, &vol) ? NULL : vol;
}

unsigned
list_dirs(struct workload *w, struct entry dirs[WORKLOAD_MAX_DIRS])
{
	const struct version *v = oracle_now(w->oracle);
	unsigned nr = 0;

	for (unsigned i = 0; i < v->nr && nr < WORKLOAD_MAX_DIRS; i++)
		if (v->v[i].id == ORACLE_DIR)
			dirs[nr++] = v->v[i];
	return nr;
}

void
release(struct workload *w)
{
	if (!w->held)
		return;
	vol_release(w->held);
	vol_put(w->held);
	w->held = NULL;
}

/* --- making it durable --- */

static void
synced(struct workload *w, int r, uint32_t id)
{
	disks_settle(w->disks);
	if (!r)
		oracle_synced(w->oracle, w->disks->nr_log, id);
	else
		w->sync_errors++;
	ended(w, r);
}

int
workload_sync_all(struct workload *w)
{
	int r;

	trace(w, "sync");
	r = pool_sync_wait(w->pool, NULL);
	synced(w, r, ORACLE_DIR);
	return r;
}

static void
op_sync_one(struct workload *w)
{
	struct entry e;
	struct vol *vol;
	int r;

	if (!choose(w, below(w, 2) ? TOP : ANY_WRITABLE, &e))
		return;
	trace(w, "sync %u", e.id);
	vol = lookup(w, &e);
	r = vol ? pool_sync_wait(w->pool, vol) : -ENOENT;
	if (vol)
		vol_put(vol);
	synced(w, r, e.id);
}

static void
op_sync_all(struct workload *w)
{
	workload_sync_all(w);
}

static int
open_pool(struct workload *w)
{
	return pool_open_images(&w->disks->front[DATA_DISK].image, &w->disks->front[META_DISK].image,
				&w->options, &w->pool);
}

static void
op_remount(struct workload *w)
{
	int r;

	if (w->may_fail && !w->killed)
		return;
	trace(w, "remount");
	release(w);
	between = NULL;
	r = pool_close(w->pool);
	disks_settle(w->disks);
	if (r || open_pool(w))
		abort();
	oracle_synced(w->oracle, w->disks->nr_log, ORACLE_DIR);
	ended(w, r);
}

/* The process ends within a commit and another one opens the pool: what the cache has is still there. */
static void
op_kill(struct workload *w)
{
	if (w->may_fail && !w->killed)
		return;
	trace(w, "kill");
	w->disks->dies_in = 1 + (unsigned)below(w, 12);
	if (!pool_sync_wait(w->pool, NULL))
		oracle_synced(w->oracle, w->disks->nr_log, ORACLE_DIR);
	w->disks->dies_in = 0;
	w->disks->dead = true;
	release(w);
	pool_close(w->pool);
	w->disks->dead = false;
	if (open_pool(w))
		abort();
	oracle_killed(w->oracle, w->pool);
	/* What parts of sectors hold is not known from now on. */
	w->may_fail = w->killed = true;
}

bool
workload_start(struct workload *w, struct disks *d, struct oracle *o, uint64_t seed,
	       const struct pool_options *options)
{
	*w = (struct workload){
		.disks = d, .oracle = o, .rs = {seed}, .options = *options, .tag = seed & 0xff00};
	w->trace = getenv("THINFS_TEST_VERBOSE") != NULL;
	w->next_name = (unsigned)below(w, 1000) * 1000;
	if (open_pool(w))
		return false;
	if (!o->nr_versions)
		oracle_init(o, w->pool);
	return true;
}

/* The images are made larger, by one who then tells the pool, or not. */
static void
op_grow(struct workload *w)
{
	enum disk_nr nr = below(w, 2) ? DATA_DISK : META_DISK;
	uint64_t unit = nr == DATA_DISK ? pool_block_bytes(w->pool) : 4096;

	disks_enlarge(w->disks, nr, w->disks->shown[nr] + (1 + below(w, 3)) * unit);
	trace(w, "%s image of %llu bytes", nr == DATA_DISK ? "data" : "metadata",
	      (unsigned long long)w->disks->shown[nr]);
	ended(w, below(w, 3) ? pool_adopt_growth(w->pool) : 0);
}

/* As small as it can be, or nearly; then mostly some size again, by the pool itself. */
static void
op_shrink(struct workload *w)
{
	uint64_t size = w->disks->shown[DATA_DISK], block = pool_block_bytes(w->pool), possible = 0;
	struct pool_shrink progress = {0};
	int r = pool_shrink(w->pool, block, &progress, &possible);

	if (r == -ENOSPC && possible) {
		uint64_t bytes = possible + below(w, 8) * block;

		trace(w, "shrink to %llu blocks", (unsigned long long)(bytes / block));
		r = pool_shrink(w->pool, bytes, &progress, &possible);
		if (r == -ENOSPC || r == -EINVAL)
			r = 0;
	}
	if (!r && below(w, 8)) {
		size += below(w, 3) * block;
		if (size > w->disks->size[DATA_DISK])
			size = w->disks->size[DATA_DISK];
		trace(w, "grow to %llu blocks", (unsigned long long)(size / block));
		r = pool_resize(w->pool, size, 0);
	}
	ended(w, r);
}

struct operation {
	void (*fn)(struct workload *w);
	unsigned weight;
	bool whole; /* in one change: the pool does not commit within it */
};

static const struct operation ops[] = {
	{op_write, 40, false},
	{op_truncate, 8, false},
	{op_fallocate, 9, false},
	{op_copy, 10, false},
	{op_create, 4, true},
	{op_create_over, 4, true},
	{op_unlink, 4, false},
	{op_rename, 5, false},
	{op_chmod, 6, false},
	{op_snapshot, 7, true},
	{op_remove_snapshot, 3, false},
	{op_clone, 4, true},
	{op_revert, 4, true},
	{op_grow, 3, false},
	{op_shrink, 3, false},
	{op_sync_one, 12, true},
	{op_sync_all, 6, true},
	{op_remount, 1, true},
	{op_kill, 1, true},
};

#define NR_OPS (sizeof(ops) / sizeof(ops[0]))

static const struct operation *
choose_op(struct workload *w)
{
	unsigned total = 0, at;

	for (unsigned i = 0; i < NR_OPS; i++)
		total += ops[i].weight;
	at = (unsigned)below(w, total);
	for (unsigned i = 0; i < NR_OPS; i++) {
		if (at < ops[i].weight)
			return &ops[i];
		at -= ops[i].weight;
	}
	return NULL;
}

void
workload_op(struct workload *w)
{
	const struct operation *op = choose_op(w);

	oracle_begin(w->oracle, w->disks->nr_log);
	if (!count(w, ANY_WRITABLE)) {
		op_create(w);
		return;
	}
	between = op->whole ? NULL : w;
	op->fn(w);
	between = NULL;
}

int
workload_end(struct workload *w)
{
	int r;

	oracle_begin(w->oracle, w->disks->nr_log);
	trace(w, "close");
	release(w);
	r = pool_close(w->pool);
	w->pool = NULL;
	disks_settle(w->disks);
	if (!r)
		oracle_synced(w->oracle, w->disks->nr_log, ORACLE_DIR);
	return r;
}
