/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A table of shards, each with its own lock, so that lookups by many threads rarely meet.
 *
 *   state    in shard's    in txn list   evictable   may change
 *   LOADING  -             -             no          by the thread that reads it
 *   CLEAN    ring          -             if not held no
 *   DIRTY    -             dirty         no          yes, under the exclusive metadata lock
 *   FROZEN   -             frozen        no          no
 *
 * Hits, which are most, do without the locks: `hot` has, by hash, one entry that was found there before, and who
 * finds one holds it by a hazard (util/hazard.h). Who takes an entry out of the table first makes it not hot.
 *
 * An entry whose load failed leaves the table at once; threads that waited for it try again and
 * meet the error themselves.
 */
#include <config.h>

#include <bsd/sys/queue.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/block_cache.h"
#include "pdata/block_watch.h"
#include "pdata/format.h"
#include "util/hazard.h"
#include "util/lock.h"
#include "util/minmax.h"
#include "util/msg.h"

#define NR_SHARDS 64U
#define MIN_BLOCKS_PER_SHARD 4U
#define WRITE_BATCH_BLOCKS 256U
#define HOT_PER_BUCKET 4U

enum entry_state {
	ENTRY_LOADING,
	ENTRY_CLEAN,
	ENTRY_DIRTY,
	ENTRY_FROZEN,
};

struct cache_entry {
	struct block b; /* what callers see */
	struct shard *shard;
	enum block_type type;
	enum entry_state state; /* shard->lock */
	unsigned holders; /* shard->lock */
	atomic_bool used; /* second chance */
	LIST_ENTRY(cache_entry) hash;
	TAILQ_ENTRY(cache_entry) link; /* shard's ring, or the cache's dirty or frozen list */
	/* Within: an aligned allocation of its own would cost as much again in gaps. */
	uint64_t data[METADATA_BLOCK_SIZE / sizeof(uint64_t)];
};

LIST_HEAD(entry_bucket, cache_entry);
TAILQ_HEAD(entry_list, cache_entry);

struct shard {
	struct mutex lock;
	pthread_cond_t loaded;
	struct block_cache *bc;
	struct entry_bucket *buckets;
	size_t nr_buckets; /* a power of two */
	struct entry_list ring; /* clean entries, oldest first */
	size_t nr_entries; /* of all states */
	size_t max_entries;
};

struct block_cache {
	struct image *img;
	_Atomic(struct cache_entry *) *hot; /* by hash; changes under the lock of the entry's shard */
	size_t nr_hot; /* a power of two, and a multiple of NR_SHARDS */
	_Atomic uint64_t nr_blocks;
	struct entry_list dirty; /* the exclusive metadata lock */
	atomic_size_t nr_dirty;
	struct block_watch watch; /* blocks that something was found to point to. Grows under the exclusive metadata lock */
	struct entry_list frozen; /* the one who commits */
	struct shard shards[NR_SHARDS];
	struct hazards hazards; /* entries that are held without a lock */
};

static uint64_t
hash_of(uint64_t nr)
{
	uint64_t h = nr * 0x9E3779B97F4A7C15ULL;

	return h ^ (h >> 32);
}

/* --- the table --- */

static struct shard *
shard_of(struct block_cache *bc, uint64_t nr)
{
	return &bc->shards[hash_of(nr) % NR_SHARDS];
}

static struct entry_bucket *
bucket_of(struct shard *s, uint64_t nr)
{
	return &s->buckets[(hash_of(nr) / NR_SHARDS) & (s->nr_buckets - 1)];
}

static struct cache_entry *
find_locked(struct shard *s, uint64_t nr)
{
	struct cache_entry *e;

	LIST_FOREACH(e, bucket_of(s, nr), hash)
		if (e->b.nr == nr)
			return e;
	return NULL;
}

/* All that may be here are of one shard. */
static _Atomic(struct cache_entry *) *
hot_place(struct block_cache *bc, uint64_t nr)
{
	return &bc->hot[hash_of(nr) & (bc->nr_hot - 1)];
}

