/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the engine share.
 *
 * Locks, in the order in which they may be taken (doc/locking.md):
 *   snapshot_lock -> range lock of a volume (several: by ascending id) -> grow_lock -> meta_lock -> sync_lock
 * meta_lock is never held across I/O on the data image or a flush; reading metadata blocks that are not
 * cached is the only I/O under it. Debug builds assert all of this (util/lock_order.h).
 */
#ifndef THINFS_POOL_POOL_INTERNAL_H
#define THINFS_POOL_POOL_INTERNAL_H

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "pool/catalog_record.h"
#include "pool/origin.h"
#include "pool/pool.h"
#include "pool/range_lock.h"
#include "util/lock.h"
#include "util/runs.h"
#include "util/thread_slot.h"
#include "util/u64map.h"

enum pool_lock_rank {
	RANK_SNAPSHOT = 1,
	RANK_RANGE, /* of many volumes, by ascending device id */
	RANK_GROW,
	RANK_META,
	RANK_SYNC,
};

/* A thin device with its name. In memory for every device of the pool but the catalog. */
struct vol {
	struct pool *pool; /* const */
	uint32_t id; /* const */
	uint64_t generation; /* const */
	atomic_uint refs; /* one is the pool's, as long as the device exists */
	_Atomic uint64_t size; /* changes under meta_lock */

	/* meta_lock; first what each request looks at */
	struct thin_dev *dev; /* opened when first needed */
	bool gone; /* the device does not exist any more */
	atomic_bool overwritten; /* in place, since the pool was opened; set before it is */
	_Atomic uint32_t flags; /* enum record_flags; changes under meta_lock */
	struct voldir *dir; /* NULL: has no name */
	char *name;
	bool has_record; /* in the catalog, or will be at the next commit */
	uint32_t mode, uid, gid;
	uint32_t parent;
	int64_t btime_ns;
	uint64_t record_changed_in; /* transaction */
	uint64_t opens;
	bool lost; /* an abort took changes away that nobody was told of yet */
	uint64_t goal, goal_end; /* where the next new data blocks should be: placement.c */

	/*
	 * The external origin, NULL: none, and the bytes of it that are shown where no block is mapped: never more than
	 * the size. They change under meta_lock, and but for an abort with RANGE_CHANGE on all blocks that it matters to.
	 */
	_Atomic(struct origin *) origin;
	_Atomic uint64_t origin_end;
	bool origin_moved; /* the record says that it is elsewhere; meta_lock */
	/*
	 * What is mapped behind the end is zero up to here: whole blocks. Range lock of the last block, but
	 * for an abort, which sets it to 0 under whoever holds that: then nothing is written any more.
	 */
	_Atomic uint64_t clean_end;

	struct range_lock range;
	RB_ENTRY(vol) by_id; /* in the pool */
	RB_ENTRY(vol) by_name, in_dir; /* in the directory, by name and by id */
	TAILQ_ENTRY(vol) reclaim; /* queued for the reclaimer */
	bool in_reclaim;
	bool stale; /* only while names are loaded */

	/* Each write changes them: not beside what each request reads. */
	char apart[CACHE_LINE];
	_Atomic int64_t mtime_ns, ctime_ns;
	atomic_bool mtime_dirty; /* newer than the catalog's */
};

RB_HEAD(vol_id_tree, vol);
RB_HEAD(vol_name_tree, vol);
RB_HEAD(vol_dir_tree, vol);
TAILQ_HEAD(vol_list, vol);

/* The top directory, or a snapshot. */
struct voldir {
	struct pool *pool; /* const */
	uint64_t serial; /* const */
	atomic_uint refs; /* one is the pool's, as long as the directory exists */
	/* meta_lock */
	char name[RECORD_NAME_SIZE]; /* "": the top */
	bool gone;
	uint32_t mode, uid, gid;
	int64_t btime_ns;
	uint64_t nr_vols;
	struct vol_name_tree by_name;
	struct vol_dir_tree by_id;
	RB_ENTRY(voldir) names, serials;
};

RB_HEAD(voldir_name_tree, voldir);
RB_HEAD(voldir_serial_tree, voldir);

RB_PROTOTYPE(vol_id_tree, vol, by_id, )
RB_PROTOTYPE(vol_dir_tree, vol, in_dir, )
RB_PROTOTYPE(vol_name_tree, vol, by_name, )
RB_PROTOTYPE(voldir_name_tree, voldir, names, )
RB_PROTOTYPE(voldir_serial_tree, voldir, serials, )

