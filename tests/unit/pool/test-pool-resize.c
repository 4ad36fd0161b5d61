/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Growing and shrinking a pool in use, against the model, with a check of the metadata at each commit: meta_durable() is
 * wrapped for that. What a shrink does to what is shared is in test-pool-shrink.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pdata/thin_meta.h"
#include "unit/audit.h"
#include "unit/pool/property.h"
#include "unit/pool/shrink.h"
#include "util/msg.h"

static struct property *watched; /* whose metadata are checked at each commit */
static unsigned nr_commits;

int __real_meta_durable(struct thin_meta *m, struct runs *freed);
int __wrap_meta_durable(struct thin_meta *m, struct runs *freed);

int
__wrap_meta_durable(struct thin_meta *m, struct runs *freed)
{
	int r = __real_meta_durable(m, freed);

	nr_commits++;
	if (watched && !audit_check(watched->meta.inner, AUDIT_EXACT))
		cr_assert_fail("the metadata are not clean at commit %u", nr_commits);
	return r;
}

/* To any size, which works if and only if there is room, and changes no data and no count. */
static void
shrink_somehow(struct property *t)
{
	uint64_t size = pool_block_bytes(t->pool), possible;
	uint64_t old = data_blocks(t->pool), to = 1 + random_below(&t->rs, old), bytes;
	struct pool_status before, after;
	int r;

	pool_get_status(t->pool, &before);
	doing(t, "shrink from %llu to %llu", (unsigned long long)old, (unsigned long long)to);
	r = shrink(t->pool, to, &possible);
	note_commits(t);
	if (r == -ENOSPC) {
		if (possible / size <= to && !t->config.may_fill)
			fail(t, "no room, though %llu blocks would do", (unsigned long long)(possible / size));
		to = old;
	} else if (to == old ? r != -EINVAL : r) {
		fail(t, "%s", strerror(-r));
	}
	pool_get_status(t->pool, &after);
	cr_assert_eq(image_get_size(&t->data.image, &bytes), 0);
	/* It may have been made larger, and the pool not told of it. */
	if (after.data_blocks != to || bytes < to * size || (!r && bytes > to * size))
		fail(t, "%llu blocks, image of %llu bytes", (unsigned long long)after.data_blocks,
		     (unsigned long long)bytes);
	if (after.data_used > before.data_used + 2) /* the catalog's */
		fail(t, "%llu blocks are used, %llu were", (unsigned long long)after.data_used,
		     (unsigned long long)before.data_used);
}

static void
grow(struct property *t)
{
	uint64_t to = t->config.data_blocks + random_below(&t->rs, 100);

	doing(t, "grow to %llu", (unsigned long long)to);
	if (to <= data_blocks(t->pool))
		return;
	cr_assert_eq(pool_resize(t->pool, to * pool_block_bytes(t->pool), 0), 0);
	cr_assert_eq(data_blocks(t->pool), to);
	note_commits(t);
}

static void
resize_somehow(struct property *t)
{
	if (data_blocks(t->pool) > t->config.data_blocks / 2)
		shrink_somehow(t);
	compare_all(t);
	if (!random_below(&t->rs, 4)) {
		doing(t, "crash after shrinking");
		do_crash(t);
	}
	if (!t->config.may_fill || random_below(&t->rs, 2))
		grow(t);
}

static void
step(struct property *t)
{
	unsigned at = (unsigned)random_below(&t->rs, 1000);

	if (at < 50) {
		doing(t, "commit");
		do_commit(t);
	} else if (at < 65) {
		resize_somehow(t);
	} else if (at < 68) {
		doing(t, "crash");
		do_crash(t);
	} else if (at < 71) {
		doing(t, "abort");
		do_abort(t);
	} else {
		property_op(t);
		note_commits(t);
	}
}

static void
run(const struct property_config *config, unsigned nr_seeds)
{
	msg_set_sink(ignore);
	for (unsigned i = 0; i < (getenv("THINFS_TEST_SEED") ? 1 : nr_seeds); i++) {
		struct property t;

		property_open(&t, config, random_start(config->test).state);
		watched = &t;
		for (t.op_nr = 1; t.op_nr <= config->nr_ops; t.op_nr++)
			step(&t);
		watched = NULL;
		do_remount(&t);
		property_audit(&t);
		property_close(&t);
	}
}

Test(pool_resize, a_pool_that_shrinks_and_grows_agrees_with_a_model)
{
	static const struct property_config config = {
		.test = "a_pool_that_shrinks_and_grows_agrees_with_a_model",
		.nr_ops = 1500,
		.block_pages = 1,
		.data_blocks = 1200,
		.meta_blocks = 1024,
	};

	run(&config, 2);
}

Test(pool_resize, so_does_one_that_is_full)
{
	static const struct property_config config = {
		.test = "so_does_one_that_is_full",
		.nr_ops = 1000,
		.block_pages = 1,
		.data_blocks = 120,
		.meta_blocks = 1024,
		.may_fill = true,
	};

	run(&config, 2);
}
