/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash/check.h"
#include "pdata/check.h"
#include "unit/audit.h"
#include "util/msg.h"

static const struct pool_caller caller = {.mode = 0644};
static char messages[1024];

static void
keep_message(const char *text)
{
	size_t n = strlen(messages);

	snprintf(messages + n, sizeof(messages) - n, "%s%.200s", n ? "; " : "", text);
}

void
check_mute(void)
{
	msg_set_sink(keep_message);
}

const char *
check_messages(void)
{
	return messages;
}

static bool
problem(struct oracle *o, const char *what, int r)
{
	snprintf(o->problem, sizeof(o->problem), "%s%s%s", what, r ? ": " : "", r ? strerror(-r) : "");
	return false;
}

/* --- the metadata --- */

static void
tell_problem(void *arg, const struct check_problem *p)
{
	struct oracle *o = arg;

	snprintf(o->problem, sizeof(o->problem), "%s block %" PRIu64 ": %.200s",
		 p->of_data ? "data" : "metadata", p->block, p->what);
}

/* Nothing is wrong, and no block is leaked. */
static bool
check_metadata(struct oracle *o, struct image *meta)
{
	struct check_result found;
	int r = meta_check(meta, tell_problem, o, &found);

	if (r)
		return problem(o, "checking the metadata", r);
	return !found.nr_errors && !found.nr_warnings && !found.leaked_metadata && !found.leaked_data;
}

/* As a user would: with nothing else to be mended. */
static bool
clear_needs_check(struct oracle *o, struct image *meta)
{
	struct repair_result done;
	int r = meta_repair(meta, tell_problem, o, &done);

	if (r || done.outcome != REPAIR_DONE)
		return problem(o, "clearing needs_check", r);
	return done.rebuilt_maps ? problem(o, "more than needs_check was wrong", 0) : true;
}

/* --- using it --- */

static int
write_all(struct vol *vol, const void *bytes, size_t len, uint64_t offset)
{
	ssize_t n = vol_write(vol, bytes, len, offset);

	return n < 0 ? (int)n : n == (ssize_t)len ? 0 : -EIO;
}

static int
write_something(struct pool *p, struct vol **out)
{
	uint8_t bytes[5000], back[5000];
	uint64_t cookie = 0;
	struct vol *vol;
	int r = pool_next_volume(p, pool_top(p), 0, &vol, &cookie);

	if (r == -ENOENT)
		r = pool_create(p, pool_top(p), "after", &caller, &vol);
	if (r)
		return r;
	memset(bytes, 0x77, sizeof(bytes));
	*out = vol;
	r = write_all(vol, bytes, sizeof(bytes), 3000);
	if (!r)
		r = pool_snapshot(p, "after", &caller);
	if (!r)
		r = write_all(vol, bytes, 1000, 70000);
	if (!r)
		r = pool_sync_wait(p, vol);
	if (!r && (vol_read(vol, back, sizeof(back), 3000) != sizeof(back) ||
		   memcmp(bytes, back, sizeof(back))))
		r = -EUCLEAN;
	return r;
}

static bool
use(struct oracle *o, struct pool *p)
{
	struct vol *vol = NULL;
	int r = write_something(p, &vol);

	if (vol)
		vol_put(vol);
	/* A pool may have been shrunk to what is in it. */
	if (r == -ENOSPC)
		r = 0;
	if (!r)
		r = pool_sync_wait(p, NULL);
	return r ? problem(o, "using the pool afterwards", r) : true;
}

/* --- the whole --- */

static bool
check_open_pool(struct oracle *o, struct pool *p, size_t at)
{
	if (!oracle_check(o, p, at, false))
		return false;
	return use(o, p);
}

/* The use of the pool changes one volume, so it comes after all else. */
static bool
check_again(struct oracle *o, struct image *data, struct image *meta, size_t at,
	    const struct pool_options *options)
{
	struct pool *p;
	int r = pool_open_images(data, meta, options, &p);
	bool good;

	if (r)
		return problem(o, "opening the pool again", r);
	good = oracle_check(o, p, at, false);
	r = pool_close(p);
	return good && r ? problem(o, "closing the pool again", r) : good;
}

static bool
open_and_check(struct oracle *o, struct image *data, struct image *meta, size_t at, unsigned flags,
	       const struct pool_options *options)
{
	struct pool *p;
	int r = pool_open_images(data, meta, options, &p);
	bool good;

	if (!r && flags & CHECK_MAY_NEED_CHECK && pool_get_mode(p) == POOL_READ_ONLY) {
		good = oracle_check(o, p, at, false);
		r = pool_close(p);
		if (!good)
			return false;
		if (r)
			return problem(o, "closing the pool that needs a check", r);
		if (!clear_needs_check(o, meta))
			return false;
		r = pool_open_images(data, meta, options, &p);
	}
	if (r)
		return problem(o, "opening the pool", r);
	if (pool_get_mode(p) != POOL_WRITE)
		good = problem(o, pool_mode_name(pool_get_mode(p)), 0);
	else
		good = check_open_pool(o, p, at);
	r = pool_close(p);
	return good && r ? problem(o, "closing the pool", r) : good;
}

bool
check_state(struct oracle *o, struct image *data, struct image *meta, size_t at, unsigned flags,
	    const struct pool_options *options)
{
	messages[0] = '\0';
	if (!check_metadata(o, meta))
		return false;
	if (flags & CHECK_AUDIT && !audit_image(meta, AUDIT_THIN_CHECK))
		return problem(o, "the metadata are not clean before", 0);
	if (flags & CHECK_TWICE && !check_again(o, data, meta, at, options))
		return false;
	if (!open_and_check(o, data, meta, at, flags, options) || !check_metadata(o, meta))
		return false;
	if (flags & CHECK_AUDIT && !audit_image(meta, AUDIT_ALL))
		return problem(o, "the metadata are not clean after", 0);
	return true;
}
