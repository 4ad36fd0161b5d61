/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A whole pool with lies in the catalog's records and in the metadata: opened, listed, read, changed and
 * committed through pool.h, as the mount does it.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz/edits.h"
#include "pool/pool.h"
#include "pool/report.h"

#define MAX_OPS 24U
#define MAX_LISTED 64U
#define IO_MAX 9000U

static const char *const names[] = {"alpha", "beta", "gamma", "delta", "beta@one", "thin-0", "new", ""};
#define NR_NAMES (sizeof(names) / sizeof(names[0]))

static const struct pool_caller caller = {.mode = 0644};

struct subject {
	struct seed *s;
	struct pool *p;
	struct vol *vols[MAX_LISTED];
	unsigned nr_vols;
};

/* --- looking --- */

static void
look_at(struct vol *v)
{
	static char bytes[IO_MAX];
	char name[POOL_NAME_MAX + 1], snapshot[POOL_NAME_MAX + 1];
	struct vol_attr attr;
	uint64_t offset;
	ssize_t n;

	vol_get_name(v, name, snapshot);
	if (fuzz_result(vol_getattr(v, &attr)))
		return;
	if (attr.size > VOL_SIZE_MAX)
		fuzz_fail("a volume of %llu bytes", (unsigned long long)attr.size);
	fuzz_result((int)vol_read(v, bytes, sizeof(bytes), 0));
	offset = attr.size > IO_MAX / 2 ? attr.size - IO_MAX / 2 : 0;
	n = vol_read(v, bytes, sizeof(bytes), offset);
	fuzz_result((int)n);
	if (n > 0 && (uint64_t)n > attr.size - offset)
		fuzz_fail("read past the end of a volume");
	fuzz_result((int)(vol_seek(v, 0, SEEK_DATA) >> 32));
}

static void
list(struct subject *t, struct voldir *dir)
{
	uint64_t cookie = 0;

	while (t->nr_vols < MAX_LISTED && !pool_next_volume(t->p, dir, cookie, &t->vols[t->nr_vols], &cookie))
		t->nr_vols++;
}

static void
list_all(struct subject *t)
{
	uint64_t cookie = 0;
	struct voldir *dir;

	list(t, pool_top(t->p));
	while (t->nr_vols < MAX_LISTED && !pool_next_snapshot(t->p, cookie, &dir, &cookie)) {
		struct voldir_attr attr;

		voldir_getattr(dir, &attr);
		list(t, dir);
		voldir_put(dir);
	}
}

static void
drop_list(struct subject *t)
{
	while (t->nr_vols)
		vol_put(t->vols[--t->nr_vols]);
}

static void
report(struct subject *t)
{
	struct pool_status st;

	pool_get_status(t->p, &st);
	json_decref(report_list(t->p));
	json_decref(report_status(t->p));
}

/* --- changing --- */

static const char *
choose_name(struct fuzz_input *in)
{
	return names[fuzz_u8(in) % NR_NAMES];
}

/* Never far: an end far away is legal, but the seed's data image is small. */
static uint64_t
choose_offset(struct fuzz_input *in)
{
	return (uint64_t)fuzz_u16(in) * 509;
}

static int
change_vol(struct subject *t, struct fuzz_input *in, unsigned op)
{
	static char bytes[IO_MAX];
	struct vol *v = t->vols[fuzz_u8(in) % t->nr_vols];
	struct vol_attr attr = {.mode = 0600};
	uint64_t offset = choose_offset(in);
	int r = vol_open(v, op < 4);

	if (r)
		return r;
	switch (op) {
	case 0:
	case 1:
		r = (int)vol_write(v, bytes, fuzz_u16(in) % IO_MAX, offset);
		break;
	case 2:
		r = vol_truncate(v, offset);
		break;
	case 3:
		r = vol_fallocate(v, fuzz_u8(in) & 1 ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0, offset,
				  1 + (uint64_t)fuzz_u16(in));
		break;
	case 4:
		r = vol_setattr(v, VOL_SET_MODE, &attr);
		break;
	default:
		look_at(v);
	}
	vol_release(v);
	return r;
}

static int
rename_or_make(struct subject *t, struct fuzz_input *in, unsigned op)
{
	struct voldir *top = pool_top(t->p);
	const char *name = choose_name(in);
	struct vol *v;
	int r;

	switch (op) {
	case 6:
		r = pool_create(t->p, top, name, &caller, &v);
		if (!r)
			vol_put(v);
		return r;
	case 7:
		return pool_unlink(t->p, top, name);
	case 8:
		return pool_rename(t->p, top, name, top, choose_name(in), fuzz_u8(in) % 3);
	case 9:
		return *name ? pool_snapshot(t->p, name, &caller) : 0;
	case 10:
		return pool_remove_snapshot(t->p, name);
	case 11:
		return pool_sync_wait(t->p, NULL);
	case 12:
		return pool_abort(t->p);
	default:
		report(t);
		return 0;
	}
}

static void
operate(struct subject *t, struct fuzz_input *in)
{
	unsigned op = fuzz_u8(in) % 14;

	if (op >= 6)
		fuzz_result(rename_or_make(t, in, op));
	else if (t->nr_vols)
		fuzz_result(change_vol(t, in, op));
}

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	struct subject t = {.s = NULL};
	uint8_t how;

	fuzz_begin();
	/* Most of the time the one with names, which is the last. */
	how = fuzz_u8(&in);
	t.s = seeds_get(how & 0x80 ? how : seeds_nr() - 1);
	edits_apply(t.s, &in, EDIT_ALL);
	edits_apply_records(t.s, &in);
	how = fuzz_u8(&in);
	options.commit_interval_ms = 0;
	options.metadata_cache_bytes = 1U << 20;
	options.read_only = how & 1;
	options.no_discard_passdown = how & 2;
	options.skip_block_zeroing = how & 4;
	if (fuzz_result(pool_open_images(&t.s->data->image, &t.s->meta->image, &options, &t.p)))
		return;
	list_all(&t);
	for (unsigned i = 0; i < t.nr_vols; i++)
		look_at(t.vols[i]);
	report(&t);
	for (unsigned i = 0; i < MAX_OPS && in.left; i++)
		operate(&t, &in);
	drop_list(&t);
	fuzz_result(pool_close(t.p));
}

const struct fuzz_target fuzz_pool = {"pool", seeds_load, run};
