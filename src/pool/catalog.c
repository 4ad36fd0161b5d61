/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"

static uint64_t
records_per_block(const struct pool *p)
{
	return p->block_bytes / RECORD_SIZE;
}

static uint64_t
catalog_block(const struct pool *p, uint32_t id)
{
	return id / records_per_block(p);
}

/* --- reading --- */

struct loader {
	struct pool *p;
	int (*fn)(void *arg, const struct record *r);
	void *arg;
	uint64_t nr_good, nr_bad;
	bool own_good;
};

static int
load_record(struct loader *l, const void *data, uint32_t id)
{
	struct record r;

	switch (record_decode(data, id, &r)) {
	case RECORD_NONE:
		return 0;
	case RECORD_BAD:
		l->nr_bad++;
		return 0;
	case RECORD_GOOD:
		l->nr_good++;
		if (id == CATALOG_ID) {
			l->own_good = true;
			return 0;
		}
		return l->fn(l->arg, &r);
	}
	return 0;
}

static int
load_block(struct loader *l, uint64_t vblock, uint64_t dblock, uint8_t *buf)
{
	uint64_t size = l->p->block_bytes;
	int r = 0;

	for (uint64_t at = 0; at < size && !r; at += IO_BUF_SIZE) {
		size_t len = size - at < IO_BUF_SIZE ? size - at : IO_BUF_SIZE;

		/* Under meta_lock after a failed commit: nobody can go on before the names are there. */
		r = image_read(l->p->data, buf, len, dblock * size + at);
		if (r)
			msg_error("%s: reading the catalog, which is in block %" PRIu64 ", failed: %s",
				  l->p->data->name, dblock, strerror(-r));
		for (size_t i = 0; i < len && !r; i += RECORD_SIZE) {
			uint64_t id = (vblock * size + at + i) / RECORD_SIZE;

			if (id <= CATALOG_ID)
				r = load_record(l, buf + i, (uint32_t)id);
		}
	}
	return r;
}

static int
load_blocks(struct loader *l)
{
	struct catalog *c = &l->p->catalog;
	uint64_t end = catalog_block(l->p, CATALOG_ID) + 1;
	uint8_t *buf = buf_get(l->p);
	uint64_t vblock = 0, len;
	int r = buf ? 0 : -ENOMEM;

	while (!r) {
		struct map_run run;
		unsigned nr;

		r = dev_next_mapped(c->dev, vblock, 1, &vblock, &len);
		if (r || vblock >= end)
			break;
		r = dev_map(c->dev, vblock, 1, &run, 1, &nr);
		if (!r)
			r = load_block(l, vblock, run.dblock, buf);
		vblock++;
	}
	buf_put(l->p, buf);
	return r == -ENODATA ? 0 : r;
}

int
catalog_load(struct pool *p, int (*fn)(void *arg, const struct record *r), void *arg,
	     uint64_t *nr_bad)
{
	struct loader l = {.p = p, .fn = fn, .arg = arg};
	struct catalog *c = &p->catalog;
	struct dev_info info;
	int r;

	*nr_bad = 0;
	catalog_close(p);
	r = dev_open(p->tm, CATALOG_ID, &c->dev);
	if (r)
		return r == -ENODATA ? 0 : r;
	r = load_blocks(&l);
	if (r)
		return r;
	/* One good record is enough to know it by, should its own be damaged. */
	c->present = l.own_good || l.nr_good > 0;
	c->foreign = !c->present;
	dev_get_info(c->dev, &info);
	c->nr_mapped = info.mapped_blocks;
	if (c->foreign) {
		dev_close(c->dev);
		c->dev = NULL;
		return 0;
	}
	*nr_bad = l.nr_bad;
	return 0;
}

void
catalog_close(struct pool *p)
{
	struct catalog *c = &p->catalog;

	if (c->dev)
		dev_close(c->dev);
	u64map_clear(&c->dirty);
	runs_clear(&c->ready);
	memset(c, 0, sizeof(*c));
}

