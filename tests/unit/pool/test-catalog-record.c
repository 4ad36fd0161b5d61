/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "pool/catalog_record.h"
#include "unit/random.h"

static const struct record example = {
	.id = 1234567,
	.flags = RECORD_READ_ONLY | RECORD_SHRINKING,
	.mode = 0640,
	.uid = 1000,
	.gid = 4294967294U,
	.parent = 17,
	.size = 1ULL << 61 | 12345,
	.btime_ns = 1700000000123456789,
	.mtime_ns = -5,
	.ctime_ns = INT64_MAX,
	.dir_mode = 01755,
	.dir_uid = 3,
	.dir_gid = 4,
	.dir_btime_ns = 99,
	.name = "a name with spaces, \xc3\xa4, and \n",
	.snapshot = "monday",
	.origin = "/srv/images/base image.img",
	.origin_end = 123456,
	.origin_identity = {.size = 123457, .mtime_ns = 1700000000000000001, .sum = UINT64_MAX - 1},
};

static void
expect_same(const struct record *a, const struct record *b)
{
	cr_assert_eq(a->id, b->id);
	cr_assert_eq(a->flags, b->flags);
	cr_assert_eq(a->mode, b->mode);
	cr_assert_eq(a->uid, b->uid);
	cr_assert_eq(a->gid, b->gid);
	cr_assert_eq(a->parent, b->parent);
	cr_assert_eq(a->size, b->size);
	cr_assert_eq(a->btime_ns, b->btime_ns);
	cr_assert_eq(a->mtime_ns, b->mtime_ns);
	cr_assert_eq(a->ctime_ns, b->ctime_ns);
	cr_assert_eq(a->dir_mode, b->dir_mode);
	cr_assert_eq(a->dir_uid, b->dir_uid);
	cr_assert_eq(a->dir_gid, b->dir_gid);
	cr_assert_eq(a->dir_btime_ns, b->dir_btime_ns);
	cr_assert_str_eq(a->name, b->name);
	cr_assert_str_eq(a->snapshot, b->snapshot);
	cr_assert_str_eq(a->origin, b->origin);
	cr_assert_eq(a->origin_end, b->origin_end);
	cr_assert_eq(a->origin_identity.size, b->origin_identity.size);
	cr_assert_eq(a->origin_identity.mtime_ns, b->origin_identity.mtime_ns);
	cr_assert_eq(a->origin_identity.sum, b->origin_identity.sum);
}

/* With the changes made, and sums that are right. */
static enum record_state
state_of(const struct record *changed)
{
	uint8_t data[RECORD_SIZE];
	struct record r;

	record_encode(changed, data);
	return record_decode(data, changed->id, &r);
}

Test(catalog_record, an_origin_that_cannot_be_is_refused)
{
	struct record r = example;

	cr_assert_eq(state_of(&r), RECORD_GOOD);
	strcpy(r.origin, "srv/relative");
	cr_assert_eq(state_of(&r), RECORD_BAD);
	r = example;
	r.origin_end = r.origin_identity.size + 1;
	cr_assert_eq(state_of(&r), RECORD_BAD);
	r = example;
	r.size = r.origin_end - 1;
	cr_assert_eq(state_of(&r), RECORD_BAD);
	r = example;
	r.origin[0] = '\0';
	cr_assert_eq(state_of(&r), RECORD_BAD);
	r.origin_end = 0;
	memset(&r.origin_identity, 0, sizeof(r.origin_identity));
	cr_assert_eq(state_of(&r), RECORD_GOOD);
}

Test(catalog_record, what_is_encoded_is_decoded)
{
	uint8_t data[RECORD_SIZE];
	struct record r, longest = example;

	record_encode(&example, data);
	cr_assert_eq(record_decode(data, example.id, &r), RECORD_GOOD);
	expect_same(&r, &example);

	memset(longest.name, 'n', RECORD_NAME_SIZE - 1);
	memset(longest.snapshot, 's', RECORD_NAME_SIZE - 1);
	memset(longest.origin, '/', RECORD_ORIGIN_SIZE - 1);
	record_encode(&longest, data);
	cr_assert_eq(record_decode(data, example.id, &r), RECORD_GOOD);
	expect_same(&r, &longest);
}

Test(catalog_record, zeros_are_no_record)
{
	uint8_t data[RECORD_SIZE] = {0};
	struct record r;

	cr_assert_eq(record_decode(data, 0, &r), RECORD_NONE);
	cr_assert_eq(record_decode(data, 5, &r), RECORD_NONE);
	data[RECORD_SIZE - 1] = 1;
	cr_assert_eq(record_decode(data, 5, &r), RECORD_BAD);
}

Test(catalog_record, another_devices_record_is_bad)
{
	uint8_t data[RECORD_SIZE];
	struct record r;

	record_encode(&example, data);
	cr_assert_eq(record_decode(data, example.id + 1, &r), RECORD_BAD);
}

Test(catalog_record, every_changed_bit_is_found)
{
	uint8_t data[RECORD_SIZE];
	struct record r;

	record_encode(&example, data);
	for (unsigned bit = 0; bit < RECORD_SIZE * 8; bit++) {
		data[bit / 8] ^= (uint8_t)(1U << bit % 8);
		cr_assert_eq(record_decode(data, example.id, &r), RECORD_BAD, "bit %u", bit);
		data[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
	for (unsigned i = 0; i < RECORD_SIZE; i++) {
		uint8_t was = data[i];

		data[i] = (uint8_t)~was;
		cr_assert_eq(record_decode(data, example.id, &r), RECORD_BAD, "byte %u", i);
		data[i] = was;
	}
	cr_assert_eq(record_decode(data, example.id, &r), RECORD_GOOD);
}

Test(catalog_record, random_bytes_are_never_a_record)
{
	struct random_source rs = random_start("random_bytes_are_never_a_record");
	uint8_t data[RECORD_SIZE];
	struct record r;

	for (unsigned i = 0; i < 5000; i++) {
		record_encode(&example, data);
		for (unsigned k = (unsigned)random_below(&rs, RECORD_SIZE); k < RECORD_SIZE; k++)
			data[k] = (uint8_t)random_u64(&rs);
		if (record_decode(data, example.id, &r) == RECORD_GOOD)
			expect_same(&r, &example);
	}
}

Test(catalog_record, names_that_a_directory_cannot_have_are_refused)
{
	char name[300];

	cr_assert_eq(name_check("vm1"), 0);
	cr_assert_eq(name_check(".hidden"), 0);
	cr_assert_eq(name_check("..."), 0);
	cr_assert_eq(name_check(""), -EINVAL);
	cr_assert_eq(name_check("."), -EINVAL);
	cr_assert_eq(name_check(".."), -EINVAL);
	cr_assert_eq(name_check("a/b"), -EINVAL);
	memset(name, 'x', sizeof(name));
	name[256] = '\0';
	cr_assert_eq(name_check(name), -ENAMETOOLONG);
	name[255] = '\0';
	cr_assert_eq(name_check(name), 0);
}
