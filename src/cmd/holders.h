/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * holders: who keeps a mount busy.
 */
#ifndef THINFS_CMD_HOLDERS_H
#define THINFS_CMD_HOLDERS_H

/*
 * Print a line for each process, loop device and mount that uses something below DIR (absolute,
 * without symbolic links) and can be seen by the caller: their number.
 */
unsigned holders_print(const char *dir);

#endif