/* --- changing --- */

uint64_t
catalog_reserve(const struct pool *p)
{
	const struct catalog *c = &p->catalog;

	if (c->foreign)
		return 0;
	return max_u64(c->nr_mapped, c->dirty.nr) + 2;
}

static int
make_catalog(struct pool *p)
{
	struct catalog *c = &p->catalog;
	int r = meta_require(p->tm, 2, 1, META_TO_DELETE);

	if (!r)
		r = meta_create_thin(p->tm, CATALOG_ID);
	if (!r)
		r = dev_open(p->tm, CATALOG_ID, &c->dev);
	if (r)
		return r;
	c->present = true;
	return u64map_set(&c->dirty, catalog_block(p, CATALOG_ID), 0);
}

static bool
has_room(struct pool *p, uint32_t id, uint64_t nr)
{
	struct catalog *c = &p->catalog;
	struct meta_info info;
	uint64_t blocks = catalog_block(p, id + (uint32_t)(nr ? nr - 1 : 0)) - catalog_block(p, id) + 2;

	meta_get_info(p->tm, &info);
	return info.free_data_blocks >= c->dirty.nr + blocks + !c->present;
}

bool
catalog_has_room(struct pool *p, uint64_t nr)
{
	return p->catalog.foreign || has_room(p, p->next_id, nr);
}

int
catalog_require(struct pool *p, uint32_t id, uint64_t nr)
{
	struct catalog *c = &p->catalog;

	if (c->foreign) {
		if (!c->told)
			msg_error("this pool's thin device %u is not a thinfs catalog, so names and "
				  "sizes cannot be kept; volumes can still be read, written and "
				  "removed by their numbers", CATALOG_ID);
		c->told = true;
		return -EOPNOTSUPP;
	}
	if (!has_room(p, id, nr))
		return -ENOSPC;
	return c->present ? 0 : make_catalog(p);
}

int
catalog_changed(struct pool *p, uint32_t id)
{
	return p->catalog.present ? u64map_set(&p->catalog.dirty, catalog_block(p, id), 0) : 0;
}

/* --- writing --- */

static void
vol_to_record(const struct vol *v, struct record *r)
{
	*r = (struct record){
		.id = v->id,
		.flags = v->flags,
		.mode = v->mode,
		.uid = v->uid,
		.gid = v->gid,
		.parent = v->parent,
		.size = v->size,
		.btime_ns = v->btime_ns,
		.mtime_ns = v->mtime_ns,
		.ctime_ns = v->ctime_ns,
	};
	if (v->origin) {
		strcpy(r->origin, origin_path(v->origin));
		r->origin_identity = *origin_identity(v->origin);
		r->origin_end = v->origin_end;
	}
	if (v->name)
		memcpy(r->name, v->name, strlen(v->name));
	if (v->dir) {
		r->dir_mode = v->dir->mode;
		r->dir_uid = v->dir->uid;
		r->dir_gid = v->dir->gid;
		r->dir_btime_ns = v->dir->btime_ns;
		memcpy(r->snapshot, v->dir->name, strlen(v->dir->name));
	}
}

/* The first record in [id, end), encoded to OUT; its id, or END. */
static uint32_t
next_record(struct pool *p, uint32_t id, uint32_t end, void *out)
{
	for (; id < end; id++) {
		struct vol *v = id == CATALOG_ID ? NULL : names_find_id(p, id);
		struct record r = {
			.id = CATALOG_ID, .flags = RECORD_HIDDEN, .parent = RECORD_NO_PARENT};

		if (id != CATALOG_ID && (!v || !v->has_record))
			continue;
		if (v) {
			vol_to_record(v, &r);
			v->mtime_dirty = false;
		}
		record_encode(&r, out);
		return id;
	}
	return end;
}

/*
 * What is staged is kept until it is written, and may be all records there are: without zeros, which are most of a
 * record, it is a fifth.
 */
struct packed_record {
	uint32_t index; /* in the block */
	uint32_t len;
};

