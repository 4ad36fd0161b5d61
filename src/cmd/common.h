/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * common: options, paths and output, the same for all commands.
 */
#ifndef THINFS_CMD_COMMON_H
#define THINFS_CMD_COMMON_H

#include <getopt.h>
#include <jansson.h>
#include <stdint.h>

#include "cmd/cmd.h"

/* Entry of each command's option table. */
#define COMMON_HELP {"help", no_argument, NULL, 'h'}
#define COMMON_END {NULL, 0, NULL, 0}

enum common_option {
	COMMON_NO_MORE = -1,
	COMMON_EXIT = -2, /* help was printed, or the option is wrong: leave with *STATUS */
};

/*
 * The next option's letter, as getopt_long(3), whose optarg and optind hold; or one of the above.
 * SHORTS without 'h'.
 */
int common_option(int argc, char **argv, const char *shorts, const struct option *longs,
		  const char *help, int *status);

/* Say that ARGV's arguments are wrong, and how to see what is right: EXIT_USAGE. */
int common_usage(char **argv, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The size in TEXT, of option NAME; 0 or EXIT_USAGE after a message. */
int common_size(char **argv, const char *name, const char *text, uint64_t *bytes);

struct path {
	char *dir; /* "." when there is none */
	char *base; /* without trailing slashes */
};

/*
 * Split at the last slash; 0, or EXIT_FAILED after a message: nothing is left, or it is "." or
 * "..".
 */
int common_split_path(const char *path, struct path *out);
void common_free_path(struct path *p);

/*
 * PATH with a leading slash and no symbolic links but perhaps the last part; from malloc, NULL
 * after a message.
 */
char *common_absolute(const char *path);

/* Members of a JSON object, with a value for when they are missing. */
uint64_t common_json_number(const json_t *object, const char *key, uint64_t missing);
const char *common_json_string(const json_t *object, const char *key, const char *missing);

/* Print for scripts; EXIT_DONE or EXIT_FAILED after a message. */
int common_print_json(const json_t *json);
/* Flush standard output: EXIT_FAILED after a message when what was printed did not get out. */
int common_flush(void);

#endif
