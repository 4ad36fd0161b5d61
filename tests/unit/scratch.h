/* SPDX-License-Identifier: GPL-2.0-or-later */
/* scratch: where tests have their files: below TMPDIR of the environment, or /tmp. */
#ifndef THINFS_TESTS_SCRATCH_H
#define THINFS_TESTS_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>

/* In PATH, the template of a name for mkstemp() or mkdtemp(), which says that it is for WHAT. */
static inline void
scratch_template(char *path, size_t size, const char *what)
{
	const char *dir = getenv("TMPDIR");
	int len = snprintf(path, size, "%s/thinfs-%s.XXXXXX", dir && *dir ? dir : "/tmp", what);

	if (len < 0 || (size_t)len >= size) {
		fprintf(stderr, "TMPDIR is too long a name\n");
		abort();
	}
}

#endif
