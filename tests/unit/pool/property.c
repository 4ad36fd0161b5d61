/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "unit/audit.h"
#include "unit/pool/property.h"
#include "unit/scratch.h"

void
fail(struct property *t, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	fprintf(stderr, "# %s: %s\n# THINFS_TEST_SEED=%llu, operation %lu: %s\n", t->config.test,
		text, (unsigned long long)t->seed, t->op_nr, t->op);
	cr_assert_fail("%s: seed %llu, operation %lu (%s): %s", t->config.test,
		       (unsigned long long)t->seed, t->op_nr, t->op, text);
	abort();
}

void
doing(struct property *t, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(t->op, sizeof(t->op), format, ap);
	va_end(ap);
	if (getenv("THINFS_TEST_VERBOSE"))
		fprintf(stderr, "# %lu: %s\n", t->op_nr, t->op);
}

/* --- opening --- */

static struct image *
make_image(struct property *t, const char *name, uint64_t size)
{
	struct image *img;
	char path[4096];
	int r;

	if (t->config.dir) {
		snprintf(path, sizeof(path), "%s/%s", t->config.dir, name);
		unlink(path);
		r = image_open_file(path, IMAGE_RDWR | IMAGE_CREATE, &img);
		if (!r)
			r = image_resize(img, size);
	} else {
		r = image_open_memory(name, size, &img);
	}
	if (r)
		fail(t, "making %s: %s", name, strerror(-r));
	return img;
}

static void
open_pool(struct property *t)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;
	int r;

	options.commit_interval_ms = 0; /* no threads */
	options.error_if_no_space = true;
	options.max_step = (unsigned)(t->seed % 5 * 3);
	r = pool_open_images(&t->data.image, &t->meta.image, &options, &t->pool);
	if (r)
		fail(t, "opening: %s", strerror(-r));
	t->nr_flushes = t->meta.nr_flushes;
}

/* With a stretch of zeros, which is a hole in the file. */
uint8_t
property_origin_byte(uint64_t at)
{
	return at / PAGE_SIZE == 2 ? 0 : (uint8_t)(at * 2654435761U >> 11);
}

static void
make_origin(struct property *t)
{
	int fd;

	scratch_template(t->origin, sizeof(t->origin), "origin");
	fd = mkstemp(t->origin);
	for (uint64_t at = 0; at < ORIGIN_BYTES; at++)
		t->buf[at] = property_origin_byte(at);
	if (fd < 0 || pwrite(fd, t->buf, 2 * PAGE_SIZE, 0) != 2 * PAGE_SIZE ||
	    pwrite(fd, t->buf + 3 * PAGE_SIZE, ORIGIN_BYTES - 3 * PAGE_SIZE, 3 * PAGE_SIZE) !=
		    ORIGIN_BYTES - 3 * PAGE_SIZE)
		fail(t, "making an origin");
	close(fd);
}

void
property_open(struct property *t, const struct property_config *config, uint64_t seed)
{
	unsigned sectors = config->block_pages * PAGE_SIZE / SECTOR_SIZE;
	int r;

	*t = (struct property){.config = *config, .seed = seed, .rs = {seed}};
	doing(t, "format");
	t->buf = malloc(MODEL_BYTES);
	t->other = malloc(MODEL_BYTES);
	make_origin(t);
	kept_image_init(&t->data,
			make_image(t, "data", (uint64_t)config->data_blocks * sectors * SECTOR_SIZE));
	kept_image_init(&t->meta,
			make_image(t, "meta", (uint64_t)config->meta_blocks * METADATA_BLOCK_SIZE));
	r = meta_format(&t->meta.image, sectors, config->data_blocks);
	if (r)
		fail(t, "formatting: %s", strerror(-r));
	open_pool(t);
}

void
property_close(struct property *t)
{
	doing(t, "close");
	drop_handles(t);
	if (pool_close(t->pool))
		fail(t, "closing failed");
	kept_image_free(&t->data);
	kept_image_free(&t->meta);
	model_free(&t->m);
	unlink(t->origin);
	free(t->buf);
	free(t->other);
}

struct vol *
lookup(struct property *t, const struct model_vol *v)
{
	struct voldir *dir = pool_top(t->pool);
	struct vol_attr attr;
	struct vol *vol;
	int r = 0;

	for (unsigned i = 0; i < MAX_HANDLES; i++)
		if (t->handles[i].vol && t->handles[i].id == v->id)
			return vol_get(t->handles[i].vol);
	if (v->snapshot[0])
		r = pool_lookup_snapshot(t->pool, v->snapshot, &dir);
	if (!r)
		r = pool_lookup(t->pool, dir, v->name, &vol);
	if (v->snapshot[0] && dir != pool_top(t->pool))
		voldir_put(dir);
	if (r)
		fail(t, "looking up '%s/%s': %s", v->snapshot, v->name, strerror(-r));
	r = vol_getattr(vol, &attr);
	if (r || attr.id != v->id)
		fail(t, "'%s/%s' is device %u (%d), not %u", v->snapshot, v->name, attr.id, r, v->id);
	return vol;
}

