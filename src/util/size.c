/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "util/size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define SIZE_LIMIT INT64_MAX

static const char units[] = "KMGTPE";

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The digits at *TEXT, which is moved behind them. */
static int
parse_digits(const char **text, uint64_t max, uint64_t *value)
{
	const char *p = *text;
	uint64_t v = 0;
	bool overflow = false;

	if (!is_digit(*p))
		return -EINVAL;
	for (; is_digit(*p); p++) {
		unsigned digit = (unsigned)(*p - '0');

		if (v > (max - digit) / 10 || digit > max)
			overflow = true;
		else
			v = v * 10 + digit;
	}
	*text = p;
	*value = v;
	return overflow ? -ERANGE : 0;
}

/* "", "B", "K", "KB", "KiB" and so on, to the end. */
static int
parse_unit(const char *p, unsigned *shift)
{
	const char *unit;

	*shift = 0;
	if (!*p || !strcmp(p, "B"))
		return 0;

	unit = strchr(units, *p & ~0x20);
	if (!unit || !((*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z')))
		return -EINVAL;
	*shift = 10 * (unsigned)(unit - units + 1);
	p++;
	return *p && strcmp(p, "B") && strcmp(p, "iB") ? -EINVAL : 0;
}

/*
 * The NR_DIGITS decimals at DIGITS times 2^SHIFT, which must be whole. Doubled by hand SHIFT times:
 * what is carried out in front are the bits of the result, and nothing may be left behind.
 */
static int
scale_fraction(const char *digits, size_t nr_digits, unsigned shift, uint64_t *bytes)
{
	unsigned char left[60]; /* as many as the highest shift */
	size_t i;

	*bytes = 0;
	while (nr_digits && digits[nr_digits - 1] == '0')
		nr_digits--;
	if (nr_digits > shift) /* each doubling takes at most one digit away */
		return -EINVAL;
	for (i = 0; i < nr_digits; i++)
		left[i] = (unsigned char)(digits[i] - '0');

	for (; shift; shift--) {
		unsigned carry = 0;

		for (i = nr_digits; i--;) {
			carry += 2U * left[i];
			left[i] = carry % 10;
			carry /= 10;
		}
		*bytes = *bytes << 1 | carry;
	}
	for (i = 0; i < nr_digits; i++)
		if (left[i])
			return -EINVAL;
	return 0;
}

int
size_parse(const char *text, uint64_t *bytes)
{
	const char *digits = "";
	size_t nr_digits = 0;
	uint64_t whole, fraction;
	unsigned shift;
	int range, r;

	range = parse_digits(&text, SIZE_LIMIT, &whole);
	if (range == -EINVAL)
		return range;
	if (*text == '.') {
		digits = text + 1;
		nr_digits = strspn(digits, "0123456789");
		if (!nr_digits)
			return -EINVAL;
		text = digits + nr_digits;
	}
	r = parse_unit(text, &shift);
	if (!r)
		r = scale_fraction(digits, nr_digits, shift, &fraction);
	if (r)
		return r;
	if (range || whole > (uint64_t)SIZE_LIMIT >> shift)
		return -ERANGE;

	/* The shifted whole ends in SHIFT zero bits, and the fraction has no more bits than these. */
	*bytes = whole << shift | fraction;
	return 0;
}

int
number_parse(const char *text, uint64_t max, uint64_t *value)
{
	uint64_t v;
	int r = parse_digits(&text, max, &v);

	if (r == -EINVAL || *text)
		return -EINVAL;
	if (!r)
		*value = v;
	return r;
}

/* BYTES in tenths of 2^SHIFT, rounded to nearest, a tie up. */
static uint64_t
tenths(uint64_t bytes, unsigned shift)
{
	uint64_t whole = bytes >> shift;
	uint64_t rest = bytes & ((1ULL << shift) - 1);

	/* rest * 10 would overflow in exabytes; the bits dropped here cannot be seen in a tenth. */
	if (shift > 50) {
		rest >>= shift - 50;
		shift = 50;
	}
	return whole * 10 + ((rest * 10 + (1ULL << shift >> 1)) >> shift);
}

char *
size_format(uint64_t bytes, char *buf, size_t len)
{
	unsigned unit = 0; /* 0: bytes, 1: K */
	uint64_t t;

	while (unit < sizeof(units) - 1 && bytes >> (10 * (unit + 1)))
		unit++;
	t = tenths(bytes, 10 * unit);
	if (t >= 10240 && unit < sizeof(units) - 1) /* 1023.96K is 1M */
		t = tenths(bytes, 10 * ++unit);

	if (!unit)
		snprintf(buf, len, "%" PRIu64, bytes);
	else if (t % 10)
		snprintf(buf, len, "%" PRIu64 ".%u%c", t / 10, (unsigned)(t % 10), units[unit - 1]);
	else
		snprintf(buf, len, "%" PRIu64 "%c", t / 10, units[unit - 1]);
	return buf;
}
