/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An image in anonymous memory: sparse, so that a test may have one of many terabytes.
 */
#include <config.h>

#include "io/image.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct image_memory {
	struct image image;
	char *name; /* const */
	pthread_mutex_t lock;
	char *bytes; /* lock; NULL when empty */
	uint64_t size; /* lock */
};

static struct image_memory *
to_memory(struct image *img)
{
	return (struct image_memory *)img;
}

static uint64_t
round_to_page(uint64_t size)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) / page * page;
}

static bool
in_range_locked(const struct image_memory *m, uint64_t offset, const struct iovec *iov, int nr_iov)
{
	uint64_t left = m->size - offset;

	if (offset > m->size)
		return false;
	for (; nr_iov; nr_iov--, iov++) {
		if (iov->iov_len > left)
			return false;
		left -= iov->iov_len;
	}
	return true;
}

static int
memory_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct image_memory *m = to_memory(img);
	int r = 0;

	pthread_mutex_lock(&m->lock);
	if (!in_range_locked(m, offset, iov, nr_iov))
		r = -EIO;
	for (; !r && nr_iov; nr_iov--, iov++) {
		if (iov->iov_len)
			memcpy(iov->iov_base, m->bytes + offset, iov->iov_len);
		offset += iov->iov_len;
	}
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int
memory_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct image_memory *m = to_memory(img);
	int r = 0;

	pthread_mutex_lock(&m->lock);
	if (!in_range_locked(m, offset, iov, nr_iov))
		r = -EIO;
	for (; !r && nr_iov; nr_iov--, iov++) {
		if (iov->iov_len)
			memcpy(m->bytes + offset, iov->iov_base, iov->iov_len);
		offset += iov->iov_len;
	}
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int
memory_flush(struct image *img)
{
	return 0;
}

static void
zero_locked(struct image_memory *m, uint64_t offset, uint64_t end)
{
	uint64_t begin_page = round_to_page(offset);
	uint64_t end_page = end / round_to_page(1) * round_to_page(1);

	if (begin_page >= end_page) {
		memset(m->bytes + offset, 0, end - offset);
		return;
	}
	memset(m->bytes + offset, 0, begin_page - offset);
	madvise(m->bytes + begin_page, end_page - begin_page, MADV_DONTNEED);
	memset(m->bytes + end_page, 0, end - end_page);
}

static int
memory_punch(struct image *img, uint64_t offset, uint64_t len)
{
	struct image_memory *m = to_memory(img);

	pthread_mutex_lock(&m->lock);
	if (offset < m->size && len)
		zero_locked(m, offset, len < m->size - offset ? offset + len : m->size);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

/* What is zero counts as a hole. */
static bool
memory_is_hole(struct image *img, uint64_t offset, uint64_t len)
{
	struct image_memory *m = to_memory(img);
	bool hole = false;

	pthread_mutex_lock(&m->lock);
	if (len && offset < m->size && len <= m->size - offset)
		hole = !m->bytes[offset] && !memcmp(m->bytes + offset, m->bytes + offset + 1, len - 1);
	pthread_mutex_unlock(&m->lock);
	return hole;
}

static int
resize_locked(struct image_memory *m, uint64_t size)
{
	uint64_t old_len = round_to_page(m->size);
	uint64_t new_len = round_to_page(size);
	void *p = m->bytes;

	if (size > INT64_MAX / 2)
		return -EFBIG;
	if (size < m->size) /* what comes back later must be zeros */
		zero_locked(m, size, m->size);
	if (!new_len) {
		if (old_len)
			munmap(m->bytes, old_len);
		p = NULL;
	} else if (!old_len) {
		p = mmap(NULL, new_len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	} else if (new_len != old_len) {
		p = mremap(m->bytes, old_len, new_len, MREMAP_MAYMOVE);
	}
	if (p == MAP_FAILED)
		return -ENOSPC;
	m->bytes = p;
	m->size = size;
	return 0;
}

static int
memory_resize(struct image *img, uint64_t size)
{
	struct image_memory *m = to_memory(img);
	int r;

	pthread_mutex_lock(&m->lock);
	r = resize_locked(m, size);
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int
memory_get_size(struct image *img, uint64_t *size)
{
	struct image_memory *m = to_memory(img);

	pthread_mutex_lock(&m->lock);
	*size = m->size;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static void
memory_close(struct image *img)
{
	struct image_memory *m = to_memory(img);

	resize_locked(m, 0);
	pthread_mutex_destroy(&m->lock);
	free(m->name);
	free(m);
}

static const struct image_ops memory_ops = {
	.readv = memory_readv,
	.writev = memory_writev,
	.flush = memory_flush,
	.punch = memory_punch,
	.discard = memory_punch,
	.is_hole = memory_is_hole,
	.resize = memory_resize,
	.get_size = memory_get_size,
	.close = memory_close,
};

int
image_open_memory(const char *name, uint64_t size, struct image **out)
{
	struct image_memory *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->name = strdup(name);
	if (!m->name) {
		free(m);
		return -ENOMEM;
	}
	m->image.ops = &memory_ops;
	m->image.name = m->name;
	pthread_mutex_init(&m->lock, NULL);
	r = resize_locked(m, size);
	if (r) {
		memory_close(&m->image);
		return r;
	}
	*out = &m->image;
	return 0;
}