void
drop_handles(struct property *t)
{
	for (unsigned i = 0; i < MAX_HANDLES; i++) {
		struct handle *h = &t->handles[i];
		struct model_vol *v;

		if (!h->vol)
			continue;
		v = model_find_id(&t->m.now, h->id);
		vol_release(h->vol);
		vol_put(h->vol);
		h->vol = NULL;
		if (v && !v->name[0])
			model_drop(&t->m, v);
	}
}

/* --- comparing --- */

static void
compare_attr(struct property *t, struct vol *vol, const struct model_vol *v)
{
	struct vol_attr attr;
	int r = vol_getattr(vol, &attr);

	if (r)
		fail(t, "getattr of '%s/%s': %s", v->snapshot, v->name, strerror(-r));
	if (attr.size != v->size)
		fail(t, "'%s/%s' has %llu bytes, not %llu", v->snapshot, v->name,
		     (unsigned long long)attr.size, (unsigned long long)v->size);
	if (attr.read_only != v->read_only)
		fail(t, "'%s/%s' is read-only: %d", v->snapshot, v->name, attr.read_only);
	if (attr.deleted != !v->name[0])
		fail(t, "'%s/%s' is deleted: %d", v->snapshot, v->name, attr.deleted);
	/* What is cut off of a volume without a name is taken back with the rest. */
	if (v->name[0] &&
	    attr.mapped_bytes > model_touched(v, t->config.block_pages) * PAGE_SIZE)
		fail(t, "'%s/%s' has %llu bytes mapped, more than the %llu that were touched",
		     v->snapshot, v->name, (unsigned long long)attr.mapped_bytes,
		     (unsigned long long)model_touched(v, t->config.block_pages) * PAGE_SIZE);
}

/* All of a volume that can be anything but zeros to BUF. */
static uint64_t
read_whole(struct property *t, struct vol *vol, const struct model_vol *v, uint8_t *buf)
{
	uint64_t len = v->size < MODEL_BYTES ? v->size : MODEL_BYTES;
	ssize_t n = vol_read(vol, buf, MODEL_BYTES, 0);

	if (n < 0 || (uint64_t)n != len)
		fail(t, "reading '%s/%s': %zd, not %llu", v->snapshot, v->name, n,
		     (unsigned long long)len);
	return len;
}

static void
differ(struct property *t, const struct model_vol *v, const uint8_t *is, const uint8_t *should,
       uint64_t len)
{
	uint64_t i = 0;

	while (i < len && is[i] == should[i])
		i++;
	fail(t, "'%s/%s' (device %u, %llu bytes) has %02x at %llu (block %llu), not %02x", v->snapshot,
	     v->name, v->id, (unsigned long long)v->size, is[i], (unsigned long long)i,
	     (unsigned long long)(i / PAGE_SIZE / t->config.block_pages), should[i]);
}

void
compare_vol(struct property *t, const struct model_vol *v)
{
	struct vol *vol = lookup(t, v);
	uint64_t len;

	compare_attr(t, vol, v);
	len = read_whole(t, vol, v, t->buf);
	model_read(v, t->other, len, 0);
	if (memcmp(t->buf, t->other, len))
		differ(t, v, t->buf, t->other, len);
	vol_put(vol);
}

/* Count what DIR lists, each of which the model must know. */
static unsigned
list_dir(struct property *t, struct voldir *dir, const char *snapshot)
{
	char name[POOL_NAME_MAX + 1], where[POOL_NAME_MAX + 1];
	uint64_t cookie = 0;
	struct vol *vol;
	unsigned nr = 0;

	while (!pool_next_volume(t->pool, dir, cookie, &vol, &cookie)) {
		vol_get_name(vol, name, where);
		if (strcmp(where, snapshot) || !model_find(&t->m.now, snapshot, name))
			fail(t, "'%s/%s' is listed in '%s'", where, name, snapshot);
		vol_put(vol);
		nr++;
	}
	return nr;
}

