/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/holders.h"
#include "fuse/mountinfo.h"
#include "util/msg.h"

enum { HOLDERS_MAX = 10 }; /* lines; who has that many knows what to do */

struct search {
	const char *dir;
	size_t len;
	unsigned found;
};

static bool
is_below(const struct search *s, const char *path)
{
	return strncmp(path, s->dir, s->len) == 0 && (path[s->len] == '/' || path[s->len] == '\0');
}

/* Read the first line of a small file; "" when there is none. */
static void
read_line(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (!f)
		return;
	if (fgets(buf, (int)len, f))
		buf[strcspn(buf, "\n")] = '\0';
	fclose(f);
}

static bool
link_below(const struct search *s, const char *link, char *target)
{
	ssize_t n = readlink(link, target, PATH_MAX - 1);

	if (n <= 0)
		return false;
	target[n] = '\0';
	return is_below(s, target);
}

/* Whether a process maps a file below; TARGET is set to it. */
static bool
maps_below(const struct search *s, const char *proc, char *target)
{
	char path[PATH_MAX], *line = NULL, *file;
	bool below = false;
	size_t size = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/maps", proc);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!below && getline(&line, &size, f) > 0) {
		file = strchr(line, '/');
		if (!file)
			continue;
		file[strcspn(file, "\n")] = '\0';
		below = is_below(s, file);
		if (below)
			snprintf(target, PATH_MAX, "%s", file);
	}
	free(line);
	fclose(f);
	return below;
}

static bool
fds_below(const struct search *s, const char *proc, char *target)
{
	char path[PATH_MAX + 300];
	bool below = false;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%s/fd", proc);
	d = opendir(path);
	while (d && !below && (e = readdir(d)) != NULL) {
		snprintf(path, sizeof(path), "%s/fd/%s", proc, e->d_name);
		below = link_below(s, path, target);
	}
	if (d)
		closedir(d);
	return below;
}

static void
look_at_process(struct search *s, const char *pid)
{
	static const char *const links[] = {"cwd", "root", "exe"};
	char proc[64], path[128], target[PATH_MAX], name[64];
	const char *how = NULL;

	snprintf(proc, sizeof(proc), "/proc/%.20s", pid);
	for (size_t i = 0; !how && i < sizeof(links) / sizeof(links[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", proc, links[i]);
		if (link_below(s, path, target))
			how = i == 0 ? "works in" : i == 1 ? "has as its root" : "runs";
	}
	if (!how && fds_below(s, proc, target))
		how = "has open";
	if (!how && maps_below(s, proc, target))
		how = "has mapped";
	if (!how)
		return;
	snprintf(path, sizeof(path), "%s/comm", proc);
	read_line(path, name, sizeof(name));
	if (s->found++ < HOLDERS_MAX)
		msg_info("process %s (%s) %s %s", pid, name, how, target);
}

static void
look_at_processes(struct search *s)
{
	DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		if (isdigit((unsigned char)e->d_name[0]) && atol(e->d_name) != getpid())
			look_at_process(s, e->d_name);
	}
	if (d)
		closedir(d);
}

struct where {
	unsigned dev_major, dev_minor;
	char dir[PATH_MAX];
};

static int
find_mounted(const struct mount_entry *e, void *arg)
{
	struct where *w = arg;

	if (e->dev_major != w->dev_major || e->dev_minor != w->dev_minor)
		return 0;
	snprintf(w->dir, sizeof(w->dir), "%s", e->dir);
	return 1;
}

static void
look_at_loop(struct search *s, const char *name)
{
	char path[PATH_MAX], file[PATH_MAX], dev[32];
	struct where w = {0};

	snprintf(path, sizeof(path), "/sys/block/%.64s/loop/backing_file", name);
	read_line(path, file, sizeof(file));
	if (!is_below(s, file) || s->found++ >= HOLDERS_MAX)
		return;
	snprintf(path, sizeof(path), "/sys/block/%.64s/dev", name);
	read_line(path, dev, sizeof(dev));
	if (sscanf(dev, "%u:%u", &w.dev_major, &w.dev_minor) == 2 &&
	    mountinfo_for_each(find_mounted, &w) == 1)
		msg_info("/dev/%s, mounted on %s, is on %s: 'umount %s', then 'losetup -d /dev/%s'",
			 name, w.dir, file, w.dir, name);
	else
		msg_info("/dev/%s is on %s: 'losetup -d /dev/%s' detaches it", name, file, name);
}

static void
look_at_loops(struct search *s)
{
	DIR *d = opendir("/sys/block");
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		if (strncmp(e->d_name, "loop", 4) == 0)
			look_at_loop(s, e->d_name);
	}
	if (d)
		closedir(d);
}

static int
look_at_mount(const struct mount_entry *e, void *arg)
{
	struct search *s = arg;

	if (is_below(s, e->dir) && e->dir[s->len] == '/' && s->found++ < HOLDERS_MAX)
		msg_info("something is mounted on %s: 'umount %s'", e->dir, e->dir);
	return 0;
}

unsigned
holders_print(const char *dir)
{
	struct search s = {.dir = dir, .len = strlen(dir)};

	look_at_loops(&s);
	mountinfo_for_each(look_at_mount, &s);
	look_at_processes(&s);
	if (s.found > HOLDERS_MAX)
		msg_info("and %u more", s.found - HOLDERS_MAX);
	return s.found;
}
