/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a daemon answers to 'list' and 'status': JSON, from a process that may be anybody's. The
 * functions of cmd/target.h are these here.
 */
#include <config.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/target.h"
#include "fuzz/fuzz.h"

static const char *text;
static size_t text_len;

int
target_open(char **argv, int nr, struct target *t)
{
	(void)argv;
	(void)nr;
	*t = (struct target){.fd = 0};
	return 0;
}

void
target_close(struct target *t)
{
	*t = (struct target){.fd = -1};
}

json_t *
target_report(struct target *t, enum control_report what)
{
	json_error_t error;

	(void)t;
	(void)what;
	return json_loadb(text, text_len, 0, &error);
}

static int
init(void)
{
	return 0;
}

static void
run(const uint8_t *data, size_t size)
{
	static FILE *null;
	FILE *real = stdout;
	struct fuzz_input in = {data, size};
	uint8_t how = fuzz_u8(&in);
	char list[] = "list", status[] = "status", json[] = "--json", dir[] = "dir";
	char *argv[] = {how & 1 ? list : status, dir, how & 2 ? json : NULL, NULL};

	fuzz_begin();
	if (!null)
		null = fopen("/dev/null", "w");
	text = (const char *)in.p;
	text_len = in.left;
	stdout = null ? null : stdout;
	optind = 0;
	if (how & 1)
		cmd_list(how & 2 ? 3 : 2, argv);
	else
		cmd_status(how & 2 ? 3 : 2, argv);
	stdout = real;
}

const struct fuzz_target fuzz_json = {"json", init, run};
