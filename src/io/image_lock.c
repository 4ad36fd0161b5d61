/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "io/image_lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util/msg.h"

static bool
same_file(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode)) /* a device may have many nodes */
		return S_ISBLK(b->st_mode) && a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether an open file, by its page in /proc, holds a lock. Many may just have the image open. */
static bool
fd_holds_lock(const char *pid, const char *fd)
{
	char path[64 + 2 * NAME_MAX];
	char line[256];
	bool locked = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, fd);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!locked && fgets(line, sizeof(line), f))
		locked = !strncmp(line, "lock:", 5);
	fclose(f);
	return locked;
}

static bool
process_holds_lock(const char *pid, const struct stat *st)
{
	char path[16 + NAME_MAX];
	struct dirent *entry;
	struct stat other;
	bool found = false;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	fds = opendir(path); /* fails for the processes of other users */
	if (!fds)
		return false;
	while (!found && (entry = readdir(fds)))
		found = isdigit((unsigned char)entry->d_name[0]) &&
			!fstatat(dirfd(fds), entry->d_name, &other, 0) && same_file(st, &other) &&
			fd_holds_lock(pid, entry->d_name);
	closedir(fds);
	return found;
}

/* The process that has the file open with a lock on it; 0 if none can be seen. */
static long
find_lock_holder(const struct stat *st)
{
	struct dirent *entry;
	long pid = 0;
	DIR *proc = opendir("/proc");

	if (!proc)
		return 0;
	while (!pid && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) && process_holds_lock(entry->d_name, st))
			pid = strtol(entry->d_name, NULL, 10);
	closedir(proc);
	return pid;
}

/* The first line of a small file, without its end. */
static bool
read_line(const char *path, char *line, size_t size)
{
	FILE *f = fopen(path, "re");
	bool good = f && fgets(line, (int)size, f);

	if (f)
		fclose(f);
	if (good)
		line[strcspn(line, "\n")] = '\0';
	return good;
}

static void
process_name(long pid, char *name, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
	if (!read_line(path, name, size))
		snprintf(name, size, "?");
}

static void
report_process(const char *path, long pid)
{
	char name[64];

	process_name(pid, name, sizeof(name));
	msg_error("%s: in use by process %ld (%s); %s", path, pid, name,
		  strcmp(name, "thinfs") ? "end it first" : "unmount it first with 'thinfs umount'");
}

/*
 * A loop device over the file: it takes no lock, but who uses it reads and writes the file. One that is read-only is
 * like another reader. In other mount namespaces its path may lead elsewhere; then it is not found.
 */
static bool
find_loop(const struct stat *st, bool exclusive, char *name, size_t size)
{
	char path[64 + NAME_MAX], file[PATH_MAX], ro[4];
	struct dirent *entry;
	struct stat other;
	bool found = false;
	DIR *blocks = opendir("/sys/block");

	while (blocks && !found && (entry = readdir(blocks))) {
		if (strncmp(entry->d_name, "loop", 4) != 0)
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", entry->d_name);
		if (!read_line(path, file, sizeof(file)) || stat(file, &other) || !same_file(st, &other))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/ro", entry->d_name);
		found = exclusive || !read_line(path, ro, sizeof(ro)) || strcmp(ro, "1") != 0;
		if (found)
			snprintf(name, size, "%s", entry->d_name);
	}
	if (blocks)
		closedir(blocks);
	return found;
}

static int
check_loop(int fd, bool exclusive, const char *path)
{
	char name[NAME_MAX + 1];
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || !find_loop(&st, exclusive, name, sizeof(name)))
		return 0;
	msg_error("%s: in use by the loop device /dev/%s; detach it first with 'losetup -d /dev/%s'", path, name,
		  name);
	return -EBUSY;
}

int
image_lock(int fd, bool exclusive, const char *path)
{
	struct flock lock = {
		.l_type = exclusive ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
	};
	struct stat st;
	long pid = 0;
	int err;

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return check_loop(fd, exclusive, path);
	err = errno;
	if (err != EAGAIN && err != EACCES) {
		msg_error("%s: cannot lock it: %s", path, strerror(err));
		return -err;
	}

	/* An ordinary lock tells its process, an open file description lock tells -1. */
	if (!fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK && lock.l_pid > 0)
		pid = lock.l_pid;
	else if (!fstat(fd, &st))
		pid = find_lock_holder(&st);

	if (pid)
		report_process(path, pid);
	else
		msg_error("%s: in use by a process of another user, container or machine; unmount it there "
			  "first", path);
	return -EBUSY;
}

/* The device on top of a block device: device mapper, md and the like. */
static bool
find_device_on_top(dev_t dev, char *name, size_t size)
{
	char path[64];
	struct dirent *entry;
	bool found = false;
	DIR *holders;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(dev), minor(dev));
	holders = opendir(path);
	if (!holders)
		return false;
	while (!found && (entry = readdir(holders)))
		if (entry->d_name[0] != '.') {
			snprintf(name, size, "%s", entry->d_name);
			found = true;
		}
	closedir(holders);
	return found;
}

/* Where a file system on the device is mounted. */
static bool
find_mount_point(dev_t dev, char *dir, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t cap = 0;
	bool found = false;

	if (!f)
		return false;
	while (!found && getline(&line, &cap, f) > 0) {
		unsigned maj, min;
		int at = 0;

		if (sscanf(line, "%*d %*d %u:%u %*s %n", &maj, &min, &at) == 2 && at &&
		    makedev(maj, min) == dev) {
			snprintf(dir, size, "%.*s", (int)strcspn(line + at, " "), line + at);
			found = true;
		}
	}
	free(line);
	fclose(f);
	return found;
}

void
image_report_busy_device(const char *path)
{
	char name[PATH_MAX];
	struct stat st;
	long pid;

	if (stat(path, &st)) {
		msg_error("%s: %s", path, strerror(errno));
		return;
	}
	pid = find_lock_holder(&st);
	if (pid)
		report_process(path, pid);
	else if (find_device_on_top(st.st_rdev, name, sizeof(name)))
		msg_error("%s: in use by the device /dev/%s; remove that first", path, name);
	else if (find_mount_point(st.st_rdev, name, sizeof(name)))
		msg_error("%s: mounted on %s; unmount it first", path, name);
	else
		msg_error("%s: in use by the kernel or by a process of another user", path);
}