/* See catalog.h. meta_lock, but for counters used by the one that commits. */
struct catalog {
	bool present;
	bool foreign; /* device CATALOG_ID is something else */
	bool told; /* that it is */
	struct thin_dev *dev;
	uint64_t nr_mapped;
	struct u64map dirty; /* vblock of the catalog's device -> unused */
	struct runs ready; /* reserved data blocks that the data image has space for */
	bool no_space_below; /* it had none for more of them */
	bool incomplete; /* the last commit had no blocks for all of them */
};

/* See passdown.h. */
struct passdown {
	struct mutex lock;
	pthread_cond_t wake, idle;
	struct runs queue; /* lock */
	bool busy; /* lock: some are being discarded */
	atomic_bool stop; /* changes under lock */
	pthread_t thread;
	bool runs;
};

/* See data_flush.h. */
struct data_flush {
	struct mutex lock;
	pthread_cond_t wake, ended;
	bool wanted; /* lock: the thread is to flush, or is at it */
	bool stop; /* lock */
	int result; /* lock: of its last flush */
	int64_t took_ns; /* the last flush; of the thread while it is at it, else of the one who leads commits */
	bool failed; /* a flush did, and it was said; of the one who leads */
	pthread_t thread;
	bool runs;
};

/* What watch.c has told; of the one who leads commits. */
struct watch {
	unsigned data_told, meta_told; /* marks that were passed */
	bool low;
};

struct sync_request {
	struct vol *vol;
	void (*done)(void *arg, int error);
	void *arg;
	STAILQ_ENTRY(sync_request) link;
};

STAILQ_HEAD(sync_queue, sync_request);

/* What a mount option says about the external origin of devices. */
struct origin_choice {
	bool all; /* that have no record */
	uint32_t id; /* or of this one */
	struct origin *origin;
};

struct pool {
	/* const while open */
	struct image *data, *meta;
	struct pool_options options;
	uint64_t block_bytes;
	bool read_only;

	struct rwlock meta_lock;
	struct thin_meta *tm; /* meta_lock */
	struct catalog catalog; /* meta_lock */
	struct vol_id_tree vols; /* meta_lock */
	uint64_t nr_devices; /* in vols; meta_lock */
	struct voldir *top;
	struct voldir_name_tree dirs; /* meta_lock */
	struct voldir_serial_tree dirs_by_serial; /* meta_lock */
	uint64_t next_serial; /* meta_lock */
	uint64_t next_window; /* of data blocks, for a volume to be placed in; meta_lock */
	uint32_t next_id; /* meta_lock */
	uint64_t nr_open; /* meta_lock */
	uint64_t names_changed_in; /* transaction; meta_lock */
	uint64_t durable_txn; /* meta_lock */
	bool lost; /* a commit failed: what was done before is gone; meta_lock */
	_Atomic enum pool_mode mode; /* changes under meta_lock */
	atomic_bool waited_enough; /* for space, since the mode was last POOL_WRITE; changes under meta_lock */

	struct mutex snapshot_lock; /* one snapshot at a time; no new name in the top meanwhile */

	struct mutex grow_lock; /* the images are being made larger */
	bool growth_failed; /* the last time; grow_lock */
	time_t grow_again_s; /* CLOCK_MONOTONIC; grow_lock */
	atomic_bool growth_useless; /* the last time nothing could be made larger; changes under grow_lock */
	atomic_bool shrinking; /* changes under grow_lock */

	struct mutex sync_lock;
	struct sync_queue sync_queue; /* sync_lock */
	unsigned sync_waiting; /* sync_lock: how many are in it */
	unsigned sync_expected; /* sync_lock: how many the next round should have, until sync_until */
	struct timespec sync_until; /* sync_lock; CLOCK_MONOTONIC */
	pthread_cond_t sync_more;
	bool syncing; /* sync_lock: somebody works off the queue */
	bool sync_handed; /* sync_lock: the thread is to go on with it */
	bool sync_stop; /* sync_lock */
	pthread_cond_t sync_wake;
	pthread_t sync_thread;
	bool sync_runs; /* const while calls are under way */
	struct data_flush data_flush;
	struct watch watch;

	struct mutex timer_lock;
	pthread_cond_t timer_wake;
	bool timer_stop, timer_now; /* timer_lock */
	pthread_t timer;
	bool timer_runs;

	struct mutex reclaim_lock;
	pthread_cond_t reclaim_wake;
	struct vol_list reclaim; /* reclaim_lock */
	atomic_bool reclaim_stop;
	pthread_t reclaimer;
	bool reclaimer_runs;

