/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs snapshot DIR NAME [VOLUME...]\n"
	"Snapshot volumes of the mounted pool DIR, at one instant, as DIR/.snapshots/NAME.\n"
	"\n"
	"Without VOLUME every volume is in it; otherwise those named, by name or path.\n"
	"The same as 'mkdir DIR/.snapshots/NAME'; remove it again with\n"
	"'thinfs remove DIR/.snapshots/NAME'.\n"
	"\n"
	"  -h, --help   print this\n"
	"\n"
	"Example: thinfs snapshot /mnt/pool monday\n";

static void
say_why(const char *dir, const char *name, int error)
{
	switch (error) {
	case EEXIST:
		msg_error("cannot make the snapshot %s in %s: there is one of that name", name,
			  dir);
		break;
	case ENOENT:
		msg_error("cannot make the snapshot %s in %s: no such volume to take it of", name,
			  dir);
		break;
	case EACCES:
		msg_error("cannot make the snapshot %s in %s: only who mounted the pool, and "
			  "root, may",
			  name, dir);
		break;
	default:
		msg_error("cannot make the snapshot %s in %s: %s", name, dir, strerror(error));
	}
}

static int
snapshot_all(const struct target *target, const char *dir, const char *name)
{
	char path[sizeof(".snapshots/") + 256];

	snprintf(path, sizeof(path), ".snapshots/%s", name);
	if (mkdirat(target->fd, path, 0755) == 0)
		return EXIT_DONE;
	say_why(dir, name, errno);
	return EXIT_FAILED;
}

/*
 * The name of a volume that is given as a path, which must lie in the pool; from malloc, or NULL
 * after a message.
 */
static char *
volume_name(const struct target *target, const char *volume)
{
	struct stat pool, dir;
	struct path path;
	char *name = NULL;

	if (!strchr(volume, '/'))
		return strdup(volume);
	if (common_split_path(volume, &path))
		return NULL;
	if (fstat(target->fd, &pool) == 0 && stat(path.dir, &dir) == 0 &&
	    pool.st_dev == dir.st_dev && pool.st_ino == dir.st_ino)
		name = strdup(path.base);
	else
		msg_error("%s: not a volume in the top directory of that pool", volume);
	common_free_path(&path);
	return name;
}

/* Append to the request; sends it when it is full. 0 or EXIT_FAILED after a message. */
static int
add_volume(const struct target *target, struct control_snapshot *request, const char *volume)
{
	char *name = volume_name(target, volume);
	size_t len = name ? strlen(name) + 1 : 0;
	int status = EXIT_FAILED;

	if (!name)
		return EXIT_FAILED;
	if (len > 256) {
		msg_error("%s: no volume has so long a name", volume);
		goto out;
	}
	if (request->len + len > sizeof(request->volumes)) {
		request->more = 1;
		if (ioctl(target->fd, CONTROL_IOC_SNAPSHOT, request)) {
			msg_error("cannot snapshot %s: %s", volume, strerror(errno));
			goto out;
		}
		request->nr = request->len = 0;
	}
	memcpy(request->volumes + request->len, name, len);
	request->len += (uint32_t)len;
	request->nr++;
	status = 0;
out:
	free(name);
	return status;
}

static int
snapshot_some(const struct target *target, const char *dir, const char *name, char **volumes,
	      int nr)
{
	struct control_snapshot *request = calloc(1, sizeof(*request));
	int status = EXIT_DONE;
	mode_t mask = umask(0);

	umask(mask);
	if (!request) {
		msg_error("cannot make the snapshot %s: out of memory", name);
		return EXIT_FAILED;
	}
	request->mode = 0755 & ~mask;
	snprintf(request->name, sizeof(request->name), "%s", name);
	for (int i = 0; status == EXIT_DONE && i < nr; i++)
		status = add_volume(target, request, volumes[i]);
	request->more = 0;
	if (status == EXIT_DONE && ioctl(target->fd, CONTROL_IOC_SNAPSHOT, request)) {
		say_why(dir, name, errno);
		status = EXIT_FAILED;
	}
	free(request);
	return status;
}

int
cmd_snapshot(int argc, char **argv)
{
	static const struct option longs[] = {COMMON_HELP, COMMON_END};
	struct target target;
	const char *dir, *name;
	int status = EXIT_DONE;

	while (common_option(argc, argv, "", longs, help, &status) != COMMON_NO_MORE)
		return status;
	if (argc - optind < 2)
		return common_usage(argv, "needs the directory of a mounted pool and a name");
	dir = argv[optind];
	name = argv[optind + 1];
	if (!*name || strlen(name) > 255 || strchr(name, '/') || !strcmp(name, ".") ||
	    !strcmp(name, ".."))
		return common_usage(argv, "'%s': not a name for a snapshot", name);

	if (target_open_mount(dir, &target))
		return EXIT_FAILED;
	if (argc - optind == 2)
		status = snapshot_all(&target, dir, name);
	else
		status = snapshot_some(&target, dir, name, argv + optind + 2, argc - optind - 2);
	target_close(&target);
	return status;
}
