/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crash/disks.h"

static struct front_image *
to_front(struct image *img)
{
	return (struct front_image *)img;
}

static struct image *
below(struct image *img)
{
	struct front_image *f = to_front(img);

	return f->disks->fault[f->nr];
}

/* --- the log --- */

static struct disk_event *
log_add(struct disks *d, enum disk_nr nr, enum image_op op)
{
	struct disk_event *e;

	if (d->nr_log == d->cap_log) {
		d->cap_log = d->cap_log ? 2 * d->cap_log : 256;
		d->log = realloc(d->log, d->cap_log * sizeof(*d->log));
		if (!d->log)
			abort();
	}
	e = &d->log[d->nr_log++];
	*e = (struct disk_event){.disk = nr, .op = op};
	return e;
}

static void
observe(void *arg, const struct image_event *event)
{
	struct front_image *f = arg;
	struct disk_event *e = log_add(f->disks, f->nr, event->op);
	uint64_t end = event->offset + event->len;

	e->offset = event->offset;
	e->len = event->len;
	if (event->op != IMAGE_OP_WRITE)
		return;
	/* A disk writes whole sectors: with what the cache has around the bytes. */
	e->offset -= e->offset % DISK_SECTOR;
	e->len = (end + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR - e->offset;
	e->data = malloc(e->len);
	if (!e->data || image_read(f->disks->memory[f->nr], e->data, e->len, e->offset))
		abort();
}

/* --- what the pool sees --- */

static bool
is_dead(struct disks *d)
{
	if (d->dies_in && !--d->dies_in)
		d->dead = true;
	return d->dead;
}

static int
front_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	return image_readv(below(img), iov, nr_iov, offset);
}

static int front_flush(struct image *img);

static void
flush_beside(struct disks *d)
{
	d->beside = false;
	d->beside_result = front_flush(&d->front[DATA_DISK].image);
}

/* A write or flush of metadata comes. */
static void
count_beside(struct disks *d)
{
	if (d->beside && !d->beside_in--)
		flush_beside(d);
}

void
disks_flush_begin(struct disks *d, unsigned nr)
{
	d->beside = true;
	d->beside_in = nr;
}

int
disks_flush_end(struct disks *d)
{
	if (d->beside)
		flush_beside(d);
	return d->beside_result;
}

static int
front_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct front_image *f = to_front(img);
	int r;

	if (f->nr == META_DISK)
		count_beside(f->disks);
	r = is_dead(f->disks) || offset >= f->disks->shown[f->nr]
		    ? -EIO : image_writev(below(img), iov, nr_iov, offset);
	if (f->nr == META_DISK) {
		f->disks->superblock_last = offset == 0;
		if (offset == 0)
			disks_settle(f->disks);
	}
	return r;
}

static int
flush_below(struct disks *d, enum disk_nr nr)
{
	int r = image_flush(d->fault[nr]);

	if (r)
		log_add(d, nr, IMAGE_OP_FLUSH)->failed = true;
	return r;
}

static int
front_flush(struct image *img)
{
	struct front_image *f = to_front(img);
	struct disks *d = f->disks;

	if (f->nr == META_DISK)
		count_beside(d);
	if (is_dead(d))
		return -EIO;
	if (f->nr == DATA_DISK && d->mutant == FLUSH_DATA_LATE) {
		d->late = true;
		return 0;
	}
	if (f->nr == META_DISK && d->mutant == FLUSH_META_ONCE && !d->superblock_last)
		return 0;
	return flush_below(d, f->nr);
}

static int
front_punch(struct image *img, uint64_t offset, uint64_t len)
{
	return is_dead(to_front(img)->disks) ? -EIO : image_punch(below(img), offset, len);
}

static int
front_discard(struct image *img, uint64_t offset, uint64_t len)
{
	struct disks *d = to_front(img)->disks;

	if (is_dead(d))
		return -EIO;
	return d->files ? image_punch(below(img), offset, len) : image_discard(below(img), offset, len);
}

static bool
front_is_hole(struct image *img, uint64_t offset, uint64_t len)
{
	return to_front(img)->disks->files && image_is_hole(below(img), offset, len);
}

static int
front_resize(struct image *img, uint64_t size)
{
	struct front_image *f = to_front(img);
	struct disks *d = f->disks;
	int r = 0;

	if (is_dead(d))
		return -EIO;
	if (size > d->size[f->nr])
		return -ENOSPC;
	/* What is cut off reads as zeros when it is back. */
	if (size < d->shown[f->nr])
		r = image_punch(below(img), size, d->shown[f->nr] - size);
	if (r || size == d->shown[f->nr])
		return r;
	d->shown[f->nr] = size;
	log_add(d, f->nr, IMAGE_OP_RESIZE)->offset = size;
	return 0;
}

static int
front_get_size(struct image *img, uint64_t *size)
{
	struct front_image *f = to_front(img);

	*size = f->disks->shown[f->nr];
	return 0;
}

static void
front_close(struct image *img)
{
	(void)img;
}

static const struct image_ops front_ops = {
	.readv = front_readv,
	.writev = front_writev,
	.flush = front_flush,
	.punch = front_punch,
	.discard = front_discard,
	.is_hole = front_is_hole,
	.resize = front_resize,
	.get_size = front_get_size,
	.close = front_close,
};

struct disks *
disks_of(struct image *img)
{
	return img->ops == &front_ops ? to_front(img)->disks : NULL;
}

void
disks_settle(struct disks *d)
{
	if (!d->late)
		return;
	d->late = false;
	flush_below(d, DATA_DISK);
}

/* --- making them --- */

void
disks_open(struct disks *d, const uint8_t *const bytes[NR_DISKS], const uint64_t size[NR_DISKS],
	   const uint64_t shown[NR_DISKS], enum flush_mutant mutant)
{
	static const char *const names[] = {[DATA_DISK] = "data", [META_DISK] = "metadata"};

	*d = (struct disks){.mutant = mutant};
	for (unsigned i = 0; i < NR_DISKS; i++) {
		struct front_image *f = &d->front[i];

		d->size[i] = size[i];
		d->began[i] = d->shown[i] = shown[i];
		if (image_open_memory(names[i], size[i], &d->memory[i]) ||
		    image_write(d->memory[i], bytes[i], size[i], 0) ||
		    image_fault_wrap(d->memory[i], &d->fault[i]))
			abort();
		*f = (struct front_image){
			.image = {.ops = &front_ops, .name = names[i]}, .disks = d, .nr = i};
		image_fault_observe(d->fault[i], observe, f);
	}
}

void
disks_close(struct disks *d)
{
	for (size_t i = 0; i < d->nr_log; i++)
		free(d->log[i].data);
	free(d->log);
	for (unsigned i = 0; i < NR_DISKS; i++)
		image_close(d->fault[i]);
	memset(d, 0, sizeof(*d));
}

void
disks_enlarge(struct disks *d, enum disk_nr nr, uint64_t shown)
{
	if (shown > d->size[nr])
		shown = d->size[nr];
	if (shown <= d->shown[nr])
		return;
	d->shown[nr] = shown;
	log_add(d, nr, IMAGE_OP_RESIZE)->offset = shown;
}

uint8_t *
disks_copy(struct disks *d, enum disk_nr nr)
{
	uint8_t *bytes = malloc(d->size[nr]);

	if (!bytes || image_read(d->memory[nr], bytes, d->size[nr], 0))
		abort();
	return bytes;
}