	struct passdown passdown;
	struct origins origins;
	struct origin_choice *origin_choices; /* of options.origins, in its order; const while open */

	struct mutex hook_lock;
	void (*space_hook)(void *arg); /* hook_lock */
	void *space_hook_arg;

	struct mutex buf_lock;
	struct io_buf *bufs; /* buf_lock: free ones */
};

/* --- pool.c --- */

int64_t now_ns(void);
void pool_space_hook(struct pool *p);
/*
 * Let the next commit have the times of last writes. They do not make one by themselves, or every fsync
 * after an overwrite would be a full commit.
 */
void pool_keep_times(struct pool *p);
/* What stops a change: -EROFS, -EIO (failed). */
int pool_check_writable(const struct pool *p);
/* meta_lock exclusive. */
void pool_set_mode(struct pool *p, enum pool_mode mode);
/* For a small write, or a new volume. meta_lock exclusive. */
bool pool_has_metadata_space(struct pool *p);
/* Out of space is over when some is free again: S 12. meta_lock exclusive. */
void pool_update_mode(struct pool *p);

/* Of NR mappings, as many as one step of a change may take. */
static inline unsigned
pool_step(const struct pool *p, unsigned nr)
{
	unsigned max = p->options.max_step;

	return max && max < nr ? max : nr;
}

/* --- grow.c --- */

enum pool_room {
	ROOM_FOR_DATA,
	ROOM_FOR_METADATA,
};

/* For who found no space for WHAT: take in what is new of images, or make them larger. -ENOSPC: there is nothing to be had. */
int pool_make_room(struct pool *p, enum pool_room what);
/* Make images larger that have little free space. */
void pool_grow_ahead(struct pool *p);
/* Whether that would do anything. meta_lock shared. */
bool pool_should_grow(struct pool *p, const struct meta_info *info);

/* --- shrink.c --- */

/* The least blocks that the data image may have at present. meta_lock shared. */
uint64_t pool_least_blocks(struct pool *p);

/* --- format.c --- */

/* -EINVAL, with a message, when both are the same file. */
int format_check_two(const char *data_path, const char *meta_path);
/* Write an empty pool's metadata. -EINVAL, with a message: sizes that cannot be. */
int format_metadata(struct image *meta, uint64_t block_bytes, uint64_t nr_data_blocks);

/* --- commit.c --- */

/*
 * Get meta_lock exclusive with room for PATHS and NEW_DEVS (meta_require), committing if that makes room; PATHS 0: what
 * is to be done asks for itself. On failure the lock is not held: -ENOSPC, -EROFS, -EIO.
 */
int pool_begin_change(struct pool *p, unsigned paths, unsigned new_devs, enum meta_purpose purpose)
	__attribute__((warn_unused_result));
/*
 * The same for what makes NR devices, or gives so many other names: with data blocks for their records as well, if there are any to be
 * had. If not, it is for catalog_require() to say so.
 */
int pool_begin_naming(struct pool *p, unsigned paths, unsigned nr) __attribute__((warn_unused_result));
void pool_end_change(struct pool *p);
/*
 * Have all space that was freed be free: it is after a commit, and once its place has been given back. 0, -EROFS or -EIO. Of the
 * locks of 4 and below none is held.
 */
int pool_settle_freed(struct pool *p);
/* Whether a commit would do anything. meta_lock shared. */
bool commit_is_needed(struct pool *p);
/* A commit, or a flush of the data image alone; only by the one who leads (sync.c). */
int commit_run(struct pool *p);
int commit_flush_data(struct pool *p);

/* --- sync.c --- */

int sync_start(struct pool *p);
/* When no call is under way any more. */
void sync_stop(struct pool *p);

/* --- watch.c --- */

/* Warn of space that runs short. By the one who leads commits, or before there are any; no lock held. */
void pool_watch_space(struct pool *p);
/* The option low_water, in data blocks; 0: none. */
uint64_t pool_low_water(const struct pool *p, uint64_t nr_data_blocks);

/* --- timer.c --- */

/* Make the timer commit now, when much waits to be written. */
void pool_hurry(struct pool *p);
/* Have it look after the images' free space now; any lock may be held. */
void pool_wake_timer(struct pool *p);
int pool_start_timer(struct pool *p);
void pool_stop_timer(struct pool *p);

/* --- data, and the ranges of volumes --- */

/* The data image, for I/O: no lock but ranges and snapshot_lock may be held. */
static inline struct image *
pool_data(struct pool *p)
{
	lock_order_assert_below(RANK_META, "I/O on the data image");
	return p->data;
}

