/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flushing the metadata map changes it: each changed bitmap needs a new block, whose allocation
 * changes a bitmap. The loop in flush_metadata() ends because a bitmap is placed once in a
 * transaction, and because the nodes of the count tree are never shared, so that placing them
 * adds no counts of 3 and more.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/btree.h"
#include "pdata/sm_chunk.h"
#include "pdata/space_map.h"
#include "util/msg.h"
#include "util/u64map.h"

struct space_map {
	struct txn *txn;
	enum space_map_kind kind;
	uint64_t nr_blocks;
	uint64_t nr_allocated;
	uint64_t nr_held; /* busy without a count: freed and not yet durable, or reserved */
	uint64_t cursor; /* where the search without a goal goes on */
	uint64_t bitmap_root; /* metadata: the index block; data: root of the bitmap tree */
	uint64_t count_root;
	struct sm_chunk *chunks;
	uint64_t nr_chunks;
	uint64_t nr_dirty; /* chunks */
	struct u64map changed_counts; /* counts >= 3 since the last flush; 0: no longer >= 3 */
	struct runs freed_open;
	struct runs freed_frozen;
	pthread_mutex_t load_lock; /* loading a chunk under the shared metadata lock */
};

static const struct btree_value_type index_type = {
	.name = "space map index",
	.size = sizeof(struct disk_index_entry),
};

static const struct btree_value_type count_type = {
	.name = "reference count",
	.size = sizeof(struct le32),
};

static struct btree
index_tree(struct space_map *sm)
{
	return (struct btree){.txn = sm->txn, .type = &index_type};
}

static struct btree
count_tree(struct space_map *sm)
{
	return (struct btree){.txn = sm->txn, .type = &count_type};
}

static const char *
map_name(const struct space_map *sm)
{
	return sm->kind == SM_METADATA ? "metadata" : "data";
}

static uint64_t
chunks_for(uint64_t nr_blocks)
{
	return (nr_blocks + BITMAP_ENTRIES - 1) / BITMAP_ENTRIES;
}

static uint32_t
entries_in(const struct space_map *sm, uint64_t chunk)
{
	uint64_t left = sm->nr_blocks - chunk * BITMAP_ENTRIES;

	return left < BITMAP_ENTRIES ? (uint32_t)left : BITMAP_ENTRIES;
}

static void
mark_dirty(struct space_map *sm, struct sm_chunk *c)
{
	sm->nr_dirty += !c->dirty;
	c->dirty = true;
}

static int
get_chunk(struct space_map *sm, uint64_t index, struct sm_chunk **out)
{
	int r;

	pthread_mutex_lock(&sm->load_lock);
	r = chunk_load(&sm->chunks[index], sm->txn, entries_in(sm, index));
	pthread_mutex_unlock(&sm->load_lock);
	*out = &sm->chunks[index];
	return r;
}

/* --- opening --- */

static struct space_map *
sm_alloc_struct(struct txn *t, enum space_map_kind kind, uint64_t nr_blocks)
{
	struct space_map *sm = calloc(1, sizeof(*sm));

	if (!sm)
		return NULL;
	sm->nr_chunks = chunks_for(nr_blocks);
	sm->chunks = calloc(sm->nr_chunks ? sm->nr_chunks : 1, sizeof(*sm->chunks));
	if (!sm->chunks) {
		free(sm);
		return NULL;
	}
	pthread_mutex_init(&sm->load_lock, NULL);
	sm->txn = t;
	sm->kind = kind;
	sm->nr_blocks = nr_blocks;
	if (kind == SM_METADATA)
		t->sm = sm;
	return sm;
}

void
sm_close(struct space_map *sm)
{
	if (!sm)
		return;
	for (uint64_t i = 0; i < sm->nr_chunks; i++)
		chunk_unload(&sm->chunks[i]);
	free(sm->chunks);
	u64map_clear(&sm->changed_counts);
	runs_clear(&sm->freed_open);
	runs_clear(&sm->freed_frozen);
	pthread_mutex_destroy(&sm->load_lock);
	if (sm->txn->sm == sm)
		sm->txn->sm = NULL;
	free(sm);
}