static void
compare_names(struct property *t)
{
	unsigned nr = list_dir(t, pool_top(t->pool), ""), nr_dirs = 0, named = 0;
	char name[POOL_NAME_MAX + 1];
	struct voldir *dir;
	uint64_t cookie = 0;

	while (!pool_next_snapshot(t->pool, cookie, &dir, &cookie)) {
		voldir_get_name(dir, name);
		if (!model_has_dir(&t->m.now, name))
			fail(t, "there is a snapshot '%s'", name);
		nr += list_dir(t, dir, name);
		nr_dirs++;
		voldir_put(dir);
	}
	for (unsigned i = 0; i < t->m.now.nr_vols; i++)
		named += t->m.now.vols[i]->name[0] != '\0';
	if (nr != named || nr_dirs != t->m.now.nr_dirs)
		fail(t, "%u volumes in %u snapshots are listed, not %u in %u", nr, nr_dirs, named,
		     t->m.now.nr_dirs);
}

void
compare_all(struct property *t)
{
	compare_names(t);
	for (unsigned i = 0; i < t->m.now.nr_vols; i++)
		compare_vol(t, t->m.now.vols[i]);
}

static void
check_zeros(struct property *t, const struct model_vol *v, uint64_t from, uint64_t to)
{
	if (to > MODEL_BYTES)
		to = MODEL_BYTES;
	if (from >= to)
		return;
	model_read(v, t->buf, to - from, from);
	if (t->buf[0] || memcmp(t->buf, t->buf + 1, to - from - 1))
		fail(t, "there is data in the hole from %llu to %llu", (unsigned long long)from,
		     (unsigned long long)to);
}

static bool
block_touched(const struct property *t, const struct model_vol *v, uint64_t at)
{
	uint64_t first = at / PAGE_SIZE / t->config.block_pages * t->config.block_pages;
	bool touched = false;

	for (uint64_t i = first; i < first + t->config.block_pages && i < MODEL_PAGES; i++)
		touched |= v->touched[i] || i * PAGE_SIZE < v->over;
	return touched;
}

void
compare_seek(struct property *t, const struct model_vol *v, uint64_t at)
{
	struct vol *vol = lookup(t, v);
	off_t data = vol_seek(vol, (off_t)at, SEEK_DATA);
	off_t hole = vol_seek(vol, (off_t)at, SEEK_HOLE);
	off_t end = vol_seek(vol, (off_t)v->size, SEEK_DATA);

	vol_put(vol);
	if (end != -ENXIO)
		fail(t, "data at the end");
	if (data == -ENXIO)
		data = (off_t)v->size;
	if (data < (off_t)at || data > (off_t)v->size || hole < (off_t)at || hole > (off_t)v->size ||
	    (data == (off_t)at) == (hole == (off_t)at))
		fail(t, "data at %lld, hole at %lld", (long long)data, (long long)hole);
	check_zeros(t, v, at, (uint64_t)data);
	for (uint64_t i = at; v->name[0] && i < (uint64_t)hole; i += PAGE_SIZE)
		if (!block_touched(t, v, i))
			fail(t, "data at %llu, where nothing was written", (unsigned long long)i);
}

/* Make the model's content of V what BUF says. */
static void
take_content(struct property *t, struct model_vol *v, const uint8_t *buf, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += PAGE_SIZE) {
		uint64_t n = len - at < PAGE_SIZE ? len - at : PAGE_SIZE;

		model_read(v, t->other, n, at);
		if (memcmp(t->other, buf + at, n))
			model_write(&t->m, v, buf + at, n, at);
	}
}

void
adopt_partial(struct property *t, struct model_vol *v, const struct model_vol *before)
{
	uint64_t low = v->size < before->size ? v->size : before->size;
	uint64_t high = v->size < before->size ? before->size : v->size;
	struct vol *vol = lookup(t, v);
	struct vol_attr attr;
	uint64_t len;
	static uint8_t was[MODEL_SECTOR], is[MODEL_SECTOR];

	if (vol_getattr(vol, &attr) || attr.size < low || attr.size > high)
		fail(t, "the size is %llu", (unsigned long long)attr.size);
	if (attr.size < v->size)
		model_truncate(&t->m, v, attr.size, t->config.block_pages);
	v->size = attr.size;
	for (unsigned i = 0; i < MODEL_PAGES; i++)
		v->touched[i] |= before->touched[i];
	len = read_whole(t, vol, v, t->buf);
	for (uint64_t at = 0; at < len; at += MODEL_SECTOR) {
		uint64_t n = len - at < MODEL_SECTOR ? len - at : MODEL_SECTOR;

		model_read(before, was, n, at);
		model_read(v, is, n, at);
		if (memcmp(t->buf + at, was, n) && memcmp(t->buf + at, is, n))
			fail(t, "after a failure, the sector at %llu is neither old nor new",
			     (unsigned long long)at);
	}
	take_content(t, v, t->buf, len);
	vol_put(vol);
}

void
property_audit(struct property *t)
{
	if (!audit_image(t->meta.inner, AUDIT_ALL))
		fail(t, "the metadata are not clean");
}

