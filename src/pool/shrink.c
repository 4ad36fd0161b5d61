/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shrink: making the data image smaller while the pool is in use.
 *
 *   1. No block behind the new end is handed out any more (evacuation_begin). Whoever had got one before is
 *      waited for, so from now on no new data come there but by overwriting in place.
 *   2. What is mapped there is moved, some blocks at a time: copied to free places, then all mappings of them changed at
 *      once, in the open transaction. Of blocks that a volume may overwrite in place, writers are kept away meanwhile.
 *   3. When nothing is left, and that is durable, the pool gets its new size, in a commit.
 *   4. The image is cut off.
 *
 * A crash leaves some blocks moved, or all, and the old size or the new one: each commit is a pool like any other. Who reads
 * looks up a place, and reads there without a lock that excludes moving: so the old places are not punched, nor
 * used again, before all have ended who might (settle_io).
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/evacuate.h"
#include "pool/catalog.h"
#include "pool/passdown.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

/* Moved at once: so long do writers of these blocks wait. */
#define BLOCKS_AT_ONCE 256U
#define BYTES_AT_ONCE (16ULL << 20)

/* Times around all devices without an end in sight: others keep copying what has to go. */
#define ROUNDS_MAX 1000U
#define COMMITS_MAX 100U

struct shrink {
	struct pool *p;
	struct pool_shrink *progress;
	struct evacuation *e;
	uint64_t first; /* block that goes */
	uint64_t old_blocks; /* that the pool had */
	unsigned at_once;
	/* The blocks that are being moved. */
	uint32_t dev;
	struct evacuee found[BLOCKS_AT_ONCE];
	uint64_t to[BLOCKS_AT_ONCE]; /* where found[i] comes; MAP_HOLE: it is there already as another one */
	unsigned nr;
	struct u64map moves;
};

uint64_t
pool_least_blocks(struct pool *p)
{
	struct meta_info info;

	meta_get_info(p->tm, &info);
	return min_u64(info.nr_data_blocks, info.used_data_blocks + catalog_reserve(p) + 1);
}

/* --- waiting for others --- */

static struct vol *
next_vol(struct pool *p, uint32_t from)
{
	struct vol key = {.id = from}, *v;

	rwlock_rdlock(&p->meta_lock);
	v = RB_NFIND(vol_id_tree, &p->vols, &key);
	if (v)
		vol_get(v);
	rwlock_unlock(&p->meta_lock);
	return v;
}

/* Wait for all I/O that has begun: it may know places from before. */
static void
settle_io(struct pool *p)
{
	struct range_hold hold;
	struct vol *v;
	uint64_t id = 0;

	while (id <= DEV_ID_MAX && (v = next_vol(p, (uint32_t)id))) {
		id = (uint64_t)v->id + 1;
		vol_lock_range(v, &hold, RANGE_CHANGE, 0, UINT64_MAX);
		vol_unlock_range(v, &hold);
		vol_put(v);
	}
}

/* The commit under way, and what it writes of the catalog. */
static int
settle_commit(struct pool *p)
{
	int r = pool_sync_wait(p, NULL);

	r = r == -ENOSPC ? 0 : r;
	return r ? r : pool_check_writable(p);
}

/* --- moving some blocks --- */

/* Reserve places, adjacent ones where possible, for all that were found. */
static int
reserve_locked(struct shrink *s)
{
	struct pool *p = s->p;
	uint64_t place = 0, left = 0, goal = 0, unused;

	for (unsigned i = 0; i < s->nr; i++) {
		int r = 0;

		s->to[i] = MAP_HOLE;
		if (u64map_get(&s->moves, s->found[i].dblock, &unused))
			continue;
		if (!left) {
			struct meta_info info;
			uint64_t kept = catalog_reserve(p);

			meta_get_info(p->tm, &info);
			if (info.free_data_blocks <= kept)
				return -ENOSPC;
			r = meta_reserve_data(p->tm, goal, min_u64(s->nr - i, info.free_data_blocks - kept),
					      &place, &left);
		}
		if (!r)
			r = u64map_set(&s->moves, s->found[i].dblock, place);
		if (r) {
			meta_unreserve_data(p->tm, place, left);
			return r;
		}
		s->to[i] = place++;
		left--;
		goal = place;
	}
	meta_unreserve_data(p->tm, place, left);
	return 0;
}

/*
 * Those that nothing is mapped to. meta_lock exclusive, since before any mapping was changed: what others have freed again is
 * no reservation of ours, and must not be handed out before that is durable.
 */
static void
unreserve_locked(struct shrink *s)
{
	uint64_t from, to;
	size_t pos = 0;

	while (u64map_next(&s->moves, &pos, &from, &to))
		meta_unreserve_data(s->p->tm, to, 1);
	u64map_clear(&s->moves);
}

/* They were to be filled, and that failed. */
static void
give_back(struct shrink *s, int error)
{
	for (unsigned i = 0; i < s->nr; i++)
		if (s->to[i] != MAP_HOLE)
			pool_give_back(s->p, s->to[i], 1, error);
	u64map_clear(&s->moves);
}