/* The metadata map's own blocks, in the kernel's order: S 7.3. */
static int
create_metadata(struct space_map *sm)
{
	struct btree counts = count_tree(sm);
	struct block *b;
	uint64_t block;
	int r;

	r = sm_alloc(sm, &block);
	assert(r || block == SUPERBLOCK_LOCATION);
	if (!r)
		r = txn_new(sm->txn, BLOCK_INDEX, &b);
	if (r)
		return r;
	sm->bitmap_root = b->nr;
	bc_put(b);
	r = btree_empty(&counts, &sm->count_root);
	for (uint64_t i = 0; !r && i < sm->nr_chunks; i++) {
		r = txn_new(sm->txn, BLOCK_BITMAP, &b);
		if (r)
			break;
		sm->chunks[i].blocknr = b->nr;
		bc_put(b);
	}
	return r;
}

static int
create_data(struct space_map *sm)
{
	struct btree index = index_tree(sm);
	struct btree counts = count_tree(sm);
	int r = btree_empty(&index, &sm->bitmap_root);

	return r ? r : btree_empty(&counts, &sm->count_root);
}

int
sm_create(struct txn *t, enum space_map_kind kind, uint64_t nr_blocks, struct space_map **out)
{
	struct space_map *sm = sm_alloc_struct(t, kind, nr_blocks);
	int r;

	if (!sm)
		return -ENOMEM;
	for (uint64_t i = 0; i < sm->nr_chunks; i++)
		mark_dirty(sm, &sm->chunks[i]);
	r = kind == SM_METADATA ? create_metadata(sm) : create_data(sm);
	if (r) {
		sm_close(sm);
		return r;
	}
	*out = sm;
	return 0;
}

static void
chunk_from_disk(struct sm_chunk *c, const struct disk_index_entry *e)
{
	c->blocknr = le64_get(e->blocknr);
	c->nr_free = le32_get(e->nr_free);
	c->none_free_before = le32_get(e->none_free_before);
}

struct index_reader {
	struct space_map *sm;
	uint64_t next;
};

static int
read_index_entry(void *arg, uint64_t key, const void *value)
{
	struct index_reader *reader = arg;

	if (key != reader->next || key >= reader->sm->nr_chunks)
		return -EUCLEAN;
	chunk_from_disk(&reader->sm->chunks[key], value);
	reader->next++;
	return reader->sm->chunks[key].blocknr ? 0 : -EUCLEAN;
}

static int
open_data_index(struct space_map *sm)
{
	struct index_reader reader = {.sm = sm};
	struct btree index = index_tree(sm);
	int r = btree_iterate(&index, sm->bitmap_root, 0, read_index_entry, &reader);

	if (r == 0 && reader.next != sm->nr_chunks)
		r = -EUCLEAN;
	if (r == -EUCLEAN)
		msg_error("the data space map's index has no %" PRIu64
			  " bitmaps in a row; check it with thin_check", sm->nr_chunks);
	return r;
}

static int
open_metadata_index(struct space_map *sm)
{
	const struct disk_index *index;
	struct block *b;
	int r = txn_read(sm->txn, sm->bitmap_root, BLOCK_INDEX, &b);

	if (r)
		return r;
	index = b->data;
	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
		chunk_from_disk(&sm->chunks[i], &index->entries[i]);
		if (!sm->chunks[i].blocknr)
			r = -EUCLEAN;
	}
	bc_put(b);
	if (r)
		msg_error("the metadata space map's index block %" PRIu64
			  " lacks bitmaps; check it with thin_check", sm->bitmap_root);
	return r;
}

int
sm_open(struct txn *t, enum space_map_kind kind, const struct disk_sm_root *root,
	struct space_map **out)
{
	uint64_t nr_blocks = le64_get(root->nr_blocks);
	struct space_map *sm;
	int r;

	if (nr_blocks > (kind == SM_METADATA ? bc_nr_blocks(t->bc) : DATA_BLOCKS_MAX) ||
	    le64_get(root->nr_allocated) > nr_blocks ||
	    (kind == SM_DATA && chunks_for(nr_blocks) > bc_nr_blocks(t->bc)) ||
	    (kind == SM_METADATA && chunks_for(nr_blocks) > METADATA_BITMAPS_MAX)) {
		msg_error("the %s space map cannot have %" PRIu64 " blocks, %" PRIu64
			  " of them allocated; is the metadata image cut off?",
			  kind == SM_METADATA ? "metadata" : "data", nr_blocks,
			  le64_get(root->nr_allocated));
		return -EUCLEAN;
	}
	sm = sm_alloc_struct(t, kind, nr_blocks);
	if (!sm)
		return -ENOMEM;
	sm->nr_allocated = le64_get(root->nr_allocated);
	sm->bitmap_root = le64_get(root->bitmap_root);
	sm->count_root = le64_get(root->ref_count_root);
	r = kind == SM_METADATA ? open_metadata_index(sm) : open_data_index(sm);
	if (r) {
		sm_close(sm);
		return r;
	}
	*out = sm;
	return 0;
}

