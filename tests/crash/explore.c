/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * explore: cut the power at every write and every flush of a workload, build what the disks may hold
 * then, and see whether each state is one that was promised.
 *
 * A seed is a few rounds: each begins with one of the states that the round before was left in by a cut.
 * Then the same with pools that are wrong (mutants), which must be found out.
 *
 * THINFS_CRASH_ALL: as 'make check-crash' has it: more of everything. THINFS_TEST_SEED: the first seed.
 * THINFS_CRASH_SEEDS: how many. THINFS_CRASH_STATES: distinct states, of all seeds. THINFS_CRASH_MUTANTS:
 * how many mutants. THINFS_TEST_VERBOSE: say what is done.
 */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash/check.h"
#include "crash/mutant.h"
#include "crash/states.h"
#include "crash/workload.h"
#include "pdata/thin_meta.h"
#include "util/u64map.h"

#define DATA_BLOCKS 120U
#define DATA_BLOCKS_MAX 136U
#define BLOCK_BYTES (64U << 10)
#define META_BLOCKS 128U
#define META_BLOCKS_MAX 144U
#define ROUNDS 3U
#define OPS 100U
#define FAILURES_TOLD 5U
#define EVENTS_TOLD 12U
#define MAX_STALE 8U
#define MUTANT_LIVES 3 /* exit status */
#define HANG_SECONDS 1800U

struct explorer {
	struct pool_options options;
	enum flush_mutant flush;
	bool stop_at_failure;
	uint64_t max_states; /* of one seed */
	unsigned audit_every;
	struct u64map seen; /* hashes of states */
	struct u64map judged; /* of states with their cuts */
	uint64_t nr_states, nr_failures, nr_cuts, nr_audits;
	uint64_t nr_before; /* states of the seeds before */
	uint64_t seed;
	unsigned round;
	uint8_t *bytes[NR_DISKS]; /* with which the round begins */
	uint8_t *next[NR_DISKS]; /* and the next one */
	uint64_t shown[NR_DISKS]; /* the images' sizes when the round begins */
};

/* To which the images may be enlarged. */
static const uint64_t sizes[NR_DISKS] = {
	[DATA_DISK] = (uint64_t)DATA_BLOCKS_MAX * BLOCK_BYTES,
	[META_DISK] = (uint64_t)META_BLOCKS_MAX * 4096,
};

/* --- one state --- */

static void
print_event(const struct disk_event *e)
{
	static const char *const ops[] = {"read", "write", "flush", "punch", "discard", "resize"};

	printf("; %s%s of %s", e->failed ? "failed " : "", ops[e->op],
	       e->disk == DATA_DISK ? "data" : "metadata");
	if (e->op != IMAGE_OP_FLUSH)
		printf(" %" PRIu64 "+%" PRIu64, e->offset, e->len);
}

static void
report(struct explorer *x, const struct oracle *o, const struct cut *c, unsigned nr, uint64_t hash)
{
	x->nr_failures++;
	if (x->stop_at_failure || x->nr_failures > FAILURES_TOLD)
		return;
	printf("# FAILED: THINFS_TEST_SEED=%" PRIu64 " round %u, cut before event %zu, state %u "
	       "(hash %016" PRIx64 ")\n#   %s\n#   before it", x->seed, x->round, c->at, nr, hash,
	       o->problem);
	for (size_t i = c->at < EVENTS_TOLD ? 0 : c->at - EVENTS_TOLD; i < c->at; i++)
		print_event(&c->disks->log[i]);
	printf("\n");
	if (check_messages()[0])
		printf("#   messages: %s\n", check_messages());
}

/* Whether the state was one that had not been. */
static bool
try_state(struct explorer *x, struct oracle *o, struct cut *c, const struct choice *choice,
	  unsigned nr)
{
	struct random_source rs = {x->seed ^ (c->at * 64 + nr + 1) * 0x9e3779b97f4a7c15ULL ^
				   (uint64_t)x->round << 56};
	uint64_t hash = cut_build(c, choice, &rs), unused;
	unsigned flags = 0;

	/* The same bytes are judged anew at another cut, where more may have been promised. */
	hash += c->at * 0x9e3779b97f4a7c15ULL;
	if (u64map_get(&x->judged, hash, &unused))
		return false;
	u64map_set(&x->judged, hash, 0);
	hash -= c->at * 0x9e3779b97f4a7c15ULL;
	if (!u64map_get(&x->seen, hash, &unused))
		x->nr_states++;
	u64map_set(&x->seen, hash, 0);
	if (x->audit_every && random_below(&rs, x->audit_every) == 0)
		flags |= CHECK_AUDIT;
	if (random_below(&rs, 8) == 0)
		flags |= CHECK_TWICE;
	x->nr_audits += flags & CHECK_AUDIT;
	if (!check_state(o, &c->state[DATA_DISK].image, &c->state[META_DISK].image, c->at, flags,
			 &x->options))
		report(x, o, c, nr, hash);
	return true;
}

