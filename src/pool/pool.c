/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pool: opening and closing, and what a pool says of itself.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#ifdef THINFS_DEBUG
#include "io/fault_spec.h"
#endif
#include "pdata/superblock.h"
#include "pool/catalog.h"
#include "pool/data_flush.h"
#include "pool/passdown.h"
#include "pool/pool_internal.h"
#include "util/msg.h"

#define DEFAULT_BLOCK_BYTES 65536U

int64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* --- modes --- */

const char *
pool_mode_name(enum pool_mode mode)
{
	static const char *const names[] = {
		[POOL_WRITE] = "rw",
		[POOL_OUT_OF_DATA_SPACE] = "out_of_data_space",
		[POOL_OUT_OF_METADATA_SPACE] = "out_of_metadata_space",
		[POOL_READ_ONLY] = "ro",
		[POOL_FAIL] = "fail",
	};

	return names[mode];
}

enum pool_mode
pool_get_mode(struct pool *p)
{
	return p->mode;
}

void
pool_set_mode(struct pool *p, enum pool_mode mode)
{
	if (mode == p->mode)
		return;
	p->mode = mode;
	if (mode == POOL_WRITE)
		p->waited_enough = false;
	switch (mode) {
	case POOL_WRITE:
		msg_info("%s: there is space again", p->data->name);
		break;
	case POOL_OUT_OF_DATA_SPACE:
		msg_warn("%s: no free data blocks are left; remove volumes or snapshots, "
			 "discard, or make the image larger", p->data->name);
		break;
	case POOL_OUT_OF_METADATA_SPACE:
		msg_warn("%s: no free metadata blocks are left; remove volumes or snapshots, "
			 "or make the image larger", p->meta->name);
		break;
	case POOL_READ_ONLY:
	case POOL_FAIL:
		break; /* the one who found out says why */
	}
}

bool
pool_has_metadata_space(struct pool *p)
{
	return meta_require(p->tm, 2, 1, META_TO_ADD) == 0;
}

void
pool_update_mode(struct pool *p)
{
	struct meta_info info;
	bool data;

	if (p->mode != POOL_OUT_OF_DATA_SPACE && p->mode != POOL_OUT_OF_METADATA_SPACE)
		return;
	meta_get_info(p->tm, &info);
	data = info.free_data_blocks > catalog_reserve(p);
	if (p->mode == POOL_OUT_OF_METADATA_SPACE && !pool_has_metadata_space(p))
		return;
	pool_set_mode(p, data ? POOL_WRITE : POOL_OUT_OF_DATA_SPACE);
}

int
pool_check_writable(const struct pool *p)
{
	if (p->read_only)
		return -EROFS;
	return p->mode >= POOL_READ_ONLY ? -EIO : 0;
}

void
pool_set_space_hook(struct pool *p, void (*fn)(void *arg), void *arg)
{
	mutex_lock(&p->hook_lock);
	p->space_hook = fn;
	p->space_hook_arg = arg;
	mutex_unlock(&p->hook_lock);
}

void
pool_space_hook(struct pool *p)
{
	void (*fn)(void *arg);
	void *arg;

	mutex_lock(&p->hook_lock);
	fn = p->space_hook;
	arg = p->space_hook_arg;
	mutex_unlock(&p->hook_lock);
	lock_order_assert_below(RANK_META, "the space hook");
	if (fn)
		fn(arg);
}

/* --- opening --- */

static void
init_locks(struct pool *p)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->timer_wake, &monotonic);
	pthread_cond_init(&p->reclaim_wake, &monotonic);
	pthread_cond_init(&p->sync_wake, NULL);
	pthread_cond_init(&p->sync_more, &monotonic);
	pthread_condattr_destroy(&monotonic);
	mutex_init(&p->snapshot_lock, "snapshot_lock", RANK_SNAPSHOT);
	rwlock_init(&p->meta_lock, "meta_lock", RANK_META);
	mutex_init(&p->grow_lock, "grow_lock", RANK_GROW);
	mutex_init(&p->sync_lock, "sync_lock", RANK_SYNC);
	mutex_init(&p->timer_lock, "timer_lock", LOCK_LEAF);
	mutex_init(&p->reclaim_lock, "reclaim_lock", LOCK_LEAF);
	mutex_init(&p->hook_lock, "hook_lock", LOCK_LEAF);
	mutex_init(&p->passdown.lock, "the pass-down queue", LOCK_LEAF);
	pthread_cond_init(&p->passdown.wake, NULL);
	pthread_cond_init(&p->passdown.idle, NULL);
	mutex_init(&p->data_flush.lock, "the lock of the flush of the data", LOCK_LEAF);
	pthread_cond_init(&p->data_flush.wake, NULL);
	pthread_cond_init(&p->data_flush.ended, NULL);
	mutex_init(&p->buf_lock, "buf_lock", LOCK_LEAF);
	origins_init(&p->origins);
	STAILQ_INIT(&p->sync_queue);
	TAILQ_INIT(&p->reclaim);
	RB_INIT(&p->vols);
	RB_INIT(&p->dirs);
	RB_INIT(&p->dirs_by_serial);
}