/* --- committing, and going back --- */

void
note_commits(struct property *t)
{
	if (t->meta.nr_flushes != t->nr_flushes)
		do_commit(t);
}

void
do_commit(struct property *t)
{
	int r = pool_sync_wait(t->pool, NULL);

	if (r)
		fail(t, "commit: %s", strerror(-r));
	model_commit(&t->m);
	t->nr_flushes = t->meta.nr_flushes;
}

/* The volume must be durable then; whether the rest is shows by a flush of the metadata. */
void
do_sync_one(struct property *t, struct model_vol *v)
{
	struct vol *vol = lookup(t, v);
	struct model_vol *old;
	int r = pool_sync_wait(t->pool, vol);

	vol_put(vol);
	if (r)
		fail(t, "sync: %s", strerror(-r));
	if (t->meta.nr_flushes != t->nr_flushes) {
		model_commit(&t->m);
		t->nr_flushes = t->meta.nr_flushes;
		return;
	}
	old = model_find_id(&t->m.committed, v->id);
	if (!old || old->size != v->size || strcmp(old->name, v->name) ||
	    strcmp(old->snapshot, v->snapshot))
		fail(t, "a sync without a commit, though the volume has changed");
	for (unsigned i = 0; i < t->m.committed.nr_vols; i++)
		if (t->m.committed.vols[i] == old)
			t->m.committed.vols[i] = model_vol_copy(v);
	model_vol_free(old);
}

/* The pool is back at the last commit: take its contents into the model, if they may be so. */
static void
adopt_committed(struct property *t)
{
	struct model *m = &t->m;

	model_revert(m);
	for (unsigned i = m->now.nr_vols; i-- > 0;) {
		struct model_vol *v = m->now.vols[i];
		bool open = false;

		for (unsigned j = 0; j < MAX_HANDLES; j++)
			open |= t->handles[j].vol && t->handles[j].id == v->id;
		if (!v->name[0] && !open)
			model_drop(m, v);
	}
	compare_names(t);
	for (unsigned i = 0; i < m->now.nr_vols; i++) {
		struct model_vol *v = m->now.vols[i];
		struct vol *vol = lookup(t, v);
		uint64_t len;

		compare_attr(t, vol, v);
		len = read_whole(t, vol, v, t->buf);
		for (uint64_t at = 0; at < len; at += MODEL_SECTOR) {
			uint64_t n = len - at < MODEL_SECTOR ? len - at : MODEL_SECTOR;

			if (!model_may_hold(m, v, at, t->buf + at, n))
				fail(t, "'%s/%s' (device %u) has a sector at %llu that was never there "
				     "since the last commit", v->snapshot, v->name, v->id,
				     (unsigned long long)at);
		}
		vol_put(vol);
		take_content(t, v, t->buf, len);
	}
	model_commit(m);
	t->nr_flushes = t->meta.nr_flushes;
}

/* After an abort: those whose volume was made after the last commit. */
static void
drop_stale_handles(struct property *t)
{
	for (unsigned i = 0; i < MAX_HANDLES; i++) {
		struct handle *h = &t->handles[i];
		uint8_t byte;
		ssize_t n;

		if (!h->vol || model_find_id(&t->m.committed, h->id))
			continue;
		n = vol_read(h->vol, &byte, 1, 0);
		if (n != 0 && n != -ESTALE)
			fail(t, "a volume that is gone answers a read by %zd", n);
		n = vol_write(h->vol, &byte, 1, 0);
		if (n != -ESTALE && n != -EROFS)
			fail(t, "a volume that is gone answers a write by %zd", n);
		vol_release(h->vol);
		vol_put(h->vol);
		h->vol = NULL;
	}
}

void
do_abort(struct property *t)
{
	int r = pool_abort(t->pool);

	if (r)
		fail(t, "abort: %s", strerror(-r));
	drop_stale_handles(t);
	adopt_committed(t);
}

void
do_remount(struct property *t)
{
	drop_handles(t);
	if (pool_close(t->pool))
		fail(t, "closing failed");
	model_commit(&t->m);
	open_pool(t);
	compare_all(t);
}

/* As if power was lost: what is in the images now is what there is afterwards. */
void
do_crash(struct property *t)
{
	uint64_t data_size, meta_size;
	char *data = kept_image_copy(&t->data, &data_size);
	char *meta = kept_image_copy(&t->meta, &meta_size);

	drop_handles(t);
	if (pool_close(t->pool))
		fail(t, "closing failed");
	kept_image_restore(&t->data, data, data_size);
	kept_image_restore(&t->meta, meta, meta_size);
	free(data);
	free(meta);
	open_pool(t);
	adopt_committed(t);
}
