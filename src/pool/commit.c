/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * commit: making things durable, in the one order that is right (design, section 1).
 *
 *   1. Under meta_lock, without I/O: the records of the catalog that changed get new data blocks,
 *      the transaction is frozen, the next one begins.
 *   2. Those records are written to the data image.
 *   3. The data image is flushed. All data that the frozen mappings point to were written before
 *      their mapping was inserted, so before 1. Where that takes long, 4 is done meanwhile.
 *   4. Metadata blocks, to places that the last commit does not use, flush (meta_write_blocks).
 *   5. When 3 and 4 have ended well: superblock, flush (meta_write_superblock).
 *   6. Under meta_lock: metadata blocks freed in the transaction may be used again; data blocks
 *      after their place in the data image was given back (passdown.c).
 *
 * Any error ends the transaction, and with it the next one that has begun meanwhile: the pool
 * goes back to the last commit and is read-only from then on. Nothing is tried again, because a
 * flush that failed may have dropped what it could not write.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/data_flush.h"
#include "pool/passdown.h"
#include "pool/pool_internal.h"
#include "util/msg.h"

/* --- failing --- */

static void
mark_all_lost(struct pool *p)
{
	struct vol *v;

	RB_FOREACH(v, vol_id_tree, &p->vols)
		v->lost = true;
}

/*
 * What was done since the last commit is lost: remember who has to be told. When the data image could not
 * be flushed (DATA_LOST), that concerns what was written in place, too: another flush may succeed
 * without it.
 */
static void
mark_lost(struct pool *p, bool data_lost)
{
	struct vol *v;

	RB_FOREACH(v, vol_id_tree, &p->vols)
		if ((data_lost && v->overwritten) || v->record_changed_in > p->durable_txn ||
		    (v->dev && dev_changed_in(v->dev) > p->durable_txn))
			v->lost = true;
	p->lost = true;
}

/* Back to the last commit. meta_lock exclusive. */
static int
return_to_last_commit(struct pool *p)
{
	int r = meta_abort(p->tm);

	if (!r)
		r = names_load(p);
	p->durable_txn = meta_open_txn(p->tm) - 1;
	p->names_changed_in = 0;
	return r;
}

static void
commit_failed(struct pool *p, bool data_lost)
{
	bool names;
	int r;

	rwlock_wrlock(&p->meta_lock);
	names = p->names_changed_in > p->durable_txn;
	mark_lost(p, data_lost);
	pool_set_mode(p, POOL_READ_ONLY);
	r = return_to_last_commit(p);
	/* A sync of one volume is for all names; and volumes that were removed are back. */
	if (names)
		mark_all_lost(p);
	if (r) {
		pool_set_mode(p, POOL_FAIL);
		msg_error("%s: the last commit cannot be read back: the pool is out of service; "
			  "unmount it and run 'thinfs check %s'", p->meta->name, p->meta->name);
	} else {
		/* So that nobody writes to the pool before it was looked at; may fail like all else. */
		meta_mark_needs_check(p->tm);
		msg_error("%s: a commit failed; the pool is as it was last committed, and "
			  "read-only. Unmount it, mend the cause, then run 'thinfs check "
			  "--repair %s' and mount it again", p->meta->name,
			  p->meta->name);
	}
	rwlock_unlock(&p->meta_lock);
}

int
pool_abort(struct pool *p)
{
	int r;

	rwlock_wrlock(&p->meta_lock);
	r = return_to_last_commit(p);
	if (r)
		pool_set_mode(p, POOL_FAIL);
	rwlock_unlock(&p->meta_lock);
	return r;
}

/* --- one commit --- */

bool
commit_is_needed(struct pool *p)
{
	return meta_has_changes(p->tm) || p->catalog.dirty.nr;
}

/* *txn: the transaction, or 0 when there was no space for what it was to have. */
static int
freeze(struct pool *p, struct catalog_batch *batch, uint64_t *txn)
{
	int r = catalog_stage(p, batch);

	*txn = 0;
	if (r || !meta_has_changes(p->tm))
		return r;
	*txn = meta_open_txn(p->tm);
	return meta_freeze(p->tm);
}

/* All but the superblock may reach the disks in any order: nothing leads to it yet. */
static int
write_out(struct pool *p, struct catalog_batch *batch, bool *data_lost)
{
	int r = catalog_write(p, batch), flushed;
	bool beside;

	if (r)
		return r;
	beside = data_flush_begin(p);
	flushed = beside ? 0 : data_flush(p);
	if (!flushed)
		r = meta_write_blocks(p->tm);
	if (beside)
		flushed = data_flush_end(p);
	*data_lost = flushed != 0;
	if (flushed || r)
		return flushed ? flushed : r;
	return meta_write_superblock(p->tm);
}

/* The transaction TXN is on disk: what it freed is free, in the data image too. */
static void
settle(struct pool *p, uint64_t txn)
{
	bool pass_down = passdown_wanted(p);
	struct runs freed = {0};

	rwlock_wrlock(&p->meta_lock);
	p->durable_txn = txn;
	zero_block_check(p); /* before it may be used for something else */
	if (meta_durable(p->tm, pass_down ? &freed : NULL))
		meta_durable(p->tm, NULL); /* no memory for the list: free at once */
	pool_update_mode(p);
	rwlock_unlock(&p->meta_lock);
	passdown_queue(p, &freed);
	if (!pass_down)
		pool_space_hook(p);
	pool_watch_space(p);
}

