/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "pdata/space_map_internal.h"
#include "util/msg.h"

static const struct btree_value_type index_type = {
	.name = "space map index",
	.size = sizeof(struct disk_index_entry),
};

static const struct btree_value_type count_type = {
	.name = "reference count",
	.size = sizeof(struct le32),
};

struct btree
sm_index_tree(struct space_map *sm)
{
	return (struct btree){.txn = sm->txn, .type = &index_type};
}

struct btree
sm_count_tree(struct space_map *sm)
{
	return (struct btree){.txn = sm->txn, .type = &count_type};
}

uint64_t
sm_chunks_for(uint64_t nr_blocks)
{
	return (nr_blocks + BITMAP_ENTRIES - 1) / BITMAP_ENTRIES;
}

uint32_t
sm_entries_in(const struct space_map *sm, uint64_t chunk)
{
	uint64_t left = sm->nr_blocks - chunk * BITMAP_ENTRIES;

	return left < BITMAP_ENTRIES ? (uint32_t)left : BITMAP_ENTRIES;
}

void
sm_mark_dirty(struct space_map *sm, struct sm_chunk *c)
{
	sm->nr_dirty += !c->dirty;
	c->dirty = true;
}

int
sm_get_chunk(struct space_map *sm, uint64_t index, struct sm_chunk **out)
{
	int r;

	*out = &sm->chunks[index];
	if (sm->damaged)
		return -EUCLEAN;
	mutex_lock(&sm->load_lock);
	r = chunk_load(&sm->chunks[index], sm->txn, sm_entries_in(sm, index));
	mutex_unlock(&sm->load_lock);
	return r;
}

uint64_t
sm_nr_blocks(const struct space_map *sm)
{
	return sm->nr_blocks;
}

uint64_t
sm_nr_allocated(const struct space_map *sm)
{
	return sm->nr_allocated;
}

uint64_t
sm_nr_free(const struct space_map *sm)
{
	uint64_t busy = sm->nr_allocated + sm->nr_held;

	return sm->nr_blocks > busy ? sm->nr_blocks - busy : 0;
}

uint64_t
sm_nr_pending(const struct space_map *sm)
{
	return sm->freed_open.total + sm->freed_frozen.total;
}

/* --- counts --- */

static const char *
map_name(const struct space_map *sm)
{
	return sm->kind == SM_METADATA ? "metadata" : "data";
}

static int
check_block(struct space_map *sm, uint64_t block, const char *what)
{
	if (block < sm->nr_blocks)
		return 0;
	msg_error("%s: the metadata %s %s block %" PRIu64 ", but there are only %" PRIu64
		  "; check it with 'thinfs check'", bc_name(sm->txn->bc), what, map_name(sm), block,
		  sm->nr_blocks);
	return -EUCLEAN;
}

static int
large_count(struct space_map *sm, uint64_t block, uint32_t *count)
{
	struct btree tree = sm_count_tree(sm);
	struct le32 value;
	uint64_t changed;
	int r;

	if (u64map_get(&sm->changed_counts, block, &changed)) {
		*count = (uint32_t)changed;
		return 0;
	}
	r = btree_lookup(&tree, sm->count_root, block, &value);
	if (r == -ENODATA) {
		msg_error("%s: the %s space map has no count for block %" PRIu64
			  "; check it with 'thinfs check'", bc_name(sm->txn->bc), map_name(sm), block);
		return -EUCLEAN;
	}
	if (r)
		return r;
	*count = le32_get(value);
	if (*count >= CHUNK_OVERFLOW)
		return 0;
	msg_error("%s: the %s space map's counts contradict each other for block %" PRIu64
		  "; check it with 'thinfs check'", bc_name(sm->txn->bc), map_name(sm), block);
	return -EUCLEAN;
}

/* The count, and the chunk and entry where it is kept. */
static int
get_count(struct space_map *sm, uint64_t block, struct sm_chunk **c, uint32_t *entry,
	  uint32_t *count)
{
	int r = check_block(sm, block, "refers to");

	if (!r)
		r = sm_get_chunk(sm, block / BITMAP_ENTRIES, c);
	if (r)
		return r;
	*entry = block % BITMAP_ENTRIES;
	*count = chunk_count(*c, *entry);
	return *count == CHUNK_OVERFLOW ? large_count(sm, block, count) : 0;
}

