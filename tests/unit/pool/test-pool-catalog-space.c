/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records for which there is no space when they are to be committed, in the pool or in the filesystem that the data
 * image lies on: what is committed then is whole, and what is refused has not been done.
 *
 * What would need a thread in the right place at the right time is done by functions that the linker puts between
 * the engine's own (--wrap).
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

#include "io/image_fault.h"
#include "pdata/format.h"
#include "pdata/thin_meta.h"
#include "pool/pool.h"
#include "unit/audit.h"
#include "unit/kept_image.h"
#include "util/msg.h"

#define BLOCK 65536ULL
#define META_BLOCKS 1024U
#define MAX_BLOCKS 8000U
#define PLENTY 1000000U
#define FIRST "v0"
#define OTHER "v40" /* its record is in another block of the catalog: 32 are in one */
#define NR_VOLUMES 41U

struct fixture {
	struct kept_image data, meta; /* over images that fail when told to */
	struct pool *p;
};

static const struct pool_caller caller = {.mode = 0700};

static void
ignore(const char *text)
{
	(void)text;
}

/* --- the filesystem below: the data image is sparse, and what it gives back somebody else takes at once --- */

static struct {
	const struct image_ops *below;
	bool has[MAX_BLOCKS];
	unsigned room; /* blocks that it may get */
} host;

static int
host_provide(uint64_t offset, uint64_t len)
{
	for (uint64_t b = offset / BLOCK; b <= (offset + len - 1) / BLOCK; b++) {
		if (!host.has[b] && !host.room)
			return -ENOSPC;
		host.room -= !host.has[b];
		host.has[b] = true;
	}
	return 0;
}

static int
host_allocate(struct image *img, uint64_t offset, uint64_t len)
{
	(void)img;
	return host_provide(offset, len);
}

static int
host_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	uint64_t len = 0;
	int r;

	for (int i = 0; i < nr_iov; i++)
		len += iov[i].iov_len;
	r = host_provide(offset, len);
	return r ? r : host.below->writev(img, iov, nr_iov, offset);
}

static int
host_discard(struct image *img, uint64_t offset, uint64_t len)
{
	for (uint64_t b = offset / BLOCK; b <= (offset + len - 1) / BLOCK; b++)
		host.has[b] = false;
	return host.below->discard(img, offset, len);
}

/* --- what happens between two steps of the engine --- */

static struct {
	struct vol *change_after_prepare; /* gets another mode, once */
	bool no_reclaimer; /* it has not come to what is queued for it */
	unsigned cut_power_at; /* this many changes from now, with a commit before each; 0: neither */
	struct fixture *f;
} between;

void __real_catalog_prepare(struct pool *p);
void __wrap_catalog_prepare(struct pool *p);
void __real_reclaim_queue(struct vol *v);
void __wrap_reclaim_queue(struct vol *v);
int __real_pool_begin_change(struct pool *p, unsigned paths, unsigned new_devs, enum meta_purpose purpose);
int __wrap_pool_begin_change(struct pool *p, unsigned paths, unsigned new_devs, enum meta_purpose purpose);

static void cut_power(struct fixture *f);

static void
change_mode(struct vol *v)
{
	struct vol_attr attr = {.mode = 0640};

	cr_assert_eq(vol_setattr(v, VOL_SET_MODE, &attr), 0);
}

void
__wrap_catalog_prepare(struct pool *p)
{
	struct vol *v = between.change_after_prepare;

	__real_catalog_prepare(p);
	between.change_after_prepare = NULL;
	if (v)
		change_mode(v);
}

void
__wrap_reclaim_queue(struct vol *v)
{
	if (!between.no_reclaimer)
		__real_reclaim_queue(v);
}

int
__wrap_pool_begin_change(struct pool *p, unsigned paths, unsigned new_devs, enum meta_purpose purpose)
{
	if (between.cut_power_at) {
		pool_sync_wait(p, NULL);
		if (!--between.cut_power_at)
			cut_power(between.f);
	}
	return __real_pool_begin_change(p, paths, new_devs, purpose);
}

