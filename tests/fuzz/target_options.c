/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The text after -o; a newline begins that of another -o.
 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/common.h"
#include "cmd/mount_options.h"
#include "fuzz/fuzz.h"
#include "util/minmax.h"

#define TEXT_MAX 1024U

static void
check(const struct mount_option_text *o)
{
	const struct mount_options *m = &o->options;

	if (m->kernel_options != o->kernel || !memchr(o->kernel, 0, sizeof(o->kernel)))
		fuzz_fail("the kernel's options have no end");
	if (m->threads > 1024 || m->pool.commit_interval_ms > 3600999 ||
	    m->pool.metadata_cache_bytes < 1U << 20)
		fuzz_fail("a value out of its range is taken");
}

static void
run(const uint8_t *data, size_t size)
{
	char name[] = "mount", *argv[] = {name, NULL}, text[TEXT_MAX + 1], *rest = text, *one;
	struct mount_option_text o;

	fuzz_begin();
	size = min_u64(size, TEXT_MAX);
	memcpy(text, data, size);
	text[size] = '\0';
	mount_options_init(&o);
	while ((one = strsep(&rest, "\n")) != NULL) {
		char *exact = strdup(one);
		int r = exact ? mount_options_parse(&o, argv, exact) : 0;

		free(exact);
		if (r != 0 && r != EXIT_USAGE)
			fuzz_fail("%s: %d", one, r);
		if (r)
			break;
		check(&o);
	}
	mount_options_free(&o);
}

const struct fuzz_target fuzz_options = {"options", NULL, run};
