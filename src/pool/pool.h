/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pool: an open pool of thin volumes; what the mount and the commands use.
 *
 * A pool is two images. Its volumes are thin devices with a name, kept in the catalog; the ones in
 * the top directory are volumes, the ones in a directory under ".snapshots" are snapshots. All
 * changes belong to the open transaction and become durable together, by pool_sync() or by the
 * timer.
 *
 * Threads: everything may be called by any thread, unless said otherwise. A call blocks for its
 * own I/O and for conflicting work on the same blocks of the same volume, never for another volume's
 * I/O and never for a commit that is being written out. doc/locking.md has the order of the locks.
 * Errors: 0 or negative errno. -EROFS: the pool, or the volume, is read-only. -ENOSPC: no data
 * space, even after a commit. -EIO: the pool has failed, or the image did.
 */
#ifndef THINFS_POOL_POOL_H
#define THINFS_POOL_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "io/image.h"

struct pool;
struct vol;
struct voldir;

/* In order of severity, S 12 of the format sheet. */
enum pool_mode {
	POOL_WRITE,
	POOL_OUT_OF_DATA_SPACE,
	POOL_OUT_OF_METADATA_SPACE,
	POOL_READ_ONLY,
	POOL_FAIL,
};

struct origin_guard;

/* The external origin of thin device ID, or of ALL that the catalog does not know: those that the kernel made. */
struct pool_origin_option {
	bool all;
	uint32_t id;
	char *path; /* absolute */
};

struct pool_options {
	bool read_only; /* change no byte of either image */
	bool skip_block_zeroing;
	bool ignore_discard;
	bool no_discard_passdown;
	bool error_if_no_space;
	unsigned no_space_timeout_s; /* 0: forever */
	/* Warn when no more data space than that is free: in percent of all, or, when 0, in bytes. */
	unsigned low_water_percent;
	uint64_t low_water_bytes;
	unsigned commit_interval_ms; /* of the timer; 0: no timer, only pool_sync() commits */
	uint64_t metadata_cache_bytes;
	unsigned max_step; /* mappings that one step of a long change may take; 0: as many as is good. For tests */
	/* When the data image has little free space it is made larger, a file, by so much, or so much of a hundred; 0 both: never. */
	uint64_t grow_bytes;
	unsigned grow_percent;
	uint64_t max_bytes, metadata_max_bytes; /* but not beyond; 0: any */
	bool discard_to_origin; /* PUNCH_HOLE shows the external origin again, as in the kernel */
	const struct pool_origin_option *origins;
	size_t nr_origins;
	const struct origin_guard *guard; /* what must be no origin; pool_open() sees to it */
	bool threads_later; /* the caller starts the pool's own threads, by pool_start() */
};

#define POOL_OPTIONS_DEFAULT                                                                       \
	((struct pool_options){                                                                    \
		.no_space_timeout_s = 60,                                                          \
		.commit_interval_ms = 1000,                                                        \
		.metadata_cache_bytes = 64ULL << 20,                                               \
	})

#define POOL_NAME_MAX 255 /* bytes of a volume's or snapshot's name */

/* --- format, open, close --- */

struct pool_format_options {
	uint64_t data_bytes; /* 0: the data image exists and has its size */
	uint64_t metadata_bytes; /* 0: as it is, or, when absent, sized from the data */
	uint64_t block_bytes; /* 0: 64 KiB, or larger for very large data images */
	bool force; /* also over images that hold something */
};

/* Make a pool; images that are absent are made, and removed again when this fails. Prints why it fails. */
int pool_format(const char *data_path, const char *meta_path,
		const struct pool_format_options *options);

/*
 * Open a pool. Prints why it fails. An all-zero metadata image is formatted first (64 KiB blocks), unless read-only.
 * A pool whose superblock says needs_check opens read-only (pool_mode() tells), with a warning.
 */
int pool_open(const char *data_path, const char *meta_path, const struct pool_options *options,
	      struct pool **out);
/* The pool is served as the filesystem MOUNT: external origins must not be in it. Before any volume is used. */
void pool_avoid_mount(struct pool *p, dev_t mount);
/* Start the threads that commit, reclaim and so on, which inherit what the calling thread is permitted. */
int pool_start(struct pool *p);
/* pool_open() over open images, which the pool then owns, also on failure. For tests. */
int pool_open_images(struct image *data, struct image *meta, const struct pool_options *options,
		     struct pool **out);

