/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <bsd/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/daemon.h"
#include "util/msg.h"

static int ready_fd = -1; /* of the child: a byte tells the parent */

static void __attribute__((noreturn))
wait_for_child(pid_t child, int fd)
{
	char byte;
	ssize_t n;
	int status = 0;

	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(EXIT_DONE);

	/* It has said why, unless it could not. */
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		msg_error("mounting ended by signal %d (%s)", WTERMSIG(status),
			  strsignal(WTERMSIG(status)));
	else if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_DONE)
		msg_error("mounting ended before the mount was ready: it was unmounted, or told "
			  "to end");
	_exit(EXIT_FAILED);
}

int
daemon_start(void)
{
	int fds[2];
	pid_t child;

	/* What a shell left open for its own ends, such as '> >(command)', must not wait for us. */
	closefrom(STDERR_FILENO + 1);
	if (pipe2(fds, O_CLOEXEC)) {
		msg_error("cannot start the daemon: %s", strerror(errno));
		return EXIT_FAILED;
	}
	child = fork();
	if (child < 0) {
		msg_error("cannot start the daemon: %s", strerror(errno));
		close(fds[0]);
		close(fds[1]);
		return EXIT_FAILED;
	}
	if (child > 0) {
		close(fds[1]);
		wait_for_child(child, fds[0]);
	}
	close(fds[0]);
	ready_fd = fds[1];
	return 0;
}

void
daemon_ready(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	ssize_t n;

	msg_to_syslog();
	setsid();
	if (chdir("/"))
		msg_warn("cannot change to /: %s", strerror(errno));
	for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);

	n = write(ready_fd, "", 1);
	(void)n; /* a parent that was killed needs no answer */
	close(ready_fd);
	ready_fd = -1;
}