/*
 * For overwrites in place. A failure concerns the open transaction too: its new mappings may point
 * to data that this flush lost, and the next flush would not tell.
 */
int
commit_flush_data(struct pool *p)
{
	int r = data_flush(p);

	if (!r)
		return 0;
	if (p->mode < POOL_READ_ONLY) {
		commit_failed(p, true);
	} else {
		rwlock_wrlock(&p->meta_lock);
		mark_lost(p, true);
		rwlock_unlock(&p->meta_lock);
	}
	return -EIO;
}

#define PREPARE_TRIES 8U

/*
 * Take meta_lock exclusive, with blocks for all records that changed, where there are any to be had: more may change
 * while no lock is held, and blocks that the last commits freed may be on their way back.
 */
static void
lock_prepared(struct pool *p)
{
	const struct catalog *c = &p->catalog;
	bool waited = false;

	for (unsigned i = 0;; i++) {
		bool fits;

		catalog_prepare(p);
		rwlock_wrlock(&p->meta_lock);
		fits = catalog_fits(p);
		if (c->dirty.nr <= c->ready.total || i == PREPARE_TRIES ||
		    (fits ? c->no_space_below : waited))
			return;
		rwlock_unlock(&p->meta_lock);
		if (!fits) {
			passdown_wait(p);
			waited = true;
		}
	}
}

static int
commit_once(struct pool *p)
{
	struct catalog_batch batch;
	bool data_lost = false;
	uint64_t txn;
	int r;

	STAILQ_INIT(&batch);
	lock_prepared(p);
	if (!commit_is_needed(p)) {
		rwlock_unlock(&p->meta_lock);
		return commit_flush_data(p);
	}
	r = freeze(p, &batch, &txn);
	rwlock_unlock(&p->meta_lock);
	if (!r && !txn)
		return commit_flush_data(p);
	if (!r)
		r = write_out(p, &batch, &data_lost);
	catalog_batch_free(&batch);
	if (r) {
		commit_failed(p, data_lost);
		return -EIO; /* whatever it was: -ENOSPC is for what can still be committed later */
	}
	settle(p, txn);
	return 0;
}

/* A name or a size that is in no commit is not durable; what the first commit frees may be room for it. */
int
commit_run(struct pool *p)
{
	int r = commit_once(p);

	if (!r && p->catalog.incomplete)
		r = commit_once(p);
	return !r && p->catalog.incomplete ? -ENOSPC : r;
}

/* --- changing --- */

int
pool_begin_change(struct pool *p, unsigned paths, unsigned new_devs, enum meta_purpose purpose)
{
	int r = pool_check_writable(p);

	for (int attempt = 0; !r; attempt++) {
		rwlock_wrlock(&p->meta_lock);
		/* Again: a commit may have failed meanwhile, and what is done after that never lasts. */
		r = pool_check_writable(p);
		if (!r && paths)
			r = meta_require(p->tm, paths, new_devs, purpose);
		if (!r)
			return 0;
		rwlock_unlock(&p->meta_lock);
		/* What this transaction freed can be used after a commit. */
		if (r == -ENOSPC && attempt < 2) {
			if (attempt)
				pool_make_room(p, ROOM_FOR_METADATA);
			else
				pool_sync_wait(p, NULL);
			r = pool_check_writable(p);
		}
	}
	if (r == -ENOSPC) {
		rwlock_wrlock(&p->meta_lock);
		/* One large change may be too much where small ones are not. */
		if (p->mode < POOL_OUT_OF_METADATA_SPACE && !pool_has_metadata_space(p))
			pool_set_mode(p, POOL_OUT_OF_METADATA_SPACE);
		rwlock_unlock(&p->meta_lock);
	}
	return r;
}

int
pool_settle_freed(struct pool *p)
{
	int r;

	pool_sync_wait(p, NULL);
	r = pool_check_writable(p);
	if (!r)
		passdown_wait(p);
	return r;
}

int
pool_begin_naming(struct pool *p, unsigned paths, unsigned nr)
{
	int r = pool_begin_change(p, paths, nr, META_TO_ADD);

	for (int attempt = 0; !r && attempt < 2 && !catalog_has_room(p, nr); attempt++) {
		rwlock_unlock(&p->meta_lock);
		if (attempt)
			pool_make_room(p, ROOM_FOR_DATA);
		else
			pool_settle_freed(p);
		r = pool_begin_change(p, paths, nr, META_TO_ADD);
	}
	return r;
}

void
pool_end_change(struct pool *p)
{
	struct meta_info info;
	bool hurry;

	meta_get_info(p->tm, &info);
	/* Dirty blocks stay in memory until they are committed. */
	hurry = info.nr_dirty * METADATA_BLOCK_SIZE > p->options.metadata_cache_bytes / 4;
	if (pool_should_grow(p, &info))
		pool_wake_timer(p);
	rwlock_unlock(&p->meta_lock);
	if (hurry)
		pool_hurry(p);
}
