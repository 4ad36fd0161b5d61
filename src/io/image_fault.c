/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "io/image_fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/unflushed.h"

#define SECTOR 512U

struct fault {
	uint64_t count; /* operations tried */
	uint64_t fail_at; /* the count that fails; 0: none */
	int error;
	bool from_then_on;
	unsigned delay_usec;
};

struct image_fault {
	/* Taken in this order. */
	pthread_mutex_t order_lock; /* held across an observed operation and its call */
	pthread_mutex_t lock;

	struct image image;
	struct image *inner; /* const */
	struct fault faults[IMAGE_NR_OPS]; /* lock */
	unsigned short_sectors; /* lock */
	struct unflushed *unflushed; /* order_lock; NULL: nothing is dropped */
	image_observer observer; /* const once threads use it */
	void *observer_arg;
};

static struct image_fault *
to_fault(struct image *img)
{
	return (struct image_fault *)((char *)img - offsetof(struct image_fault, image));
}

/* Count an operation, wait, and say whether it fails. */
static int
begin(struct image_fault *f, enum image_op op)
{
	struct fault *fault = &f->faults[op];
	unsigned delay;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	fault->count++;
	if (fault->fail_at && (fault->count == fault->fail_at ||
			       (fault->count > fault->fail_at && fault->from_then_on)))
		r = -fault->error;
	delay = fault->delay_usec;
	pthread_mutex_unlock(&f->lock);

	if (delay)
		usleep(delay);
	return r;
}

static void
lock_order(struct image_fault *f)
{
	if (f->observer || f->unflushed)
		pthread_mutex_lock(&f->order_lock);
}

/* Between lock_order() and what changes LEN bytes at OFFSET. */
static int
remember(struct image_fault *f, uint64_t offset, uint64_t len)
{
	return f->unflushed ? unflushed_remember(f->unflushed, f->inner, offset, len) : 0;
}

/* The end of what lock_order() began; R is the result. */
static int
finish(struct image_fault *f, int r, const struct image_event *event)
{
	if (f->observer && !r)
		f->observer(f->observer_arg, event);
	if (f->observer || f->unflushed)
		pthread_mutex_unlock(&f->order_lock);
	return r;
}

static int
fault_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct image_fault *f = to_fault(img);
	int r = begin(f, IMAGE_OP_READ);

	return r ? r : image_readv(f->inner, iov, nr_iov, offset);
}

/* The bytes of IOV in one piece, to be freed. */
static void *
join(const struct iovec *iov, int nr_iov, uint64_t *len)
{
	char *data, *p;
	int i;

	*len = 0;
	for (i = 0; i < nr_iov; i++)
		*len += iov[i].iov_len;
	data = p = malloc(*len ? *len : 1);
	for (i = 0; p && i < nr_iov; i++) {
		if (iov[i].iov_len)
			memcpy(p, iov[i].iov_base, iov[i].iov_len);
		p += iov[i].iov_len;
	}
	return data;
}

/* Write the LEN bytes of DATA, and say so. */
static int
write_joined(struct image_fault *f, const void *data, uint64_t len, uint64_t offset)
{
	struct image_event event = {
		.op = IMAGE_OP_WRITE, .offset = offset, .len = len, .data = data};
	int r;

	lock_order(f);
	r = remember(f, offset, len);
	if (!r)
		r = image_write(f->inner, data, len, offset);
	return finish(f, r, &event);
}

/* How much of a write that fails is done: up to the border of a sector, and less than all. */
static uint64_t
short_length(struct image_fault *f, uint64_t offset, uint64_t len)
{
	uint64_t end;

	if (!len)
		return 0;
	pthread_mutex_lock(&f->lock);
	end = offset - offset % SECTOR + (uint64_t)f->short_sectors * SECTOR;
	pthread_mutex_unlock(&f->lock);
	if (end >= offset + len)
		end = (offset + len - 1) / SECTOR * SECTOR;
	return end > offset ? end - offset : 0;
}

static int
fault_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct image_fault *f = to_fault(img);
	int error = begin(f, IMAGE_OP_WRITE), r;
	uint64_t len, part;
	void *data;

	if (!error && !f->observer && !f->unflushed)
		return image_writev(f->inner, iov, nr_iov, offset);
	data = join(iov, nr_iov, &len);
	if (!data)
		return -ENOMEM;
	part = error ? short_length(f, offset, len) : len;
	r = part || !error ? write_joined(f, data, part, offset) : 0;
	free(data);
	return error ? error : r;
}

static int
fault_flush(struct image *img)
{
	struct image_fault *f = to_fault(img);
	struct image_event event = {.op = IMAGE_OP_FLUSH};
	int r = begin(f, IMAGE_OP_FLUSH);

	if (r && !f->unflushed)
		return r;
	lock_order(f);
	if (r)
		unflushed_take_back(f->unflushed, f->inner);
	else
		r = image_flush(f->inner);
	if (!r && f->unflushed)
		unflushed_forget(f->unflushed);
	return finish(f, r, &event);
}