static void
pool_free(struct pool *p)
{
	if (p->tm) {
		names_free(p);
		catalog_close(p);
		meta_close(p->tm);
	}
	runs_clear(&p->passdown.queue);
	buf_free_all(p);
	origins_destroy(&p->origins);
	free(p->origin_choices);
	image_close(p->meta);
	image_close(p->data);
	rwlock_destroy(&p->meta_lock);
	pthread_cond_destroy(&p->timer_wake);
	pthread_cond_destroy(&p->reclaim_wake);
	pthread_cond_destroy(&p->sync_wake);
	pthread_cond_destroy(&p->sync_more);
	mutex_destroy(&p->snapshot_lock);
	mutex_destroy(&p->grow_lock);
	mutex_destroy(&p->sync_lock);
	mutex_destroy(&p->timer_lock);
	mutex_destroy(&p->reclaim_lock);
	mutex_destroy(&p->hook_lock);
	mutex_destroy(&p->passdown.lock);
	pthread_cond_destroy(&p->passdown.wake);
	pthread_cond_destroy(&p->passdown.idle);
	mutex_destroy(&p->data_flush.lock);
	pthread_cond_destroy(&p->data_flush.wake);
	pthread_cond_destroy(&p->data_flush.ended);
	mutex_destroy(&p->buf_lock);
	free(p);
}

/* A metadata image of zeros becomes a pool over the whole data image, as the kernel does. */
static int
format_if_zero(struct pool *p)
{
	uint64_t size;
	bool zero;
	int r = meta_is_unformatted(p->meta, &zero);

	if (r) {
		msg_error("%s: cannot be read as metadata: %s", p->meta->name,
			  r == -EIO ? "it is smaller than a block, or damaged" : strerror(-r));
		return r;
	}
	if (!zero)
		return 0;
	if (p->read_only) {
		msg_error("%s: not formatted yet, and a read-only mount does not; "
			  "run 'thinfs format' first", p->meta->name);
		return -EPERM;
	}
	if (superblock_magic_at(p->data)) {
		msg_error("%s holds a pool's metadata and %s is empty: give the data image first, "
			  "then the metadata image", p->data->name, p->meta->name);
		return -EINVAL;
	}
	r = image_get_size(p->data, &size);
	if (r)
		return r;
	if (size < DEFAULT_BLOCK_BYTES) {
		msg_error("%s: too small for a data image; make it larger, as with "
			  "'truncate -s 10G'", p->data->name);
		return -EINVAL;
	}
	return format_metadata(p->meta, DEFAULT_BLOCK_BYTES, size / DEFAULT_BLOCK_BYTES);
}

static int
check_data_size(struct pool *p, const struct meta_info *info)
{
	uint64_t size;
	int r = image_get_size(p->data, &size);

	if (r)
		return r;
	if (info->nr_data_blocks > size / p->block_bytes) {
		msg_error("%s: cut off, or not this pool's data image: the pool has %" PRIu64
			  " data blocks of %" PRIu64 " bytes, the image only %" PRIu64,
			  p->data->name, info->nr_data_blocks, p->block_bytes,
			  size / p->block_bytes);
		return -EINVAL;
	}
	return 0;
}

/* Images may have been made larger while the pool was not in use. A pool that has no room for that is still one. */
static int
adopt_at_open(struct pool *p)
{
	int r = pool_adopt_growth(p);

	if (r == -ENOSPC) {
		msg_warn("%s: too full to take in what is new of the images; make this one larger",
			 p->meta->name);
		r = 0;
	}
	return r ? r : meta_commit(p->tm, p->data);
}

static int
open_metadata(struct pool *p)
{
	struct meta_info info;
	int r = format_if_zero(p);

	if (!r)
		r = meta_open(p->meta, p->options.metadata_cache_bytes, p->read_only, &p->tm);
	if (r)
		return r;
	meta_get_info(p->tm, &info);
	p->block_bytes = (uint64_t)info.data_block_sectors * SECTOR_SIZE;
	r = check_data_size(p, &info);
	if (!r && info.needs_check) {
		p->mode = POOL_READ_ONLY;
		if (!p->read_only)
			msg_warn("%s: needs_check is set, so the pool is read-only; unmount it, run 'thinfs "
				 "check --repair %s', then mount it again",
				 p->meta->name, p->meta->name);
		p->read_only = true;
	}
	/* Trap 1 of the format sheet: a mapping made now would point to another block. */
	if (!r && info.time > MAPPING_TIME_MAX) {
		p->mode = POOL_READ_ONLY;
		if (!p->read_only)
			msg_warn("%s: its snapshot clock has run past 2^24, so the pool is read-only, and "
				 "what was written since may read wrongly; copy its volumes to a new pool",
				 p->meta->name);
		p->read_only = true;
	}
	if (!r && !p->read_only)
		r = meta_confirm(p->tm);
	if (!r && !p->read_only)
		r = adopt_at_open(p);
	return r;
}