static int
try_reserve(struct shrink *s)
{
	int r;

	rwlock_wrlock(&s->p->meta_lock);
	r = reserve_locked(s);
	if (r)
		unreserve_locked(s);
	rwlock_unlock(&s->p->meta_lock);
	return r;
}

static int
reserve(struct shrink *s)
{
	int r = try_reserve(s);

	if (r != -ENOSPC)
		return r;
	r = settle_commit(s->p);
	if (r)
		return r;
	passdown_wait(s->p);
	return try_reserve(s);
}

/* What reads as zeros may be what fallocate promised: then what is below has blocks for it, though they look like a hole. */
static int
copy_run(struct pool *p, uint64_t from, uint64_t to, uint64_t nr)
{
	uint64_t size = p->block_bytes;
	int r;

	if (!image_is_hole(pool_data(p), from * size, nr * size))
		return pool_copy_data(p, from * size, to * size, nr * size);
	r = image_zero(pool_data(p), to * size, nr * size);
	return r ? r : image_allocate(pool_data(p), to * size, nr * size);
}

/* No lock but ranges held. */
static int
copy_all(struct shrink *s)
{
	unsigned i = 0;
	int r = 0;

	while (i < s->nr && !r) {
		unsigned n = 1;

		while (i + n < s->nr && s->to[i] != MAP_HOLE && s->to[i + n] == s->to[i] + n &&
		       s->found[i + n].dblock == s->found[i].dblock + n)
			n++;
		if (s->to[i] != MAP_HOLE)
			r = copy_run(s->p, s->found[i].dblock, s->to[i], n);
		i += n;
	}
	/* Fewer will be tried where there is no space below. */
	if (r && (r != -ENOSPC || s->at_once == 1))
		msg_error("%s: moving blocks to make it smaller failed: %s", s->p->data->name, strerror(-r));
	return r;
}

/* Most of the way to all mappings of what moves, in pieces that hold up nobody. */
static int
prepare_mappings(struct shrink *s)
{
	struct evacuation_place at = {0};
	int r = 0;

	while (!at.end && !r) {
		rwlock_rdlock(&s->p->meta_lock);
		r = evacuation_prepare(s->e, &s->moves, &at);
		rwlock_unlock(&s->p->meta_lock);
	}
	return r;
}

static int
change_mappings(struct shrink *s)
{
	int r = pool_begin_change(s->p, 0, 0, META_TO_UNMAP);

	if (r)
		return r;
	r = evacuation_move(s->e, &s->moves);
	if (!r)
		unreserve_locked(s);
	pool_end_change(s->p);
	return r;
}

static int
move_held(struct shrink *s)
{
	int r = reserve(s);

	if (r)
		return r;
	r = copy_all(s);
	if (!r)
		r = prepare_mappings(s);
	if (r) {
		give_back(s, r);
		return r;
	}
	r = change_mappings(s);
	if (r == -ENOSPC) { /* of metadata: a commit may give some */
		r = settle_commit(s->p);
		if (!r)
			r = change_mappings(s);
	}
	if (r)
		give_back(s, 0);
	return r;
}

/* The range that somebody might overwrite in place; false: there is none. */
static bool
range_to_freeze(const struct shrink *s, uint64_t *first, uint64_t *last)
{
	*first = UINT64_MAX;
	*last = 0;
	for (unsigned i = 0; i < s->nr; i++) {
		if (s->found[i].shared)
			continue;
		*first = min_u64(*first, s->found[i].vblock);
		*last = max_u64(*last, s->found[i].vblock);
	}
	return *first <= *last;
}

static int
move_found(struct shrink *s)
{
	struct pool *p = s->p;
	struct range_hold hold;
	uint64_t first, last;
	struct vol *v;
	bool held;
	int r;

	rwlock_rdlock(&p->meta_lock);
	v = names_find_id(p, s->dev); /* not for the catalog, which is never overwritten in place */
	if (v)
		vol_get(v);
	rwlock_unlock(&p->meta_lock);
	held = v && range_to_freeze(s, &first, &last);
	if (held)
		vol_lock_range(v, &hold, RANGE_FREEZE, first, last);
	r = move_held(s);
	if (held)
		vol_unlock_range(v, &hold);
	if (v)
		vol_put(v);
	for (unsigned i = 0; i < s->nr && !r; i++)
		s->progress->moved += s->to[i] == MAP_HOLE ? 0 : p->block_bytes;
	return r;
}

/* --- all of it --- */

static int
find_some(struct shrink *s, struct evacuation_place *at)
{
	int r;

	rwlock_rdlock(&s->p->meta_lock);
	r = evacuation_find(s->e, at, &s->dev, s->found, s->at_once, &s->nr);
	rwlock_unlock(&s->p->meta_lock);
	return r;
}

/* Once around all devices; *found: there was something. */
static int
move_round(struct shrink *s, bool *found)
{
	struct evacuation_place at = {0};
	int r = 0;

	*found = false;
	while (!at.end && !r) {
		struct evacuation_place before = at;

		if (s->progress->cancel)
			return -ECANCELED;
		r = pool_check_writable(s->p);
		if (!r)
			r = find_some(s, &at);
		if (r || !s->nr)
			continue;
		*found = true;
		r = move_found(s);
		if (r == -ENOSPC && s->at_once > 1) {
			s->at_once /= 2;
			at = before;
			r = 0;
		}
	}
	return r;
}