/* What concerns a range without data: FN is done to the image below. */
static int
on_range(struct image *img, enum image_op op, uint64_t offset, uint64_t len,
	 int (*fn)(struct image *img, uint64_t offset, uint64_t len))
{
	struct image_fault *f = to_fault(img);
	struct image_event event = {.op = op, .offset = offset, .len = len};
	int r = begin(f, op);

	if (r)
		return r;
	lock_order(f);
	r = remember(f, offset, len);
	if (!r)
		r = fn(f->inner, offset, len);
	return finish(f, r, &event);
}

static int
fault_punch(struct image *img, uint64_t offset, uint64_t len)
{
	return on_range(img, IMAGE_OP_PUNCH, offset, len, image_punch);
}

/* To whom it fails or is told, it is no different. */
static int
fault_zero(struct image *img, uint64_t offset, uint64_t len)
{
	return on_range(img, IMAGE_OP_PUNCH, offset, len, image_zero_in_place);
}

static int
fault_discard(struct image *img, uint64_t offset, uint64_t len)
{
	return on_range(img, IMAGE_OP_DISCARD, offset, len, image_discard);
}

static bool
fault_is_hole(struct image *img, uint64_t offset, uint64_t len)
{
	return image_is_hole(to_fault(img)->inner, offset, len);
}

static int
fault_allocate(struct image *img, uint64_t offset, uint64_t len)
{
	return image_allocate(to_fault(img)->inner, offset, len);
}

static int
fault_resize(struct image *img, uint64_t size)
{
	struct image_fault *f = to_fault(img);
	struct image_event event = {.op = IMAGE_OP_RESIZE, .offset = size};
	int r = begin(f, IMAGE_OP_RESIZE);

	if (r)
		return r;
	lock_order(f);
	return finish(f, image_resize(f->inner, size), &event);
}

static int
fault_get_size(struct image *img, uint64_t *size)
{
	return image_get_size(to_fault(img)->inner, size);
}

static void
fault_close(struct image *img)
{
	struct image_fault *f = to_fault(img);

	image_close(f->inner);
	unflushed_free(f->unflushed);
	pthread_mutex_destroy(&f->order_lock);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct image_ops fault_ops = {
	.readv = fault_readv,
	.writev = fault_writev,
	.flush = fault_flush,
	.punch = fault_punch,
	.zero = fault_zero,
	.discard = fault_discard,
	.is_hole = fault_is_hole,
	.allocate = fault_allocate,
	.resize = fault_resize,
	.get_size = fault_get_size,
	.close = fault_close,
};

int
image_fault_wrap(struct image *inner, struct image **out)
{
	struct image_fault *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->image = *inner; /* name and kind */
	f->image.ops = &fault_ops;
	f->inner = inner;
	pthread_mutex_init(&f->order_lock, NULL);
	pthread_mutex_init(&f->lock, NULL);
	*out = &f->image;
	return 0;
}

void
image_fault_set(struct image *img, enum image_op op, uint64_t nth, int error, bool from_then_on)
{
	struct image_fault *f = to_fault(img);
	struct fault *fault = &f->faults[op];

	pthread_mutex_lock(&f->lock);
	fault->fail_at = nth ? fault->count + nth : 0;
	fault->error = error;
	fault->from_then_on = from_then_on;
	pthread_mutex_unlock(&f->lock);
}

void
image_fault_clear(struct image *img)
{
	struct image_fault *f = to_fault(img);

	pthread_mutex_lock(&f->lock);
	for (int op = 0; op < IMAGE_NR_OPS; op++) {
		f->faults[op].fail_at = 0;
		f->faults[op].delay_usec = 0;
	}
	f->short_sectors = 0;
	pthread_mutex_unlock(&f->lock);
}

void
image_fault_delay(struct image *img, enum image_op op, unsigned usec)
{
	struct image_fault *f = to_fault(img);

	pthread_mutex_lock(&f->lock);
	f->faults[op].delay_usec = usec;
	pthread_mutex_unlock(&f->lock);
}

void
image_fault_short(struct image *img, unsigned sectors)
{
	struct image_fault *f = to_fault(img);

	pthread_mutex_lock(&f->lock);
	f->short_sectors = sectors;
	pthread_mutex_unlock(&f->lock);
}

int
image_fault_drop_unflushed(struct image *img)
{
	struct image_fault *f = to_fault(img);

	if (!f->unflushed)
		f->unflushed = unflushed_new();
	return f->unflushed ? 0 : -ENOMEM;
}

uint64_t
image_fault_count(struct image *img, enum image_op op)
{
	struct image_fault *f = to_fault(img);
	uint64_t count;

	pthread_mutex_lock(&f->lock);
	count = f->faults[op].count;
	pthread_mutex_unlock(&f->lock);
	return count;
}

void
image_fault_observe(struct image *img, image_observer fn, void *arg)
{
	struct image_fault *f = to_fault(img);

	f->observer = fn;
	f->observer_arg = arg;
}
