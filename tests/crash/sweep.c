/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sweep: let the Nth write, read or flush of an image fail, once or from then on, for N = 1, 2, ... until
 * the workload needs fewer. The pool must not fall over, may say of nothing that it is durable which is not,
 * must be read-only after a commit that failed, must still be readable; and after a power cut at any
 * later time, with what was not flushed kept or lost, a remount must find an allowed state.
 *
 * THINFS_CRASH_ALL: as 'make check-crash' has it: every N, and more seeds. THINFS_TEST_SEED: the first
 * seed. THINFS_CRASH_SEEDS: how many. THINFS_TEST_VERBOSE: say what is done.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash/check.h"
#include "crash/states.h"
#include "crash/workload.h"
#include "pdata/thin_meta.h"

#define DATA_BLOCKS 120U
#define DATA_BLOCKS_MAX 128U
#define BLOCK_BYTES (64U << 10)
#define META_BLOCKS 128U
#define META_BLOCKS_MAX 136U
#define OPS 40U
#define STATES_OF_RUN 60U
#define FAILURES_TOLD 3U
#define HANG_SECONDS 1800U

struct fault {
	const char *name;
	enum disk_nr disk;
	enum image_op op;
	int error;
	bool from_then_on;
	unsigned sectors; /* of a write, that are written all the same */
};

static const struct fault faults[] = {
	{"flush of data, EIO once", DATA_DISK, IMAGE_OP_FLUSH, EIO, false, 0},
	{"flush of data, EIO from then on", DATA_DISK, IMAGE_OP_FLUSH, EIO, true, 0},
	{"flush of metadata, EIO once", META_DISK, IMAGE_OP_FLUSH, EIO, false, 0},
	{"flush of metadata, EIO from then on", META_DISK, IMAGE_OP_FLUSH, EIO, true, 0},
	{"write of data, EIO once", DATA_DISK, IMAGE_OP_WRITE, EIO, false, 0},
	{"write of data, EIO from then on", DATA_DISK, IMAGE_OP_WRITE, EIO, true, 0},
	{"write of data, ENOSPC once", DATA_DISK, IMAGE_OP_WRITE, ENOSPC, false, 0},
	{"write of data, ENOSPC from then on", DATA_DISK, IMAGE_OP_WRITE, ENOSPC, true, 0},
	{"write of metadata, EIO once", META_DISK, IMAGE_OP_WRITE, EIO, false, 0},
	{"write of metadata, EIO from then on", META_DISK, IMAGE_OP_WRITE, EIO, true, 0},
	{"write of metadata, ENOSPC once", META_DISK, IMAGE_OP_WRITE, ENOSPC, false, 0},
	{"write of metadata, ENOSPC from then on", META_DISK, IMAGE_OP_WRITE, ENOSPC, true, 0},
	{"write of data, EIO once after a sector", DATA_DISK, IMAGE_OP_WRITE, EIO, false, 1},
	{"write of data, EIO from then on, each after 9 sectors", DATA_DISK, IMAGE_OP_WRITE, EIO, true, 9},
	{"write of metadata, EIO once after a sector", META_DISK, IMAGE_OP_WRITE, EIO, false, 1},
	{"write of metadata, EIO from then on, each after a sector", META_DISK, IMAGE_OP_WRITE, EIO, true,
	 1},
	{"read of data, EIO once", DATA_DISK, IMAGE_OP_READ, EIO, false, 0},
	{"read of data, EIO from then on", DATA_DISK, IMAGE_OP_READ, EIO, true, 0},
	{"read of metadata, EIO once", META_DISK, IMAGE_OP_READ, EIO, false, 0},
	{"read of metadata, EIO from then on", META_DISK, IMAGE_OP_READ, EIO, true, 0},
	{"punch of data, EIO once", DATA_DISK, IMAGE_OP_PUNCH, EIO, false, 0},
	{"punch of data, EIO from then on", DATA_DISK, IMAGE_OP_PUNCH, EIO, true, 0},
	{"discard of data, EIO once", DATA_DISK, IMAGE_OP_DISCARD, EIO, false, 0},
	{"discard of data, EIO from then on", DATA_DISK, IMAGE_OP_DISCARD, EIO, true, 0},
};