/*
 * Commit, release the images, free everything. No call may be under way, no volume or directory held.
 * Returns the error of the last commit; the pool is gone all the same.
 */
int pool_close(struct pool *p);

/* --- the pool --- */

struct pool_status {
	enum pool_mode mode;
	bool needs_check;
	uint64_t transaction_id;
	uint64_t block_bytes;
	uint64_t data_blocks, data_used; /* in data blocks */
	uint64_t data_available; /* can be written by volumes: free less what the catalog needs */
	uint64_t data_low_water; /* a warning comes when no more than that is free; 0: none */
	uint64_t meta_blocks, meta_used, meta_reserve; /* 4 KiB blocks; used without the reserve */
	uint64_t held_root;
	uint64_t nr_volumes, nr_snapshots; /* devices with a name in the top directory; in others */
};

void pool_get_status(struct pool *p, struct pool_status *st);
/* What is to come back of volumes that were removed or cut, in the background. */
struct pool_reclaim {
	uint64_t nr_volumes;
	uint64_t nr_open; /* of them: removed, but held open, so nothing happens yet */
	uint64_t bytes; /* that those which were removed still map; what others share of it does not come back */
};

/* Needs a look at each volume of the pool, a few at a time. */
void pool_get_reclaim(struct pool *p, struct pool_reclaim *reclaim);
enum pool_mode pool_get_mode(struct pool *p);
uint64_t pool_block_bytes(const struct pool *p);
const struct pool_options *pool_get_options(const struct pool *p);
const char *pool_mode_name(enum pool_mode mode); /* "rw", "out_of_data_space", "ro", "fail" */

/*
 * Make durable all that was written and done before this call. With VOL: that volume's data and
 * all names; when none of those changed since the last commit, that is a flush of the data image.
 * VOL NULL: everything. Callers at the same time share a commit.
 *
 * done(arg, error) is called once, from this call or later from another thread, with no lock held; it
 * must not block. ERROR: 0; -EIO; -ENOSPC when no data block was free for a changed name or size.
 */
void pool_sync(struct pool *p, struct vol *vol, void (*done)(void *arg, int error), void *arg);
/* The same, waiting. */
int pool_sync_wait(struct pool *p, struct vol *vol);

/* Drop all that is not committed, as after a failed commit but still writable. For tests. */
int pool_abort(struct pool *p);

/*
 * Take in what is new of an image that has become larger, of both. The pool does this by itself when it is opened
 * and when it is out of space. -ENOSPC: too little metadata space for the bitmaps of the new blocks.
 */
int pool_adopt_growth(struct pool *p);

struct pool_shrink {
	atomic_bool cancel; /* set it to have it end early, with -ECANCELED */
	_Atomic uint64_t moved, total; /* bytes that had to go to other places */
};

/*
 * Make the data image BYTES large, rounded down to blocks, while the pool is in use: what is behind that is moved, then the pool
 * ends there, then the image, if it is a file. Whenever it is interrupted, by a crash too, the pool is whole, and has either size.
 * -EINVAL: it is no larger than that now, or less than a block; -ENOSPC: too little free space; *possible: bytes that would do now; -EBUSY:
 * it is being shrunk, or a metadata snapshot is held; -EUCLEAN: blocks are counted that nobody has (thinfs check --repair);
 * -ECANCELED. Takes its time; in between, I/O to the block that is being moved waits, and changes of metadata for
 * a short time at each step (evacuation_move()).
 */
int pool_shrink(struct pool *p, uint64_t bytes, struct pool_shrink *progress, uint64_t *possible);

/* In a pool that is out of space: pool_adopt_growth(), and where that finds nothing let the images grow as far as the options say. */
void pool_look_for_space(struct pool *p);

/*
 * Make the images larger, those that are files, and use them; 0: as large as it is now. What is larger than asked for is used as
 * a whole. Durable when it returns. -EINVAL: smaller than what the pool has; -EFBIG: more than the format can have; -EOPNOTSUPP: larger
 * than the block device is; -EBUSY: the pool is being shrunk; -ENOSPC: as pool_adopt_growth().
 */
int pool_resize(struct pool *p, uint64_t data_bytes, uint64_t meta_bytes);

