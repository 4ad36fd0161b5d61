/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/mountinfo.h"

extern char **environ;

/* Blanks and backslashes stand there in octal; in place. */
static void
decode(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/*
 * 36 35 98:0 /root /dir opts [optional ...] - type source super-opts
 */
static bool
parse(char *line, struct mount_entry *e)
{
	char *save, *field, *dir = NULL, *type, *source;

	strtok_r(line, " \n", &save); /* id */
	strtok_r(NULL, " \n", &save); /* parent */
	field = strtok_r(NULL, " \n", &save);
	if (!field || sscanf(field, "%u:%u", &e->dev_major, &e->dev_minor) != 2)
		return false;
	strtok_r(NULL, " \n", &save); /* root */
	dir = strtok_r(NULL, " \n", &save);
	do
		field = strtok_r(NULL, " \n", &save);
	while (field && strcmp(field, "-") != 0);
	type = strtok_r(NULL, " \n", &save);
	source = strtok_r(NULL, " \n", &save);
	if (!dir || !type)
		return false;
	decode(dir);
	if (source)
		decode(source);
	e->dir = dir;
	e->type = type;
	e->source = source ? source : "";
	return true;
}

int
mountinfo_for_each(int (*fn)(const struct mount_entry *e, void *arg), void *arg)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	struct mount_entry e;
	char *line = NULL;
	size_t size = 0;
	int r = 0;

	if (!f)
		return -errno;
	while (r == 0 && getline(&line, &size, f) > 0) {
		if (parse(line, &e))
			r = fn(&e, arg);
	}
	free(line);
	fclose(f);
	return r;
}

struct find {
	const char *dir;
	struct mount_found *found;
};

static int
find_one(const struct mount_entry *e, void *arg)
{
	struct find *find = arg;

	/* A later one lies over the earlier. */
	if (strcmp(e->dir, find->dir) == 0)
		*find->found = (struct mount_found){
			.found = true,
			.is_thinfs = strcmp(e->type, MOUNT_TYPE) == 0,
			.dev_major = e->dev_major,
			.dev_minor = e->dev_minor,
		};
	return 0;
}

int
mountinfo_find(const char *dir, struct mount_found *found)
{
	struct find find = {dir, found};

	*found = (struct mount_found){0};
	return mountinfo_for_each(find_one, &find);
}

bool
mountinfo_is_dead(const char *dir)
{
	struct statfs fs;

	return statfs(dir, &fs) && (errno == ENOTCONN || errno == ECONNABORTED);
}

/*
 * fusermount3 is setuid, and unmounts what the caller mounted. It is given no shell, and its
 * messages are dropped: callers say more.
 */
static int
run_fusermount(const char *dir, bool lazy)
{
	const char *argv[] = {"fusermount3", "-u", lazy ? "-z" : "--", dir, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int r, status;
	pid_t pid;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	r = -posix_spawnp(&pid, argv[0], &actions, &attr, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	if (r)
		return r;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int
mountinfo_unmount(const char *dir, bool lazy)
{
	if (umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	return run_fusermount(dir, lazy);
}
