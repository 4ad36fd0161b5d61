/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit/pool/model.h"

static const uint8_t zero_page[PAGE_SIZE];

static void *
must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* --- pages --- */

static struct page *
page_get(struct page *p)
{
	if (p)
		p->refs++;
	return p;
}

static void
page_put(struct page *p)
{
	if (p && !--p->refs)
		free(p);
}

static const uint8_t *
page_bytes(const struct page *p)
{
	return p ? p->bytes : zero_page;
}

/* --- volumes --- */

struct model_vol *
model_vol_copy(const struct model_vol *v)
{
	struct model_vol *copy = must(malloc(sizeof(*copy)));

	*copy = *v;
	for (unsigned i = 0; i < MODEL_PAGES; i++)
		page_get(copy->pages[i]);
	return copy;
}

void
model_vol_free(struct model_vol *v)
{
	for (unsigned i = 0; i < MODEL_PAGES; i++)
		page_put(v->pages[i]);
	free(v);
}

/* --- states --- */

static void
state_clear(struct model_state *s)
{
	for (unsigned i = 0; i < s->nr_vols; i++)
		model_vol_free(s->vols[i]);
	s->nr_vols = 0;
	s->nr_dirs = 0;
}

static void
state_copy(struct model_state *to, const struct model_state *from)
{
	state_clear(to);
	*to = *from;
	for (unsigned i = 0; i < to->nr_vols; i++)
		to->vols[i] = model_vol_copy(from->vols[i]);
}

static void
journal_clear(struct model *m)
{
	for (size_t i = 0; i < m->nr_journal; i++)
		page_put(m->journal[i].page);
	m->nr_journal = 0;
}

void
model_commit(struct model *m)
{
	state_copy(&m->committed, &m->now);
	journal_clear(m);
}

void
model_revert(struct model *m)
{
	state_copy(&m->now, &m->committed);
}

void
model_free(struct model *m)
{
	state_clear(&m->now);
	state_clear(&m->committed);
	journal_clear(m);
	free(m->journal);
}

struct model_vol *
model_add(struct model *m, uint32_t id, const char *snapshot, const char *name)
{
	struct model_vol *v = must(calloc(1, sizeof(*v)));

	if (m->now.nr_vols == MODEL_MAX_VOLS)
		abort();
	v->id = id;
	snprintf(v->name, sizeof(v->name), "%s", name);
	snprintf(v->snapshot, sizeof(v->snapshot), "%s", snapshot);
	m->now.vols[m->now.nr_vols++] = v;
	return v;
}

struct model_vol *
model_snapshot(struct model *m, const struct model_vol *v, uint32_t id, const char *dir)
{
	struct model_vol *snap = model_vol_copy(v);

	if (m->now.nr_vols == MODEL_MAX_VOLS)
		abort();
	snap->id = id;
	snap->read_only = true;
	snprintf(snap->snapshot, sizeof(snap->snapshot), "%s", dir);
	m->now.vols[m->now.nr_vols++] = snap;
	return snap;
}

struct model_vol *
model_find(struct model_state *s, const char *snapshot, const char *name)
{
	for (unsigned i = 0; i < s->nr_vols; i++)
		if (!strcmp(s->vols[i]->name, name) && !strcmp(s->vols[i]->snapshot, snapshot))
			return s->vols[i];
	return NULL;
}

struct model_vol *
model_find_id(struct model_state *s, uint32_t id)
{
	for (unsigned i = 0; i < s->nr_vols; i++)
		if (s->vols[i]->id == id)
			return s->vols[i];
	return NULL;
}

void
model_drop(struct model *m, struct model_vol *v)
{
	struct model_state *s = &m->now;

	for (unsigned i = 0; i < s->nr_vols; i++) {
		if (s->vols[i] == v) {
			s->vols[i] = s->vols[--s->nr_vols];
			model_vol_free(v);
			return;
		}
	}
	abort();
}

bool
model_has_dir(const struct model_state *s, const char *name)
{
	for (unsigned i = 0; i < s->nr_dirs; i++)
		if (!strcmp(s->dirs[i].name, name))
			return true;
	return false;
}

void
model_add_dir(struct model *m, const char *name)
{
	struct model_dir *d = &m->now.dirs[m->now.nr_dirs++];

	snprintf(d->name, sizeof(d->name), "%s", name);
}

void
model_drop_dir(struct model *m, const char *name)
{
	struct model_state *s = &m->now;

	for (unsigned i = 0; i < s->nr_dirs; i++) {
		if (!strcmp(s->dirs[i].name, name)) {
			s->dirs[i] = s->dirs[--s->nr_dirs];
			return;
		}
	}
	abort();
}

/* --- contents --- */

