/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <bsd/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/mountinfo.h"
#include "fuse/privileges.h"
#include "fuse/unmounter.h"

#define OURS (STDERR_FILENO + 1) /* the only descriptor but for those on /dev/null */

/* Nothing of the daemon's stays open: not its images, and not what a caller of ours waits to be closed. */
static int
keep_only(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, OURS + 1);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (high < 0 || null < 0)
		return -1;
	for (int i = 0; i < OURS; i++)
		dup2(null, i);
	if (dup3(high, OURS, O_CLOEXEC) < 0)
		return -1;
	closefrom(OURS + 1);
	return OURS;
}

/* --- the process --- */

enum what {
	UNMOUNT,
	UNMOUNT_LAZILY,
	WATCH,
};

struct order {
	enum what what;
	unsigned dev_major, dev_minor; /* for WATCH */
};

static volatile sig_atomic_t orphaned;

static void
on_orphaned(int sig)
{
	(void)sig;
	orphaned = 1;
}

/*
 * Where the kernel's list of connections is not to be seen, a forced unmount does it too; but not the unmounting, while
 * we have the directory open.
 */
static void
abort_connection(const char *dir, const struct order *watch)
{
	struct mount_found found;
	char path[64];
	int fd, hold;

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", watch->dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "1", 1) == 1)
		return;
	hold = open(dir, O_PATH | O_CLOEXEC);
	if (hold >= 0 && mountinfo_find(dir, &found) == 0 && found.dev_major == watch->dev_major &&
	    found.dev_minor == watch->dev_minor)
		umount2(dir, MNT_FORCE);
}

/* Whether there is an order; not, when the daemon has ended or been killed. */
static bool
receive(int fd, struct order *order)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	sigset_t none;

	sigemptyset(&none);
	while (!orphaned)
		if (ppoll(&p, 1, NULL, &none) > 0)
			return recv(fd, order, sizeof(*order), 0) == sizeof(*order);
	return false;
}

/* All signals are blocked but while we wait, so that none is missed. */
static void
watch_parent(void)
{
	struct sigaction action = {.sa_handler = on_orphaned};
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigaction(SIGUSR1, &action, NULL);
	prctl(PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0);
}

static void __attribute__((noreturn))
serve(int fd, const char *dir)
{
	struct order order, watch = {.what = UNMOUNT};
	int r;

	setsid();
	prctl(PR_SET_NAME, "thinfs-umount");
	fd = keep_only(fd);
	if (fd < 0 || chdir("/"))
		_exit(1);
	/* Without this one, unmounting is done by set-uid fusermount3, which must be able to gain it. */
	if (privileges_has(CAP_SYS_ADMIN))
		privileges_keep(PRIVILEGE(CAP_SYS_ADMIN) | PRIVILEGE(CAP_DAC_READ_SEARCH));
	watch_parent();
	while (receive(fd, &order)) {
		if (order.what == WATCH) {
			watch = order;
			continue;
		}
		r = mountinfo_unmount(dir, order.what == UNMOUNT_LAZILY);
		if (send(fd, &r, sizeof(r), MSG_NOSIGNAL) != sizeof(r))
			break;
	}
	if (orphaned && watch.what == WATCH)
		abort_connection(dir, &watch);
	_exit(0);
}

/* --- the daemon's side --- */

int
unmounter_start(struct unmounter *u, const char *dir)
{
	int fds[2], r;

	u->fd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	u->pid = fork();
	r = u->pid < 0 ? -errno : 0;
	if (u->pid == 0) {
		close(fds[0]);
		serve(fds[1], dir);
	}
	close(fds[1]);
	if (r)
		close(fds[0]);
	else
		u->fd = fds[0];
	return r;
}

void
unmounter_watch(struct unmounter *u, unsigned dev_major, unsigned dev_minor)
{
	struct order order = {.what = WATCH, .dev_major = dev_major, .dev_minor = dev_minor};
	ssize_t n = send(u->fd, &order, sizeof(order), MSG_NOSIGNAL);

	(void)n; /* somebody has killed it: then nobody watches */
}

int
unmounter_unmount(struct unmounter *u, bool lazy)
{
	struct order order = {.what = lazy ? UNMOUNT_LAZILY : UNMOUNT};
	int r;

	if (send(u->fd, &order, sizeof(order), MSG_NOSIGNAL) != sizeof(order) ||
	    recv(u->fd, &r, sizeof(r), 0) != sizeof(r))
		return -EPIPE; /* somebody has killed it */
	return r;
}

void
unmounter_stop(struct unmounter *u)
{
	if (u->fd < 0)
		return;
	close(u->fd);
	u->fd = -1;
	while (waitpid(u->pid, NULL, 0) < 0 && errno == EINTR)
		;
}
