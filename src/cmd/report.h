/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * report: the frame of the commands that print what a pool reports, as text or as JSON.
 */
#ifndef THINFS_CMD_REPORT_H
#define THINFS_CMD_REPORT_H

#include "cmd/target.h"

/* The whole command: parse [--json] TARGET, ask for WHAT, print. Returns the exit status, as PRINT does. */
int report_run(int argc, char **argv, const char *help, enum control_report what,
	       int (*print)(const struct target *target, const json_t *report));

#endif
