/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "crash/states.h"

static const uint8_t zero_sector[DISK_SECTOR];

static uint64_t
sector_hash(unsigned disk, uint64_t offset, const uint8_t *data)
{
	uint64_t h = (offset + disk + 1) * 0x9e3779b97f4a7c15ULL;

	for (unsigned i = 0; i < DISK_SECTOR; i += sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, data + i, sizeof(word));
		h = (h ^ word) * 0xbf58476d1ce4e5b9ULL;
		h ^= h >> 29;
	}
	return h;
}

static struct random_source
event_random(const struct cut *c, size_t event)
{
	struct random_source rs = {c->seed ^ (event + 1) * 0x94d049bb133111ebULL};

	random_u64(&rs);
	return rs;
}

/* What sector AT of the piece holds once it is there; OLD: what was there. */
static const uint8_t *
piece_sector(const struct piece *p, uint64_t at, const uint8_t *old, unsigned fate)
{
	static uint8_t garbage[DISK_SECTOR];

	if (p->data)
		return p->data + at;
	if (!p->discard || fate == 0)
		return zero_sector;
	if (fate == 1)
		return old;
	memset(garbage, 0xD5, sizeof(garbage));
	memcpy(garbage, &p->offset, sizeof(p->offset));
	return garbage;
}

/* --- what is sure --- */

static void
make_sure(struct cut *c, unsigned disk, const struct piece *p)
{
	struct medium *m = &c->media[disk];
	struct random_source rs = event_random(c, p->event);
	unsigned fate = (unsigned)random_below(&rs, 3);

	if (p->resize)
		m->shown = p->offset;
	for (uint64_t at = 0; at < p->len; at += DISK_SECTOR) {
		uint8_t *to = m->bytes + p->offset + at;
		const uint8_t *from = piece_sector(p, at, to, fate);

		m->hash ^= sector_hash(disk, p->offset + at, to);
		memmove(to, from, DISK_SECTOR);
		m->hash ^= sector_hash(disk, p->offset + at, to);
	}
}

static void
add_piece(struct medium *m, const struct piece *p)
{
	if (m->nr_pieces == m->cap_pieces) {
		m->cap_pieces = m->cap_pieces ? 2 * m->cap_pieces : 64;
		m->pieces = realloc(m->pieces, m->cap_pieces * sizeof(*m->pieces));
		if (!m->pieces)
			abort();
	}
	m->pieces[m->nr_pieces++] = *p;
}

static bool
covered(const struct medium *m, const struct piece *limbo)
{
	for (size_t i = 0; i < m->nr_pieces; i++) {
		const struct piece *p = &m->pieces[i];

		if (!p->limbo && p->offset <= limbo->offset &&
		    limbo->offset + limbo->len <= p->offset + p->len)
			return true;
	}
	return false;
}

static void
flush(struct cut *c, unsigned disk)
{
	struct medium *m = &c->media[disk];
	size_t left = 0;

	for (size_t i = 0; i < m->nr_pieces; i++)
		if (!m->pieces[i].limbo)
			make_sure(c, disk, &m->pieces[i]);
	for (size_t i = 0; i < m->nr_pieces; i++)
		m->pieces[i].limbo = m->pieces[i].limbo && !covered(m, &m->pieces[i]);
	for (size_t i = 0; i < m->nr_pieces; i++)
		if (m->pieces[i].limbo)
			m->pieces[left++] = m->pieces[i];
	m->nr_pieces = left;
}

/* Each sector on its own from now on. */
static void
flush_failed(struct medium *m)
{
	struct medium new = {0};

	for (size_t i = 0; i < m->nr_pieces; i++) {
		struct piece p = m->pieces[i];

		/* The size is the filesystem's, which does not forget it. */
		if (p.resize)
			add_piece(&new, &p);
		for (uint64_t at = 0; at < m->pieces[i].len; at += DISK_SECTOR) {
			p.offset = m->pieces[i].offset + at;
			p.len = DISK_SECTOR;
			p.data = m->pieces[i].data ? m->pieces[i].data + at : NULL;
			p.limbo = true;
			add_piece(&new, &p);
		}
	}
	free(m->pieces);
	m->pieces = new.pieces;
	m->nr_pieces = new.nr_pieces;
	m->cap_pieces = new.cap_pieces;
}

