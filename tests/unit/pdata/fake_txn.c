/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "fake_txn.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/format.h"

struct cache_entry {
	struct block block;
	struct block_cache *bc;
	uint32_t count;
	unsigned holders;
	bool dirty; /* made in the open transaction */
	bool freed; /* in the open transaction: not to be handed out yet */
	bool committed; /* a committed transaction may need it as it is: */
	uint64_t hash;
};

struct block_cache {
	struct cache_entry *entries;
	unsigned nr_blocks;
	unsigned cursor;
	unsigned held;
	unsigned handed_out;
	unsigned calls_left; /* until one fails, which is the one at 1; 0: none */
};

struct fake_txn {
	struct block_cache bc;
	struct txn txn;
};

struct fake_txn *
fake_open(unsigned nr_blocks)
{
	struct fake_txn *f = calloc(1, sizeof(*f));

	cr_assert_not_null(f);
	f->txn.bc = &f->bc;
	f->bc.nr_blocks = nr_blocks;
	f->bc.entries = calloc(nr_blocks, sizeof(*f->bc.entries));
	cr_assert_not_null(f->bc.entries);
	return f;
}

void
fake_close(struct fake_txn *f)
{
	for (unsigned i = 0; i < f->bc.nr_blocks; i++)
		free(f->bc.entries[i].block.data);
	free(f->bc.entries);
	free(f);
}

struct txn *
fake_txn(struct fake_txn *f)
{
	return &f->txn;
}

static uint64_t
hash_of(const struct cache_entry *e)
{
	const uint64_t *words = e->block.data;
	uint64_t h = 14695981039346656037ULL;

	for (unsigned i = 0; i < METADATA_BLOCK_SIZE / sizeof(*words); i++)
		h = (h ^ words[i]) * 1099511628211ULL;
	return h;
}

void
fake_check_committed(struct fake_txn *f)
{
	for (unsigned i = 0; i < f->bc.nr_blocks; i++) {
		struct cache_entry *e = &f->bc.entries[i];

		cr_assert(!e->committed || !e->dirty, "block %u was used again", i);
		if (e->committed)
			cr_assert(hash_of(e) == e->hash, "committed block %u has changed", i);
	}
}

void
fake_commit(struct fake_txn *f)
{
	fake_check_committed(f);
	cr_assert(f->bc.held == 0);

	for (unsigned i = 0; i < f->bc.nr_blocks; i++) {
		struct cache_entry *e = &f->bc.entries[i];

		e->dirty = false;
		e->freed = false;
		e->committed = e->count > 0;
		if (e->committed)
			e->hash = hash_of(e);
	}
}

uint32_t
fake_count(const struct fake_txn *f, unsigned nr)
{
	return f->bc.entries[nr].count;
}

unsigned
fake_allocated(const struct fake_txn *f)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < f->bc.nr_blocks; i++)
		nr += f->bc.entries[i].count > 0;
	return nr;
}

unsigned
fake_held(const struct fake_txn *f)
{
	return f->bc.held;
}

unsigned
fake_handed_out(const struct fake_txn *f)
{
	return f->bc.handed_out;
}

void *
fake_data(struct fake_txn *f, unsigned nr)
{
	return f->bc.entries[nr].block.data;
}

void
fake_fail_at(struct fake_txn *f, unsigned n)
{
	f->bc.calls_left = n;
}

/* 0, or the error of a call that is to fail. */
static int
may_fail(struct block_cache *bc)
{
	if (bc->calls_left == 1)
		return -EIO;
	if (bc->calls_left)
		bc->calls_left--;
	return 0;
}

/* The entry of a block in use. */
static int
entry_of(struct txn *t, uint64_t nr, struct cache_entry **out)
{
	if (nr >= t->bc->nr_blocks || !t->bc->entries[nr].count)
		return -EUCLEAN;

	*out = &t->bc->entries[nr];
	return may_fail(t->bc);
}

static void
hold(struct txn *t, struct cache_entry *e, struct block **out)
{
	e->holders++;
	t->bc->held++;
	*out = &e->block;
}

void
bc_put(struct block *b)
{
	struct cache_entry *e = b->entry;

	cr_assert(e->holders > 0);
	e->holders--;
	e->bc->held--;
}

bool
bc_is_dirty(const struct block *b)
{
	return b->entry->dirty;
}

int
txn_read(struct txn *t, uint64_t nr, enum block_type type, struct block **out)
{
	struct cache_entry *e;
	int r = entry_of(t, nr, &e);

	cr_assert(type == BLOCK_NODE);
	if (!r)
		hold(t, e, out);
	return r;
}

/* A block nobody has used since the last commit, dirty, with count 1, held. */
static int
hand_out(struct txn *t, struct block **out)
{
	struct block_cache *bc = t->bc;
	int r = may_fail(bc);

	if (r)
		return r;

	for (unsigned i = 0; i < bc->nr_blocks; i++) {
		struct cache_entry *e;

		bc->cursor = bc->cursor % (bc->nr_blocks - 1) + 1; /* not 0, as in a pool */
		e = &bc->entries[bc->cursor];
		if (e->count || e->freed)
			continue;

		if (!e->block.data)
			e->block.data = aligned_alloc(METADATA_BLOCK_SIZE, METADATA_BLOCK_SIZE);
		cr_assert_not_null(e->block.data);
		memset(e->block.data, 0, METADATA_BLOCK_SIZE);
		e->block.nr = bc->cursor;
		e->block.entry = e;
		e->bc = bc;
		e->count = 1;
		e->dirty = true;
		bc->handed_out++;
		hold(t, e, out);
		return 0;
	}

	return -ENOSPC;
}

int
txn_new(struct txn *t, enum block_type type, struct block **out)
{
	cr_assert(type == BLOCK_NODE);
	return hand_out(t, out);
}

/* Drop a reference; what is free is made unreadable, if no commit needs it. */
static void
drop(struct cache_entry *e)
{
	e->count--;
	if (e->count)
		return;

	cr_assert(e->holders == 0, "block %u is dropped while it is held", (unsigned)e->block.nr);
	e->freed = true;
	e->dirty = false;
	if (!e->committed)
		memset(e->block.data, 0xdb, METADATA_BLOCK_SIZE);
}

int
txn_shadow(struct txn *t, uint64_t nr, enum block_type type, struct block **out, bool *shared)
{
	struct cache_entry *e;
	int r = entry_of(t, nr, &e);

	cr_assert(type == BLOCK_NODE);
	if (r)
		return r;

	*shared = e->count > 1;
	if (e->dirty && !*shared) {
		hold(t, e, out);
		return 0;
	}

	r = hand_out(t, out);
	if (r)
		return r;
	memcpy((*out)->data, e->block.data, METADATA_BLOCK_SIZE);
	drop(e);
	return 0;
}

int
txn_inc(struct txn *t, uint64_t nr)
{
	struct cache_entry *e;
	int r = entry_of(t, nr, &e);

	if (!r)
		e->count++;
	return r;
}

int
txn_dec(struct txn *t, uint64_t nr)
{
	struct cache_entry *e;
	int r = entry_of(t, nr, &e);

	if (!r)
		drop(e);
	return r;
}

int
txn_leave(struct txn *t, uint64_t nr)
{
	return txn_dec(t, nr);
}

int
txn_count(struct txn *t, uint64_t nr, uint32_t *count)
{
	struct cache_entry *e;
	int r = entry_of(t, nr, &e);

	if (!r)
		*count = e->count;
	return r;
}

const char *
bc_name(const struct block_cache *bc)
{
	(void)bc;
	return "array";
}
