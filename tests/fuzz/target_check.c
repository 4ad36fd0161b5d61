/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The metadata of a seed with lies in any of its blocks, checked and mended. What the check finds whole, or has
 * mended, must be usable, and still be whole after it was used.
 */
#include <config.h>

#include <errno.h>

#include "fuzz/edits.h"
#include "fuzz/target_meta.h"
#include "pdata/check.h"
#include "pdata/format.h"
#include "pdata/superblock.h"

static uint64_t nr_told;

static void
listen(void *arg, const struct check_problem *p)
{
	(void)arg;
	if (!p->what || !*p->what)
		fuzz_fail("a problem without a text");
	nr_told++;
}

static bool
is_whole(struct seed *s)
{
	struct check_result result;

	if (meta_check(&s->meta->image, NULL, NULL, &result))
		fuzz_fail("the check could not be made");
	return !result.nr_errors && !result.partial && !result.unreadable && !result.leaked_data &&
	       !result.leaked_metadata;
}

static void
run(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct repair_result repair;
	struct superblock sb;
	struct seed *s;
	int r;

	fuzz_begin();
	nr_told = 0;
	s = seeds_get(fuzz_u8(&in));
	edits_apply(s, &in, EDIT_ALL);
	r = meta_repair(&s->meta->image, listen, NULL, &repair);
	if (r == -EUCLEAN)
		fuzz_fail("what was mended is not whole");
	if (fuzz_result(r))
		return;
	if (repair.before.nr_errors && !nr_told)
		fuzz_fail("%llu errors, and nothing is said of them", (unsigned long long)repair.before.nr_errors);
	if (repair.outcome != REPAIR_DONE && repair.outcome != REPAIR_NOTHING_TO_DO)
		return;
	if (!is_whole(s))
		fuzz_fail("what was mended is not whole");
	/* Whole, but the pool is then only read: what is written with such a clock is wrong (trap 1). */
	if (fuzz_result(superblock_read(&s->meta->image, true, &sb)) || sb.time > MAPPING_TIME_MAX)
		return;
	if (target_meta_use(s, &in))
		fuzz_fail("what is whole cannot be used");
	if (!is_whole(s))
		fuzz_fail("it was whole before it was used");
}

const struct fuzz_target fuzz_check = {"check", seeds_load, run};