#define NR_FAULTS (sizeof(faults) / sizeof(faults[0]))

struct sweeper {
	struct pool_options options;
	uint64_t seed;
	uint8_t *bytes[NR_DISKS]; /* a pool with volumes and snapshots */
	uint64_t shown[NR_DISKS]; /* the sizes of its images */
	const struct fault *fault;
	uint64_t n;
	uint64_t nr_runs, nr_states, nr_failures;
	unsigned nr_told; /* failures of this fault */
	unsigned stride; /* of N */
	uint64_t nr_read_only, nr_fail; /* runs that ended in these modes */
};

/* To which the images may be enlarged. */
static const uint64_t sizes[NR_DISKS] = {
	[DATA_DISK] = (uint64_t)DATA_BLOCKS_MAX * BLOCK_BYTES,
	[META_DISK] = (uint64_t)META_BLOCKS_MAX * 4096,
};

static void
report(struct sweeper *s, const char *when, size_t at, const char *problem)
{
	s->nr_failures++;
	if (s->nr_told++ >= FAILURES_TOLD)
		return;
	printf("# FAILED: THINFS_TEST_SEED=%" PRIu64 ", %s, N = %" PRIu64 ", %s, event %zu: "
	       "%s\n", s->seed, s->fault->name, s->n, when, at, problem);
	if (check_messages()[0])
		printf("#   messages: %s\n", check_messages());
}

/* --- what is there at first --- */

static void
make_base(struct sweeper *s)
{
	const uint8_t *bytes[NR_DISKS];
	struct image *meta;
	struct oracle o = {0};
	struct workload w;
	struct disks d;

	for (unsigned i = 0; i < NR_DISKS; i++)
		bytes[i] = s->bytes[i] = malloc(sizes[i]);
	s->shown[DATA_DISK] = (uint64_t)DATA_BLOCKS * BLOCK_BYTES;
	s->shown[META_DISK] = (uint64_t)META_BLOCKS * 4096;
	memset(s->bytes[DATA_DISK], 0xE5, sizes[DATA_DISK]);
	memset(s->bytes[META_DISK], 0xE5, sizes[META_DISK]);
	if (image_open_memory("metadata", s->shown[META_DISK], &meta) ||
	    meta_format(meta, BLOCK_BYTES / 512, DATA_BLOCKS) ||
	    image_read(meta, s->bytes[META_DISK], s->shown[META_DISK], 0))
		abort();
	image_close(meta);
	disks_open(&d, bytes, sizes, s->shown, FLUSH_RIGHT);
	d.files = s->seed % 2;
	if (!workload_start(&w, &d, &o, s->seed, &s->options))
		abort();
	/* Sizes of whole sectors: of one that a failed write covers in part, the oracle knows too little. */
	w.may_fail = true;
	for (unsigned i = 0; i < 30; i++)
		workload_op(&w);
	if (workload_end(&w))
		abort();
	for (unsigned i = 0; i < NR_DISKS; i++) {
		free(s->bytes[i]);
		s->bytes[i] = disks_copy(&d, i);
		s->shown[i] = d.shown[i];
	}
	oracle_free(&o);
	disks_close(&d);
}

static void
see_base(struct sweeper *s, struct oracle *o)
{
	struct overlay ov[NR_DISKS];
	struct pool *p;

	for (unsigned i = 0; i < NR_DISKS; i++) {
		overlay_init(&ov[i], "base", s->bytes[i], sizes[i]);
		ov[i].shown = s->shown[i];
	}
	if (pool_open_images(&ov[DATA_DISK].image, &ov[META_DISK].image, &s->options, &p))
		abort();
	oracle_init(o, p);
	if (pool_close(p))
		abort();
	for (unsigned i = 0; i < NR_DISKS; i++)
		overlay_free(&ov[i]);
}

