/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <string.h>

#include "unit/random.h"
#include "util/crc32c.h"

/* The definition: a bit at a time. */
static uint32_t
crc32c_by_bits(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	for (; len; p++, len--) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0x82F63B78U : crc >> 1;
	}
	return crc;
}

Test(crc32c, known_answer_is_that_of_the_format_sheet)
{
	cr_assert_eq(crc32c_raw(~0U, "123456789", 9), 0x1CF96D7CU);
	cr_assert_eq(crc32c_raw_table(~0U, "123456789", 9), 0x1CF96D7CU);
}

Test(crc32c, published_vectors_of_32_bytes_hold)
{
	uint8_t buf[32];

	/* RFC 3720, appendix B.4; these are inverted at the end. */
	memset(buf, 0, sizeof(buf));
	cr_assert_eq(~crc32c_raw(~0U, buf, 32), 0x8A9136AAU);
	memset(buf, 0xff, sizeof(buf));
	cr_assert_eq(~crc32c_raw(~0U, buf, 32), 0x62A8AB43U);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)i;
	cr_assert_eq(~crc32c_raw(~0U, buf, 32), 0x46DD794EU);
}

Test(crc32c, nothing_changes_nothing)
{
	cr_assert_eq(crc32c_raw(0x12345678U, NULL, 0), 0x12345678U);
	cr_assert_eq(crc32c_raw_table(0x12345678U, NULL, 0), 0x12345678U);
}

Test(crc32c, fast_and_table_agree_with_the_definition_at_every_length_and_alignment)
{
	struct random_source rs = random_start("crc32c");
	uint8_t buf[160];

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)random_u64(&rs);
	for (size_t start = 0; start < 16; start++)
		for (size_t len = 0; len <= sizeof(buf) - start; len++) {
			uint32_t crc = (uint32_t)random_u64(&rs);
			uint32_t want = crc32c_by_bits(crc, buf + start, len);

			cr_assert_eq(crc32c_raw(crc, buf + start, len), want, "%zu+%zu", start, len);
			cr_assert_eq(crc32c_raw_table(crc, buf + start, len), want, "%zu+%zu", start,
				     len);
		}
}

Test(crc32c, parts_one_after_the_other_give_the_whole)
{
	struct random_source rs = random_start("crc32c parts");
	uint8_t buf[4096];

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)random_u64(&rs);
	for (int round = 0; round < 200; round++) {
		size_t cut = random_below(&rs, sizeof(buf) + 1);
		uint32_t first = crc32c_raw(~0U, buf, cut);

		cr_assert_eq(crc32c_raw(first, buf + cut, sizeof(buf) - cut),
			     crc32c_raw(~0U, buf, sizeof(buf)));
	}
}
