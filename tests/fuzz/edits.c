/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "fuzz/edits.h"
#include "pdata/btree_node.h"
#include "pdata/format.h"
#include "pdata/sm_chunk.h"
#include "pool/catalog_record.h"
#include "util/crc32c.h"

#define MAX_EDITS 12U
#define WORDS (METADATA_BLOCK_SIZE / sizeof(struct le64))

/* --- choosing --- */

static bool
choose_block(struct seed *s, struct fuzz_input *in, unsigned classes, enum seed_class *class, uint64_t *nr)
{
	unsigned pick = fuzz_u8(in), index = fuzz_u8(in);

	for (unsigned i = 0; i < SEED_CLASSES; i++) {
		*class = (pick + i) % SEED_CLASSES;
		if (!(classes & EDIT(*class)) || !s->blocks[*class].nr)
			continue;
		*nr = s->blocks[*class].v[index % s->blocks[*class].nr];
		return true;
	}
	return false;
}

uint64_t
edits_number(struct seed *s, struct fuzz_input *in, uint64_t truth)
{
	enum seed_class class;
	uint64_t nr;

	switch (fuzz_u8(in) % 8) {
	case 0:
		return truth + (uint64_t)(int64_t)(int8_t)fuzz_u8(in);
	case 1:
		return fuzz_u16(in);
	case 2:
		return choose_block(s, in, EDIT_ALL, &class, &nr) ? nr : 0;
	case 3: /* at the end of the device */
		return s->meta->nr_pages + (uint64_t)(int64_t)(int8_t)fuzz_u8(in);
	case 4: /* a mapping */
		return (uint64_t)fuzz_u32(in) << MAPPING_TIME_BITS | (truth & MAPPING_TIME_MAX);
	case 5:
		return truth ^ 1ULL << fuzz_u8(in) % 64;
	case 6:
		return UINT64_MAX - fuzz_u8(in);
	default:
		return fuzz_u64(in);
	}
}

/* --- one edit --- */

static void
edit_word(struct seed *s, struct fuzz_input *in, uint8_t *page)
{
	struct le64 *words = (struct le64 *)page;
	unsigned at = fuzz_u16(in) % WORDS;

	words[at] = le64_make(edits_number(s, in, le64_get(words[at])));
}

static void
edit_half_word(struct seed *s, struct fuzz_input *in, uint8_t *page)
{
	struct le32 *words = (struct le32 *)page;
	unsigned at = fuzz_u16(in) % (2 * WORDS);

	words[at] = le32_make((uint32_t)edits_number(s, in, le32_get(words[at])));
}

/* The fields that every node has. */
static void
edit_header(struct seed *s, struct fuzz_input *in, uint8_t *page)
{
	struct disk_node *n = (struct disk_node *)page;
	struct le32 *fields[] = {&n->header.flags, &n->nr_entries, &n->max_entries, &n->value_size};
	struct le32 *field = fields[fuzz_u8(in) % 4];

	*field = le32_make((uint32_t)edits_number(s, in, le32_get(*field)));
}

/* Whether N can be handled as a node at all. */
static bool
node_is_sane(const struct disk_node *n)
{
	uint64_t size = le32_get(n->value_size);

	return node_nr(n) <= node_max(n) && size >= 4 && size <= BTREE_MAX_VALUE_SIZE &&
	       sizeof(*n) + node_max(n) * (8 + size) <= METADATA_BLOCK_SIZE;
}

/* Key or value of an entry, or one more entry, or one less. */
static void
edit_entry(struct seed *s, struct fuzz_input *in, uint8_t *page)
{
	struct disk_node *n = (struct disk_node *)page;
	unsigned what = fuzz_u8(in), i = fuzz_u8(in);
	uint8_t value[BTREE_MAX_VALUE_SIZE] = {0};
	struct le64 v;

	if (!node_is_sane(n))
		return;
	if (what % 8 == 0 && !node_is_full(n)) {
		v = le64_make(edits_number(s, in, 0));
		memcpy(value, &v, sizeof(v));
		node_insert(n, i % (node_nr(n) + 1), edits_number(s, in, i), value);
		return;
	}
	if (!node_nr(n))
		return;
	i %= node_nr(n);
	if (what % 8 == 1) {
		node_erase(n, i, 1);
	} else if (what % 8 < 4) {
		node_set_key(n, i, edits_number(s, in, node_key(n, i)));
	} else {
		size_t size = le32_get(n->value_size), len = size < 8 ? size : 8;
		uint8_t *at = (uint8_t *)node_value(n, i) + (what & 8 ? size - len : 0);

		memset(&v, 0, sizeof(v));
		memcpy(&v, at, len);
		v = le64_make(edits_number(s, in, le64_get(v)));
		memcpy(at, &v, len);
	}
}

/* The count of a block, 0 to 3, most likely of one that is in use. */
static void
edit_bitmap(struct seed *s, struct fuzz_input *in, uint8_t *page)
{
	struct disk_bitmap *b = (struct disk_bitmap *)page;
	unsigned count = fuzz_u8(in), entry = (unsigned)(edits_number(s, in, 0) % BITMAP_ENTRIES);
	unsigned shift = 2 * (entry % 32);
	uint64_t word = le64_get(b->words[entry / 32]);

	word = (word & ~(3ULL << shift)) | (uint64_t)(count & 3) << shift;
	b->words[entry / 32] = le64_make(word);
	if (count & 0x40) /* all of a stretch */
		memset(&b->words[entry / 32], count & 0x80 ? 0xff : 0, 8);
}