/* --- pools --- */

static void
make_image(struct kept_image *k, const char *name, uint64_t size)
{
	struct image *memory, *fault;

	cr_assert_eq(image_open_memory(name, size, &memory), 0);
	cr_assert_eq(image_fault_wrap(memory, &fault), 0);
	kept_image_init(k, fault);
}

static void
make_images(struct fixture *f, uint64_t data_blocks)
{
	static struct image_ops ops;

	msg_set_sink(ignore);
	memset(&host, 0, sizeof(host));
	host.room = PLENTY;
	make_image(&f->data, "data", data_blocks * BLOCK);
	make_image(&f->meta, "meta", META_BLOCKS * METADATA_BLOCK_SIZE);
	host.below = f->data.image.ops;
	ops = *host.below;
	ops.allocate = host_allocate;
	ops.writev = host_writev;
	ops.discard = host_discard;
	f->data.image.ops = &ops;
	cr_assert_eq(meta_format(&f->meta.image, 128, data_blocks), 0);
}

static void
open_pool(struct fixture *f)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;

	options.commit_interval_ms = 0; /* no threads */
	options.error_if_no_space = true;
	options.skip_block_zeroing = true;
	cr_assert_eq(pool_open_images(&f->data.image, &f->meta.image, &options, &f->p), 0);
}

static void
close_fixture(struct fixture *f)
{
	host.room = PLENTY;
	cr_assert_eq(pool_close(f->p), 0);
	cr_assert(audit_image(f->meta.inner, AUDIT_ALL));
	kept_image_free(&f->data);
	kept_image_free(&f->meta);
}

static void
cut_power(struct fixture *f)
{
	static const enum image_op ops[] = {IMAGE_OP_WRITE, IMAGE_OP_FLUSH, IMAGE_OP_PUNCH, IMAGE_OP_DISCARD};

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		image_fault_set(f->data.inner, ops[i], 1, EIO, true);
		image_fault_set(f->meta.inner, ops[i], 1, EIO, true);
	}
}

/* The pool as it is when nothing more was written from now on. */
static void
crash(struct fixture *f)
{
	cut_power(f);
	pool_close(f->p);
	image_fault_clear(f->data.inner);
	image_fault_clear(f->meta.inner);
	open_pool(f);
}

static struct vol *
find(struct fixture *f, const char *name)
{
	struct vol *v;

	cr_assert_eq(pool_lookup(f->p, pool_top(f->p), name, &v), 0, "no '%s'", name);
	return v;
}

static struct vol_attr
attr_of(struct fixture *f, const char *name)
{
	struct vol *v = find(f, name);
	struct vol_attr attr;

	cr_assert_eq(vol_getattr(v, &attr), 0);
	vol_put(v);
	return attr;
}

static struct vol *
make_volume(struct fixture *f, const char *name, uint64_t blocks)
{
	struct vol *v;

	cr_assert_eq(pool_create(f->p, pool_top(f->p), name, &caller, &v), 0);
	cr_assert_eq(vol_truncate(v, blocks * BLOCK), 0);
	return v;
}

/* "v0", of one block, "v1", of two, and so on. */
static void
make_volumes(struct fixture *f, unsigned nr)
{
	char name[16];

	for (unsigned i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "v%u", i);
		vol_put(make_volume(f, name, i + 1));
	}
	cr_assert_eq(pool_sync_wait(f->p, NULL), 0);
}

static uint64_t
available(struct fixture *f)
{
	struct pool_status st;

	pool_get_status(f->p, &st);
	return st.data_available;
}

/* Write to V, from block AT on, until LEFT blocks are left that may be written to; where to go on. */
static uint64_t
fill(struct fixture *f, struct vol *v, uint64_t at, uint64_t left)
{
	for (; available(f) > left; at++)
		cr_assert_eq(vol_write(v, "x", 1, at * BLOCK), 1);
	return at;
}

