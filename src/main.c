/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thinfs: the command table.
 */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "util/msg.h"

static const struct command commands[] = {
	{"format", cmd_format, "[OPTION...] DATA META", "make a pool of two images"},
	{"mount", cmd_mount, "[-f] [-o OPTION,...] DATA META DIR", "show its volumes as files in DIR"},
	{"umount", cmd_umount, "[--force] DIR", "unmount it, and wait until all is durable"},
	{"list", cmd_list, "[--json] TARGET", "list volumes and snapshots"},
	{"status", cmd_status, "[--json] TARGET", "tell how the pool is"},
	{"create", cmd_create, "[--size S] PATH", "make a volume"},
	{"clone", cmd_clone, "PATH NEW", "make a volume of another one, or of one in a snapshot"},
	{"snapshot", cmd_snapshot, "DIR NAME [VOLUME...]", "snapshot all volumes, or some"},
	{"revert", cmd_revert, "PATH SNAPSHOT_PATH", "let a volume be as it was in a snapshot"},
	{"remove", cmd_remove, "[--dry-run] PATH...", "remove volumes or snapshots"},
	{"resize", cmd_resize, "[--data S] [--metadata S] DIR", "make the images larger"},
	{"shrink", cmd_shrink, "--data S DIR", "make the data image smaller"},
	{"sync", cmd_sync, "DIR", "make durable all that was written"},
	{"check", cmd_check, "[--json] [--repair] [--data DATA] META", "verify the metadata of a pool, and mend them"},
	{NULL, NULL, NULL, NULL},
};

static void
print_help(FILE *out)
{
	const struct command *c;

	fprintf(out, "Usage: thinfs COMMAND [ARGUMENT...]\n"
		     "Show the thin volumes of a storage pool as files.\n\n");
	for (c = commands; c->name; c++)
		fprintf(out, "  %-9s %s\n            %s\n", c->name, c->synopsis, c->summary);
	fprintf(out, "\n'thinfs COMMAND --help' tells more about one; so does thinfs(1).\n");
}

int
main(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_help(stdout);
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("%s\n", PACKAGE_STRING);
		return EXIT_DONE;
	}
	for (c = commands; c->name; c++)
		if (!strcmp(argv[1], c->name))
			return c->run(argc - 1, argv + 1);

	msg_error("%s: no such command; 'thinfs --help' lists them", argv[1]);
	return EXIT_USAGE;
}
