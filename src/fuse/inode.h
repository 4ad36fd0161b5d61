/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inode: what the kernel knows about, from LOOKUP to FORGET.
 *
 * The node id that the kernel is given is the address of the struct inode, but for the root. An
 * inode holds its volume or directory of the pool, so their address identifies it meanwhile.
 *
 * Locking: table->lock, a leaf; never held across a call into the pool.
 */
#ifndef THINFS_FUSE_INODE_H
#define THINFS_FUSE_INODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/pool.h"
#include "util/lock.h"
#include "util/u64map.h"

#define SNAPSHOTS_NAME ".snapshots"

/* Inode numbers as stat(2) shows them; stable from mount to mount but for snapshot directories. */
#define INODE_NR_ROOT 1
#define INODE_NR_SNAPSHOTS 2
#define INODE_NR_VOLUME(id) (0x10000ULL + (id))
#define INODE_NR_SNAPSHOT(serial) ((1ULL << 40) + (serial))

enum inode_kind {
	INODE_ROOT,
	INODE_SNAPSHOTS, /* the directory .snapshots */
	INODE_SNAPSHOT, /* a directory in it */
	INODE_VOLUME, /* a file, in the root or in a snapshot */
};

struct inode {
	enum inode_kind kind; /* const */
	struct vol *vol; /* const; held, of a volume */
	struct voldir *dir; /* const; held, of a snapshot; the root has the top, borrowed */
	uint64_t nr_lookup; /* table->lock: references the kernel has */
	uint64_t nr_open; /* table->lock: open files */
	uint64_t nr_write_open; /* table->lock: those that may write */
	bool maybe_dirty; /* table->lock: the kernel may hold data that it has not written */
};

struct inode_table {
	struct mutex lock;
	struct u64map map; /* lock: address of the vol or voldir -> struct inode */
	struct inode root;
	struct inode snapshots;
};

void inode_table_init(struct inode_table *t, struct pool *p);
/* Forget everything, with the files still open: after the last request. */
void inode_table_destroy(struct inode_table *t);

/* The inode of a node id that the kernel sent. */
struct inode *inode_of(struct inode_table *t, uint64_t node);
uint64_t inode_node(const struct inode_table *t, const struct inode *inode);

/*
 * The inode of a volume or snapshot, made when there is none, with one more lookup reference.
 * Takes over the caller's hold, also on failure (-ENOMEM).
 */
int inode_get_volume(struct inode_table *t, struct vol *vol, struct inode **out);
int inode_get_snapshot(struct inode_table *t, struct voldir *dir, struct inode **out);
/* The node id by which the kernel knows the volume now; false: it does not. */
bool inode_find_volume(struct inode_table *t, const struct vol *vol, uint64_t *node);
/* Drop NR lookup references. */
void inode_forget(struct inode_table *t, struct inode *inode, uint64_t nr);

/* Open a volume's inode: vol_open(), and a reference that keeps the inode. */
int inode_open(struct inode_table *t, struct inode *inode, bool for_write);
void inode_release(struct inode_table *t, struct inode *inode, bool for_write);

/*
 * Node ids of all volumes that the kernel may have dirty pages of; the caller frees *NODES.
 * 0 or -ENOMEM.
 */
int inode_collect_dirty(struct inode_table *t, uint64_t **nodes, size_t *nr);

#endif