/* range_lock(), in its place in the order of locks: one hold for each volume. */
static inline void
vol_lock_range(struct vol *v, struct range_hold *hold, enum range_mode mode, uint64_t first, uint64_t last)
{
	lock_order_enter(RANK_RANGE, v->id, "the range lock of a volume");
	range_lock(&v->range, hold, mode, first, last);
}

static inline void
vol_unlock_range(struct vol *v, struct range_hold *hold)
{
	range_unlock(&v->range, hold);
	lock_order_leave(RANK_RANGE);
}

/* --- names.c; meta_lock exclusive unless said otherwise --- */

int names_load(struct pool *p);
void names_free(struct pool *p);
struct vol *names_find(struct pool *p, struct voldir *dir, const char *name); /* shared, borrowed */
struct voldir *names_find_dir(struct pool *p, const char *name); /* shared, borrowed */
struct vol *names_find_id(struct pool *p, uint32_t id); /* shared, borrowed */
/* A number no device has; -ENOSPC. */
int names_new_id(struct pool *p, uint32_t *id);
/* A vol for a device that was just made, with the pool's reference, in DIR under NAME (NULL: nowhere). */
struct vol *names_add(struct pool *p, uint32_t id, struct voldir *dir, const char *name);
struct voldir *names_add_dir(struct pool *p, const char *name);
void names_remove_dir(struct voldir *d);
void names_attach(struct vol *v, struct voldir *dir, char *name); /* NAME becomes the vol's */
void names_detach(struct vol *v);
/* The device is gone: take the vol out and drop the pool's reference. */
void names_drop(struct vol *v);
void vol_drop_dev(struct vol *v);

/* --- vol.c --- */

/* The vol's device, opening it if needed. meta_lock exclusive. -ESTALE: gone. */
int vol_dev(struct vol *v, struct thin_dev **dev);
/* meta_lock shared, with v->dev open; on failure not held. */
int vol_lock_shared(struct vol *v);
/* The record changed: it goes into the next commit. meta_lock exclusive. -ENOSPC, -EOPNOTSUPP, only when it has no record yet. */
int vol_record_changed(struct vol *v);
/*
 * The size of a volume without a record is known from its last mapped block: before that may go, it gets one, where
 * there can be a catalog. meta_lock exclusive.
 */
int vol_keep_size(struct vol *v);
uint64_t vol_block(const struct vol *v, uint64_t offset);
void vol_wrote(struct vol *v); /* set mtime */

/* Before data are overwritten in place. Not stored anew each time: writers share the line. */
static inline void
vol_will_overwrite(struct vol *v)
{
	if (!v->overwritten)
		v->overwritten = true;
}

/* --- the external origin of a volume --- */

/* What V shows of it now. */
static inline struct origin_view
vol_origin(const struct vol *v)
{
	struct origin *o = v->origin;

	return (struct origin_view){o, o ? v->origin_end : 0};
}

/* V shows what FROM shows. meta_lock exclusive. */
static inline void
vol_inherit_origin(struct vol *v, const struct vol *from)
{
	v->origin = from->origin;
	v->origin_end = from->origin_end;
}

/* Open those that the options name: p->origin_choices. Prints why one cannot be. Before names_load(). */
int vol_origin_choose(struct pool *p);
/* The origin that the options have for a device without a record, NULL: none. */
struct origin *vol_origin_default(const struct pool *p, uint32_t id);
/* V's origin as its record R says, or as the options say. meta_lock exclusive. */
int vol_origin_load(struct vol *v, const struct record *r);
/*
 * Before a mapping changes: if the origin, and the size that comes from it, are known by a mount option only, they get a
 * record, where there can be a catalog. meta_lock exclusive.
 */
int vol_keep_origin(struct vol *v);
/* Show only the first END bytes of it from now on, in one transaction. RANGE_CHANGE from there on. */
int vol_origin_lower(struct vol *v, uint64_t end);

/* --- zero_block.c --- */

/*
 * Map whole blocks [first, end) to a block of zeros that they share: what unmapping would be where the origin would show
 * again. It costs metadata, and one data block for the whole pool. RANGE_CHANGE on them. -ENOSPC
 */
int vol_map_zeros(struct vol *v, uint64_t first, uint64_t end);
/* After a commit: it may have become free. meta_lock exclusive. */
void zero_block_check(struct pool *p);

/* --- vol_io.c --- */

/*
 * Hold RANGE_CHANGE on the blocks of [begin, end), and on those between the volume's end and BEGIN, which moving
 * the end changes too.
 */
void vol_lock_change(struct vol *v, struct range_hold *hold, uint64_t begin, uint64_t end);