static void
make_hot_locked(struct cache_entry *e)
{
	atomic_store(hot_place(e->shard->bc, e->b.nr), e);
}

static void
cool_locked(struct cache_entry *e)
{
	_Atomic(struct cache_entry *) *place = hot_place(e->shard->bc, e->b.nr);

	if (atomic_load(place) == e)
		atomic_store(place, NULL);
}

/* The entry for NR if it is hot, held by a hazard of this thread. */
static struct cache_entry *
hold_hot(struct block_cache *bc, uint64_t nr, enum block_type type)
{
	_Atomic(struct cache_entry *) *place = hot_place(bc, nr);
	struct cache_entry *e = atomic_load_explicit(place, memory_order_relaxed);

	if (!e || !hazard_set(&bc->hazards, e))
		return NULL;
	if (atomic_load(place) != e || e->b.nr != nr || e->type != type) {
		hazard_clear(&bc->hazards, e);
		return NULL;
	}
	if (!atomic_load_explicit(&e->used, memory_order_relaxed))
		atomic_store_explicit(&e->used, true, memory_order_relaxed);
	return e;
}

/* Take the entry out of the table; the caller has taken it off its list. */
static void
unhash_locked(struct cache_entry *e)
{
	cool_locked(e);
	LIST_REMOVE(e, hash);
	e->shard->nr_entries--;
}

/* A clean entry that nobody holds and nobody used lately, out of the table; NULL if there is none. */
static struct cache_entry *
evict_locked(struct shard *s)
{
	struct cache_entry *e;
	size_t looks = 2 * s->nr_entries + 1;

	while (looks-- && (e = TAILQ_FIRST(&s->ring))) {
		TAILQ_REMOVE(&s->ring, e, link);
		if (!e->holders && !e->used) {
			cool_locked(e);
			if (!hazard_is_set(&s->bc->hazards, e)) {
				unhash_locked(e);
				return e;
			}
		}
		e->used = false;
		TAILQ_INSERT_TAIL(&s->ring, e, link);
	}
	return NULL;
}

/* A new entry for NR in the table, held once, on no list; its data are undefined. */
static struct cache_entry *
entry_new_locked(struct shard *s, uint64_t nr, enum block_type type, enum entry_state state)
{
	struct cache_entry *e = NULL;

	if (s->nr_entries >= s->max_entries)
		e = evict_locked(s);
	if (!e) {
		e = malloc(sizeof(*e));
		if (!e)
			return NULL;
		e->b.data = e->data;
		e->b.entry = e;
		e->shard = s;
	}
	e->b.nr = nr;
	e->type = type;
	e->state = state;
	e->holders = 1;
	e->used = false;
	LIST_INSERT_HEAD(bucket_of(s, nr), e, hash);
	s->nr_entries++;
	/* Dirty blocks may have pushed the shard over its bound: come back to it. */
	while (s->nr_entries > s->max_entries) {
		struct cache_entry *old = evict_locked(s);

		if (!old)
			break;
		free(old);
	}
	return e;
}

static int
shard_init(struct block_cache *bc, struct shard *s, size_t max_entries)
{
	s->bc = bc;
	s->max_entries = max_entries;
	s->nr_buckets = 16;
	while (s->nr_buckets < max_entries)
		s->nr_buckets *= 2;
	s->buckets = calloc(s->nr_buckets, sizeof(*s->buckets));
	if (!s->buckets)
		return -ENOMEM;
	TAILQ_INIT(&s->ring);
	mutex_init(&s->lock, "a shard of the block cache", LOCK_LEAF);
	pthread_cond_init(&s->loaded, NULL);
	return 0;
}

