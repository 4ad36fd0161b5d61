/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * block_io: how a metadata block proves that it is what it should be (format sheet, S 2).
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "pdata/block_cache.h"
#include "pdata/format.h"
#include "util/crc32c.h"
#include "util/msg.h"

static const struct {
	const char *name;
	uint32_t csum_xor;
} block_types[] = {
	[BLOCK_SUPERBLOCK] = {"superblock", CSUM_XOR_SUPERBLOCK},
	[BLOCK_NODE] = {"btree node", CSUM_XOR_NODE},
	[BLOCK_BITMAP] = {"space map bitmap", CSUM_XOR_BITMAP},
	[BLOCK_INDEX] = {"space map index", CSUM_XOR_INDEX},
};

const char *
block_type_name(enum block_type type)
{
	return block_types[type].name;
}

static uint32_t
block_csum(enum block_type type, const void *data)
{
	return crc32c_raw(~0U, (const uint8_t *)data + 4, METADATA_BLOCK_SIZE - 4) ^
	       block_types[type].csum_xor;
}

void
block_seal(uint64_t nr, enum block_type type, void *data)
{
	struct disk_header *h = data;

	h->blocknr = le64_make(nr);
	h->csum = le32_make(block_csum(type, data));
}

/* What can be said of a node without knowing its tree: S 4.1, and ascending keys. NULL: all well. */
static const char *
node_fault(const struct disk_node *n)
{
	uint32_t flags = le32_get(n->header.flags);
	uint64_t nr = le32_get(n->nr_entries);
	uint64_t max = le32_get(n->max_entries);
	uint64_t value_size = le32_get(n->value_size);

	if (flags != NODE_INTERNAL && flags != NODE_LEAF)
		return "neither an internal node nor a leaf";
	if (value_size == 0 || value_size > METADATA_BLOCK_SIZE ||
	    sizeof(*n) + max * (sizeof(n->keys[0]) + value_size) > METADATA_BLOCK_SIZE)
		return "its entries do not fit in a block";
	if (nr > max)
		return "more entries than it has room for";
	if (flags == NODE_INTERNAL && nr == 0)
		return "an internal node without entries";
	for (uint64_t i = 1; i < nr; i++)
		if (le64_get(n->keys[i]) <= le64_get(n->keys[i - 1]))
			return "its keys are not in ascending order";
	return NULL;
}

const char *
block_fault(uint64_t nr, enum block_type type, const void *data)
{
	const struct disk_header *h = data;

	if (le32_get(h->csum) != block_csum(type, data))
		return "wrong checksum";
	if (le64_get(h->blocknr) != nr)
		return "it says that it is another block";
	return type == BLOCK_NODE ? node_fault(data) : NULL;
}

int
block_verify(const char *image, uint64_t nr, enum block_type type, const void *data)
{
	const char *fault = block_fault(nr, type, data);

	if (!fault)
		return 0;
	msg_error("%s: metadata block %" PRIu64 " (%s) is damaged: %s; check it with 'thinfs check'",
		  image, nr, block_types[type].name, fault);
	return -EUCLEAN;
}

int
block_read_verified(struct image *img, uint64_t nr, enum block_type type, void *data)
{
	int r = image_read(img, data, METADATA_BLOCK_SIZE, nr * METADATA_BLOCK_SIZE);

	if (r) {
		msg_error("%s: reading metadata block %" PRIu64 ": %s", img->name, nr, strerror(-r));
		return r;
	}
	return block_verify(img->name, nr, type, data);
}

int
block_write_sealed(struct image *img, uint64_t nr, enum block_type type, void *data)
{
	block_seal(nr, type, data);
	return image_write(img, data, METADATA_BLOCK_SIZE, nr * METADATA_BLOCK_SIZE);
}