int
sm_recount(struct space_map *sm, uint64_t first_chunk)
{
	uint64_t used = 0;

	for (uint64_t i = first_chunk; i < sm->nr_chunks; i++) {
		struct sm_chunk *c;
		int r = get_chunk(sm, i, &c);

		if (r)
			return r;
		used += BITMAP_ENTRIES - c->nr_free;
	}
	if (!first_chunk)
		sm->nr_allocated = used;
	return 0;
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

static int
check_block(struct space_map *sm, uint64_t block, const char *what)
{
	if (block < sm->nr_blocks)
		return 0;
	msg_error("the metadata %s %s block %" PRIu64 ", but there are only %" PRIu64
		  "; check it with thin_check", what, map_name(sm), block, sm->nr_blocks);
	return -EUCLEAN;
}

static int
large_count(struct space_map *sm, uint64_t block, uint32_t *count)
{
	struct btree tree = count_tree(sm);
	struct le32 value;
	uint64_t changed;
	int r;

	if (u64map_get(&sm->changed_counts, block, &changed)) {
		*count = (uint32_t)changed;
		return 0;
	}
	r = btree_lookup(&tree, sm->count_root, block, &value);
	if (r == -ENODATA) {
		msg_error("the %s space map has no count for block %" PRIu64
			  "; check it with thin_check", map_name(sm), block);
		return -EUCLEAN;
	}
	if (!r)
		*count = le32_get(value);
	return r;
}

/* The count, and the chunk and entry where it is kept. */
static int
get_count(struct space_map *sm, uint64_t block, struct sm_chunk **c, uint32_t *entry,
	  uint32_t *count)
{
	int r = check_block(sm, block, "refers to");

	if (!r)
		r = get_chunk(sm, block / BITMAP_ENTRIES, c);
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
	mark_dirty(sm, c);
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
		msg_error("the %s space map counts block %" PRIu64
			  " %s; check it with thin_check", map_name(sm), block,
			  count ? "too often" : "as free although it is in use");
		return -EUCLEAN;
	}
	r = set_count(sm, block, c, entry, count, count + 1);
	if (!r && !count) {
		sm->nr_allocated++;
		sm->nr_held--;
		c->nr_free--;
	}
	return r;
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
		msg_error("the %s space map counts block %" PRIu64
			  " as free although it is in use; check it with thin_check",
			  map_name(sm), block);
		return -EUCLEAN;
	}
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
	}
	return r;
}

/* --- handing out blocks --- */

/* The first block in [from, to) that is not busy; TO when there is none. */
static int
find_usable(struct space_map *sm, uint64_t from, uint64_t to, uint64_t *block)
{
	*block = to;
	while (from < to) {
		uint64_t index = from / BITMAP_ENTRIES;
		struct sm_chunk *c = &sm->chunks[index];
		uint32_t entry;
		int r;

		if (c->counts ? c->nr_usable : c->nr_free || !c->blocknr) {
			r = get_chunk(sm, index, &c);
			if (r)
				return r;
			entry = chunk_find_usable(c, from % BITMAP_ENTRIES);
			if (entry < BITMAP_ENTRIES) {
				uint64_t found = index * BITMAP_ENTRIES + entry;

				if (found < to)
					*block = found;
				return 0;
			}
		}
		from = (index + 1) * BITMAP_ENTRIES;
	}
	return 0;
}

/* Mark up to WANT usable blocks from START on as busy. START is usable. */
static int
hold_run(struct space_map *sm, uint64_t start, uint64_t want, uint64_t *got)
{
	uint64_t n = 0;

	while (n < want && start + n < sm->nr_blocks) {
		uint64_t block = start + n;
		struct sm_chunk *c;
		int r = get_chunk(sm, block / BITMAP_ENTRIES, &c);

		if (r && n)
			break;
		if (r)
			return r;
		if (chunk_is_busy(c, block % BITMAP_ENTRIES))
			break;
		chunk_set_busy(c, block % BITMAP_ENTRIES, true);
		n++;
	}
	sm->nr_held += n;
	*got = n;
	return 0;
}

