/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * buf: buffers for copying data blocks, kept for the next one that needs one; freeing and
 * allocating a megabyte anew costs more in page faults than copying it.
 */
#include <config.h>

#include <stdlib.h>

#include "pool/pool_internal.h"

struct io_buf {
	struct io_buf *next;
};

const uint8_t zeros[IO_BUF_SIZE];

void *
buf_get(struct pool *p)
{
	struct io_buf *b;

	mutex_lock(&p->buf_lock);
	b = p->bufs;
	if (b)
		p->bufs = b->next;
	mutex_unlock(&p->buf_lock);
	return b ? (void *)b : aligned_alloc(4096, IO_BUF_SIZE);
}

void
buf_put(struct pool *p, void *buf)
{
	struct io_buf *b = buf;

	if (!b)
		return;
	mutex_lock(&p->buf_lock);
	b->next = p->bufs;
	p->bufs = b;
	mutex_unlock(&p->buf_lock);
}

void
buf_free_all(struct pool *p)
{
	struct io_buf *b;

	while ((b = p->bufs)) {
		p->bufs = b->next;
		free(b);
	}
}
