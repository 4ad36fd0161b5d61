/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The metadata of a seed with lies in any of its blocks: opened, walked, changed and committed through
 * thin_meta.h.
 *
 * Whatever the space map says, a commit must write only to blocks that the last commit did not count.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "fuzz/edits.h"
#include "fuzz/target_meta.h"
#include "pdata/thin_meta_internal.h"

#define MAX_OPS 32U
#define MAX_STEPS 500U /* of a walk through one device */
#define CACHE_BYTES (1U << 20)
#define GUARDED_MAX 4096U /* blocks; looking at each is dear */

static uint8_t guard[GUARDED_MAX];

struct subject {
	struct seed *s;
	struct thin_meta *m;
};

/* The last commit is what there is: none of its blocks may be written over. */
static void
set_guard(struct subject *t)
{
	uint32_t count;

	t->s->meta->guard = NULL;
	if (t->s->meta->nr_pages > GUARDED_MAX)
		return;
	memset(guard, 0, sizeof(guard));
	for (uint64_t b = 1; b < t->s->meta->nr_pages && b < sm_nr_blocks(t->m->meta_sm); b++)
		guard[b] = !sm_count(t->m->meta_sm, b, &count) && count;
	t->s->meta->guard = guard;
}

/* --- looking --- */

static int
walk_runs(struct subject *t, struct thin_dev *d, uint64_t vblock, uint64_t len)
{
	struct map_run runs[8];
	struct meta_info info;
	unsigned nr;
	int r = dev_map(d, vblock, len, runs, 8, &nr);

	if (r)
		return r;
	meta_get_info(t->m, &info);
	for (unsigned i = 0; i < nr; i++) {
		if (runs[i].vblock != vblock || !runs[i].len)
			fuzz_fail("a run is not where it should be");
		if (runs[i].dblock != MAP_HOLE && (runs[i].dblock >= info.nr_data_blocks ||
						   runs[i].len > info.nr_data_blocks - runs[i].dblock))
			fuzz_fail("a run is outside the data image");
		vblock += runs[i].len;
	}
	return 0;
}

static int
walk_dev(void *arg, uint32_t id)
{
	struct subject *t = arg;
	struct thin_dev *d;
	uint64_t vblock = 0, len = 0;
	struct dev_info info;
	int r = fuzz_result(dev_open(t->m, id, &d));

	if (r)
		return 0;
	dev_get_info(d, &info);
	for (unsigned i = 0; i < MAX_STEPS && !r; i++) {
		r = dev_next_mapped(d, vblock, 100, &vblock, &len);
		if (!r)
			r = walk_runs(t, d, vblock, len);
		if (vblock > UINT64_MAX - len)
			break;
		vblock += len;
	}
	fuzz_result(r);
	fuzz_result(dev_highest_mapped(d, &vblock));
	dev_close(d);
	return 0;
}

/* --- changing --- */

static int
map_blocks(struct subject *t, struct fuzz_input *in, struct thin_dev *d)
{
	uint64_t vblock = edits_number(t->s, in, 0), want = fuzz_u8(in) % 32 + 1U, dblock, got;
	int r = meta_require(t->m, 2, 0, META_TO_ADD);

	if (!r)
		r = meta_reserve_data(t->m, fuzz_u8(in), want, &dblock, &got);
	if (r)
		return r == -ENOSPC ? 0 : r;
	if (vblock > UINT64_MAX - got)
		vblock = 0;
	r = dev_insert(d, vblock, dblock, got);
	return r ? r : walk_runs(t, d, vblock, got);
}

static int
change_dev(struct subject *t, struct fuzz_input *in, unsigned op, uint32_t id)
{
	uint64_t begin, next, left;
	struct thin_dev *d;
	bool shared;
	int r = dev_open(t->m, id, &d);

	if (r)
		return r == -ENODATA ? 0 : r;
	switch (op) {
	case 0:
	case 1:
		r = map_blocks(t, in, d);
		break;
	case 2:
		begin = edits_number(t->s, in, 0);
		r = dev_unmap(d, begin, begin + fuzz_u16(in), fuzz_u16(in), META_TO_UNMAP, &next);
		break;
	case 3:
		r = dev_shed(d, fuzz_u16(in), &left);
		break;
	default:
		r = dev_root_is_shared(d, &shared);
	}
	dev_close(d);
	return r == -ENOSPC ? 0 : r;
}

static int
snapshot(struct subject *t, uint32_t id, uint32_t origin)
{
	int r = meta_tick(t->m);

	if (!r)
		r = meta_create_snap(t->m, id, origin);
	return r == -EEXIST || r == -ENODATA || r == -EINVAL || r == -EOVERFLOW ? 0 : r;
}

static int
change_pool(struct subject *t, struct fuzz_input *in, unsigned op, uint32_t id)
{
	struct meta_info info;
	int r;

	meta_get_info(t->m, &info);
	switch (op) {
	case 5:
		r = meta_create_thin(t->m, id);
		break;
	case 6:
		return snapshot(t, fuzz_u8(in), id);
	case 7:
		r = meta_delete_thin(t->m, id);
		break;
	case 8:
		r = meta_commit(t->m, NULL);
		if (!r)
			set_guard(t);
		return r;
	case 9:
		r = meta_reserve_snap(t->m);
		break;
	case 10:
		r = meta_release_snap(t->m);
		break;
	case 11:
		r = meta_grow_data(t->m, info.nr_data_blocks + fuzz_u16(in));
		break;
	case 12:
		r = meta_grow_metadata(t->m, t->s->meta->nr_pages);
		break;
	case 13:
		r = meta_set_transaction_id(t->m, info.trans_id, fuzz_u8(in));
		break;
	default:
		return meta_abort(t->m);
	}
	return r == -EEXIST || r == -ENODATA || r == -EINVAL || r == -EBUSY || r == -ENOSPC ? 0 : r;
}

static int
operate(struct subject *t, struct fuzz_input *in)
{
	unsigned op = fuzz_u8(in) % 16, pick = fuzz_u8(in);
	uint32_t id = t->s->nr_devs && pick & 0x80 ? t->s->devs[pick % t->s->nr_devs] : pick;

	if (op < 5)
		return change_dev(t, in, op, id);
	if (op == 15)
		return meta_for_each_dev(t->m, 0, walk_dev, t);
	/* As the pool does: ask first. */
	if (op < 8 && meta_require(t->m, 1, 1, META_TO_DELETE))
		return 0;
	return change_pool(t, in, op, id);
}

int
target_meta_use(struct seed *s, struct fuzz_input *in)
{
	struct subject t = {.s = s};
	uint8_t how = fuzz_u8(in);
	int r = fuzz_result(meta_open(&s->meta->image, CACHE_BYTES, how & 1, &t.m));

	if (r)
		return r;
	if (how & 2)
		fuzz_result(meta_for_each_dev(t.m, 0, walk_dev, &t));
	if (!(how & 1))
		set_guard(&t);
	for (unsigned i = 0; i < MAX_OPS && in->left; i++) {
		r = fuzz_result(operate(&t, in));
		/* What failed half-way may only be gone back from. */
		if (r < 0 && t.m->broken && (how & 4 || fuzz_result(meta_abort(t.m))))
			break;
	}
	meta_close(t.m);
	s->meta->guard = NULL;
	return 0;
}

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct seed *s;

	fuzz_begin();
	s = seeds_get(fuzz_u8(&in));
	edits_apply(s, &in, EDIT_ALL);
	target_meta_use(s, &in);
}

const struct fuzz_target fuzz_meta = {"meta", seeds_load, run};