int
pool_start(struct pool *p)
{
	int r = 0;

	if (p->read_only)
		return 0;
	pool_watch_space(p);
	if (p->options.commit_interval_ms) {
		r = passdown_start(p);
		if (!r)
			r = data_flush_start(p);
		if (!r)
			r = sync_start(p);
		if (!r)
			r = pool_start_timer(p);
	}
	return r ? r : reclaim_start(p);
}

static void
stop_threads(struct pool *p)
{
	reclaim_stop_thread(p);
	pool_stop_timer(p);
	sync_stop(p);
	data_flush_stop(p);
	passdown_stop(p);
}

int
pool_open_images(struct image *data, struct image *meta, const struct pool_options *options,
		 struct pool **out)
{
	struct pool *p = calloc(1, sizeof(*p));
	int r;

	if (!p) {
		image_close(data);
		image_close(meta);
		return -ENOMEM;
	}
	p->data = data;
	p->meta = meta;
	p->options = *options;
	p->read_only = options->read_only;
	if (p->read_only)
		p->mode = POOL_READ_ONLY;
	init_locks(p);
	if (options->guard)
		p->origins.guard = *options->guard;
	r = open_metadata(p);
	if (!r)
		r = vol_origin_choose(p);
	if (!r) {
		p->top = names_add_dir(p, "");
		r = p->top ? names_load(p) : -ENOMEM;
	}
	if (!r) {
		p->durable_txn = meta_open_txn(p->tm) - 1;
		if (!options->threads_later)
			r = pool_start(p);
	}
	if (r) {
		stop_threads(p);
		pool_free(p);
		return r;
	}
	*out = p;
	return 0;
}

int
pool_open(const char *data_path, const char *meta_path, const struct pool_options *options,
	  struct pool **out)
{
	int flags = options->read_only ? 0 : IMAGE_RDWR;
	struct pool_options with_guard = *options;
	struct image *data, *meta;
	struct origin_guard guard;
	int r = format_check_two(data_path, meta_path);

	if (!r)
		r = image_open_file(data_path, flags, &data);
	if (r)
		return r;
	r = image_open_file(meta_path, flags, &meta);
	if (r) {
		image_close(data);
		return r;
	}
	guard = (struct origin_guard){
		.own = {origin_own_image(data_path), origin_own_image(meta_path)},
	};
	with_guard.guard = &guard;
#ifdef THINFS_DEBUG
	r = fault_spec_apply(getenv("THINFS_FAULT"), &data, &meta);
	if (r) {
		image_close(data);
		image_close(meta);
		return r;
	}
#endif
	return pool_open_images(data, meta, &with_guard, out);
}

void
pool_avoid_mount(struct pool *p, dev_t mount)
{
	p->origins.guard.mount = mount;
	p->origins.guard.has_mount = true;
}

void
pool_keep_times(struct pool *p)
{
	struct vol *v;

	if (p->mode >= POOL_READ_ONLY)
		return;
	rwlock_wrlock(&p->meta_lock);
	RB_FOREACH(v, vol_id_tree, &p->vols)
		if (v->mtime_dirty && v->has_record)
			catalog_changed(p, v->id);
	rwlock_unlock(&p->meta_lock);
}

int
pool_close(struct pool *p)
{
	int r = 0;

	reclaim_stop_thread(p);
	pool_stop_timer(p);
	if (!p->read_only) {
		pool_keep_times(p);
		r = pool_sync_wait(p, NULL);
	}
	sync_stop(p);
	data_flush_stop(p);
	passdown_stop(p);
	pool_free(p);
	return r;
}

/* --- what it says of itself --- */

void
pool_get_status(struct pool *p, struct pool_status *st)
{
	struct meta_info info;
	struct voldir *d;
	uint64_t reserve;

	rwlock_rdlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	reserve = catalog_reserve(p);
	*st = (struct pool_status){
		.mode = p->mode,
		.needs_check = info.needs_check,
		.transaction_id = info.trans_id,
		.block_bytes = p->block_bytes,
		.data_blocks = info.nr_data_blocks,
		.data_used = info.used_data_blocks,
		.data_available = info.nr_data_blocks - info.used_data_blocks,
		.data_low_water = pool_low_water(p, info.nr_data_blocks),
		.meta_blocks = info.nr_meta_blocks,
		.meta_used = info.used_meta_blocks,
		.meta_reserve = info.meta_reserve,
		.held_root = info.held_root,
		.nr_volumes = p->top->nr_vols,
	};
	if (p->shrinking && info.free_data_blocks + info.pending_data_blocks < st->data_available)
		st->data_available = info.free_data_blocks + info.pending_data_blocks;
	st->data_available -= st->data_available < reserve ? st->data_available : reserve;
	RB_FOREACH(d, voldir_name_tree, &p->dirs)
		st->nr_snapshots += d->nr_vols;
	rwlock_unlock(&p->meta_lock);
}

uint64_t
pool_block_bytes(const struct pool *p)
{
	return p->block_bytes;
}

const struct pool_options *
pool_get_options(const struct pool *p)
{
	return &p->options;
}
