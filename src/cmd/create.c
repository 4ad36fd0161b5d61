/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs create [--size S] PATH\n"
	"Make a volume in a mounted pool: PATH is its name in the pool's directory.\n"
	"\n"
	"  -s, --size S   its size, like 10G or 1.5T; otherwise 0. It takes space from\n"
	"                 the pool only as it is written, and truncate(1) resizes it\n"
	"  -h, --help     print this\n"
	"\n"
	"Example: thinfs create --size 10G /mnt/pool/vm1\n";

static int
make_volume(int dir, const char *path, const char *name, uint64_t size)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	int error = fd < 0 ? errno : 0;

	if (fd >= 0 && size && ftruncate(fd, (off_t)size)) {
		error = errno;
		unlinkat(dir, name, 0);
	}
	if (fd >= 0)
		close(fd);

	switch (error) {
	case 0:
		return EXIT_DONE;
	case EEXIST:
		msg_error("cannot make the volume %s: it exists already", path);
		break;
	case EPERM:
		msg_error("cannot make the volume %s: volumes are made in the pool's top "
			  "directory only",
			  path);
		break;
	default:
		msg_error("cannot make the volume %s: %s", path, strerror(error));
	}
	return EXIT_FAILED;
}

int
cmd_create(int argc, char **argv)
{
	static const struct option longs[] = {
		{"size", required_argument, NULL, 's'},
		COMMON_HELP,
		COMMON_END,
	};
	struct target target;
	uint64_t size = 0;
	struct path path;
	int c, status;

	while ((c = common_option(argc, argv, "s:", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == COMMON_EXIT)
			return status;
		status = common_size(argv, "--size", optarg, &size);
		if (status)
			return status;
	}
	if (argc - optind != 1)
		return common_usage(argv, "needs the path of the volume to make");
	if (common_split_path(argv[optind], &path))
		return EXIT_FAILED;
	status = target_open_mount(path.dir, &target);
	if (status == 0) {
		status = make_volume(target.fd, argv[optind], path.base, size);
		target_close(&target);
	}
	common_free_path(&path);
	return status;
}
