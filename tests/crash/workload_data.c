/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <linux/falloc.h>
#include <string.h>

#include "crash/workload_ops.h"

typedef unsigned long long ull;

static uint8_t buf[ORACLE_BYTES];

static void
some_range(struct workload *w, const struct entry *e, uint64_t *offset, uint64_t *len)
{
	static const uint64_t lengths[] = {100, 512, 4096, 20000, 65536, 65536, 131072, 200000};
	uint64_t block = pool_block_bytes(w->pool);

	*offset = below(w, e->size + block < ORACLE_BYTES ? e->size + block : ORACLE_BYTES);
	*len = 1 + below(w, lengths[below(w, 8)]);
	if (below(w, 4) == 0)
		*offset -= *offset % block;
	if (below(w, 5) == 0)
		*len = block;
	if (whole_sectors(w) || below(w, 2)) {
		*offset -= *offset % ORACLE_SECTOR;
		*len += ORACLE_SECTOR - 1 - (*len - 1) % ORACLE_SECTOR;
	}
	if (*len > ORACLE_BYTES - *offset)
		*len = ORACLE_BYTES - *offset;
}

void
op_write(struct workload *w)
{
	uint64_t offset, len;
	struct entry e;
	struct vol *vol;
	ssize_t n;

	if (!choose(w, ANY_WRITABLE, &e))
		return;
	some_range(w, &e, &offset, &len);
	w->tag++;
	for (uint64_t i = 0; i + 8 <= len + 7; i += 8) {
		uint64_t word = w->tag << 48 | (offset + i + 1);

		memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
	}
	trace(w, "write %u %llu+%llu of %llu", e.id, (ull)offset,
	      (ull)len, (ull)e.size);
	vol = lookup(w, &e);
	n = vol ? vol_write(vol, buf, len, offset) : -ENOENT;
	if (vol)
		vol_put(vol);
	if (offset + len > e.size)
		oracle_extend(w->oracle, e.id, e.size);
	oracle_write(w->oracle, e.id, buf, len, offset, n == (ssize_t)len);
	ended(w, n < 0 ? (int)n : 0);
}

void
op_truncate(struct workload *w)
{
	struct entry e;
	struct vol *vol;
	uint64_t size;
	int r;

	if (!choose(w, ANY_WRITABLE, &e))
		return;
	size = below(w, 2) ? below(w, ORACLE_BYTES) : below(w, e.size + 1);
	if (whole_sectors(w))
		size -= size % ORACLE_SECTOR;
	trace(w, "truncate %u %llu to %llu", e.id, (ull)e.size,
	      (ull)size);
	vol = lookup(w, &e);
	r = vol ? vol_truncate(vol, size) : -ENOENT;
	if (vol)
		vol_put(vol);
	/* What a killed daemon may have left behind the end, in the sector that it divides, goes as well. */
	if (size < e.size)
		oracle_write(w->oracle, e.id, NULL, e.size + (ORACLE_SECTOR - e.size % ORACLE_SECTOR) % ORACLE_SECTOR - size,
			     size, !r);
	else
		oracle_extend(w->oracle, e.id, e.size);
	ended(w, r);
}

void
op_fallocate(struct workload *w)
{
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE, FALLOC_FL_KEEP_SIZE, 0};
	int mode = modes[below(w, 5)], r;
	uint64_t offset, len, end;
	struct entry e;
	struct vol *vol;

	if (!choose(w, ANY_WRITABLE, &e))
		return;
	some_range(w, &e, &offset, &len);
	trace(w, "fallocate %u mode %d %llu+%llu of %llu", e.id, mode, (ull)offset,
	      (ull)len, (ull)e.size);
	vol = lookup(w, &e);
	r = vol ? vol_fallocate(vol, mode, offset, len) : -ENOENT;
	if (vol)
		vol_put(vol);
	end = offset + len < e.size ? offset + len : e.size;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + len > e.size)
		oracle_extend(w->oracle, e.id, e.size);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < end)
		oracle_write(w->oracle, e.id, NULL, end - offset, offset, !r);
	ended(w, r);
}


/* Of a whole block or more, often from the start of one to the start of another: then blocks are shared. */
static void
copy_ranges(struct workload *w, const struct entry *from, const struct entry *to, uint64_t *src, uint64_t *dst,
	    uint64_t *len)
{
	uint64_t block = pool_block_bytes(w->pool), unused;

	some_range(w, from, src, len);
	some_range(w, to, dst, &unused);
	if (below(w, 4)) {
		*src -= *src % block;
		*dst -= *dst % block;
		*len = (1 + below(w, 4)) * block;
	}
	if (!below(w, 4)) {
		*src = *dst = 0;
		*len = ORACLE_BYTES;
	}
	if (*len > ORACLE_BYTES - *dst)
		*len = ORACLE_BYTES - *dst;
	*len = *src >= from->size ? 0 : *len < from->size - *src ? *len : from->size - *src;
	if (whole_sectors(w))
		*len -= *len % ORACLE_SECTOR;
}

void
op_copy(struct workload *w)
{
	uint64_t src, dst, len;
	struct entry from, to;
	struct vol *a, *b;
	ssize_t n = -ENOENT;

	if (!choose(w, ANY, &from) || !choose(w, ANY_WRITABLE, &to))
		return;
	copy_ranges(w, &from, &to, &src, &dst, &len);
	if (!len || (from.id == to.id && src < dst + len && dst < src + len))
		return;
	trace(w, "copy %u %llu+%llu of %llu to %u %llu of %llu", from.id, (ull)src, (ull)len,
	      (ull)from.size, to.id, (ull)dst, (ull)to.size);
	a = lookup(w, &from);
	b = lookup(w, &to);
	if (a && b)
		n = vol_copy_range(a, src, b, dst, len);
	if (a)
		vol_put(a);
	if (b)
		vol_put(b);
	if (dst + len > to.size)
		oracle_extend(w->oracle, to.id, to.size);
	oracle_copy(w->oracle, from.id, src, to.id, dst, len, n == (ssize_t)len);
	ended(w, n < 0 ? (int)n : 0);
}
