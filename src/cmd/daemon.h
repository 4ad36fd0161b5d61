/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * daemon: go into the background, once it is clear that all is well.
 */
#ifndef THINFS_CMD_DAEMON_H
#define THINFS_CMD_DAEMON_H

/*
 * Fork. In the child returns 0, with messages still on the terminal; the parent waits for its
 * daemon_ready() and leaves with EXIT_DONE, or with EXIT_FAILED when it ends before.
 * EXIT_FAILED in the parent when there can be no child.
 */
int daemon_start(void);
/* Leave the terminal and the working directory, and let the parent go. */
void daemon_ready(void);

#endif
