/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * runs: a growing list of [start, start + len) ranges of 64-bit numbers.
 *
 * A zeroed struct is an empty list. runs_add() joins a range with the last one where they touch;
 * runs_normalise() sorts and joins everything. No lock inside.
 */
#ifndef THINFS_UTIL_RUNS_H
#define THINFS_UTIL_RUNS_H

#include <stddef.h>
#include <stdint.h>

struct run {
	uint64_t start;
	uint64_t len;
};

struct runs {
	struct run *v;
	size_t nr;
	size_t cap;
	uint64_t total; /* sum of the lengths */
};

/* 0 or -ENOMEM, then nothing has changed. */
int runs_add(struct runs *r, uint64_t start, uint64_t len);
/* Append all of FROM to TO and leave FROM empty. 0 or -ENOMEM, then neither has changed. */
int runs_move(struct runs *to, struct runs *from);
/* Drop all numbers from END on. */
void runs_clip(struct runs *r, uint64_t end);
void runs_normalise(struct runs *r);
void runs_clear(struct runs *r);

#endif