static int
left(struct shrink *s, uint64_t *used, uint64_t *pending)
{
	int r;

	rwlock_rdlock(&s->p->meta_lock);
	r = evacuation_left(s->e, used, pending);
	rwlock_unlock(&s->p->meta_lock);
	return r;
}

static int
move_all(struct shrink *s)
{
	uint64_t used, pending;
	int r = left(s, &used, &pending);

	s->progress->total = used * s->p->block_bytes;
	for (unsigned round = 0; used && !r; round++) {
		bool found;

		r = move_round(s, &found);
		if (!r)
			r = left(s, &used, &pending);
		if (!r && used && !found) {
			msg_error("%s: %" PRIu64 " blocks count as in use, though nothing has them; unmount it and "
				  "run 'thinfs check --repair %s'", s->p->data->name, used, s->p->meta->name);
			r = -EUCLEAN;
		}
		if (!r && round == ROUNDS_MAX)
			r = -EAGAIN;
	}
	return r;
}

/* Nothing is left there: let the pool end before, durably. */
static int
commit_end(struct shrink *s)
{
	int r = -EAGAIN;

	for (unsigned i = 0; r == -EAGAIN && i < COMMITS_MAX; i++) {
		r = settle_commit(s->p);
		if (!r)
			r = pool_begin_change(s->p, 0, 0, META_TO_UNMAP);
		if (r)
			break;
		r = evacuation_shrink(s->e);
		pool_end_change(s->p);
	}
	return r ? r : settle_commit(s->p);
}

static int
cut_image(struct shrink *s)
{
	struct pool *p = s->p;
	uint64_t end = s->first * p->block_bytes;
	int r;

	settle_io(p);
	/* What it reads as is nobody's concern any more. Of a file, too: cut off at once it would keep writers away for long. */
	passdown_now(p, s->first, s->old_blocks - s->first);
	if (p->data->is_block_device)
		return 0;
	r = image_resize(pool_data(p), end);
	if (r)
		msg_error("%s: the pool is smaller now, but the image cannot be cut off: %s", p->data->name,
			  strerror(-r));
	return r;
}

/* Who has got a block behind the end has it mapped by now, or has given it back. */
static int
keep_out(struct shrink *s)
{
	struct pool *p = s->p;
	int r = settle_commit(p);

	if (r)
		return r;
	rwlock_wrlock(&p->meta_lock);
	catalog_leave(p, s->first);
	rwlock_unlock(&p->meta_lock);
	settle_io(p);
	passdown_wait(p);
	return settle_commit(p);
}

static int
evacuate(struct shrink *s)
{
	struct pool *p = s->p;
	int r = keep_out(s);

	if (!r)
		r = move_all(s);
	if (!r)
		r = commit_end(s);
	if (!r)
		r = cut_image(s);
	else if (settle_commit(p) == 0)
		settle_io(p);
	rwlock_wrlock(&p->meta_lock);
	evacuation_end(s->e);
	pool_update_mode(p);
	rwlock_unlock(&p->meta_lock);
	pool_space_hook(p);
	return r;
}

static int
begin(struct shrink *s, uint64_t *possible)
{
	struct pool *p = s->p;
	struct meta_info info;
	uint64_t least;
	int r;

	rwlock_wrlock(&p->meta_lock);
	r = pool_check_writable(p);
	meta_get_info(p->tm, &info);
	s->old_blocks = info.nr_data_blocks;
	least = pool_least_blocks(p);
	*possible = least * p->block_bytes;
	if (!r && (!s->first || s->first >= info.nr_data_blocks))
		r = -EINVAL;
	/* A commit must always find the blocks for the catalog, and now only before the end. */
	if (!r)
		r = s->first < least ? -ENOSPC
				     : evacuation_begin(p->tm, s->first, catalog_reserve(p), &s->e);
	rwlock_unlock(&p->meta_lock);
	return r;
}

int
pool_shrink(struct pool *p, uint64_t bytes, struct pool_shrink *progress, uint64_t *possible)
{
	struct shrink *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->p = p;
	s->progress = progress;
	s->first = bytes / p->block_bytes;
	s->at_once = (unsigned)max_u64(1, min_u64(BLOCKS_AT_ONCE, BYTES_AT_ONCE / p->block_bytes));
	r = settle_commit(p); /* what has been freed is free then */
	if (!r) {
		passdown_wait(p);
		mutex_lock(&p->grow_lock);
		r = p->shrinking ? -EBUSY : begin(s, possible);
		if (!r)
			p->shrinking = true;
		mutex_unlock(&p->grow_lock);
	}
	if (!r) {
		r = evacuate(s);
		p->shrinking = false;
	}
	if (!r)
		msg_info("%s: %" PRIu64 " data blocks now", p->data->name, s->first);
	free(s);
	return r;
}
