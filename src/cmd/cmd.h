/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cmd: the subcommands of thinfs, one file each.
 *
 * A command parses its arguments, calls the engine or the daemon and prints. argv[0] is the name
 * of the command. Returned is the exit status of the program.
 */
#ifndef THINFS_CMD_CMD_H
#define THINFS_CMD_CMD_H

enum exit_status {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
};

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *synopsis; /* arguments, for the list of commands */
	const char *summary; /* half a line */
};

int cmd_check(int argc, char **argv);
int cmd_clone(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_format(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_mount(int argc, char **argv);
int cmd_remove(int argc, char **argv);
int cmd_resize(int argc, char **argv);
int cmd_revert(int argc, char **argv);
int cmd_shrink(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_sync(int argc, char **argv);
int cmd_umount(int argc, char **argv);

#endif
