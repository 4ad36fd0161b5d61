/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random operations through pool.h against a model in memory.
 *
 * THINFS_TEST_SEED repeats one run; THINFS_TEST_SEEDS is how many runs each test has (1; with THINFS_CRASH_ALL, as
 * 'make check-crash' has it, 10); THINFS_TEST_OPS is how many operations each run has;
 * THINFS_TEST_VERBOSE prints them, THINFS_TEST_PARANOID compares everything after each.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "unit/pool/property.h"
#include "unit/scratch.h"
#include "util/msg.h"

#define AUDIT_EVERY 1000

/* That there is no space is what happens all the time. */
static void
ignore(const char *text)
{
	(void)text;
}

static void
step(struct property *t)
{
	unsigned at = (unsigned)random_below(&t->rs, 1000);
	struct model_vol *v;

	if (at < t->config.commits) {
		doing(t, "commit");
		do_commit(t);
	} else if (at < t->config.commits + 8 && t->m.now.nr_vols) {
		v = t->m.now.vols[random_below(&t->rs, t->m.now.nr_vols)];
		doing(t, "sync %u '%s/%s'", v->id, v->snapshot, v->name);
		do_sync_one(t, v);
	} else if (at >= 997) {
		doing(t, "crash");
		do_crash(t);
	} else if (at >= 994) {
		doing(t, "abort");
		do_abort(t);
	} else if (at >= 991) {
		doing(t, "remount");
		do_remount(t);
	} else {
		property_op(t);
		note_commits(t);
	}
}

static void
run_one(const struct property_config *config, uint64_t seed, unsigned nr_ops)
{
	struct property t;

	property_open(&t, config, seed);
	for (t.op_nr = 1; t.op_nr <= nr_ops; t.op_nr++) {
		step(&t);
		if (getenv("THINFS_TEST_PARANOID"))
			compare_all(&t);
		if (t.op_nr % AUDIT_EVERY)
			continue;
		doing(&t, "audit");
		if (t.op_nr / AUDIT_EVERY % 2)
			do_commit(&t);
		compare_all(&t);
		property_audit(&t);
	}
	doing(&t, "remount at the end");
	do_remount(&t);
	property_audit(&t);
	property_close(&t);
}

static void
run(const struct property_config *config)
{
	const char *given = getenv("THINFS_TEST_OPS"), *seeds = getenv("THINFS_TEST_SEEDS");
	unsigned nr_seeds = seeds ? (unsigned)strtoul(seeds, NULL, 0) : getenv("THINFS_CRASH_ALL") ? 10 : 1;
	unsigned nr_ops = given ? (unsigned)strtoul(given, NULL, 0) : config->nr_ops;

	msg_set_sink(ignore);
	if (getenv("THINFS_TEST_SEED"))
		nr_seeds = 1;
	for (unsigned i = 0; i < nr_seeds; i++)
		run_one(config, random_start(config->test).state, nr_ops);
}

Test(pool_property, any_operations_agree_with_a_model)
{
	static const struct property_config config = {
		.test = "any_operations_agree_with_a_model",
		.nr_ops = 10000,
		.block_pages = 1,
		.data_blocks = 1200,
		.meta_blocks = 1024,
		.commits = 50,
	};

	run(&config);
}

Test(pool_property, blocks_of_192K_agree_with_a_model)
{
	static const struct property_config config = {
		.test = "blocks_of_192K_agree_with_a_model",
		.nr_ops = 6000,
		.block_pages = 3,
		.data_blocks = 500,
		.meta_blocks = 1024,
		.commits = 50,
	};

	run(&config);
}

Test(pool_property, a_full_pool_fails_without_harm)
{
	static const struct property_config config = {
		.test = "a_full_pool_fails_without_harm",
		.nr_ops = 6000,
		.block_pages = 1,
		.data_blocks = 60,
		.meta_blocks = 1024,
		.may_fill = true,
		.commits = 50,
	};

	run(&config);
}

Test(pool_property, full_metadata_fail_without_harm)
{
	static const struct property_config config = {
		.test = "full_metadata_fail_without_harm",
		.nr_ops = 6000,
		.block_pages = 1,
		.data_blocks = 1200,
		.meta_blocks = 100,
		.may_fill = true,
		.commits = 50,
	};

	run(&config);
}

Test(pool_property, long_transactions_agree_with_a_model)
{
	static const struct property_config config = {
		.test = "long_transactions_agree_with_a_model",
		.nr_ops = 7000,
		.block_pages = 1,
		.data_blocks = 1500,
		.meta_blocks = 2048,
		.commits = 2,
	};

	run(&config);
}

Test(pool_property, a_commit_after_every_few_operations_agrees_with_a_model)
{
	static const struct property_config config = {
		.test = "a_commit_after_every_few_operations_agrees_with_a_model",
		.nr_ops = 5000,
		.block_pages = 1,
		.data_blocks = 1200,
		.meta_blocks = 1024,
		.commits = 400,
	};

	run(&config);
}

Test(pool_property, images_in_files_agree_with_a_model)
{
	char dir[1000], path[sizeof(dir) + 16];
	struct property_config config = {
		.test = "images_in_files_agree_with_a_model",
		.nr_ops = 2000,
		.block_pages = 1,
		.data_blocks = 1200,
		.meta_blocks = 1024,
		.commits = 50,
	};

	scratch_template(dir, sizeof(dir), "property");
	cr_assert_not_null(mkdtemp(dir));
	config.dir = dir;
	run(&config);
	snprintf(path, sizeof(path), "%s/data", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/meta", dir);
	unlink(path);
	rmdir(dir);
}