/*
 * Whether a writer that got -ENOSPC should wait for space. No longer, once pool_stop_waiting() has been called because
 * no_space_timeout is over, until the pool is in POOL_WRITE again.
 */
bool pool_waits_for_space(const struct pool *p);
void pool_stop_waiting(struct pool *p);

/* Have FN called, with no lock held, whenever space may have become available for a writer that got -ENOSPC. One hook. */
void pool_set_space_hook(struct pool *p, void (*fn)(void *arg), void *arg);

/* --- names. A vol or voldir that is given out is held until vol_put() or voldir_put(). --- */

struct voldir *pool_top(struct pool *p); /* borrowed: the top directory */

int pool_lookup(struct pool *p, struct voldir *dir, const char *name, struct vol **out); /* -ENOENT */
int pool_lookup_snapshot(struct pool *p, const char *name, struct voldir **out); /* -ENOENT */
int pool_lookup_id(struct pool *p, uint32_t id, struct vol **out); /* -ENOENT */

/* The first entry whose cookie is > AFTER (0: from the start), by ascending cookie; -ENOENT: no more. Cookies stay valid while entries come and go. */
int pool_next_volume(struct pool *p, struct voldir *dir, uint64_t after, struct vol **out,
		     uint64_t *cookie);
int pool_next_snapshot(struct pool *p, uint64_t after, struct voldir **out, uint64_t *cookie);

struct vol *vol_get(struct vol *v);
void vol_put(struct vol *v);
struct voldir *voldir_get(struct voldir *d);
void voldir_put(struct voldir *d);

struct pool_caller {
	uid_t uid;
	gid_t gid;
	mode_t mode; /* permission bits for what is made */
};

/* New thin device of size 0 in the top directory. -EEXIST, -ENAMETOOLONG, -EINVAL (bad name), -EPERM (not the top directory), -ENOSPC,
 * -EOPNOTSUPP: this pool cannot have names, its device 16777215 is something else (a message says so once). */
int pool_create(struct pool *p, struct voldir *dir, const char *name,
		const struct pool_caller *caller, struct vol **out);

/*
 * The same over the external origin PATH, absolute: what is not written reads as it. SIZE in bytes, UINT64_MAX: the origin's. Prints why
 * PATH cannot be one. May wait for the filesystem that PATH is on. -ENAMETOOLONG: PATH is longer than 1023 bytes.
 */
int pool_create_over(struct pool *p, const char *name, const struct pool_caller *caller, const char *path,
		     uint64_t size, struct vol **out);

enum pool_rename_flags {
	POOL_RENAME_NOREPLACE = 1,
	POOL_RENAME_EXCHANGE = 2,
};

/* Within the top directory, over an existing one too, or out of a snapshot to the top: that makes it a writable volume. Else -EPERM. */
int pool_rename(struct pool *p, struct voldir *from_dir, const char *from, struct voldir *to_dir,
		const char *to, unsigned flags);
/* The name goes at once; the device goes when nobody holds it open, its space in the background. */
int pool_unlink(struct pool *p, struct voldir *dir, const char *name);

/*
 * A snapshot named NAME: of every volume at one instant, or, when NAME is VOLUME@TAG, of that one volume (-ENOENT if there is none).
 * It holds every vol_write() that returned before. -EEXIST. Atomic.
 */
int pool_snapshot(struct pool *p, const char *name, const struct pool_caller *caller);
/* The same of the NR volumes (names in the top directory) given. */
int pool_snapshot_some(struct pool *p, const char *name, const char *const *volumes, size_t nr,
		       const struct pool_caller *caller);
/* Remove a snapshot with all that is in it, atomically. -EBUSY while one of its files is open. */
int pool_remove_snapshot(struct pool *p, const char *name);

/* A volume NAME with all that FROM, a volume or a file of a snapshot, has now, writable, the caller's. O(1). Errors as pool_create(). */
int pool_clone(struct pool *p, struct vol *from, const char *name, const struct pool_caller *caller);
/*
 * Let volume V have what the file FROM of a snapshot has, and its size; what it had becomes the snapshot SAFETY. One change, so
 * that a commit has both or nothing. V keeps its number and attributes. -EBUSY while it is open; -EXDEV: FROM is in no
 * snapshot, or V is in one; -EEXIST: there is a snapshot SAFETY.
 */
