/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why what is known stays true: a range is made known first and then the file is asked; a writer first writes and then looks
 * what is known. So who writes at the same time either finds the range and makes it smaller, or has written
 * before the file is asked.
 */
#include <config.h>

#include "io/hole_cache.h"

#include <errno.h>
#include <unistd.h>

#include "util/minmax.h"

/* What is made known while the file is asked: writers within must wait for the answer. */
#define ASK_BYTES (64ULL << 20)

void
hole_cache_init(struct hole_cache *h)
{
	mutex_init(&h->mutex, "the mutex of known holes", LOCK_LEAF);
	h->next = 0;
	for (unsigned i = 0; i < HOLES_KNOWN; i++)
		h->known[i].begin = h->known[i].end = 0;
}

void
hole_cache_destroy(struct hole_cache *h)
{
	mutex_destroy(&h->mutex);
}

static bool
overlaps(struct hole_cache *h, unsigned i, uint64_t offset, uint64_t end)
{
	return offset < atomic_load(&h->known[i].end) && atomic_load(&h->known[i].begin) < end;
}

/* Without [offset, end): of what is before and behind it, the larger part stays. */
static void
cut_locked(struct hole_cache *h, unsigned i, uint64_t offset, uint64_t end)
{
	uint64_t known_begin = h->known[i].begin, known_end = h->known[i].end;
	uint64_t before = offset > known_begin ? offset - known_begin : 0;
	uint64_t behind = known_end > end ? known_end - end : 0;

	if (before > behind)
		atomic_store(&h->known[i].end, offset);
	else
		atomic_store(&h->known[i].begin, min_u64(end, known_end));
}

void
hole_cache_written(struct hole_cache *h, uint64_t offset, uint64_t len)
{
	for (unsigned i = 0; i < HOLES_KNOWN; i++) {
		if (!overlaps(h, i, offset, offset + len))
			continue;
		mutex_lock(&h->mutex);
		if (overlaps(h, i, offset, offset + len))
			cut_locked(h, i, offset, offset + len);
		mutex_unlock(&h->mutex);
	}
}

/* Under the mutex: what is just being learnt is not known yet. */
static bool
is_known_locked(struct hole_cache *h, uint64_t offset, uint64_t end)
{
	for (unsigned i = 0; i < HOLES_KNOWN; i++)
		if (atomic_load(&h->known[i].begin) <= offset && end <= atomic_load(&h->known[i].end))
			return true;
	return false;
}

uint64_t
hole_ask(int fd, uint64_t offset, uint64_t end)
{
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

	if (data >= 0)
		return min_u64(end, (uint64_t)data);
	return errno == ENXIO ? end : offset;
}

/* Make known what is a hole from OFFSET on: up to where. */
static uint64_t
learn_locked(struct hole_cache *h, int fd, uint64_t offset)
{
	unsigned i = h->next++ % HOLES_KNOWN;
	uint64_t end = offset + ASK_BYTES;

	atomic_store(&h->known[i].end, 0);
	atomic_store(&h->known[i].begin, offset);
	atomic_store(&h->known[i].end, end);
	end = hole_ask(fd, offset, end);
	atomic_store(&h->known[i].end, end);
	return end;
}

bool
hole_cache_is_hole(struct hole_cache *h, int fd, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;
	bool is_hole;

	mutex_lock(&h->mutex);
	is_hole = is_known_locked(h, offset, end) || learn_locked(h, fd, offset) >= end;
	mutex_unlock(&h->mutex);
	return is_hole;
}