/* --- one cut --- */

static void
try_cut(struct explorer *x, struct oracle *o, struct cut *c, uint64_t wanted)
{
	static const struct choice plain[] = {
		{.keep = {0, 0}}, {.keep = {0, 100}}, {.keep = {100, 0}}, {.keep = {100, 100}},
		{.keep = {0, 0}, .superblock = true}, {.keep = {100, 0}, .superblock = true},
		{.keep = {100, 100}, .tear = 100},
	};
	static const unsigned shares[] = {5, 30, 50, 70, 95, 100};
	unsigned nr = sizeof(plain) / sizeof(plain[0]);
	struct random_source rs = {x->seed + c->at};

	wanted += x->nr_states;
	x->nr_cuts++;
	for (unsigned i = 0; i < nr; i++)
		try_state(x, o, c, &plain[i], i);
	/* Where little was written since the last flush, there are few. */
	for (unsigned i = 0, stale = 0; x->nr_states < wanted && stale < MAX_STALE; i++) {
		struct choice choice = {.superblock = random_below(&rs, 4) == 0};

		choice.keep[DATA_DISK] = shares[random_below(&rs, 6)];
		choice.keep[META_DISK] = shares[random_below(&rs, 6)];
		choice.tear = random_below(&rs, 2) ? 0 : 50;
		stale = try_state(x, o, c, &choice, nr + i) ? 0 : stale + 1;
	}
}

/* --- one round --- */

static bool
enough(const struct explorer *x)
{
	return (x->stop_at_failure && x->nr_failures) || x->nr_states - x->nr_before >= x->max_states;
}

static void
run_workload(struct explorer *x, struct disks *d, struct oracle *o)
{
	struct workload w;
	uint64_t seed = x->seed * ROUNDS + x->round;

	if (!workload_start(&w, d, o, seed, &x->options))
		abort();
	for (unsigned i = 0; i < OPS; i++)
		workload_op(&w);
	if (w.errors)
		printf("# seed %" PRIu64 ": %u operations failed\n", x->seed, w.errors);
	if (!oracle_check(o, w.pool, d->nr_log, !w.killed)) {
		x->nr_failures++;
		if (!x->stop_at_failure)
			printf("# FAILED: THINFS_TEST_SEED=%" PRIu64 ", round %u, without a cut: %s\n",
			       x->seed, x->round, o->problem);
	}
	if (workload_end(&w))
		abort();
}

/* The next round begins with a state of this one, which the seed alone decides. */
static void
choose_next(struct explorer *x, const struct disks *d, const uint8_t *const bytes[NR_DISKS])
{
	struct random_source rs = {x->seed ^ (uint64_t)x->round << 32};
	struct choice choice = {.keep = {50, 50}};
	struct cut c;

	cut_init(&c, d, bytes, x->seed);
	cut_advance(&c, random_below(&rs, d->nr_log + 1));
	cut_build(&c, &choice, &rs);
	for (unsigned i = 0; i < NR_DISKS; i++) {
		for (uint64_t at = 0; at < sizes[i]; at += OVERLAY_PAGE)
			memcpy(x->next[i] + at, overlay_at(&c.state[i], at), OVERLAY_PAGE);
		x->shown[i] = c.state[i].shown;
	}
	cut_free(&c);
}