/* Volumes as other software makes them, device 1 and on: mapped, without a record. */
static void
make_devices(struct fixture *f, uint32_t nr, uint64_t blocks)
{
	struct thin_meta *m;

	cr_assert_eq(meta_open(&f->meta.image, 1 << 20, false, &m), 0);
	for (uint32_t id = 1; id <= nr; id++) {
		struct thin_dev *dev;

		cr_assert_eq(meta_create_thin(m, id), 0);
		cr_assert_eq(dev_open(m, id, &dev), 0);
		for (uint64_t i = 0; i < blocks; i++) {
			uint64_t dblock, got;

			cr_assert_eq(meta_reserve_data(m, 0, 1, &dblock, &got), 0);
			cr_assert_eq(dev_insert(dev, i, dblock, 1), 0);
		}
		dev_close(dev);
	}
	cr_assert_eq(meta_commit(m, NULL), 0);
	meta_close(m);
}

/* --- the pool is full --- */

Test(pool_catalog_space, snapshots_of_one_transaction_are_whole_though_a_writer_filled_the_pool)
{
	const unsigned nr_volumes = 100, nr_snapshots = 15;
	struct fixture f;
	struct pool_status st;
	struct vol *w;
	uint64_t at;
	char name[16];

	make_images(&f, 400);
	open_pool(&f);
	make_volumes(&f, nr_volumes - 1);
	w = make_volume(&f, "writer", 1000);
	at = fill(&f, w, 0, 150);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	for (unsigned i = 0; i < nr_snapshots; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		cr_assert_eq(pool_snapshot(f.p, name, &caller), 0);
	}
	cr_assert_gt(fill(&f, w, at, 0), at);
	vol_put(w);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);

	crash(&f);
	pool_get_status(f.p, &st);
	cr_assert_eq(st.nr_volumes, nr_volumes, "%llu volumes", (unsigned long long)st.nr_volumes);
	for (unsigned i = 0; i < nr_snapshots; i++) {
		struct voldir_attr attr;
		struct voldir *d;

		snprintf(name, sizeof(name), "s%u", i);
		cr_assert_eq(pool_lookup_snapshot(f.p, name, &d), 0, "no %s", name);
		voldir_getattr(d, &attr);
		voldir_put(d);
		cr_assert_eq(attr.nr_volumes, nr_volumes, "%s has %llu", name, (unsigned long long)attr.nr_volumes);
	}
	close_fixture(&f);
}

Test(pool_catalog_space, a_truncate_that_is_refused_has_not_changed_the_size)
{
	struct fixture f;
	struct vol *v;

	make_images(&f, 64);
	make_devices(&f, 1, 64); /* no block is left for a catalog */
	open_pool(&f);
	v = find(&f, "thin-1");
	cr_assert_eq(vol_truncate(v, 10 * BLOCK), -ENOSPC);
	vol_put(v);
	cr_assert_eq(attr_of(&f, "thin-1").size, 64 * BLOCK);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	crash(&f);
	cr_assert_eq(attr_of(&f, "thin-1").size, 64 * BLOCK);
	close_fixture(&f);
}

/* --- the filesystem below is full --- */

/* So that free data blocks have no free neighbour: each is reserved for itself. */
static void
fragment(struct fixture *f)
{
	const uint64_t nr = 300;
	struct vol *v = make_volume(f, "fragments", nr);

	for (uint64_t i = 0; i < nr; i++)
		cr_assert_eq(vol_write(v, "x", 1, i * BLOCK), 1);
	cr_assert_eq(pool_sync_wait(f->p, NULL), 0);
	for (uint64_t i = 1; i < nr; i += 2)
		cr_assert_eq(vol_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i * BLOCK, BLOCK), 0);
	cr_assert_eq(pool_sync_wait(f->p, NULL), 0);
	vol_put(v);
}

static int
exchange(struct fixture *f)
{
	cr_assert_eq(pool_rename(f->p, pool_top(f->p), FIRST, pool_top(f->p), OTHER, POOL_RENAME_EXCHANGE), 0);
	return pool_sync_wait(f->p, NULL);
}

