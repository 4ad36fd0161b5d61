/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One record of the catalog: a byte, the id it should have, then as much of the record as there is. The byte
 * says what of it is put right.
 */
#include <config.h>

#include <string.h>

#include "fuzz/fuzz.h"
#include "pool/catalog_record.h"
#include "pool/pool.h"
#include "util/crc32c.h"
#include "util/minmax.h"

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t how = fuzz_u8(&in), bytes[RECORD_SIZE] = {0}, again[RECORD_SIZE];
	uint32_t id = how & 1 ? CATALOG_ID : fuzz_u32(&in), version = 1, csum;
	struct record r, back;

	fuzz_begin();
	memcpy(bytes, in.p, min_u64(in.left, sizeof(bytes)));
	if (how & 2) {
		memcpy(bytes + 4, &version, 4);
		memcpy(bytes + 8, "thinfsR1", 8);
		memcpy(bytes + 16, &id, 4);
	}
	if (how & 4) { /* flags */
		memset(bytes + 20, 0, 4);
		bytes[20] = how >> 4;
	}
	if (how & 2) {
		csum = ~crc32c_raw(~0U, bytes + 4, RECORD_SIZE - 4);
		memcpy(bytes, &csum, 4);
	}
	if (record_decode(bytes, id, &r) != RECORD_GOOD)
		return;
	if (r.id != id || r.size > VOL_SIZE_MAX || r.mode & ~07777U ||
	    !memchr(r.name, 0, sizeof(r.name)) || !memchr(r.snapshot, 0, sizeof(r.snapshot)) ||
	    (r.name[0] && name_check(r.name)) || (r.snapshot[0] && name_check(r.snapshot)) ||
	    !memchr(r.origin, 0, sizeof(r.origin)) || (r.origin[0] && r.origin[0] != '/') ||
	    r.origin_end > r.size || r.origin_end > r.origin_identity.size ||
	    (!r.name[0] && !(r.flags & (RECORD_HIDDEN | RECORD_DELETED))))
		fuzz_fail("a bad record is taken for good");
	record_encode(&r, again);
	if (record_decode(again, id, &back) != RECORD_GOOD)
		fuzz_fail("a good record is not good when it is written again");
	if (back.id != r.id || back.flags != r.flags || back.size != r.size || back.mode != r.mode ||
	    back.parent != r.parent || strcmp(back.name, r.name) || strcmp(back.snapshot, r.snapshot) ||
	    strcmp(back.origin, r.origin) || back.origin_end != r.origin_end ||
	    back.origin_identity.sum != r.origin_identity.sum)
		fuzz_fail("a record changes when it is written");
}

const struct fuzz_target fuzz_record = {"record", NULL, run};