/* --- one run --- */

static bool
has_fired(struct sweeper *s, struct disks *d)
{
	return image_fault_count(d->fault[s->fault->disk], s->fault->op) >= s->n;
}

/* A commit that needs what failed cannot have been: then the pool must not go on. */
static bool
must_stop(struct sweeper *s)
{
	return s->fault->op == IMAGE_OP_FLUSH ||
	       (s->fault->op == IMAGE_OP_WRITE && s->fault->disk == META_DISK);
}

static void
check_live(struct sweeper *s, struct workload *w)
{
	enum pool_mode mode = pool_get_mode(w->pool);
	size_t at = w->disks->nr_log;

	s->nr_read_only += mode == POOL_READ_ONLY;
	s->nr_fail += mode == POOL_FAIL;
	if (mode < POOL_READ_ONLY && (must_stop(s) || w->sync_errors))
		report(s, "still writable", at, pool_mode_name(mode));
	if (mode == POOL_FAIL && !s->fault->from_then_on)
		report(s, "out of service", at, "by a single failure");
	if (mode == POOL_FAIL)
		return;
	if (!oracle_check(w->oracle, w->pool, at, false))
		report(s, "while it runs", at, w->oracle->problem);
}

/* Run the workload; the number of events before the failure, SIZE_MAX when there was none. */
static size_t
run(struct sweeper *s, struct disks *d, struct oracle *o)
{
	struct workload w;
	size_t fired = SIZE_MAX;

	image_fault_short(d->fault[s->fault->disk], s->fault->sectors);
	image_fault_set(d->fault[s->fault->disk], s->fault->op, s->n, s->fault->error,
			s->fault->from_then_on);
	if (!workload_start(&w, d, o, s->seed + 1, &s->options)) {
		image_fault_clear(d->fault[s->fault->disk]);
		return 0;
	}
	w.may_fail = true;
	if (has_fired(s, d))
		fired = 0;
	for (unsigned i = 0; i < OPS; i++) {
		size_t before = d->nr_log;

		workload_op(&w);
		if (fired == SIZE_MAX && has_fired(s, d))
			fired = before;
	}
	if (fired != SIZE_MAX) {
		/* Mended from here on, for what is read; but for flushes nothing is as before. */
		image_fault_clear(d->fault[s->fault->disk]);
		check_live(s, &w);
	}
	if (workload_end(&w) && fired == SIZE_MAX && !has_fired(s, d))
		report(s, "at the end", d->nr_log, "closing failed");
	if (fired == SIZE_MAX && has_fired(s, d))
		fired = d->nr_log;
	image_fault_clear(d->fault[s->fault->disk]);
	return fired;
}

/* --- what is left after a cut --- */

static void
try_cut(struct sweeper *s, struct oracle *o, struct cut *c)
{
	static const struct choice choices[] = {
		{.keep = {0, 0}}, {.keep = {100, 100}}, {.keep = {0, 100}}, {.keep = {100, 0}},
		{.keep = {50, 50}, .tear = 30}, {.keep = {0, 70}}, {.keep = {100, 30}, .superblock = true},
	};
	struct random_source rs = {s->seed + c->at + s->n * 1000};

	for (unsigned i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
		char when[40];

		cut_build(c, &choices[i], &rs);
		s->nr_states++;
		if (check_state(o, &c->state[DATA_DISK].image, &c->state[META_DISK].image, c->at,
				CHECK_MAY_NEED_CHECK, &s->options))
			continue;
		snprintf(when, sizeof(when), "state %u after a cut", i);
		report(s, when, c->at, o->problem);
	}
}