int
bc_open(struct image *img, uint64_t nr_blocks, size_t memory, struct block_cache **out)
{
	struct block_cache *bc = calloc(1, sizeof(*bc));
	size_t per_shard = memory / sizeof(struct cache_entry) / NR_SHARDS;

	if (!bc)
		return -ENOMEM;
	bc->img = img;
	bc->nr_blocks = nr_blocks;
	TAILQ_INIT(&bc->dirty);
	TAILQ_INIT(&bc->frozen);
	if (per_shard < MIN_BLOCKS_PER_SHARD)
		per_shard = MIN_BLOCKS_PER_SHARD;
	block_watch_grow(&bc->watch, nr_blocks);
	for (unsigned i = 0; i < NR_SHARDS; i++)
		if (shard_init(bc, &bc->shards[i], per_shard))
			goto err;
	/* So many that few blocks keep each other out; a pointer each is little against a block. */
	bc->nr_hot = HOT_PER_BUCKET * NR_SHARDS * bc->shards[0].nr_buckets;
	bc->hot = calloc(bc->nr_hot, sizeof(*bc->hot));
	if (!bc->hot)
		goto err;
	*out = bc;
	return 0;

err:
	for (unsigned i = 0; i < NR_SHARDS; i++)
		free(bc->shards[i].buckets);
	block_watch_free(&bc->watch);
	free(bc);
	return -ENOMEM;
}

void
bc_close(struct block_cache *bc)
{
	if (!bc)
		return;
	bc_drop_all(bc);
	for (unsigned i = 0; i < NR_SHARDS; i++) {
		struct shard *s = &bc->shards[i];

		free(s->buckets);
		pthread_cond_destroy(&s->loaded);
		mutex_destroy(&s->lock);
	}
	block_watch_free(&bc->watch);
	free((void *)bc->hot);
	free(bc);
}

void
bc_set_nr_blocks(struct block_cache *bc, uint64_t nr_blocks)
{
	block_watch_grow(&bc->watch, nr_blocks);
	bc->nr_blocks = nr_blocks;
}

uint64_t
bc_nr_blocks(const struct block_cache *bc)
{
	return bc->nr_blocks;
}

const char *
bc_name(const struct block_cache *bc)
{
	return bc->img->name;
}

/* Read what E stands for; E is LOADING and ours. On failure E is gone. */
static int
entry_load(struct cache_entry *e)
{
	struct shard *s = e->shard;
	int r = block_read_verified(s->bc->img, e->b.nr, e->type, e->b.data);

	mutex_lock(&s->lock);
	if (r) {
		unhash_locked(e);
	} else {
		block_watch_add(&s->bc->watch, e->b.nr);
		e->state = ENTRY_CLEAN;
		TAILQ_INSERT_TAIL(&s->ring, e, link);
		make_hot_locked(e);
	}
	pthread_cond_broadcast(&s->loaded);
	mutex_unlock(&s->lock);
	if (r)
		free(e);
	return r;
}

/* The entry for NR, held, waiting for one that another thread loads; NULL: not cached. */
static struct cache_entry *
find_and_hold_locked(struct shard *s, uint64_t nr)
{
	struct cache_entry *e;

	while ((e = find_locked(s, nr)) && e->state == ENTRY_LOADING)
		cond_wait(&s->loaded, &s->lock);
	if (e) {
		e->holders++;
		e->used = true;
	}
	return e;
}

