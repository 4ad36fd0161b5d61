/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "crash/mutant.h"
#include "pdata/thin_meta_internal.h"
#include "pdata/space_map_internal.h"
#include "pool/catalog.h"
#include "pool/passdown.h"
#include "pool/pool_internal.h"

enum mutant mutant;
struct image *mutant_data;

int __real_sm_dec(struct space_map *sm, uint64_t block);
int __wrap_sm_dec(struct space_map *sm, uint64_t block);
int __real_meta_confirm(struct thin_meta *m);
int __wrap_meta_confirm(struct thin_meta *m);
int __real_dev_share(struct thin_dev *from, uint64_t src, struct thin_dev *to, uint64_t dst, uint64_t nr);
int __wrap_dev_share(struct thin_dev *from, uint64_t src, struct thin_dev *to, uint64_t dst, uint64_t nr);
int __real_snapshot_take_one(struct vol *v, const char *name, const struct pool_caller *caller);
int __wrap_snapshot_take_one(struct vol *v, const char *name, const struct pool_caller *caller);
int __real_pool_revert(struct pool *p, struct vol *v, struct vol *from, const char *safety,
		       const struct pool_caller *caller);
int __wrap_pool_revert(struct pool *p, struct vol *v, struct vol *from, const char *safety,
		       const struct pool_caller *caller);
void __real_passdown_queue(struct pool *p, struct runs *freed);
void __wrap_passdown_queue(struct pool *p, struct runs *freed);
int __real_vol_origin_lower(struct vol *v, uint64_t end);
int __wrap_vol_origin_lower(struct vol *v, uint64_t end);
int __real_dev_map_all_to(struct thin_dev *d, uint64_t vblock, uint64_t nr, uint64_t dblock);
int __wrap_dev_map_all_to(struct thin_dev *d, uint64_t vblock, uint64_t nr, uint64_t dblock);
void __real_zero_block_check(struct pool *p);
void __wrap_zero_block_check(struct pool *p);
void __real_reclaim_queue(struct vol *v);
void __wrap_reclaim_queue(struct vol *v);

/* --- space maps, and what they free --- */

int
__wrap_meta_confirm(struct thin_meta *m)
{
	return mutant == MUTANT_NO_CONFIRM ? 0 : __real_meta_confirm(m);
}

/* A block whose count has become 0 is free at once and not remembered as freed. */
static void
free_at_once(struct space_map *sm, uint64_t block)
{
	struct runs *freed = &sm->freed_open;

	freed->total--;
	if (!--freed->v[freed->nr - 1].len)
		freed->nr--;
	sm_unreserve(sm, block, 1);
}

int
__wrap_sm_dec(struct space_map *sm, uint64_t block)
{
	uint64_t total = sm->freed_open.total;
	int r = __real_sm_dec(sm, block);

	if (r || sm->freed_open.total == total)
		return r;
	if (mutant == (sm->kind == SM_DATA ? MUTANT_REUSE_DATA : MUTANT_REUSE_METADATA))
		free_at_once(sm, block);
	if (mutant == MUTANT_PUNCH_EARLY && sm->kind == SM_DATA && mutant_data)
		image_discard(mutant_data, block << 16, 1 << 16);
	return 0;
}

/* The ranges are free from now on, and those of the last time are punched. */
static void
punch_later(struct pool *p, struct runs *freed)
{
	static struct run last[64];
	static size_t nr;

	for (size_t i = 0; i < nr; i++)
		image_discard(pool_data(p), last[i].start * p->block_bytes, last[i].len * p->block_bytes);
	nr = freed->nr < 64 ? freed->nr : 64;
	for (size_t i = 0; i < nr; i++)
		last[i] = freed->v[i];
	rwlock_wrlock(&p->meta_lock);
	for (size_t i = 0; i < freed->nr; i++)
		meta_unreserve_data(p->tm, freed->v[i].start, freed->v[i].len);
	rwlock_unlock(&p->meta_lock);
	runs_clear(freed);
}

void
__wrap_passdown_queue(struct pool *p, struct runs *freed)
{
	if (mutant == MUTANT_PUNCH_LATE)
		punch_later(p, freed);
	else
		__real_passdown_queue(p, freed);
}

