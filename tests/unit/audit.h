/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * audit: what the checkers, thin_check, tests/tools/dm-thin-audit.py and our own (pdata/check.h), say of
 * metadata.
 *
 * What is not installed cannot be asked: a message says so once. Everything else that keeps a
 * checker from answering counts as a bad answer. What they printed goes to stderr when it is bad.
 */
#ifndef THINFS_TESTS_AUDIT_H
#define THINFS_TESTS_AUDIT_H

#include <stdbool.h>

#include "io/image.h"

enum audit_wish {
	AUDIT_CLEAN = 0, /* every count is right */
	AUDIT_EXACT = 1, /* and so are the numbers that nothing depends on (S 6.5) */
	AUDIT_THIN_CHECK = 2, /* thin_check is content as well */
	AUDIT_ALL = AUDIT_EXACT | AUDIT_THIN_CHECK,
};

bool audit_file(const char *path, unsigned wish);
/* Ours alone, which is quick. */
bool audit_check(struct image *meta, unsigned wish);
/* All of them for an open image, all of it, by way of a file. */
bool audit_image(struct image *meta, unsigned wish);

#endif
