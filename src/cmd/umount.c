/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * umount(8) returns before the daemon has written everything and let go of the images. This
 * waits for it, by a pidfd that is opened while the daemon still answers.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/holders.h"
#include "cmd/target.h"
#include "fuse/mountinfo.h"
#include "util/msg.h"

#define PATIENCE_MS 3000 /* before saying what is waited for */

static const char help[] =
	"Usage: thinfs umount [--force] DIR\n"
	"Unmount a pool, and wait until everything is durable and the images are free.\n"
	"\n"
	"      --force   also when it is in use: its users get errors, and what programs\n"
	"                or loop devices have not written yet is lost\n"
	"  -h, --help    print this\n"
	"\n"
	"When the pool is in use, this says by whom. A mount whose daemon has died is\n"
	"just unmounted.\n";

/* DIR as the kernel has it in its list of mounts; works also when the mount is dead. */
static char *
mount_dir(const char *dir)
{
	char *path = realpath(dir, NULL);

	/* A dead mount's root may not be asked; the directory it is in may. */
	return path ? path : common_absolute(dir);
}

static void
wait_for_daemon(int pidfd, const char *dir)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int r;

	do
		r = poll(&p, 1, PATIENCE_MS);
	while (r < 0 && errno == EINTR);
	if (r)
		return;
	msg_info("%s is unmounted; waiting for the daemon to write what is left", dir);
	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
}

static int
say_busy(const char *dir)
{
	msg_error("cannot unmount %s: it is in use (or use --force)", dir);
	if (holders_print(dir) == 0)
		msg_info("by something that you cannot see; root can: 'sudo thinfs umount %s'",
			 dir);
	return EXIT_FAILED;
}

static int
unmount(const char *dir)
{
	struct mount_found found;
	int r = mountinfo_unmount(dir, false);

	if (r == -EBUSY)
		return say_busy(dir);
	/* It may have ended by itself meanwhile. */
	if (r && mountinfo_find(dir, &found) == 0 && !found.is_thinfs)
		r = 0;
	if (r == 0)
		return EXIT_DONE;
	msg_error("cannot unmount %s: %s", dir, strerror(-r));
	return EXIT_FAILED;
}

/* The mount is dead: its images are free already, and all that was synced is in them. */
static int
unmount_dead(const char *dir)
{
	int r = mountinfo_unmount(dir, false);

	if (r)
		r = mountinfo_unmount(dir, true);
	if (r) {
		msg_error("cannot unmount %s, whose daemon has died: %s", dir, strerror(-r));
		return EXIT_FAILED;
	}
	msg_info("%s was left by a daemon that had died; it is unmounted, and the pool can be "
		 "mounted again",
		 dir);
	return EXIT_DONE;
}

/*
 * Root is kept out of a user's mount that was not made with allow_other, so that its daemon cannot
 * be asked who it is.
 */
static int
unmount_blindly(const char *dir)
{
	int status = unmount(dir);

	if (status == EXIT_DONE)
		msg_warn("%s is unmounted, but belongs to another user: its daemon may still be "
			 "writing",
			 dir);
	return status;
}

/* Here the caller learns whether the last commit went well; the daemon can only log it. */
static int
commit(const struct target *target, const char *dir)
{
	if (fsync(target->fd) == 0)
		return EXIT_DONE;
	msg_error("what was last written to %s could not be made durable: %s", dir,
		  strerror(errno));
	return EXIT_FAILED;
}

static int
unmount_live(const char *dir, bool force)
{
	int pidfd, status = EXIT_DONE, unmounted;
	struct target target;

	if (access(dir, R_OK | X_OK) && errno == EACCES)
		return unmount_blindly(dir);
	if (target_open_mount(dir, &target))
		return EXIT_FAILED;
	if (geteuid() && geteuid() != target.info.uid) {
		msg_error("cannot unmount %s: only who mounted it (user %u) and root may", dir,
			  target.info.uid);
		target_close(&target);
		return EXIT_FAILED;
	}
	pidfd = (int)syscall(SYS_pidfd_open, target.info.pid, 0);
	if (pidfd < 0)
		msg_warn("cannot wait for the daemon of %s (process %d): it may still be writing "
			 "when this returns",
			 dir, (int)target.info.pid);

	if (force) {
		unmounted = ioctl(target.fd, CONTROL_IOC_SHUTDOWN) ? EXIT_FAILED : EXIT_DONE;
		if (unmounted != EXIT_DONE)
			msg_error("cannot end the daemon of %s: %s", dir, strerror(errno));
		target_close(&target);
	} else {
		status = commit(&target, dir);
		target_close(&target); /* it would keep the mount busy */
		unmounted = unmount(dir);
	}
	if (pidfd >= 0) {
		if (unmounted == EXIT_DONE)
			wait_for_daemon(pidfd, dir);
		close(pidfd);
	}
	return unmounted == EXIT_DONE ? status : unmounted;
}

int
cmd_umount(int argc, char **argv)
{
	static const struct option longs[] = {
		{"force", no_argument, NULL, 'f'},
		COMMON_HELP,
		COMMON_END,
	};
	struct mount_found found;
	bool force = false;
	int c, status;
	char *dir;

	while ((c = common_option(argc, argv, "f", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == COMMON_EXIT)
			return status;
		force = true;
	}
	if (argc - optind != 1)
		return common_usage(argv, "needs the directory of a mounted pool");
	dir = mount_dir(argv[optind]);
	if (!dir)
		return EXIT_FAILED;

	if (mountinfo_find(dir, &found) || !found.is_thinfs) {
		msg_error("cannot unmount %s: no pool is mounted there; 'findmnt -t fuse.thinfs' "
			  "lists those that are",
			  argv[optind]);
		status = EXIT_FAILED;
	} else if (mountinfo_is_dead(dir)) {
		status = unmount_dead(dir);
	} else {
		status = unmount_live(dir, force);
	}
	free(dir);
	return status;
}
