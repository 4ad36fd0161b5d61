/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * check: whether what a power cut left is as it must be, and can be used.
 */
#ifndef THINFS_TESTS_CRASH_CHECK_H
#define THINFS_TESTS_CRASH_CHECK_H

#include "crash/oracle.h"
#include "crash/overlay.h"

enum check_flags {
	CHECK_AUDIT = 1, /* thin_check and dm-thin-audit.py, before and after; slow */
	CHECK_TWICE = 2, /* all contents once more after the pool was used */
	CHECK_MAY_NEED_CHECK = 4, /* the pool may be read-only until needs_check is cleared */
};

/*
 * Open the pool on the two images as they were after a cut before event AT; compare; use it; close
 * it; count. What is wrong is in o->problem.
 */
bool check_state(struct oracle *o, struct image *data, struct image *meta, size_t at,
		 unsigned flags, const struct pool_options *options);

/* Messages of the pool while a state is looked at: the last ones, for when it is bad. */
void check_mute(void);
const char *check_messages(void);

#endif