int
bc_read(struct block_cache *bc, uint64_t nr, enum block_type type, struct block **out)
{
	struct shard *s = shard_of(bc, nr);
	struct cache_entry *e;
	bool load = false;

	e = hold_hot(bc, nr, type);
	if (e) {
		*out = &e->b;
		return 0;
	}
	if (nr >= bc->nr_blocks) {
		msg_error("%s: something points to metadata block %" PRIu64
			  ", but there are only %" PRIu64 "; check it with 'thinfs check'",
			  bc->img->name, nr, bc_nr_blocks(bc));
		return -EUCLEAN;
	}
	mutex_lock(&s->lock);
	e = find_and_hold_locked(s, nr);
	if (e) {
		if (!block_watch_has(&bc->watch, nr))
			block_watch_add(&bc->watch, nr); /* it was freed, but something still points to it */
		make_hot_locked(e);
	} else {
		e = entry_new_locked(s, nr, type, ENTRY_LOADING);
		load = true;
	}
	mutex_unlock(&s->lock);
	if (!e)
		return -ENOMEM;
	if (load) {
		int r = entry_load(e);

		if (r)
			return r;
	}
	if (!load && e->type != type) {
		msg_error("%s: metadata block %" PRIu64 " is used both as %s and as %s",
			  bc->img->name, nr, block_type_name(e->type), block_type_name(type));
		bc_put(&e->b);
		return -EUCLEAN;
	}
	*out = &e->b;
	return 0;
}

void
bc_put(struct block *b)
{
	struct shard *s = b->entry->shard;

	if (hazard_clear(&s->bc->hazards, b->entry))
		return;
	mutex_lock(&s->lock);
	assert(b->entry->holders > 0);
	b->entry->holders--;
	mutex_unlock(&s->lock);
}

int
bc_new(struct block_cache *bc, uint64_t nr, enum block_type type, struct block **out)
{
	struct shard *s = shard_of(bc, nr);
	struct cache_entry *e;

	assert(nr < bc->nr_blocks);
	if (block_watch_has(&bc->watch, nr)) {
		msg_error("%s: the metadata space map counts block %" PRIu64 " as free, but it is in use; "
			  "nothing is written there; check it with 'thinfs check'", bc->img->name, nr);
		return -EUCLEAN;
	}
	mutex_lock(&s->lock);
	e = find_and_hold_locked(s, nr);
	if (e) {
		/* What was there before has been free since the last commit. */
		assert(e->holders == 1 && e->state == ENTRY_CLEAN);
		TAILQ_REMOVE(&s->ring, e, link);
		e->type = type;
		e->state = ENTRY_DIRTY;
	} else {
		e = entry_new_locked(s, nr, type, ENTRY_DIRTY);
	}
	mutex_unlock(&s->lock);
	if (!e)
		return -ENOMEM;
	block_watch_add(&bc->watch, nr);
	memset(e->b.data, 0, METADATA_BLOCK_SIZE);
	TAILQ_INSERT_TAIL(&bc->dirty, e, link);
	bc->nr_dirty++;
	*out = &e->b;
	return 0;
}

bool
bc_is_dirty(const struct block *b)
{
	return b->entry->state == ENTRY_DIRTY;
}

void
bc_forget(struct block_cache *bc, uint64_t nr)
{
	struct shard *s = shard_of(bc, nr);
	struct cache_entry *e;

	block_watch_remove(&bc->watch, nr);
	mutex_lock(&s->lock);
	e = find_locked(s, nr);
	if (e)
		cool_locked(e); /* who still comes to it has to be seen: bc_read() */
	if (e && e->state == ENTRY_DIRTY) {
		TAILQ_REMOVE(&bc->dirty, e, link);
		bc->nr_dirty--;
		/* Somebody may still hold it for a moment: it goes the way of clean ones. */
		e->state = ENTRY_CLEAN;
		e->used = false;
		TAILQ_INSERT_HEAD(&s->ring, e, link);
	}
	mutex_unlock(&s->lock);
}

void
bc_freeze(struct block_cache *bc)
{
	struct cache_entry *e;

	assert(TAILQ_EMPTY(&bc->frozen));
	TAILQ_FOREACH(e, &bc->dirty, link) {
		mutex_lock(&e->shard->lock);
		e->state = ENTRY_FROZEN;
		mutex_unlock(&e->shard->lock);
	}
	TAILQ_CONCAT(&bc->frozen, &bc->dirty, link);
	bc->nr_dirty = 0;
}