Test(pool_catalog_space, an_exchange_is_committed_as_a_whole_or_not_at_all)
{
	struct fixture f;

	make_images(&f, 400);
	open_pool(&f);
	make_volumes(&f, NR_VOLUMES);
	fragment(&f);
	host.room = 1;
	cr_assert_eq(exchange(&f), -ENOSPC);
	crash(&f);
	cr_assert_eq(attr_of(&f, FIRST).size, BLOCK);
	cr_assert_eq(attr_of(&f, OTHER).size, NR_VOLUMES * BLOCK);

	host.room = 2;
	cr_assert_eq(exchange(&f), 0);
	crash(&f);
	cr_assert_eq(attr_of(&f, FIRST).size, NR_VOLUMES * BLOCK);
	cr_assert_eq(attr_of(&f, OTHER).size, BLOCK);
	close_fixture(&f);
}

Test(pool_catalog_space, a_record_that_changes_while_blocks_are_prepared_does_not_fail_the_commit)
{
	struct vol *v, *other;
	struct fixture f;

	make_images(&f, 400);
	open_pool(&f);
	make_volumes(&f, NR_VOLUMES);
	v = find(&f, FIRST);
	other = find(&f, OTHER);
	host.room = 1;
	change_mode(v);
	between.change_after_prepare = other;
	cr_assert_eq(pool_sync_wait(f.p, NULL), -ENOSPC);
	cr_assert_null(between.change_after_prepare);
	cr_assert_eq(pool_get_mode(f.p), POOL_WRITE, "%s", pool_mode_name(pool_get_mode(f.p)));
	vol_put(v);
	vol_put(other);

	host.room = PLENTY;
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	crash(&f);
	cr_assert_eq(attr_of(&f, FIRST).mode, 0640);
	cr_assert_eq(attr_of(&f, OTHER).mode, 0640);
	close_fixture(&f);
}

/* --- removing --- */

/* The reclaimer needs several steps, with a commit, which has no room for the record, before each. */
Test(pool_catalog_space, a_big_volume_that_was_unlinked_does_not_come_back_with_parts_missing)
{
	const uint64_t blocks = 4500;
	bool gone = false;

	for (unsigned at = 1; at <= 4; at++) {
		struct fixture f;
		struct vol *v;

		make_images(&f, blocks + 100);
		open_pool(&f);
		v = make_volume(&f, "big", blocks);
		cr_assert_eq(vol_fallocate(v, FALLOC_FL_KEEP_SIZE, 0, blocks * BLOCK), 0);
		vol_put(v);
		cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
		host.room = 0;
		between.f = &f;
		between.cut_power_at = at;
		pool_unlink(f.p, pool_top(f.p), "big");
		between.cut_power_at = 0;
		pool_sync_wait(f.p, NULL);
		crash(&f);
		gone = pool_lookup(f.p, pool_top(f.p), "big", &v) == -ENOENT;
		if (!gone) {
			vol_put(v);
			cr_assert_eq(attr_of(&f, "big").mapped_bytes, blocks * BLOCK, "power cut at step %u: %llu blocks",
				     at, (unsigned long long)(attr_of(&f, "big").mapped_bytes / BLOCK));
		}
		close_fixture(&f);
	}
	cr_assert(gone); /* there were fewer steps than that */
}

Test(pool_catalog_space, the_removal_of_a_volume_without_a_record_is_durable_after_a_sync)
{
	struct pool_status st;
	struct fixture f;

	make_images(&f, 400);
	make_devices(&f, 2, 100);
	open_pool(&f);
	between.no_reclaimer = true;
	cr_assert_eq(pool_unlink(f.p, pool_top(f.p), "thin-1"), 0);
	cr_assert_eq(pool_sync_wait(f.p, NULL), 0);
	crash(&f);
	pool_get_status(f.p, &st);
	cr_assert_eq(st.nr_volumes, 1, "%llu volumes", (unsigned long long)st.nr_volumes);
	cr_assert_eq(attr_of(&f, "thin-2").mapped_bytes, 100 * BLOCK);
	close_fixture(&f);
}
