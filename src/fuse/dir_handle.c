/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>

#include "fuse/dir_handle.h"

struct dir_handle *
dir_handle_open(struct mount *m, struct inode *inode)
{
	struct dir_handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->inode = inode;
	mutex_init(&h->lock, "a directory handle", LOCK_LEAF);

	mutex_lock(&m->lock);
	h->next = m->dir_handles;
	if (h->next)
		h->next->prev = h;
	m->dir_handles = h;
	mutex_unlock(&m->lock);
	return h;
}

void
dir_handle_close(struct mount *m, struct dir_handle *h)
{
	mutex_lock(&m->lock);
	if (h->next)
		h->next->prev = h->prev;
	if (h->prev)
		h->prev->next = h->next;
	else
		m->dir_handles = h->next;
	mutex_unlock(&m->lock);

	mutex_destroy(&h->lock);
	free(h->text);
	free(h->names);
	free(h->ids);
	free(h);
}

void
dir_handle_close_all(struct mount *m)
{
	while (m->dir_handles)
		dir_handle_close(m, m->dir_handles);
}