static void
explore_round(struct explorer *x)
{
	uint64_t left = x->max_states / ROUNDS;
	const uint8_t *bytes[NR_DISKS] = {x->bytes[0], x->bytes[1]};
	struct oracle o = {0};
	struct disks d;
	struct cut c;
	size_t stride;

	disks_open(&d, bytes, sizes, x->shown, x->flush);
	d.files = x->seed % 2;
	mutant_data = &d.front[DATA_DISK].image;
	run_workload(x, &d, &o);
	choose_next(x, &d, bytes);
	/* Half of what is to be found at a cut is there on average; leave cuts out when that is too much. */
	stride = 1 + 4 * d.nr_log / (left + 1);
	cut_init(&c, &d, bytes, x->seed);
	for (size_t at = x->seed % stride; at <= d.nr_log && !enough(x); at += stride) {
		cut_advance(&c, at);
		try_cut(x, &o, &c, 1 + 2 * left * stride / (d.nr_log + 1));
	}
	cut_free(&c);
	oracle_free(&o);
	disks_close(&d);
	mutant_data = NULL;
}

/* --- one seed --- */

/* Blocks that look like somebody's data, each its own. */
static void
fill_garbage(uint8_t *bytes, uint64_t size)
{
	for (uint64_t at = 0; at < size; at += 8) {
		uint64_t word = 0xE500000000000000ULL | at / BLOCK_BYTES << 32 | at;

		memcpy(bytes + at, &word, sizeof(word));
	}
}

static void
format(struct explorer *x)
{
	struct image *meta;

	x->shown[DATA_DISK] = (uint64_t)DATA_BLOCKS * BLOCK_BYTES;
	x->shown[META_DISK] = (uint64_t)META_BLOCKS * 4096;
	fill_garbage(x->bytes[DATA_DISK], sizes[DATA_DISK]);
	fill_garbage(x->bytes[META_DISK], sizes[META_DISK]);
	if (image_open_memory("metadata", x->shown[META_DISK], &meta) ||
	    meta_format(meta, BLOCK_BYTES / 512, DATA_BLOCKS) ||
	    image_read(meta, x->bytes[META_DISK], x->shown[META_DISK], 0))
		abort();
	image_close(meta);
}

static void
explore_seed(struct explorer *x, uint64_t seed)
{
	x->seed = seed;
	x->nr_before = x->nr_states;
	/* All that takes several steps takes as many as can be; and some of it in one. */
	x->options.max_step = seed % 4 == 3 ? 0 : 1 + (unsigned)(seed % 4);
	x->options.no_discard_passdown = seed % 8 == 5;
	for (unsigned i = 0; i < NR_DISKS; i++) {
		x->bytes[i] = malloc(sizes[i]);
		x->next[i] = malloc(sizes[i]);
	}
	format(x);
	for (x->round = 0; x->round < ROUNDS && !enough(x); x->round++) {
		explore_round(x);
		for (unsigned i = 0; i < NR_DISKS; i++)
			memcpy(x->bytes[i], x->next[i], sizes[i]);
	}
	for (unsigned i = 0; i < NR_DISKS; i++) {
		free(x->bytes[i]);
		free(x->next[i]);
	}
}

/* --- the program --- */

static uint64_t
setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static struct pool_options
options(void)
{
	struct pool_options o = POOL_OPTIONS_DEFAULT;

	o.commit_interval_ms = 0;
	o.error_if_no_space = true;
	o.metadata_cache_bytes = 4 << 20;
	return o;
}

static bool
explore(uint64_t seed)
{
	bool much = getenv("THINFS_CRASH_ALL");
	uint64_t nr_seeds = setting("THINFS_CRASH_SEEDS", much ? 8 : 2);
	uint64_t states = setting("THINFS_CRASH_STATES", much ? 24000 : 2000);
	struct explorer x = {.options = options(), .max_states = states / nr_seeds, .audit_every = 60};

	for (uint64_t i = 0; i < nr_seeds; i++) {
		explore_seed(&x, seed + i);
		printf("# THINFS_TEST_SEED=%" PRIu64 ": %" PRIu64 " states\n", seed + i,
		       x.nr_states - x.nr_before);
	}
	printf("# %" PRIu64 " distinct states at %" PRIu64 " cuts of %" PRIu64 " seeds, %" PRIu64
	       " of them audited: %" PRIu64 " failures\n", x.nr_states, x.nr_cuts, nr_seeds,
	       x.nr_audits, x.nr_failures);
	u64map_clear(&x.seen);
	u64map_clear(&x.judged);
	return !x.nr_failures;
}