static int
compare_entries(const void *a, const void *b)
{
	uint64_t x = (*(struct cache_entry *const *)a)->b.nr;
	uint64_t y = (*(struct cache_entry *const *)b)->b.nr;

	return x < y ? -1 : x > y;
}

/* Write V[0..NR), sorted, adjacent ones by one write each; BUF holds NR or WRITE_BATCH_BLOCKS, what is less. */
static int
write_sorted(struct block_cache *bc, struct cache_entry **v, size_t nr, uint8_t *buf)
{
	size_t done = 0;

	while (done < nr) {
		uint64_t first = v[done]->b.nr;
		size_t n = 0;
		int r;

		while (done + n < nr && n < WRITE_BATCH_BLOCKS && v[done + n]->b.nr == first + n) {
			/* Sealed in a copy: readers may be looking at the block. */
			memcpy(buf + n * METADATA_BLOCK_SIZE, v[done + n]->b.data, METADATA_BLOCK_SIZE);
			block_seal(first + n, v[done + n]->type, buf + n * METADATA_BLOCK_SIZE);
			n++;
		}
		r = image_write(bc->img, buf, n * METADATA_BLOCK_SIZE, first * METADATA_BLOCK_SIZE);
		if (r)
			return r;
		done += n;
	}
	return 0;
}

int
bc_write(struct block_cache *bc)
{
	struct cache_entry **v, *e;
	size_t nr = 0, i = 0, batch;
	uint8_t *buf;
	int r = -ENOMEM;

	TAILQ_FOREACH(e, &bc->frozen, link)
		nr++;
	if (!nr)
		return 0;
	batch = min_u64(nr, WRITE_BATCH_BLOCKS);
	v = reallocarray(NULL, nr, sizeof(struct cache_entry *));
	/* No larger than needed: a large one comes fresh from the kernel each time. */
	buf = aligned_alloc(METADATA_BLOCK_SIZE, batch * METADATA_BLOCK_SIZE);
	if (v && buf) {
		TAILQ_FOREACH(e, &bc->frozen, link)
			v[i++] = e;
		qsort(v, nr, sizeof(struct cache_entry *), compare_entries);
		r = write_sorted(bc, v, nr, buf);
	}
	free(v);
	free(buf);
	return r;
}

void
bc_thaw(struct block_cache *bc)
{
	struct cache_entry *e;

	while ((e = TAILQ_FIRST(&bc->frozen))) {
		struct shard *s = e->shard;

		TAILQ_REMOVE(&bc->frozen, e, link);
		mutex_lock(&s->lock);
		e->state = ENTRY_CLEAN;
		TAILQ_INSERT_TAIL(&s->ring, e, link);
		mutex_unlock(&s->lock);
	}
}

void
bc_drop_all(struct block_cache *bc)
{
	TAILQ_INIT(&bc->dirty);
	TAILQ_INIT(&bc->frozen);
	bc->nr_dirty = 0;
	block_watch_clear(&bc->watch);
	for (unsigned i = 0; i < NR_SHARDS; i++) {
		struct shard *s = &bc->shards[i];

		TAILQ_INIT(&s->ring);
		for (size_t j = 0; j < s->nr_buckets; j++) {
			struct cache_entry *e;

			while ((e = LIST_FIRST(&s->buckets[j]))) {
				assert(!e->holders);
				cool_locked(e);
				assert(!hazard_is_set(&bc->hazards, e));
				LIST_REMOVE(e, hash);
				free(e);
			}
		}
		s->nr_entries = 0;
	}
}

size_t
bc_nr_dirty(const struct block_cache *bc)
{
	return bc->nr_dirty;
}

size_t
bc_nr_cached(const struct block_cache *bc)
{
	size_t nr = 0;

	for (unsigned i = 0; i < NR_SHARDS; i++) {
		struct shard *s = (struct shard *)&bc->shards[i];

		mutex_lock(&s->lock);
		nr += s->nr_entries;
		mutex_unlock(&s->lock);
	}
	return nr;
}
