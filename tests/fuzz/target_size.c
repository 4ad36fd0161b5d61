/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sizes and numbers as people write them.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "util/minmax.h"
#include "util/size.h"

#define TEXT_MAX 256U

static void
check_format(uint64_t bytes)
{
	char text[32];
	uint64_t back;
	int r;

	size_format(bytes, text, sizeof(text));
	r = size_parse(text, &back);
	/* Tenths may be no whole number of bytes, and the largest are above what a file can have. */
	if (r && r != -EINVAL && r != -ERANGE)
		fuzz_fail("%s: %d", text, r);
	if (bytes < 1024 && (r || back != bytes))
		fuzz_fail("%s is not %llu", text, (unsigned long long)bytes);
}

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint64_t max = fuzz_u64(&in), value;
	char *text, exact[TEXT_MAX + 1];
	int r;

	fuzz_begin();
	check_format(max);
	memcpy(exact, in.p, min_u64(in.left, TEXT_MAX));
	exact[min_u64(in.left, TEXT_MAX)] = '\0';
	/* In memory of its own, so that a byte read behind the end is seen. */
	text = strdup(exact);
	if (!text)
		return;
	r = size_parse(text, &value);
	if (r && r != -EINVAL && r != -ERANGE)
		fuzz_fail("%s: %d", text, r);
	if (!r && value > INT64_MAX)
		fuzz_fail("%s: %llu is too much", text, (unsigned long long)value);
	if (!r)
		check_format(value);
	r = number_parse(text, max, &value);
	if (r && r != -EINVAL && r != -ERANGE)
		fuzz_fail("%s: %d", text, r);
	if (!r && (value > max || value != strtoull(text, NULL, 10)))
		fuzz_fail("%s is not %llu", text, (unsigned long long)value);
	free(text);
}

const struct fuzz_target fuzz_size = {"size", NULL, run};