int pool_revert(struct pool *p, struct vol *v, struct vol *from, const char *safety,
		const struct pool_caller *caller);

/* --- attributes --- */

struct vol_attr {
	uint32_t id;
	uint64_t generation; /* of the id: another one when the id is used again */
	uint64_t size; /* bytes */
	uint64_t mapped_bytes;
	mode_t mode; /* permission bits */
	uid_t uid;
	gid_t gid;
	struct timespec btime, mtime, ctime;
	bool read_only; /* a snapshot that was not made writable */
	bool has_parent;
	uint32_t parent; /* id of the device it was made from */
	bool deleted; /* has no name any more */
	uint64_t opens; /* open files on it */
	const char *origin; /* path of the external origin, as long as the pool is open; NULL: none */
	uint64_t origin_size; /* bytes of it that are shown */
};

int vol_getattr(struct vol *v, struct vol_attr *attr);
/*
 * Bytes of the data image that deleting the volume would free; what it shares with others, or has at two places itself, is not
 * in it. O(what it does not share); what changes meanwhile may be counted or not.
 */
int vol_exclusive(struct vol *v, uint64_t *bytes);

/*
 * Bytes of the data image that removing the NR volumes IDS, which are sorted here, would free: what they share only among
 * themselves is in it. Changes meanwhile as above. Memory as meta_tally_add(). -ENOENT, -ESTALE: one of them is not there.
 */
int pool_freed_by(struct pool *p, uint32_t *ids, size_t nr, uint64_t *bytes);

enum vol_attr_set {
	VOL_SET_MODE = 1,
	VOL_SET_UID = 2,
	VOL_SET_GID = 4,
	VOL_SET_MTIME = 8,
};

/* The fields that WHICH names. In a snapshot, setting a write permission makes the file writable, taking all away makes it read-only. */
int vol_setattr(struct vol *v, unsigned which, const struct vol_attr *attr);

struct voldir_attr {
	uint64_t serial; /* unique while mounted; > 0 */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec btime;
	uint64_t nr_volumes;
};

void voldir_getattr(struct voldir *d, struct voldir_attr *attr);
int voldir_setattr(struct voldir *d, unsigned which, const struct vol_attr *attr); /* mode, uid, gid; not of the top */

/* What a held vol is called now: copies, "" when deleted. Sizes POOL_NAME_MAX + 1. SNAPSHOT "" for a volume. */
void vol_get_name(struct vol *v, char *name, char *snapshot);
void voldir_get_name(struct voldir *d, char *name);

/* --- data --- */

/* Count an open file on the volume: a deleted one goes at the last vol_release(). -EROFS: for writing, and read-only. */
int vol_open(struct vol *v, bool for_write);
void vol_release(struct vol *v);
/* Open files of all volumes. */
uint64_t pool_nr_open(struct pool *p);

/* Read up to LEN bytes at OFFSET into BUF: bytes read, less than LEN only at the end; or negative errno. */
ssize_t vol_read(struct vol *v, void *buf, size_t len, uint64_t offset);
/* Write all of LEN bytes, or fail; what was written before the failure stays. Past the end extends. -EFBIG: over VOL_SIZE_MAX. */
ssize_t vol_write(struct vol *v, const void *buf, size_t len, uint64_t offset);

#define VOL_SIZE_MAX (1ULL << 62)

/*
 * Copy LEN bytes, or as far as FROM goes, by sharing blocks where SRC and DST are alike in their blocks: bytes copied, or negative errno.
 * FROM and TO may be one, of one pool; the ranges must not overlap (-EINVAL). Whoever writes to FROM meanwhile is in it as a whole
 * block, or not.
 */
ssize_t vol_copy_range(struct vol *from, uint64_t src, struct vol *to, uint64_t dst, uint64_t len);

int vol_truncate(struct vol *v, uint64_t size);
/* MODE as fallocate(2): 0 or KEEP_SIZE (provision), PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE with or without KEEP_SIZE. Else -EOPNOTSUPP. */
int vol_fallocate(struct vol *v, int mode, uint64_t offset, uint64_t len);
/* WHENCE SEEK_DATA or SEEK_HOLE as lseek(2): the offset, or -ENXIO. */
off_t vol_seek(struct vol *v, off_t offset, int whence);

#endif