static int
pack(struct catalog_write *w, uint32_t index, const uint8_t *record)
{
	struct packed_record head = {.index = index, .len = RECORD_SIZE};
	uint8_t *grown;

	while (head.len && !record[head.len - 1])
		head.len--;
	grown = realloc(w->packed, w->packed_len + sizeof(head) + head.len);
	if (!grown)
		return -ENOMEM;
	memcpy(grown + w->packed_len, &head, sizeof(head));
	memcpy(grown + w->packed_len + sizeof(head), record, head.len);
	w->packed = grown;
	w->packed_len += sizeof(head) + head.len;
	w->len = (index + 1ULL) * RECORD_SIZE;
	return 0;
}

/* The records of a block of the catalog; w->len 0: it has none. What was allocated is the caller's, after an error, too. */
static int
encode_block(struct pool *p, uint64_t vblock, struct catalog_write *w)
{
	uint32_t first = (uint32_t)(vblock * records_per_block(p));
	uint64_t end64 = (uint64_t)first + records_per_block(p);
	uint32_t end = end64 > CATALOG_ID + 1ULL ? CATALOG_ID + 1 : (uint32_t)end64;
	uint8_t record[RECORD_SIZE];
	uint32_t id = first;
	int r = 0;

	while (!r && (id = next_record(p, id, end, record)) < end) {
		r = pack(w, id - first, record);
		id++;
	}
	return r;
}

/* Of a very large block, what is behind the records is a hole. */
#define ALLOCATE_MAX (1ULL << 20)

static int
allocate_below(struct pool *p, uint64_t dblock, uint64_t nr)
{
	int r = 0;

	for (uint64_t i = 0; i < nr && !r; i++)
		r = image_allocate(pool_data(p), (dblock + i) * p->block_bytes,
				   min_u64(p->block_bytes, ALLOCATE_MAX));
	return r;
}

/* Reserve blocks for all that changed and has none yet; false: nothing is to be done, or can be. */
static bool
reserve_some(struct pool *p, uint64_t *dblock, uint64_t *nr)
{
	struct catalog *c = &p->catalog;
	bool more;

	rwlock_wrlock(&p->meta_lock);
	more = c->dirty.nr > c->ready.total &&
	       !meta_reserve_data(p->tm, 0, c->dirty.nr - c->ready.total, dblock, nr);
	rwlock_unlock(&p->meta_lock);
	return more;
}

void
catalog_prepare(struct pool *p)
{
	struct catalog *c = &p->catalog;
	uint64_t dblock, nr;
	int r = 0;

	while (!r && reserve_some(p, &dblock, &nr)) {
		r = allocate_below(p, dblock, nr);
		rwlock_wrlock(&p->meta_lock);
		c->no_space_below = r == -ENOSPC;
		if (!c->no_space_below)
			r = runs_add(&c->ready, dblock, nr);
		if (r)
			meta_unreserve_data(p->tm, dblock, nr);
		rwlock_unlock(&p->meta_lock);
	}
}

void
catalog_leave(struct pool *p, uint64_t first)
{
	struct runs *ready = &p->catalog.ready;

	for (size_t i = 0; i < ready->nr; i++) {
		const struct run *run = &ready->v[i];

		if (run->start + run->len > first)
			meta_unreserve_data(p->tm, max_u64(run->start, first),
					    run->start + run->len - max_u64(run->start, first));
	}
	runs_clip(ready, first);
}

/* A data block to write to, provided for below. */
static int
take_block(struct pool *p, uint64_t *dblock)
{
	struct runs *ready = &p->catalog.ready;
	struct run *last;

	if (!ready->nr)
		return -ENOSPC;
	last = &ready->v[ready->nr - 1];
	*dblock = last->start + --last->len;
	ready->total--;
	ready->nr -= !last->len;
	return 0;
}