int
sm_count(struct space_map *sm, uint64_t block, uint32_t *count)
{
	struct sm_chunk *c;
	uint32_t entry;

	return get_count(sm, block, &c, &entry, count);
}

/* The sum says that nothing can change in this way, though there is a block for it. */
static int
sum_is_wrong(const struct space_map *sm, uint64_t block)
{
	msg_error("%s: the %s space map says that %" PRIu64 " of %" PRIu64 " blocks are in use, which cannot be "
		  "with block %" PRIu64 "; check it with 'thinfs check'", bc_name(sm->txn->bc), map_name(sm),
		  sm->nr_allocated, sm->nr_blocks, block);
	return -EUCLEAN;
}

static int
set_count(struct space_map *sm, uint64_t block, struct sm_chunk *c, uint32_t entry, uint32_t old,
	  uint32_t new_count)
{
	bool was_large = old >= CHUNK_OVERFLOW;
	bool is_large = new_count >= CHUNK_OVERFLOW;

	if (was_large || is_large) {
		int r = u64map_set(&sm->changed_counts, block, is_large ? new_count : 0);

		if (r)
			return r;
	}
	sm_mark_dirty(sm, c);
	if (!was_large || !is_large)
		chunk_set_count(c, entry, is_large ? CHUNK_OVERFLOW : new_count);
	return 0;
}

int
sm_inc(struct space_map *sm, uint64_t block)
{
	struct sm_chunk *c;
	uint32_t entry, count;
	int r = get_count(sm, block, &c, &entry, &count);

	if (r)
		return r;
	if (count == UINT32_MAX || (!count && !chunk_is_busy(c, entry))) {
		msg_error("%s: the %s space map counts block %" PRIu64
			  " %s; check it with 'thinfs check'", bc_name(sm->txn->bc), map_name(sm), block,
			  count ? "too often" : "as free although it is in use");
		return -EUCLEAN;
	}
	if (!count && sm->nr_allocated >= sm->nr_blocks)
		return sum_is_wrong(sm, block);
	r = set_count(sm, block, c, entry, count, count + 1);
	if (!r && !count) {
		sm->nr_allocated++;
		sm->nr_held--;
		c->nr_free--;
	}
	return r;
}

/* --- users that have gone --- */

/* So that the deletion of a large device does not take memory without end; 2 MiB of the table. */
#define DROPS_MAX 65536U

void
sm_drops_clear(struct sm_drops *d)
{
	u64map_clear(&d->blocks);
	d->any = false;
}

void
sm_dropped_any(struct space_map *sm)
{
	sm_drops_clear(&sm->dropped_open);
	sm->dropped_open.any = true;
}

static void
note_dropped(struct space_map *sm, uint64_t block)
{
	struct sm_drops *d = &sm->dropped_open;

	if (!d->any && (d->blocks.nr >= DROPS_MAX || u64map_set(&d->blocks, block, 0)))
		sm_dropped_any(sm);
}

static bool
drops_has(const struct sm_drops *d, uint64_t block)
{
	uint64_t value;

	return d->any || u64map_get(&d->blocks, block, &value);
}

bool
sm_was_dropped(const struct space_map *sm, uint64_t block)
{
	return drops_has(&sm->dropped_open, block) || drops_has(&sm->dropped_frozen, block);
}

int
sm_dec(struct space_map *sm, uint64_t block)
{
	struct sm_chunk *c;
	uint32_t entry, count;
	int r = get_count(sm, block, &c, &entry, &count);

	if (r)
		return r;
	if (!count) {
		msg_error("%s: the %s space map counts block %" PRIu64
			  " as free although it is in use; check it with 'thinfs check'",
			  bc_name(sm->txn->bc), map_name(sm), block);
		return -EUCLEAN;
	}
	if (count == 1 && !sm->nr_allocated)
		return sum_is_wrong(sm, block);
	if (count == 1) {
		r = runs_add(&sm->freed_open, block, 1);
		if (r)
			return r;
	}
	r = set_count(sm, block, c, entry, count, count - 1);
	if (!r && count == 1) {
		sm->nr_allocated--;
		sm->nr_held++;
		c->nr_free++;
	} else if (!r && sm->kind == SM_DATA) {
		note_dropped(sm, block);
	}
	return r;
}