/* --- placement.c; meta_lock exclusive --- */

/* Where the volume's next new blocks should be. NR_DATA_BLOCKS: of the image. */
uint64_t vol_goal(struct vol *v, uint64_t nr_data_blocks);
/* It has been given the NR blocks from DBLOCK on. */
void vol_placed(struct vol *v, uint64_t dblock, uint64_t nr, uint64_t nr_data_blocks);

/* --- provision.c --- */

/*
 * Write LEN bytes at OFFSET, or zeros when BUF is NULL, changing mappings as needed. The caller holds RANGE_CHANGE
 * on all blocks. KEEP_SIZE: a write past the end does not move it. Zeros are not written to
 * holes that read as zeros when SKIP_HOLES.
 */
enum provision_flags {
	PROVISION_KEEP_SIZE = 1,
	PROVISION_SKIP_HOLES = 2,
	PROVISION_ALLOCATE = 4, /* map holes and break sharing, but change no byte that can be read */
};
int vol_provision(struct vol *v, const void *buf, uint64_t len, uint64_t offset, unsigned flags);
/*
 * Before the end moves to END: zero what is mapped between, up to the end of its block, unless it is known to be; but for
 * [begin, end), which is to be written. After a crash, what was written past the end, into blocks that
 * fallocate(2) had put there, is still there. RANGE_CHANGE from the last block on.
 */
int vol_clean_tail(struct vol *v, uint64_t begin, uint64_t end);
/* Before the end may move to END, by what is put to [begin, end): what will be within must read as zeros. The same lock. */
int vol_prepare_end(struct vol *v, uint64_t begin, uint64_t end, unsigned flags);
/* Set the size to at least END. */
int vol_extend(struct vol *v, uint64_t end);
int vol_extend_locked(struct vol *v, uint64_t end); /* meta_lock exclusive */

/* Copy bytes within the data image. No lock but ranges held. */
int pool_copy_data(struct pool *p, uint64_t from, uint64_t to, uint64_t len);

/* A copy of the last block of a volume that is to have SIZE bytes, with zeros behind them: *dblock, reserved; MAP_HOLE: not needed. */
int vol_copy_tail(struct vol *v, uint64_t size, uint64_t *dblock);
/* A data block for V, after a commit if need be: -ENOSPC. */
int vol_reserve_one(struct vol *v, uint64_t *dblock);

/*
 * Reserved blocks that were to be filled, which ended in ERROR. Where the data image has no space below (-ENOSPC), what could
 * be written takes some that is missing elsewhere, for the catalog above all: so that goes back, too. No lock but ranges held.
 */
void pool_give_back(struct pool *p, uint64_t dblock, uint64_t nr, int error);

/* --- discard.c --- */

/* Unmap whole blocks [first, end). RANGE_CHANGE on them. */
int vol_unmap(struct vol *v, uint64_t first, uint64_t end);
/* Finish a shrink that was interrupted. RANGE_CHANGE on all from the last block on. */
int vol_finish_shrink(struct vol *v);

/* --- snapshot.c --- */

/* A new device with V's mappings, read-only, as NAME in DIR. The clock has ticked, V is frozen. meta_lock exclusive. */
int snapshot_device(struct vol *v, struct voldir *dir, const char *name, struct vol **out);
/* The snapshot NAME of V alone, with a tick of the clock. The same. */
int snapshot_take_one(struct vol *v, const char *name, const struct pool_caller *caller);
/* LEAVING is about to lose its place in DIR: a snapshot stays there though empty. meta_lock exclusive. */
int snapshot_keep_dir(struct pool *p, struct voldir *dir, const struct vol *leaving);

/* --- reclaim.c --- */

/*
 * The vol has no name and is not open: its device may go; or it is RECORD_SHRINKING. No lock held;
 * takes a reference of its own.
 */
void reclaim_queue(struct vol *v);
/* Whether the device can be deleted in one go. meta_lock exclusive. */
int reclaim_is_cheap(struct vol *v, bool *cheap);
/* Delete the device, which is not open, in this transaction. meta_lock exclusive. */
int reclaim_whole(struct vol *v);
int reclaim_start(struct pool *p);
void reclaim_stop_thread(struct pool *p);

/* --- buf.c --- */

#define IO_BUF_SIZE (1U << 20)

/* A buffer of IO_BUF_SIZE bytes, page aligned; NULL: no memory. */
void *buf_get(struct pool *p);
void buf_put(struct pool *p, void *buf);
void buf_free_all(struct pool *p);
extern const uint8_t zeros[IO_BUF_SIZE];

#endif