static int
stage_block(struct pool *p, uint64_t vblock, struct catalog_batch *batch)
{
	struct catalog *c = &p->catalog;
	struct catalog_write *w;
	uint64_t next;
	int r;

	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	r = encode_block(p, vblock, w);
	if (!r && !w->len) {
		free(w);
		return dev_unmap(c->dev, vblock, vblock + 1, 1, META_TO_DELETE, &next);
	}
	if (!r)
		r = meta_require(p->tm, 1, 0, META_TO_DELETE);
	if (!r)
		r = take_block(p, &w->dblock);
	if (r) {
		free(w->packed);
		free(w);
		return r;
	}
	STAILQ_INSERT_TAIL(batch, w, link);
	return dev_insert(c->dev, vblock, w->dblock, 1);
}

bool
catalog_fits(struct pool *p)
{
	struct meta_info info;

	meta_get_info(p->tm, &info);
	return p->catalog.dirty.nr <= info.free_data_blocks + p->catalog.ready.total;
}

int
catalog_stage(struct pool *p, struct catalog_batch *batch)
{
	struct catalog *c = &p->catalog;
	uint64_t vblock, unused;
	size_t pos = 0;
	struct dev_info info;
	struct u64map left = {0};
	int r = 0;

	STAILQ_INIT(batch);
	c->incomplete = false;
	if (!c->present || !c->dirty.nr)
		return 0;
	/* All or none: a rename or a snapshot may be in several. */
	c->incomplete = c->dirty.nr > c->ready.total;
	if (c->incomplete)
		return 0;
	while (!r && u64map_next(&c->dirty, &pos, &vblock, &unused)) {
		r = stage_block(p, vblock, batch);
		if (r == -ENOSPC)
			r = u64map_set(&left, vblock, 0);
	}
	u64map_clear(&c->dirty);
	c->dirty = left;
	c->incomplete = left.nr;
	dev_get_info(c->dev, &info);
	c->nr_mapped = info.mapped_blocks;
	return r;
}

/* Records to BUF, which is IO_BUF_SIZE bytes of the block from FROM on, those from *at in what is packed. */
static void
unpack(const struct catalog_write *w, size_t *at, uint64_t from, uint8_t *buf)
{
	while (*at < w->packed_len) {
		struct packed_record head;
		uint64_t offset;

		memcpy(&head, w->packed + *at, sizeof(head));
		offset = (uint64_t)head.index * RECORD_SIZE;
		if (offset >= from + IO_BUF_SIZE)
			break;
		memcpy(buf + (offset - from), w->packed + *at + sizeof(head), head.len);
		*at += sizeof(head) + head.len;
	}
}

static int
write_block(struct pool *p, const struct catalog_write *w, uint8_t *buf)
{
	uint64_t start = w->dblock * p->block_bytes;
	size_t at = 0;
	int r = 0;

	for (uint64_t from = 0; from < w->len && !r; from += IO_BUF_SIZE) {
		size_t len = (size_t)min_u64(w->len - from, IO_BUF_SIZE);

		memset(buf, 0, len);
		unpack(w, &at, from, buf);
		r = image_write(pool_data(p), buf, len, start + from);
	}
	return r ? r : image_zero(pool_data(p), start + w->len, p->block_bytes - w->len);
}

int
catalog_write(struct pool *p, struct catalog_batch *batch)
{
	struct catalog_write *w;
	uint8_t *buf;
	int r = 0;

	if (STAILQ_EMPTY(batch))
		return 0;
	buf = buf_get(p);
	if (!buf)
		return -ENOMEM;
	STAILQ_FOREACH(w, batch, link) {
		r = write_block(p, w, buf);
		if (r) {
			msg_error("%s: writing the catalog failed: %s", p->data->name, strerror(-r));
			break;
		}
	}
	buf_put(p, buf);
	return r;
}

void
catalog_batch_free(struct catalog_batch *batch)
{
	struct catalog_write *w;

	while ((w = STAILQ_FIRST(batch))) {
		STAILQ_REMOVE_HEAD(batch, link);
		free(w->packed);
		free(w);
	}
}