static const struct wrong {
	const char *name;
	enum flush_mutant flush;
	enum mutant mutant;
	bool no_zeroing;
} mutants[] = {
	{.name = "the data are flushed after the superblock", .flush = FLUSH_DATA_LATE},
	{.name = "no flush of the metadata before the superblock", .flush = FLUSH_META_ONCE},
	{.name = "no zeroing", .no_zeroing = true},
	{.name = "data blocks freed in a transaction are used in it", .mutant = MUTANT_REUSE_DATA},
	{.name = "a copy counts no references", .mutant = MUTANT_SHARE_UNCOUNTED},
	{.name = "what a copy shares may be overwritten in place", .mutant = MUTANT_SHARE_NEW},
	{.name = "what was copied from may be overwritten in place", .mutant = MUTANT_SHARE_SOURCE_NEW},
	{.name = "a revert takes two commits", .mutant = MUTANT_REVERT_TWICE},
	{.name = "a revert forgets the safety snapshot", .mutant = MUTANT_REVERT_FORGETS},
	{.name = "punched before the commit", .mutant = MUTANT_PUNCH_EARLY},
	{.name = "punched after the block was handed out again", .mutant = MUTANT_PUNCH_LATE},
	{.name = "metadata blocks freed in a transaction are used in it", .mutant = MUTANT_REUSE_METADATA},
	{.name = "no flush of what one who was killed left in the cache", .mutant = MUTANT_NO_CONFIRM},
	{.name = "what was cut off is left behind", .mutant = MUTANT_UNSHRUNK},
	{.name = "what is shown of an origin is not recorded", .mutant = MUTANT_ORIGIN_UNSAID},
	{.name = "the block of zeros is not counted", .mutant = MUTANT_ZEROS_UNCOUNTED},
	{.name = "the block of zeros is used when it is free", .mutant = MUTANT_ZEROS_STALE},
};

#define NR_MUTANTS (sizeof(mutants) / sizeof(mutants[0]))
#define NR_QUICK 11U /* the first ones are soon found */

/* Whether the exploration notices, within a few seeds. For a process of its own, as it may crash. */
static bool
notices(const struct wrong *m, uint64_t seed)
{
	struct explorer x = {
		.options = options(), .flush = m->flush, .stop_at_failure = true, .max_states = 6000};

	x.options.skip_block_zeroing = m->no_zeroing;
	mutant = m->mutant;
	for (unsigned i = 0; i < 10 && !x.nr_failures; i++)
		explore_seed(&x, seed + i);
	if (x.nr_failures)
		printf("# %s: found after %" PRIu64 " states\n", m->name, x.nr_states);
	u64map_clear(&x.seen);
	u64map_clear(&x.judged);
	return x.nr_failures;
}

static bool
catches(const struct wrong *m, uint64_t seed)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		bool noticed = notices(m, seed);

		fflush(stdout);
		_exit(noticed ? 0 : MUTANT_LIVES);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (WIFSIGNALED(status))
		printf("# %s: ended by signal %d\n", m->name, WTERMSIG(status));
	return !WIFEXITED(status) || WEXITSTATUS(status) != MUTANT_LIVES;
}

int
main(void)
{
	/* The share in 'make check' is always the same one; 'make check-crash' looks elsewhere each time. */
	uint64_t any = getenv("THINFS_CRASH_ALL") ? (uint64_t)getpid() * 1000 : 1000;
	uint64_t seed = setting("THINFS_TEST_SEED", any);
	uint64_t nr = setting("THINFS_CRASH_MUTANTS", getenv("THINFS_CRASH_ALL") ? NR_MUTANTS : NR_QUICK);
	bool good, all = true;

	if (nr > NR_MUTANTS)
		nr = NR_MUTANTS;
	alarm(HANG_SECONDS);
	setvbuf(stdout, NULL, _IOLBF, 0);
	check_mute();
	if (!getenv("TMPDIR") && !access("/dev/shm", W_OK))
		setenv("TMPDIR", "/dev/shm", 1);
	printf("1..%" PRIu64 "\n# THINFS_TEST_SEED=%" PRIu64 "\n", nr + 1, seed);
	good = explore(seed);
	printf("%sok - every state after a power cut is one that was promised\n", good ? "" : "not ");
	all &= good;
	for (uint64_t i = 0; i < nr; i++) {
		good = catches(&mutants[i], seed);
		printf("%sok - noticed: %s\n", good ? "" : "not ", mutants[i].name);
		all &= good;
	}
	return !all;
}