/* --- copies that share --- */

/* Entries [begin, end) as new as the device's last snapshot. */
static int
make_new(struct thin_dev *d, uint64_t begin, uint64_t end)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	int r = 0;

	for (uint64_t i = begin; i < end && !r; i++) {
		struct le64 value;
		bool inserted;

		r = btree_lookup(&mappings, d->root, i, &value);
		if (r == -ENODATA) {
			r = 0;
			continue;
		}
		if (r)
			break;
		value = le64_make(le64_get(value) >> MAPPING_TIME_BITS << MAPPING_TIME_BITS |
				  d->info.snapshotted_time);
		r = btree_insert(&mappings, &d->root, i, &value, &inserted);
	}
	return r;
}

static int
uncount(struct thin_dev *d, uint64_t begin, uint64_t end)
{
	struct btree mappings = meta_mapping_tree(d->meta);
	struct le64 value;
	uint32_t count;

	for (uint64_t i = begin; i < end; i++)
		if (!btree_lookup(&mappings, d->root, i, &value) &&
		    !sm_count(d->meta->data_sm, le64_get(value) >> MAPPING_TIME_BITS, &count) && count > 1)
			__real_sm_dec(d->meta->data_sm, le64_get(value) >> MAPPING_TIME_BITS);
	return 0;
}

int
__wrap_dev_share(struct thin_dev *from, uint64_t src, struct thin_dev *to, uint64_t dst, uint64_t nr)
{
	int r = __real_dev_share(from, src, to, dst, nr);

	if (r)
		return r;
	if (mutant == MUTANT_SHARE_UNCOUNTED)
		return uncount(to, dst, dst + nr);
	if (mutant == MUTANT_SHARE_NEW)
		return make_new(to, dst, dst + nr);
	if (mutant == MUTANT_SHARE_SOURCE_NEW && from->changed)
		return make_new(from, src, src + nr);
	return 0;
}

/* --- reverting --- */

int
__wrap_snapshot_take_one(struct vol *v, const char *name, const struct pool_caller *caller)
{
	struct pool *p = v->pool;
	int r = __real_snapshot_take_one(v, name, caller);
	struct vol *kept;

	if (r || mutant != MUTANT_REVERT_FORGETS || !strstr(name, "@r"))
		return r;
	kept = names_find(p, names_find_dir(p, name), v->name);
	if (kept)
		kept->has_record = false;
	return 0;
}

int
__wrap_pool_revert(struct pool *p, struct vol *v, struct vol *from, const char *safety,
		   const struct pool_caller *caller)
{
	int r;

	if (mutant != MUTANT_REVERT_TWICE)
		return __real_pool_revert(p, v, from, safety, caller);
	r = pool_snapshot(p, safety, caller);
	if (!r)
		r = pool_sync_wait(p, NULL);
	if (!r)
		r = __real_pool_revert(p, v, from, "unwanted", caller);
	return r ? r : pool_remove_snapshot(p, "unwanted");
}

/* --- external origins --- */

int
__wrap_vol_origin_lower(struct vol *v, uint64_t end)
{
	if (mutant != MUTANT_ORIGIN_UNSAID)
		return __real_vol_origin_lower(v, end);
	if (end < vol_origin(v).end)
		v->origin_end = end;
	return 0;
}

int
__wrap_dev_map_all_to(struct thin_dev *d, uint64_t vblock, uint64_t nr, uint64_t dblock)
{
	int r = __real_dev_map_all_to(d, vblock, nr, dblock);

	return !r && mutant == MUTANT_ZEROS_UNCOUNTED ? uncount(d, vblock, vblock + nr) : r;
}

void
__wrap_zero_block_check(struct pool *p)
{
	if (mutant != MUTANT_ZEROS_STALE)
		__real_zero_block_check(p);
}

/* --- taking back --- */

void
__wrap_reclaim_queue(struct vol *v)
{
	if (mutant == MUTANT_UNSHRUNK && v->flags & RECORD_SHRINKING)
		v->flags &= ~(uint32_t)RECORD_SHRINKING;
	__real_reclaim_queue(v);
}