void
cut_advance(struct cut *c, size_t at)
{
	for (; c->at < at; c->at++) {
		const struct disk_event *e = &c->disks->log[c->at];
		struct medium *m = &c->media[e->disk];
		struct piece p = {.offset = e->offset,
				  .len = e->len,
				  .data = e->data,
				  .discard = e->op == IMAGE_OP_DISCARD,
				  .resize = e->op == IMAGE_OP_RESIZE,
				  .event = c->at};

		if (e->op == IMAGE_OP_FLUSH && e->failed)
			flush_failed(m);
		else if (e->op == IMAGE_OP_FLUSH)
			flush(c, e->disk);
		else
			add_piece(m, &p);
	}
}

/* --- building --- */

static bool
percent(struct random_source *rs, unsigned p)
{
	return p >= 100 || (p && random_below(rs, 100) < p);
}

static void
apply(struct cut *c, unsigned disk, const struct piece *p, bool torn, struct random_source *rs,
      uint64_t *hash)
{
	struct overlay *o = &c->state[disk];
	unsigned fate = (unsigned)random_below(rs, 3);
	unsigned density = torn ? 1 + (unsigned)random_below(rs, 99) : 100;

	if (p->resize)
		o->shown = p->offset;
	for (uint64_t at = 0; at < p->len; at += DISK_SECTOR) {
		uint8_t *to;
		const uint8_t *from;

		if (!percent(rs, density))
			continue;
		to = overlay_change(o, p->offset + at);
		from = piece_sector(p, at, to, fate);
		*hash ^= sector_hash(disk, p->offset + at, to);
		memmove(to, from, DISK_SECTOR);
		*hash ^= sector_hash(disk, p->offset + at, to);
	}
}

uint64_t
cut_build(struct cut *c, const struct choice *choice, struct random_source *rs)
{
	uint64_t hash = 0;

	for (unsigned disk = 0; disk < NR_DISKS; disk++) {
		struct medium *m = &c->media[disk];

		overlay_reset(&c->state[disk]);
		c->state[disk].shown = m->shown;
		hash ^= m->hash;
		for (size_t i = 0; i < m->nr_pieces; i++) {
			const struct piece *p = &m->pieces[i];
			bool super = disk == META_DISK && !p->offset && choice->superblock;

			if (super || percent(rs, choice->keep[disk]))
				apply(c, disk, p, !super && percent(rs, choice->tear), rs, &hash);
		}
		hash ^= (c->state[disk].shown + disk) * 0x94d049bb133111ebULL;
	}
	return hash;
}

void
cut_init(struct cut *c, const struct disks *d, const uint8_t *const bytes[NR_DISKS], uint64_t seed)
{
	*c = (struct cut){.disks = d, .seed = seed};
	for (unsigned i = 0; i < NR_DISKS; i++) {
		struct medium *m = &c->media[i];

		m->size = d->size[i];
		m->shown = d->began[i];
		m->bytes = malloc(m->size);
		if (!m->bytes)
			abort();
		memcpy(m->bytes, bytes[i], m->size);
		for (uint64_t at = 0; at < m->size; at += DISK_SECTOR)
			m->hash ^= sector_hash(i, at, m->bytes + at);
		overlay_init(&c->state[i], d->front[i].image.name, m->bytes, m->size);
	}
}

void
cut_free(struct cut *c)
{
	for (unsigned i = 0; i < NR_DISKS; i++) {
		overlay_free(&c->state[i]);
		free(c->media[i].bytes);
		free(c->media[i].pieces);
	}
}