int
sm_reserve(struct space_map *sm, uint64_t goal, uint64_t want, uint64_t *start, uint64_t *got)
{
	uint64_t block;
	int r;

	if (goal >= sm->nr_blocks)
		goal = 0;
	r = find_usable(sm, goal, sm->nr_blocks, &block);
	if (!r && block == sm->nr_blocks) {
		r = find_usable(sm, 0, goal, &block);
		if (!r && block == goal)
			return -ENOSPC;
	}
	if (!r)
		r = hold_run(sm, block, want, got);
	if (r)
		return r;
	*start = block;
	sm->cursor = block + *got;
	return 0;
}

void
sm_unreserve(struct space_map *sm, uint64_t start, uint64_t nr)
{
	for (uint64_t block = start; block < start + nr && block < sm->nr_blocks; block++) {
		struct sm_chunk *c = &sm->chunks[block / BITMAP_ENTRIES];
		uint32_t entry = block % BITMAP_ENTRIES;

		/* A reservation from before an abort is known no longer. */
		if (!c->counts || !chunk_is_busy(c, entry) || chunk_count(c, entry))
			continue;
		chunk_set_busy(c, entry, false);
		sm->nr_held--;
	}
}

int
sm_alloc(struct space_map *sm, uint64_t *block)
{
	uint64_t got;
	int r = sm_reserve(sm, sm->cursor, 1, block, &got);

	return r ? r : sm_inc(sm, *block);
}

int
sm_grow(struct space_map *sm, uint64_t nr_blocks)
{
	uint64_t nr_chunks = chunks_for(nr_blocks);
	uint64_t old = sm->nr_blocks;
	struct sm_chunk *chunks, *last;

	if (nr_blocks < old || (sm->kind == SM_METADATA && nr_chunks > METADATA_BITMAPS_MAX) ||
	    nr_blocks > DATA_BLOCKS_MAX)
		return -EINVAL;
	if (nr_chunks > sm->nr_chunks) {
		chunks = reallocarray(sm->chunks, nr_chunks, sizeof(*chunks));
		if (!chunks)
			return -ENOMEM;
		memset(chunks + sm->nr_chunks, 0, (nr_chunks - sm->nr_chunks) * sizeof(*chunks));
		sm->chunks = chunks;
		for (uint64_t i = sm->nr_chunks; i < nr_chunks; i++)
			mark_dirty(sm, &chunks[i]);
	}
	last = sm->nr_chunks ? &sm->chunks[sm->nr_chunks - 1] : NULL;
	if (last && last->counts)
		for (uint64_t b = old; b < nr_blocks && b < sm->nr_chunks * BITMAP_ENTRIES; b++)
			chunk_set_busy(last, b % BITMAP_ENTRIES, false);
	sm->nr_chunks = nr_chunks;
	sm->nr_blocks = nr_blocks;
	return 0;
}

/* --- writing it down --- */

/* Let the chunk have a block of the open transaction. */
static int
place_chunk(struct space_map *sm, struct sm_chunk *c)
{
	struct block *b;
	bool shared;
	int r;

	if (c->blocknr)
		r = txn_shadow(sm->txn, c->blocknr, BLOCK_BITMAP, &b, &shared);
	else
		r = txn_new(sm->txn, BLOCK_BITMAP, &b);
	if (r)
		return r;
	c->blocknr = b->nr;
	c->placed = true;
	bc_put(b);
	return 0;
}

static int
fill_chunk(struct space_map *sm, struct sm_chunk *c)
{
	struct block *b;
	int r = txn_read(sm->txn, c->blocknr, BLOCK_BITMAP, &b);

	if (r)
		return r;
	chunk_store(c, b->data);
	c->placed = false;
	c->dirty = false;
	sm->nr_dirty--;
	bc_put(b);
	return 0;
}

static struct disk_index_entry
chunk_to_disk(const struct sm_chunk *c)
{
	return (struct disk_index_entry){
		.blocknr = le64_make(c->blocknr),
		.nr_free = le32_make(c->nr_free),
		.none_free_before = le32_make(c->none_free_before),
	};
}