static void
try_cuts(struct sweeper *s, struct oracle *o, struct disks *d, size_t fired)
{
	const uint8_t *bytes[NR_DISKS] = {s->bytes[0], s->bytes[1]};
	size_t left = d->nr_log - fired;
	size_t stride = 1 + left / (STATES_OF_RUN / 7);
	struct cut c;

	cut_init(&c, d, bytes, s->seed);
	for (size_t at = fired; at <= d->nr_log; at += stride) {
		/* All that is soon after the failure, less of what comes later. */
		cut_advance(&c, at);
		try_cut(s, o, &c);
	}
	cut_advance(&c, d->nr_log);
	try_cut(s, o, &c);
	cut_free(&c);
}

/* --- the sweep --- */

/* Whether there was an Nth one. */
static bool
sweep_one(struct sweeper *s)
{
	const uint8_t *bytes[NR_DISKS] = {s->bytes[0], s->bytes[1]};
	struct oracle o;
	struct disks d;
	size_t fired;

	see_base(s, &o);
	disks_open(&d, bytes, sizes, s->shown, FLUSH_RIGHT);
	d.files = s->seed % 2;
	fired = run(s, &d, &o);
	if (fired != SIZE_MAX) {
		s->nr_runs++;
		try_cuts(s, &o, &d, fired);
	}
	disks_close(&d);
	oracle_free(&o);
	return fired != SIZE_MAX;
}

static bool
sweep(struct sweeper *s, const struct fault *fault, unsigned stride)
{
	uint64_t failures = s->nr_failures, runs = s->nr_runs;

	s->fault = fault;
	s->nr_told = 0;
	for (s->n = 1 + s->seed % stride; sweep_one(s); s->n += stride)
		;
	printf("# %s, seed %" PRIu64 ": %" PRIu64 " runs, N to %" PRIu64 "\n", fault->name,
	       s->seed, s->nr_runs - runs, s->n);
	return s->nr_failures == failures;
}

/* All faults with one seed more; good[i]: whether fault I was harmless so far. */
static void
sweep_seed(struct sweeper *s, unsigned nr, bool good[])
{
	s->options.max_step = (unsigned)(s->seed / 2 % 3);
	make_base(s);
	for (unsigned i = 0; i < nr; i++)
		good[i] &= sweep(s, &faults[i], s->stride);
	for (unsigned i = 0; i < NR_DISKS; i++)
		free(s->bytes[i]);
	s->seed++;
}

int
main(void)
{
	const char *seed = getenv("THINFS_TEST_SEED"), *seeds = getenv("THINFS_CRASH_SEEDS");
	bool much = getenv("THINFS_CRASH_ALL"), good[NR_FAULTS], all = true;
	struct sweeper s = {.options = POOL_OPTIONS_DEFAULT, .stride = much ? 1 : 5};
	uint64_t nr_seeds = seeds ? strtoull(seeds, NULL, 0) : much ? 6 : 1;

	alarm(HANG_SECONDS);
	setvbuf(stdout, NULL, _IOLBF, 0);
	check_mute();
	/* As in explore.c. */
	s.seed = seed ? strtoull(seed, NULL, 0) : much ? (uint64_t)getpid() : 1000;
	s.options.commit_interval_ms = 0;
	s.options.error_if_no_space = true;
	printf("1..%zu\n# THINFS_TEST_SEED=%" PRIu64 "\n", NR_FAULTS, s.seed);
	memset(good, 1, sizeof(good));
	for (uint64_t i = 0; i < nr_seeds; i++)
		sweep_seed(&s, NR_FAULTS, good);
	for (unsigned i = 0; i < NR_FAULTS; i++) {
		printf("%sok - the Nth %s\n", good[i] ? "" : "not ", faults[i].name);
		all &= good[i];
	}
	printf("# %" PRIu64 " runs, %" PRIu64 " ended read-only, %" PRIu64 " out of service; %" PRIu64
	       " states after cuts, %" PRIu64 " failures\n", s.nr_runs, s.nr_read_only, s.nr_fail,
	       s.nr_states, s.nr_failures);
	return !all;
}
