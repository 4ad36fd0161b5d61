/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs revert PATH SNAPSHOT_PATH\n"
	"Let the volume PATH have what the file SNAPSHOT_PATH of a snapshot has, and its\n"
	"size. What it has now is kept as a snapshot of its own, whose path is printed.\n"
	"The volume must not be in use. All is durable when this returns.\n"
	"\n"
	"  -h, --help   print this\n"
	"\n"
	"Example: thinfs revert /mnt/pool/vm1 /mnt/pool/.snapshots/monday/vm1\n";

static void
say_why(const char *path, const char *from, int error)
{
	switch (error) {
	case EBUSY:
		msg_error("cannot revert %s: it is in use; unmount and detach it first", path);
		break;
	case EXDEV:
		msg_error("cannot revert %s to %s: the one must be a volume, the other a file of a "
			  "snapshot",
			  path, from);
		break;
	case ENOENT:
		msg_error("cannot revert %s to %s: one of them does not exist", path, from);
		break;
	case EACCES:
		msg_error("cannot revert %s: only who mounted the pool, and root, may", path);
		break;
	default:
		msg_error("cannot revert %s to %s: %s", path, from, strerror(error));
	}
}

/* VOLUME@before-revert-TIME, another one for each ATTEMPT. */
static void
name_safety(struct control_clone *c, unsigned attempt)
{
	time_t now = time(NULL);
	char stamp[64] = "";
	struct tm tm;

	if (localtime_r(&now, &tm))
		strftime(stamp, sizeof(stamp), "%Y-%m-%d-%H%M%S", &tm);
	snprintf(c->safety, sizeof(c->safety), "%.200s@before-revert-%s", c->to, stamp);
	if (attempt)
		snprintf(c->safety + strlen(c->safety), sizeof(c->safety) - strlen(c->safety), "-%u",
			 attempt);
}

static int
ask(const struct target *target, struct control_clone *c)
{
	int r = -1;

	for (unsigned attempt = 0; r && attempt < 100; attempt++) {
		name_safety(c, attempt);
		r = ioctl(target->fd, CONTROL_IOC_REVERT, c);
		if (r && errno != EEXIST)
			break;
	}
	return r ? errno : fsync(target->fd) ? errno : 0;
}

static int
revert(char **argv, const struct path *path, const struct path *from)
{
	struct control_clone c = {0};
	struct target target;
	int error;

	if (target_open_mount(from->dir, &target))
		return EXIT_FAILED;
	snprintf(c.from, sizeof(c.from), "%s", from->base);
	snprintf(c.to, sizeof(c.to), "%s", path->base);
	if (strlen(from->base) >= sizeof(c.from) || strlen(path->base) >= sizeof(c.to))
		error = ENAMETOOLONG;
	else if (!target_is_top(&target, path->dir))
		error = EXDEV;
	else
		error = ask(&target, &c);
	target_close(&target);
	if (error) {
		say_why(argv[0], argv[1], error);
		return EXIT_FAILED;
	}
	printf("%s/.snapshots/%s/%s\n", path->dir, c.safety, c.to);
	return common_flush();
}

int
cmd_revert(int argc, char **argv)
{
	static const struct option longs[] = {COMMON_HELP, COMMON_END};
	struct path path, from;
	int status;

	while (common_option(argc, argv, "", longs, help, &status) != COMMON_NO_MORE)
		return status;
	if (argc - optind != 2)
		return common_usage(argv, "needs the path of a volume and that of a file in a snapshot");
	if (common_split_path(argv[optind], &path))
		return EXIT_FAILED;
	status = common_split_path(argv[optind + 1], &from);
	if (!status) {
		status = revert(argv + optind, &path, &from);
		common_free_path(&from);
	}
	common_free_path(&path);
	return status;
}
