/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/common.h"
#include "util/msg.h"
#include "util/size.h"

int
common_option(int argc, char **argv, const char *shorts, const struct option *longs,
	      const char *help, int *status)
{
	char with_help[32];
	int c;

	/* The colon: our own message for a missing value. */
	snprintf(with_help, sizeof(with_help), ":h%s", shorts);
	opterr = 0;
	c = getopt_long(argc, argv, with_help, longs, NULL);
	switch (c) {
	case 'h':
		fputs(help, stdout);
		*status = common_flush();
		return COMMON_EXIT;
	case ':':
		*status = common_usage(argv, "option '%s' needs a value", argv[optind - 1]);
		return COMMON_EXIT;
	case '?':
		if (optopt && strchr(with_help, optopt) == NULL)
			*status = common_usage(argv, "unknown option '-%c'", optopt);
		else
			*status = common_usage(argv, "option '%s' is unknown, or used wrongly",
					       argv[optind - 1]);
		return COMMON_EXIT;
	default:
		return c;
	}
}

int
common_usage(char **argv, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	msg_error("%s: %s; see 'thinfs %s --help'", argv[0], text, argv[0]);
	return EXIT_USAGE;
}

int
common_size(char **argv, const char *name, const char *text, uint64_t *bytes)
{
	int r = size_parse(text, bytes);

	if (r == -ERANGE)
		return common_usage(argv, "%s %s: larger than any file can be", name, text);
	if (r)
		return common_usage(argv, "%s %s: not a size, like 4096, 64K, 10G or 1.5T", name,
				    text);
	return 0;
}

int
common_split_path(const char *path, struct path *out)
{
	char *copy = strdup(path), *slash;
	size_t len = copy ? strlen(copy) : 0;

	*out = (struct path){0};
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = copy ? strrchr(copy, '/') : NULL;
	if (copy) {
		out->base = strdup(slash ? slash + 1 : copy);
		if (!slash)
			out->dir = strdup(".");
		else
			out->dir = slash == copy ? strdup("/")
						 : strndup(copy, (size_t)(slash - copy));
	}
	free(copy);
	if (!out->base || !out->dir) {
		msg_error("%s: out of memory", path);
	} else if (!*out->base || !strcmp(out->base, ".") || !strcmp(out->base, "..")) {
		msg_error("'%s': does not end in the name of a volume or snapshot", path);
	} else {
		return 0;
	}
	common_free_path(out);
	return EXIT_FAILED;
}

void
common_free_path(struct path *p)
{
	free(p->dir);
	free(p->base);
	*p = (struct path){0};
}

char *
common_absolute(const char *path)
{
	struct path p;
	char *dir, *out = NULL;

	if (common_split_path(path, &p))
		return NULL;
	dir = realpath(p.dir, NULL);
	if (!dir)
		msg_error("cannot open %s: %s: %s", path, p.dir, strerror(errno));
	else if (asprintf(&out, "%s/%s", strcmp(dir, "/") ? dir : "", p.base) < 0)
		out = NULL;
	free(dir);
	common_free_path(&p);
	return out;
}

uint64_t
common_json_number(const json_t *object, const char *key, uint64_t missing)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? (uint64_t)json_integer_value(value) : missing;
}

const char *
common_json_string(const json_t *object, const char *key, const char *missing)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : missing;
}

int
common_flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_DONE;
	msg_error("cannot write the output: %s", strerror(errno));
	return EXIT_FAILED;
}

int
common_print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
	return common_flush();
}