static void
copy_other_block(struct seed *s, struct fuzz_input *in, uint8_t *page)
{
	enum seed_class class;
	uint64_t nr;

	if (choose_block(s, in, EDIT_ALL, &class, &nr))
		memmove(page, cow_look(s->meta, nr), METADATA_BLOCK_SIZE);
}

/* The superblock's fields all lie at its beginning. */
static void
edit_superblock(struct seed *s, struct fuzz_input *in, uint8_t *page)
{
	static const size_t fields[] = {
		offsetof(struct disk_superblock, held_root),
		offsetof(struct disk_superblock, data_mapping_root),
		offsetof(struct disk_superblock, device_details_root),
		offsetof(struct disk_superblock, trans_id),
		offsetof(struct disk_superblock, data_sm_root.nr_blocks),
		offsetof(struct disk_superblock, data_sm_root.nr_allocated),
		offsetof(struct disk_superblock, data_sm_root.bitmap_root),
		offsetof(struct disk_superblock, data_sm_root.ref_count_root),
		offsetof(struct disk_superblock, metadata_sm_root.nr_blocks),
		offsetof(struct disk_superblock, metadata_sm_root.nr_allocated),
		offsetof(struct disk_superblock, metadata_sm_root.bitmap_root),
		offsetof(struct disk_superblock, metadata_sm_root.ref_count_root),
	};
	const size_t nr_fields = sizeof(fields) / sizeof(fields[0]);
	struct disk_superblock *sb = (struct disk_superblock *)page;
	unsigned which = fuzz_u8(in) % (nr_fields + 2);
	struct le64 v;

	if (which < nr_fields) {
		memcpy(&v, page + fields[which], sizeof(v));
		v = le64_make(edits_number(s, in, le64_get(v)));
		memcpy(page + fields[which], &v, sizeof(v));
	} else if (which & 1) {
		sb->time = le32_make((uint32_t)edits_number(s, in, le32_get(sb->time)));
	} else {
		sb->header.flags = le32_make(fuzz_u8(in) & 1);
	}
}

static void
edit_by_class(struct seed *s, struct fuzz_input *in, enum seed_class class, uint8_t *page)
{
	switch (seed_block_type(class)) {
	case BLOCK_SUPERBLOCK:
		edit_superblock(s, in, page);
		break;
	case BLOCK_BITMAP:
		edit_bitmap(s, in, page);
		break;
	case BLOCK_INDEX: {
		struct le64 *entry = (struct le64 *)page + 2 + 2 * (fuzz_u8(in) % 4);

		*entry = le64_make(edits_number(s, in, le64_get(*entry)));
		break;
	}
	default:
		edit_entry(s, in, page);
	}
}

/* --- all --- */

static void
apply_one(struct seed *s, struct fuzz_input *in, unsigned classes)
{
	unsigned kind = fuzz_u8(in);
	enum seed_class class;
	enum block_type type;
	uint64_t nr, said;
	uint8_t *page;

	if (!choose_block(s, in, classes, &class, &nr))
		return;
	page = cow_touch(s->meta, nr);
	if (!page)
		return;
	type = seed_block_type(class);
	said = nr;
	switch (kind % 16) {
	case 0:
		edit_word(s, in, page);
		break;
	case 1:
		edit_half_word(s, in, page);
		break;
	case 2:
		edit_header(s, in, page);
		break;
	case 3:
		copy_other_block(s, in, page);
		break;
	case 4: /* now and then it is another block, or of another kind */
		said = edits_number(s, in, nr);
		break;
	case 5:
		type = (enum block_type)(fuzz_u8(in) % 4);
		break;
	case 6: /* a wrong checksum */
		page[fuzz_u16(in) % METADATA_BLOCK_SIZE] ^= fuzz_u8(in);
		return;
	default:
		edit_by_class(s, in, class, page);
	}
	block_seal(said, type, page);
}

void
edits_apply(struct seed *s, struct fuzz_input *in, unsigned classes)
{
	unsigned nr = fuzz_u8(in) % MAX_EDITS;

	for (unsigned i = 0; i < nr && in->left; i++)
		apply_one(s, in, classes);
}

static void
edit_record(struct seed *s, struct fuzz_input *in, uint8_t *record)
{
	/* Words of 4 bytes, up to the end of the names. */
	struct le32 *words = (struct le32 *)record;
	unsigned at = fuzz_u8(in), n;
	struct le32 csum;

	switch (fuzz_u8(in) % 4) {
	case 0:
		words[at % 162] = le32_make((uint32_t)edits_number(s, in, le32_get(words[at % 162])));
		break;
	case 1: /* flags */
		words[5] = le32_make(fuzz_u8(in));
		break;
	case 2: /* a name */
		n = fuzz_u8(in) % 8;
		for (unsigned i = 0; i < n; i++)
			record[(at & 1 ? 392 : 136) + i] = fuzz_u8(in);
		break;
	default: /* the name of another one */
		if (s->nr_records)
			memcpy(record + 136, cow_look(s->data, s->records[at % s->nr_records] / COW_PAGE) +
			       s->records[at % s->nr_records] % COW_PAGE + 136, 512);
	}
	csum = le32_make(~crc32c_raw(~0U, record + 4, RECORD_SIZE - 4));
	memcpy(record, &csum, sizeof(csum));
}

void
edits_apply_records(struct seed *s, struct fuzz_input *in)
{
	unsigned nr = fuzz_u8(in) % MAX_EDITS;

	for (unsigned i = 0; i < nr && in->left && s->nr_records; i++) {
		uint64_t place = s->records[fuzz_u8(in) % s->nr_records];
		uint8_t *page = cow_touch(s->data, place / COW_PAGE);

		if (page)
			edit_record(s, in, page + place % COW_PAGE);
	}
}
