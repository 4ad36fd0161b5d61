/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/workload.h"

#define MAX_TOP 4U
#define MAX_DIRS 3U

static const struct pool_caller caller = {.uid = 1, .gid = 1, .mode = 0644};
static uint8_t buf[ORACLE_BYTES];

static uint64_t
below(struct workload *w, uint64_t bound)
{
	return random_below(&w->rs, bound);
}

static void
trace(struct workload *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void
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

/* An operation has ended with result R, and devices may be BORN; whether it was good. */
static bool
ended_with(struct workload *w, int r, bool born)
{
	disks_settle(w->disks);
	if (r || pool_get_mode(w->pool) != POOL_WRITE)
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

static bool
ended(struct workload *w, int r)
{
	return ended_with(w, r, false);
}

/* --- choosing --- */

enum which {
	TOP,
	SNAPSHOT,
	ANY_WRITABLE,
};

static bool
is_of(const struct entry *e, enum which which)
{
	if (e->id == ORACLE_DIR)
		return false;
	return which == TOP ? !e->dir[0] : which == SNAPSHOT ? e->dir[0] != '\0' : !e->read_only;
}

static unsigned
count(struct workload *w, enum which which)
{
	const struct version *v = oracle_now(w->oracle);
	unsigned nr = 0;

	for (unsigned i = 0; i < v->nr; i++)
		nr += is_of(&v->v[i], which);
	return nr;
}

static bool
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

static struct vol *
lookup(struct workload *w, const struct entry *e)
{
	struct vol *vol;

	return pool_lookup_id(w->pool, e->id, &vol) ? NULL : vol;
}

static void
some_range(struct workload *w, const struct entry *e, uint64_t *offset, uint64_t *len)
{
	static const uint64_t lengths[] = {100, 512, 4096, 20000, 65536, 65536, 131072, 200000};
	uint64_t block = pool_block_bytes(w->pool);

	*offset = below(w, e->size + block < ORACLE_BYTES ? e->size + block : ORACLE_BYTES);
	*len = 1 + below(w, lengths[below(w, 8)]);
	if (below(w, 4) == 0)
		*offset -= *offset % block;
	if (below(w, 5) == 0)
		*len = block;
	if (w->may_fail || below(w, 2)) {
		*offset -= *offset % ORACLE_SECTOR;
		*len += ORACLE_SECTOR - 1 - (*len - 1) % ORACLE_SECTOR;
	}
	if (*len > ORACLE_BYTES - *offset)
		*len = ORACLE_BYTES - *offset;
}

/* --- data --- */

static void
op_write(struct workload *w)
{
	uint64_t offset, len;
	struct entry e;
	struct vol *vol;
	ssize_t n;

	if (!choose(w, ANY_WRITABLE, &e))
		return;
	some_range(w, &e, &offset, &len);
	w->tag++;
	for (uint64_t i = 0; i + 8 <= len + 7; i += 8) {
		uint64_t word = w->tag << 48 | (offset + i + 1);

		memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
	}
	trace(w, "write %u %llu+%llu of %llu", e.id, (unsigned long long)offset,
	      (unsigned long long)len, (unsigned long long)e.size);
	vol = lookup(w, &e);
	n = vol ? vol_write(vol, buf, len, offset) : -ENOENT;
	if (vol)
		vol_put(vol);
	if (offset + len > e.size)
		oracle_extend(w->oracle, e.id, e.size);
	oracle_write(w->oracle, e.id, buf, len, offset, n == (ssize_t)len);
	ended(w, n < 0 ? (int)n : 0);
}

static void
op_truncate(struct workload *w)
{
	struct entry e;
	struct vol *vol;
	uint64_t size;
	int r;

	if (!choose(w, ANY_WRITABLE, &e))
		return;
	size = below(w, 2) ? below(w, ORACLE_BYTES) : below(w, e.size + 1);
	if (w->may_fail)
		size -= size % ORACLE_SECTOR;
	trace(w, "truncate %u %llu to %llu", e.id, (unsigned long long)e.size,
	      (unsigned long long)size);
	vol = lookup(w, &e);
	r = vol ? vol_truncate(vol, size) : -ENOENT;
	if (vol)
		vol_put(vol);
	if (size < e.size)
		oracle_write(w->oracle, e.id, NULL, e.size - size, size, !r);
	else
		oracle_extend(w->oracle, e.id, e.size);
	ended(w, r);
}

static void
op_zero(struct workload *w)
{
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE, FALLOC_FL_KEEP_SIZE, 0};
	int mode = modes[below(w, 5)], r;
	uint64_t offset, len, end;
	struct entry e;
	struct vol *vol;

	if (!choose(w, ANY_WRITABLE, &e))
		return;
	some_range(w, &e, &offset, &len);
	trace(w, "fallocate %u mode %d %llu+%llu of %llu", e.id, mode, (unsigned long long)offset,
	      (unsigned long long)len, (unsigned long long)e.size);
	vol = lookup(w, &e);
	r = vol ? vol_fallocate(vol, mode, offset, len) : -ENOENT;
	if (vol)
		vol_put(vol);
	end = offset + len < e.size ? offset + len : e.size;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + len > e.size)
		oracle_extend(w->oracle, e.id, e.size);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < end)
		oracle_write(w->oracle, e.id, NULL, end - offset, offset, !r);
	ended(w, r);
}

/* --- names --- */

