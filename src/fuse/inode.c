/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "fuse/inode.h"

void
inode_table_init(struct inode_table *t, struct pool *p)
{
	*t = (struct inode_table){
		.root = {.kind = INODE_ROOT, .dir = pool_top(p)},
		.snapshots = {.kind = INODE_SNAPSHOTS},
	};
	mutex_init(&t->lock, "the inode table", LOCK_LEAF);
}

static void
free_inode(struct inode *inode)
{
	if (inode->vol)
		vol_put(inode->vol);
	if (inode->dir)
		voldir_put(inode->dir);
	free(inode);
}

void
inode_table_destroy(struct inode_table *t)
{
	uint64_t key, value;
	size_t pos = 0;

	while (u64map_next(&t->map, &pos, &key, &value)) {
		struct inode *inode = (struct inode *)(uintptr_t)value;

		for (; inode->nr_open; inode->nr_open--)
			vol_release(inode->vol);
		free_inode(inode);
	}
	u64map_clear(&t->map);
	mutex_destroy(&t->lock);
}

struct inode *
inode_of(struct inode_table *t, uint64_t node)
{
	return node == INODE_NR_ROOT ? &t->root : (struct inode *)(uintptr_t)node;
}

uint64_t
inode_node(const struct inode_table *t, const struct inode *inode)
{
	return inode == &t->root ? INODE_NR_ROOT : (uintptr_t)inode;
}

static uint64_t
key_of(const struct inode *inode)
{
	return inode->vol ? (uintptr_t)inode->vol : (uintptr_t)inode->dir;
}

/* The inode like WANT, which holds the vol or voldir. */
static int
get_inode(struct inode_table *t, const struct inode *want, struct inode **out)
{
	struct inode *fresh = malloc(sizeof(*fresh));
	struct inode *spare = fresh;
	uint64_t value;
	int r = fresh ? 0 : -ENOMEM;

	if (r) {
		if (want->vol)
			vol_put(want->vol);
		if (want->dir)
			voldir_put(want->dir);
		return r;
	}
	*fresh = *want;

	mutex_lock(&t->lock);
	if (u64map_get(&t->map, key_of(want), &value)) {
		*out = (struct inode *)(uintptr_t)value;
		(*out)->nr_lookup++;
	} else {
		r = u64map_set(&t->map, key_of(want), (uintptr_t)fresh);
		if (r == 0) {
			fresh->nr_lookup = 1;
			*out = fresh;
			spare = NULL;
		}
	}
	mutex_unlock(&t->lock);

	if (spare)
		free_inode(spare);
	return r;
}

int
inode_get_volume(struct inode_table *t, struct vol *vol, struct inode **out)
{
	const struct inode want = {.kind = INODE_VOLUME, .vol = vol};

	return get_inode(t, &want, out);
}

int
inode_get_snapshot(struct inode_table *t, struct voldir *dir, struct inode **out)
{
	const struct inode want = {.kind = INODE_SNAPSHOT, .dir = dir};

	return get_inode(t, &want, out);
}

bool
inode_find_volume(struct inode_table *t, const struct vol *vol, uint64_t *node)
{
	uint64_t value = 0;
	bool known;

	mutex_lock(&t->lock);
	known = u64map_get(&t->map, (uintptr_t)vol, &value);
	mutex_unlock(&t->lock);
	*node = value;
	return known;
}

/* Out of the table when nothing refers to it; then the caller frees it. Called with the lock. */
static bool
unhash_unused_locked(struct inode_table *t, struct inode *inode)
{
	if (inode->nr_lookup || inode->nr_open)
		return false;
	u64map_remove(&t->map, key_of(inode));
	return true;
}

void
inode_forget(struct inode_table *t, struct inode *inode, uint64_t nr)
{
	bool unused;

	if (inode->kind == INODE_ROOT || inode->kind == INODE_SNAPSHOTS)
		return;
	mutex_lock(&t->lock);
	inode->nr_lookup -= nr < inode->nr_lookup ? nr : inode->nr_lookup;
	unused = unhash_unused_locked(t, inode);
	mutex_unlock(&t->lock);
	if (unused)
		free_inode(inode);
}

int
inode_open(struct inode_table *t, struct inode *inode, bool for_write)
{
	int r = vol_open(inode->vol, for_write);

	if (r)
		return r;
	mutex_lock(&t->lock);
	inode->nr_open++;
	if (for_write) {
		inode->nr_write_open++;
		inode->maybe_dirty = true;
	}
	mutex_unlock(&t->lock);
	return 0;
}

void
inode_release(struct inode_table *t, struct inode *inode, bool for_write)
{
	bool unused;

	vol_release(inode->vol);
	mutex_lock(&t->lock);
	inode->nr_open--;
	if (for_write)
		inode->nr_write_open--;
	unused = unhash_unused_locked(t, inode);
	mutex_unlock(&t->lock);
	if (unused)
		free_inode(inode);
}

int
inode_collect_dirty(struct inode_table *t, uint64_t **nodes, size_t *nr)
{
	uint64_t key, value;
	size_t pos = 0;
	int r = 0;

	*nr = 0;
	*nodes = NULL;
	mutex_lock(&t->lock);
	if (t->map.nr) {
		*nodes = malloc(t->map.nr * sizeof(**nodes));
		r = *nodes ? 0 : -ENOMEM;
	}
	while (r == 0 && u64map_next(&t->map, &pos, &key, &value)) {
		struct inode *inode = (struct inode *)(uintptr_t)value;

		if (!inode->maybe_dirty)
			continue;
		/* While it is open for writing there may be more at any time. */
		inode->maybe_dirty = inode->nr_write_open > 0;
		(*nodes)[(*nr)++] = inode_node(t, inode);
	}
	mutex_unlock(&t->lock);
	return r;
}
