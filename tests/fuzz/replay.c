/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fuzz targets without libFuzzer, as TAP: each gets its kept inputs (corpus, regressions), then mutations of them
 * by a random source whose seed is printed, THINFS_FUZZ_MUTATIONS of each target or as many as fit in its
 * share of time.
 *
 *	replay.t			all of it
 *	replay.t TARGET FILE...		these inputs, for looking at what was found
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "unit/random.h"
#include "util/minmax.h"

#define INPUT_MAX 4096U
#define MUTATIONS 3000U
#define SECONDS_EACH 1.5
#define HANG_SECONDS 30U

static const struct fuzz_target *const targets[] = {
	&fuzz_btree, &fuzz_check, &fuzz_json, &fuzz_meta, &fuzz_options, &fuzz_pool, &fuzz_record, &fuzz_size, &fuzz_spacemap,
	&fuzz_superblock,
};
#define NR_TARGETS (sizeof(targets) / sizeof(targets[0]))

struct inputs {
	struct input {
		uint8_t *bytes;
		size_t len;
	} *v;
	size_t nr;
};

/* --- reading --- */

static int
add_file(struct inputs *in, const char *path)
{
	struct input *grown = reallocarray(in->v, in->nr + 1, sizeof(*in->v));
	FILE *f = fopen(path, "rb");
	uint8_t *bytes = malloc(INPUT_MAX);
	bool good = grown && f && bytes;

	if (grown)
		in->v = grown;
	if (good)
		in->v[in->nr++] = (struct input){bytes, fread(bytes, 1, INPUT_MAX, f)};
	else
		free(bytes);
	if (f)
		fclose(f);
	return good ? 0 : -1;
}

static int
is_file(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

/* All files of the folder, in the order of their names; none when it is not there. */
static int
add_folder(struct inputs *in, const char *what, const char *target)
{
	const char *top = getenv("top_srcdir");
	struct dirent **names;
	char path[4096];
	int nr, r = 0;

	snprintf(path, sizeof(path), "%s/tests/fuzz/%s/%s", top ? top : ".", what, target);
	nr = scandir(path, &names, is_file, alphasort);
	if (nr < 0)
		return errno == ENOENT ? 0 : -1;
	for (int i = 0; i < nr; i++) {
		char file[8192];

		snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
		r |= add_file(in, file);
		free(names[i]);
	}
	free(names);
	return r;
}

static void
drop_inputs(struct inputs *in)
{
	for (size_t i = 0; i < in->nr; i++)
		free(in->v[i].bytes);
	free(in->v);
	*in = (struct inputs){NULL, 0};
}

/* --- running --- */

static const uint8_t *now;
static size_t now_len;

/* Memory of its own, just as long as the input, so that a byte read past the end is seen. */
static void
run_one(const struct fuzz_target *t, const uint8_t *bytes, size_t len)
{
	uint8_t *exact = malloc(len ? len : 1);

	if (!exact)
		return;
	memcpy(exact, bytes, len);
	now = bytes;
	now_len = len;
	alarm(HANG_SECONDS);
	t->run(exact, len);
	alarm(0);
	free(exact);
}

/* A few small changes of one input, or the front of one and the end of another. */
static size_t
mutate(struct random_source *rs, const struct inputs *in, uint8_t *out)
{
	const struct input *a = &in->v[random_below(rs, in->nr)], *b = &in->v[random_below(rs, in->nr)];
	size_t len = a->len, cut, nr = random_below(rs, 8);

	memcpy(out, a->bytes, len);
	if (random_below(rs, 4) == 0 && a->len && b->len) {
		cut = random_below(rs, min_u64(a->len, b->len));
		memcpy(out + cut, b->bytes + cut, b->len - cut);
		len = b->len;
	}
	while (nr-- && len) {
		size_t at = random_below(rs, len);

		switch (random_below(rs, 4)) {
		case 0:
			out[at] ^= (uint8_t)(1U << random_below(rs, 8));
			break;
		case 1:
			out[at] = (uint8_t)random_u64(rs);
			break;
		case 2:
			memmove(out + at, out + at + 1, --len - at);
			break;
		default:
			if (len == INPUT_MAX)
				break;
			memmove(out + at + 1, out + at, len++ - at);
			out[at] = (uint8_t)random_u64(rs);
		}
	}
	return len;
}

static double
seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static unsigned
run_mutations(const struct fuzz_target *t, const struct inputs *in, struct random_source *rs)
{
	const char *given = getenv("THINFS_FUZZ_MUTATIONS");
	unsigned max = given ? (unsigned)strtoul(given, NULL, 10) : MUTATIONS, i;
	double end = seconds() + (given ? 1e9 : SECONDS_EACH);
	uint8_t bytes[INPUT_MAX];

	for (i = 0; i < max && seconds() < end; i++)
		run_one(t, bytes, mutate(rs, in, bytes));
	return i;
}

/* The process is about to die: what of can be given to it again. */
static void
tell_input(void)
{
	fprintf(stderr, "# the input was:");
	for (size_t i = 0; i < now_len; i++)
		fprintf(stderr, " %02x", now[i]);
	fprintf(stderr, "\n");
}

static int
replay_all(void)
{
	struct random_source rs = random_start("replay");
	int failed = 0;

	printf("1..%zu\n", NR_TARGETS);
	for (size_t i = 0; i < NR_TARGETS; i++) {
		const struct fuzz_target *t = targets[i];
		struct inputs in = {NULL, 0};
		unsigned mutations = 0;
		bool good = !add_folder(&in, "corpus", t->name) && in.nr > 0 &&
			    !add_folder(&in, "regressions", t->name) && (!t->init || !t->init());

		fflush(stdout);
		for (size_t k = 0; good && k < in.nr; k++)
			run_one(t, in.v[k].bytes, in.v[k].len);
		if (good)
			mutations = run_mutations(t, &in, &rs);
		printf("%sok %zu - %s: %zu kept inputs, %u mutations\n", good ? "" : "not ", i + 1, t->name, in.nr,
		       mutations);
		failed += !good;
		drop_inputs(&in);
	}
	return failed != 0;
}

static int
replay_some(const char *name, char **files)
{
	for (size_t i = 0; i < NR_TARGETS; i++) {
		const struct fuzz_target *t = targets[i];
		struct inputs in = {NULL, 0};

		if (strcmp(t->name, name) || (t->init && t->init()))
			continue;
		for (; *files; files++)
			if (add_file(&in, *files))
				perror(*files);
		for (size_t k = 0; k < in.nr; k++)
			run_one(t, in.v[k].bytes, in.v[k].len);
		printf("%zu inputs\n", in.nr);
		drop_inputs(&in);
		return 0;
	}
	fprintf(stderr, "no target %s\n", name);
	return 2;
}

int
main(int argc, char **argv)
{
	fuzz_on_failure(tell_input);
	return argc > 1 ? replay_some(argv[1], argv + 2) : replay_all();
}