static int
compare_keys(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int
flush_count(struct space_map *sm, uint64_t block)
{
	struct btree tree = count_tree(sm);
	struct le32 value;
	uint64_t count;
	int r;

	if (!u64map_get(&sm->changed_counts, block, &count))
		return 0;
	value = le32_make((uint32_t)count);
	if (count)
		r = btree_insert(&tree, &sm->count_root, block, &value, NULL);
	else
		r = btree_remove(&tree, &sm->count_root, block);
	if (r == -ENODATA) /* rose to 3 and fell again since the last flush */
		r = 0;
	if (!r)
		u64map_remove(&sm->changed_counts, block);
	return r;
}

static int
flush_counts(struct space_map *sm)
{
	size_t nr = sm->changed_counts.nr;
	uint64_t *blocks, count;
	size_t pos = 0, i = 0;
	int r = 0;

	if (!nr)
		return 0;
	blocks = reallocarray(NULL, nr, sizeof(*blocks));
	if (!blocks)
		return -ENOMEM;
	while (u64map_next(&sm->changed_counts, &pos, &blocks[i], &count))
		if (++i == nr)
			break;
	qsort(blocks, nr, sizeof(*blocks), compare_keys);
	for (i = 0; i < nr && !r; i++)
		r = flush_count(sm, blocks[i]);
	free(blocks);
	return r;
}

static int
flush_data(struct space_map *sm)
{
	struct btree index = index_tree(sm);
	int r = flush_counts(sm);

	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
		struct sm_chunk *c = &sm->chunks[i];
		struct disk_index_entry entry;

		if (!c->dirty)
			continue;
		r = place_chunk(sm, c);
		if (!r)
			r = fill_chunk(sm, c);
		if (r)
			break;
		entry = chunk_to_disk(c);
		r = btree_insert(&index, &sm->bitmap_root, i, &entry, NULL);
	}
	return r;
}

static int
store_index(struct space_map *sm, struct block *b)
{
	struct disk_index *index = b->data;
	int r = 0;

	memset(index->entries, 0, sizeof(index->entries));
	for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
		struct sm_chunk *c = &sm->chunks[i];

		if (c->placed)
			r = fill_chunk(sm, c);
		index->entries[i] = chunk_to_disk(c);
	}
	return r;
}

static int
flush_metadata(struct space_map *sm)
{
	struct block *index;
	bool shared, again;
	int r = txn_shadow(sm->txn, sm->bitmap_root, BLOCK_INDEX, &index, &shared);

	if (r)
		return r;
	sm->bitmap_root = index->nr;
	do {
		again = false;
		r = flush_counts(sm);
		for (uint64_t i = 0; i < sm->nr_chunks && !r; i++) {
			struct sm_chunk *c = &sm->chunks[i];

			if (c->dirty && !c->placed) {
				r = place_chunk(sm, c);
				again = true;
			}
		}
	} while (!r && (again || sm->changed_counts.nr));
	if (!r)
		r = store_index(sm, index);
	bc_put(index);
	return r;
}

int
sm_flush(struct space_map *sm, struct disk_sm_root *root)
{
	int r = sm->kind == SM_METADATA ? flush_metadata(sm) : flush_data(sm);

	*root = (struct disk_sm_root){
		.nr_blocks = le64_make(sm->nr_blocks),
		.nr_allocated = le64_make(sm->nr_allocated),
		.bitmap_root = le64_make(sm->bitmap_root),
		.ref_count_root = le64_make(sm->count_root),
	};
	return r;
}

void
sm_freeze(struct space_map *sm)
{
	assert(!sm->freed_frozen.nr);
	sm->freed_frozen = sm->freed_open;
	memset(&sm->freed_open, 0, sizeof(sm->freed_open));
}

int
sm_durable(struct space_map *sm, struct runs *freed)
{
	if (freed)
		return runs_move(freed, &sm->freed_frozen);
	for (size_t i = 0; i < sm->freed_frozen.nr; i++)
		sm_unreserve(sm, sm->freed_frozen.v[i].start, sm->freed_frozen.v[i].len);
	runs_clear(&sm->freed_frozen);
	return 0;
}

/* How many leaves the count tree has at most, from its upper levels. */
static uint64_t
count_leaves(struct space_map *sm)
{
	struct btree tree = count_tree(sm);
	uint64_t max = sm->nr_blocks / 112 + 2; /* leaves are at least a third full */
	uint64_t leaves;

	if (btree_leaves(&tree, sm->count_root, &leaves) || leaves > max)
		return max;
	return leaves;
}

uint64_t
sm_flush_cost(struct space_map *sm, uint64_t more_counts)
{
	uint64_t counts = sm->changed_counts.nr + more_counts;
	uint64_t leaves = count_leaves(sm);

	/* Each changed count may be in a leaf of its own; new ones may split leaves. */
	leaves = (counts < leaves ? counts : leaves) + counts / 112 + 2;
	/* Flushing makes more bitmaps of the metadata map dirty; there are few. */
	if (sm->kind == SM_METADATA)
		return 1 + sm->nr_chunks + leaves;
	/* A bitmap and a leaf of its index each. */
	return 2 * sm->nr_dirty + 2 + leaves;
}