/* Page INDEX gets NEW, whose reference is handed over. */
static void
set_page(struct model *m, struct model_vol *v, unsigned index, struct page *new)
{
	page_put(v->pages[index]);
	v->pages[index] = new;
	if (m->nr_journal == m->cap_journal) {
		m->cap_journal = m->cap_journal ? 2 * m->cap_journal : 64;
		m->journal = must(realloc(m->journal, m->cap_journal * sizeof(*m->journal)));
	}
	m->journal[m->nr_journal++] =
		(struct journal_entry){.id = v->id, .index = index, .page = page_get(new)};
}

/* Change LEN bytes of a page. BUF NULL: to zeros. */
static void
change_page(struct model *m, struct model_vol *v, unsigned index, const uint8_t *buf, size_t len,
	    size_t offset)
{
	const struct page *old = v->pages[index];
	struct page *new;

	if (!buf && (!old || len == PAGE_SIZE)) {
		set_page(m, v, index, NULL);
		return;
	}
	new = must(malloc(sizeof(*new)));
	new->refs = 1;
	memcpy(new->bytes, page_bytes(old), PAGE_SIZE);
	if (buf)
		memcpy(new->bytes + offset, buf, len);
	else
		memset(new->bytes + offset, 0, len);
	set_page(m, v, index, new);
}

void
model_write(struct model *m, struct model_vol *v, const uint8_t *buf, uint64_t len, uint64_t offset)
{
	uint64_t end = offset + len;

	if (end > v->size)
		v->size = end;
	while (offset < end && offset < MODEL_BYTES) {
		uint64_t at = offset % PAGE_SIZE;
		uint64_t n = end - offset < PAGE_SIZE - at ? end - offset : PAGE_SIZE - at;

		change_page(m, v, (unsigned)(offset / PAGE_SIZE), buf, n, at);
		buf = buf ? buf + n : NULL;
		offset += n;
	}
}

void
model_assign(struct model *m, struct model_vol *v, const struct model_vol *from)
{
	for (unsigned i = 0; i < MODEL_PAGES; i++)
		set_page(m, v, i, page_get(from->pages[i]));
	memcpy(v->touched, from->touched, sizeof(v->touched));
	v->twins = from->twins;
	v->over = from->over;
	v->size = from->size;
}

void
model_read(const struct model_vol *v, uint8_t *buf, uint64_t len, uint64_t offset)
{
	while (len) {
		uint64_t at = offset % PAGE_SIZE;
		uint64_t n = len < PAGE_SIZE - at ? len : PAGE_SIZE - at;
		const struct page *p =
			offset < MODEL_BYTES ? v->pages[offset / PAGE_SIZE] : NULL;

		memcpy(buf, page_bytes(p) + at, n);
		buf += n;
		offset += n;
		len -= n;
	}
}

void
model_truncate(struct model *m, struct model_vol *v, uint64_t size, unsigned block)
{
	uint64_t cut_block = (uint64_t)block * PAGE_SIZE;

	if (size < v->size) {
		for (unsigned i = 0; i < MODEL_PAGES; i++) {
			uint64_t start = (uint64_t)i * PAGE_SIZE;

			if (start >= size)
				change_page(m, v, i, NULL, PAGE_SIZE, 0);
			else if (start + PAGE_SIZE > size)
				change_page(m, v, i, NULL, start + PAGE_SIZE - size, size - start);
			if (start >= (size + cut_block - 1) / cut_block * cut_block)
				v->touched[i] = false;
		}
	}
	v->size = size;
	if (v->over > size)
		v->over = size;
}

void
model_touch(struct model_vol *v, uint64_t offset, uint64_t len)
{
	for (uint64_t i = offset / PAGE_SIZE; len && i <= (offset + len - 1) / PAGE_SIZE; i++)
		if (i < MODEL_PAGES)
			v->touched[i] = true;
}

uint64_t
model_touched(const struct model_vol *v, unsigned block)
{
	uint64_t nr = 0;

	for (unsigned i = 0; i < MODEL_PAGES; i += block) {
		bool touched = false;

		for (unsigned j = i; j < i + block && j < MODEL_PAGES; j++)
			touched |= v->touched[j];
		nr += touched ? block : 0;
	}
	return nr;
}

/* --- what may be found --- */

static bool
sector_is(const struct page *p, uint64_t at, const uint8_t *data, uint64_t len)
{
	return !memcmp(page_bytes(p) + at, data, len);
}

bool
model_may_hold(const struct model *m, const struct model_vol *v, uint64_t offset, const uint8_t *data,
	       uint64_t len)
{
	uint64_t index = offset / PAGE_SIZE, at = offset % PAGE_SIZE;

	if (index >= MODEL_PAGES)
		return sector_is(NULL, at, data, len);
	if (sector_is(v->pages[index], at, data, len))
		return true;
	for (size_t i = m->nr_journal; i--;)
		if (m->journal[i].id == v->id && m->journal[i].index == index &&
		    sector_is(m->journal[i].page, at, data, len))
			return true;
	return false;
}
