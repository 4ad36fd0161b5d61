/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit/random.h"
#include "util/size.h"

#define UNTOUCHED 0xDEADBEEFULL

static void
expect(const char *text, uint64_t want)
{
	uint64_t got = UNTOUCHED;
	int r = size_parse(text, &got);

	cr_assert_eq(r, 0, "\"%s\": %d", text, r);
	cr_assert_eq(got, want, "\"%s\": %llu", text, (unsigned long long)got);
}

static void
expect_error(const char *text, int want)
{
	uint64_t got = UNTOUCHED;
	int r = size_parse(text, &got);

	cr_assert_eq(r, want, "\"%s\": %d", text, r);
	cr_assert_eq(got, UNTOUCHED, "\"%s\" changed the value", text);
}

Test(size_parse, plain_numbers_are_bytes)
{
	expect("0", 0);
	expect("4096", 4096);
	expect("4096B", 4096);
	expect("007", 7);
}

Test(size_parse, suffixes_are_powers_of_1024_in_either_case)
{
	const char *letters = "KMGTPEkmgtpe";
	const char *ends[] = {"", "B", "iB"};

	for (int i = 0; i < 12; i++)
		for (int end = 0; end < 3; end++) {
			char text[16];

			snprintf(text, sizeof(text), "3%c%s", letters[i], ends[end]);
			expect(text, 3ULL << (10 * (i % 6 + 1)));
		}
}

Test(size_parse, fractions_that_are_whole_bytes_are_taken)
{
	expect("1.5T", 1649267441664ULL);
	expect("0.5K", 512);
	expect("1.0", 1);
	expect("2.500G", 2684354560ULL);
	expect("1.0009765625K", 1025);
	expect("0.000000953674316406250000M", 1);
	expect("0.00000000000000000086736173798840354720596224069595336914062500E", 1);
	expect("7.99999999999999999913263826201159645279403775930404663085937500E", INT64_MAX);
}

Test(size_parse, fractions_of_a_byte_are_refused)
{
	expect_error("1.5", -EINVAL);
	expect_error("0.1K", -EINVAL);
	expect_error("1.00048828125K", -EINVAL);
	expect_error("0.3333333333333333333333333333333333333333333333333333333333333333333T", -EINVAL);
}

Test(size_parse, what_is_no_size_is_refused)
{
	const char *bad[] = {"", " 1", "1 ", "+1", "-1", "K", "1X", "1KK", "1Ki", "1KiBB", "1b", "1 K",
			     "1.", ".5K", "1.K", "1..5K", "1e3", "0x10", "1,5K", "1\n", "1kib", "1.5.5K",
			     "1\xCB", "1+"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect_error(bad[i], -EINVAL);
}

Test(size_parse, the_limit_is_2_to_the_63_less_one)
{
	expect("9223372036854775807", INT64_MAX);
	expect_error("9223372036854775808", -ERANGE);
	expect_error("8E", -ERANGE);
	expect("7E", 7ULL << 60);
	expect_error("99999999999999999999999999999999", -ERANGE);
	expect_error("99999999999999999999999999999999x", -EINVAL);
	expect_error("18446744073709551616", -ERANGE);
}

Test(number_parse, only_plain_decimals_up_to_the_bound_are_taken)
{
	uint64_t v = UNTOUCHED;

	cr_assert_eq(number_parse("16777215", 16777215, &v), 0);
	cr_assert_eq(v, 16777215);
	cr_assert_eq(number_parse("16777216", 16777215, &v), -ERANGE);
	cr_assert_eq(number_parse("18446744073709551615", UINT64_MAX, &v), 0);
	cr_assert_eq(v, UINT64_MAX);
	cr_assert_eq(number_parse("18446744073709551616", UINT64_MAX, &v), -ERANGE);
	cr_assert_eq(number_parse("0", 0, &v), 0);
	cr_assert_eq(v, 0);
	cr_assert_eq(number_parse("1", 0, &v), -ERANGE);
	cr_assert_eq(number_parse("5", 3, &v), -ERANGE);
	cr_assert_eq(number_parse("", 9, &v), -EINVAL);
	cr_assert_eq(number_parse("1K", 9, &v), -EINVAL);
	cr_assert_eq(number_parse("-1", 9, &v), -EINVAL);
	cr_assert_eq(v, 0, "errors leave the value alone");
}

static void
expect_format(uint64_t bytes, const char *want)
{
	char buf[32];

	cr_assert_str_eq(size_format(bytes, buf, sizeof(buf)), want);
}

Test(size_format, one_decimal_rounded_to_nearest)
{
	expect_format(0, "0");
	expect_format(1023, "1023");
	expect_format(1024, "1K");
	expect_format(4096, "4K");
	expect_format(1536, "1.5K");
	expect_format(10ULL << 30, "10G");
	expect_format(1649267441664ULL, "1.5T");
	expect_format(1024 + 51, "1K");
	expect_format(1024 + 52, "1.1K");
	expect_format((1ULL << 20) - 1, "1M");
	expect_format((1ULL << 60) - 1, "1E");
	expect_format(INT64_MAX, "8E");
	expect_format(UINT64_MAX, "16E");
}

Test(size_format, what_it_prints_is_within_a_twentieth_of_its_unit)
{
	struct random_source rs = random_start("size_format");

	for (int i = 0; i < 100000; i++) {
		uint64_t bytes = random_u64(&rs) >> (1 + random_below(&rs, 63));
		double unit = 1, off;
		char buf[32], *suffix;

		size_format(bytes, buf, sizeof(buf));
		off = strtod(buf, &suffix);
		if (*suffix)
			unit = (double)(1ULL << 10 * (strchr("KMGTPE", *suffix) - "KMGTPE" + 1));
		off = off * unit - (double)bytes;
		cr_assert((off < 0 ? -off : off) <= unit * 0.0501, "%llu: %s",
			  (unsigned long long)bytes, buf);
	}
}
