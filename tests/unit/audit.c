/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pdata/check.h"
#include "unit/audit.h"
#include "unit/scratch.h"

#define OUTPUT_MAX (1U << 20)
#define COMMAND_NOT_FOUND 127

extern char **environ;

/* A file in $TMPDIR that has no name any more but /dev/fd/N; -1: none. */
static int
open_scratch(void)
{
	char path[4096];
	int fd;

	scratch_template(path, sizeof(path), "audit");
	fd = mkstemp(path);
	if (fd < 0)
		perror(path);
	else
		unlink(path);
	return fd;
}

/* Run ARGV with its output in TEXT: its exit status, COMMAND_NOT_FOUND, or -1. */
static int
run(const char *const argv[], char *text)
{
	posix_spawn_file_actions_t actions;
	int fd = open_scratch(), status = -1;
	ssize_t n = 0;
	pid_t pid;
	int r;

	text[0] = '\0';
	if (fd < 0)
		return -1;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, fd, STDERR_FILENO);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (!r && waitpid(pid, &status, 0) == pid) {
		n = pread(fd, text, OUTPUT_MAX - 1, 0);
		text[n > 0 ? n : 0] = '\0';
	}
	close(fd);
	if (r)
		return COMMAND_NOT_FOUND;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool
skipped(const char *program)
{
	static char told[64];

	if (!strstr(told, program)) {
		strncat(told, program, sizeof(told) - strlen(told) - 1);
		fprintf(stderr, "# SKIP: %s is not installed, so metadata is not checked by it\n", program);
	}
	return true;
}

static bool
audit_py(const char *path, unsigned wish, char *text)
{
	const char *top = getenv("top_srcdir");
	char script[4096];
	const char *const argv[] = {"python3", script, "--no-mappings", "--compact", path, NULL};
	int status;

	snprintf(script, sizeof(script), "%s/tests/tools/dm-thin-audit.py", top ? top : ".");
	status = run(argv, text);
	if (status == COMMAND_NOT_FOUND)
		return skipped("python3");
	if (status == 0 && (!(wish & AUDIT_EXACT) || strstr(text, "\"exact\": true")))
		return true;
	fprintf(stderr, "# dm-thin-audit.py (status %d): %s\n", status, text);
	return false;
}

static bool
thin_check(const char *path, char *text)
{
	const char *const argv[] = {"thin_check", path, NULL};
	const char *const sbin[] = {"/usr/sbin/thin_check", path, NULL};
	int status = run(argv, text);

	if (status == COMMAND_NOT_FOUND)
		status = run(sbin, text);
	if (status == COMMAND_NOT_FOUND)
		return skipped("thin_check");
	if (status == 0)
		return true;
	fprintf(stderr, "# thin_check (status %d): %s\n", status, text);
	return false;
}

bool
audit_file(const char *path, unsigned wish)
{
	char *text = malloc(OUTPUT_MAX);
	bool good = text && audit_py(path, wish, text);

	if (text && wish & AUDIT_THIN_CHECK && !thin_check(path, text))
		good = false;
	free(text);
	return good;
}

static bool
copy_to_fd(struct image *img, int fd)
{
	static char piece[1 << 16];
	uint64_t size, at = 0;

	if (image_get_size(img, &size) || ftruncate(fd, (off_t)size))
		return false;
	while (at < size) {
		size_t n = size - at < sizeof(piece) ? size - at : sizeof(piece);

		if (image_read(img, piece, n, at))
			return false;
		if ((piece[0] || memcmp(piece, piece + 1, n - 1)) &&
		    pwrite(fd, piece, n, (off_t)at) != (ssize_t)n)
			return false;
		at += n;
	}
	return true;
}

static void
print_problem(void *arg, const struct check_problem *p)
{
	(void)arg;
	fprintf(stderr, "# check: %s block %" PRIu64 " (%" PRIu64 "): %s\n", p->of_data ? "data" : "metadata",
		p->block, p->nr, p->what);
}

bool
audit_check(struct image *meta, unsigned wish)
{
	struct check_result r;

	return !meta_check(meta, print_problem, NULL, &r) && !r.nr_errors && !r.leaked_metadata &&
	       !r.leaked_data && (!(wish & AUDIT_EXACT) || !r.nr_warnings);
}

bool
audit_image(struct image *meta, unsigned wish)
{
	char path[4096];
	bool good;
	int fd;

	scratch_template(path, sizeof(path), "meta");
	fd = mkstemp(path);
	if (fd < 0) {
		perror(path);
		return false;
	}
	good = copy_to_fd(meta, fd);
	close(fd);
	good = good && audit_file(path, wish);
	unlink(path);
	return audit_check(meta, wish) && good;
}