static void
op_create(struct workload *w)
{
	char name[ORACLE_NAME];
	struct vol *vol;
	int r;

	if (count(w, TOP) >= MAX_TOP)
		return;
	snprintf(name, sizeof(name), "v%u", w->next_name++);
	trace(w, "create %s", name);
	r = pool_create(w->pool, pool_top(w->pool), name, &caller, &vol);
	if (!r)
		vol_put(vol);
	ended_with(w, r, true);
}

static struct voldir *
dir_of(struct workload *w, const struct entry *e)
{
	struct voldir *dir;

	if (!e->dir[0])
		return voldir_get(pool_top(w->pool));
	return pool_lookup_snapshot(w->pool, e->dir, &dir) ? NULL : dir;
}

static void
release(struct workload *w)
{
	if (!w->held)
		return;
	vol_release(w->held);
	vol_put(w->held);
	w->held = NULL;
}

static void
op_unlink(struct workload *w)
{
	struct voldir *dir;
	struct entry e;
	int r;

	if (w->held && below(w, 2)) {
		trace(w, "release");
		release(w);
		ended(w, 0);
		return;
	}
	if (!choose(w, below(w, 3) ? TOP : SNAPSHOT, &e))
		return;
	trace(w, "unlink %s/%s", e.dir, e.name);
	if (!w->held && below(w, 2)) {
		w->held = lookup(w, &e);
		if (w->held && vol_open(w->held, false)) {
			vol_put(w->held);
			w->held = NULL;
		}
	}
	dir = dir_of(w, &e);
	r = dir ? pool_unlink(w->pool, dir, e.name) : -ENOENT;
	if (dir)
		voldir_put(dir);
	ended(w, r);
}

static void
op_rename(struct workload *w)
{
	struct entry e, over;
	struct voldir *dir;
	unsigned flags = 0;
	int r;

	if (!choose(w, below(w, 3) ? TOP : SNAPSHOT, &e))
		return;
	if (!below(w, 3) || !choose(w, TOP, &over)) {
		if (count(w, TOP) >= MAX_TOP)
			return;
		snprintf(over.name, sizeof(over.name), "v%u", w->next_name++);
	} else if (!e.dir[0] && below(w, 2)) {
		flags = POOL_RENAME_EXCHANGE;
	}
	trace(w, "rename %s/%s to %s flags %u", e.dir, e.name, over.name, flags);
	dir = dir_of(w, &e);
	r = dir ? pool_rename(w->pool, dir, e.name, pool_top(w->pool), over.name, flags) : -ENOENT;
	if (dir)
		voldir_put(dir);
	ended(w, r);
}

static void
op_chmod(struct workload *w)
{
	struct vol_attr attr = {.mode = below(w, 3) ? 0644 : 0444};
	struct entry e;
	struct vol *vol;
	int r;

	if (!choose(w, SNAPSHOT, &e))
		return;
	trace(w, "chmod %o %s/%s", attr.mode, e.dir, e.name);
	vol = lookup(w, &e);
	r = vol ? vol_setattr(vol, VOL_SET_MODE, &attr) : -ENOENT;
	if (vol)
		vol_put(vol);
	ended(w, r);
}

static unsigned
list_dirs(struct workload *w, struct entry dirs[MAX_DIRS])
{
	const struct version *v = oracle_now(w->oracle);
	unsigned nr = 0;

	for (unsigned i = 0; i < v->nr && nr < MAX_DIRS; i++)
		if (v->v[i].id == ORACLE_DIR)
			dirs[nr++] = v->v[i];
	return nr;
}

static void
op_remove_snapshot(struct workload *w)
{
	struct entry dirs[MAX_DIRS];
	unsigned nr = list_dirs(w, dirs);
	const char *name;
	int r;

	if (!nr)
		return;
	name = dirs[below(w, nr)].dir;
	trace(w, "remove snapshot %s", name);
	r = pool_remove_snapshot(w->pool, name);
	ended(w, r == -EBUSY && w->held ? 0 : r);
}

static void
op_snapshot(struct workload *w)
{
	struct entry dirs[MAX_DIRS], one;
	const struct version *v;
	char name[ORACLE_NAME];
	int r;

	if (list_dirs(w, dirs) == MAX_DIRS) {
		op_remove_snapshot(w);
		return;
	}
	if (below(w, 2) && choose(w, TOP, &one))
		snprintf(name, sizeof(name), "%.20s@t%u", one.name, w->next_name++);
	else
		snprintf(name, sizeof(name), "s%u", w->next_name++);
	trace(w, "snapshot %s", name);
	r = pool_snapshot(w->pool, name, &caller);
	if (!ended_with(w, r, true))
		return;
	v = oracle_now(w->oracle);
	for (unsigned i = 0; i < v->nr; i++)
		if (v->v[i].id != ORACLE_DIR && !strcmp(v->v[i].dir, name))
			oracle_snapshot(w->oracle, v->v[i].id, v->v[i].parent);
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

void
workload_op(struct workload *w)
{
	static const struct {
		void (*fn)(struct workload *w);
		unsigned weight;
	} ops[] = {
		{op_write, 40}, {op_truncate, 8}, {op_zero, 9}, {op_create, 6}, {op_unlink, 4},
		{op_rename, 5}, {op_chmod, 6}, {op_snapshot, 7}, {op_remove_snapshot, 3},
		{op_sync_one, 12}, {op_sync_all, 6}, {op_remount, 1}, {op_kill, 1},
	};
	unsigned at = (unsigned)below(w, 108);

	oracle_begin(w->oracle, w->disks->nr_log);
	if (!count(w, ANY_WRITABLE)) {
		op_create(w);
		return;
	}
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (at < ops[i].weight) {
			ops[i].fn(w);
			return;
		}
		at -= ops[i].weight;
	}
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
