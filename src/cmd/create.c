/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs create [--size S] [--origin FILE] PATH\n"
	"Make a volume in a mounted pool: PATH is its name in the pool's directory.\n"
	"\n"
	"  -s, --size S        its size, like 10G or 1.5T; otherwise 0, or that of the\n"
	"                      origin. It takes space from the pool only as it is\n"
	"                      written, and truncate(1) resizes it\n"
	"  -o, --origin FILE   what was never written to the volume reads as FILE, a file\n"
	"                      or block device, which must stay where and as it is\n"
	"  -h, --help          print this\n"
	"\n"
	"Examples: thinfs create --size 10G /mnt/pool/vm1\n"
	"          thinfs create --origin /srv/debian.img /mnt/pool/vm2\n";

static int
say_why(const char *path, int error)
{
	switch (error) {
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

/* Why the daemon could not use FILE it has said where its messages go: not here. */
static int
say_why_not_over(const char *path, const char *file, int error)
{
	switch (error) {
	case EACCES:
		msg_error("cannot make the volume %s over %s: only who mounted the pool, and root, may; and the "
			  "daemon must be able to read it", path, file);
		return EXIT_FAILED;
	case EXDEV:
		msg_error("cannot make the volume %s over %s: it is in the same pool; 'thinfs clone' is for that",
			  path, file);
		return EXIT_FAILED;
	case EBUSY:
		msg_error("cannot make the volume %s over %s: somebody has it open for writing", path, file);
		return EXIT_FAILED;
	case EINVAL:
		msg_error("cannot make the volume %s over %s: it is no regular file or block device, or one of the "
			  "pool's own images", path, file);
		return EXIT_FAILED;
	case ENOENT:
		msg_error("cannot make the volume %s over %s: the daemon sees no such file", path, file);
		return EXIT_FAILED;
	default:
		return say_why(path, error);
	}
}

static int
make_over(int dir, const char *path, const char *name, const char *file, uint64_t size)
{
	struct control_create c = {.size = size, .mode = 0644};
	char *origin = common_absolute(file);
	mode_t mask = umask(0);
	int status = EXIT_DONE;
	struct stat st;

	umask(mask);
	c.mode &= ~mask;
	if (!origin)
		return EXIT_FAILED;
	/* Nobody shall read by the volume what he may not read in the origin. */
	if (stat(origin, &st) || !(st.st_mode & S_IROTH))
		c.mode &= 0600;
	if (strlen(name) >= sizeof(c.name) || strlen(origin) >= sizeof(c.origin)) {
		status = say_why(path, ENAMETOOLONG);
	} else {
		strcpy(c.name, name);
		strcpy(c.origin, origin);
		if (ioctl(dir, CONTROL_IOC_CREATE, &c))
			status = say_why_not_over(path, origin, errno);
	}
	free(origin);
	return status;
}

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

	return error ? say_why(path, error) : EXIT_DONE;
}

int
cmd_create(int argc, char **argv)
{
	static const struct option longs[] = {
		{"size", required_argument, NULL, 's'},
		{"origin", required_argument, NULL, 'o'},
		COMMON_HELP,
		COMMON_END,
	};
	const char *origin = NULL;
	struct target target;
	bool sized = false;
	uint64_t size = 0;
	struct path path;
	int c, status;

	while ((c = common_option(argc, argv, "s:o:", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == COMMON_EXIT)
			return status;
		if (c == 'o') {
			origin = optarg;
			continue;
		}
		status = common_size(argv, "--size", optarg, &size);
		if (status)
			return status;
		sized = true;
	}
	if (argc - optind != 1)
		return common_usage(argv, "needs the path of the volume to make");
	if (common_split_path(argv[optind], &path))
		return EXIT_FAILED;
	status = target_open_mount(path.dir, &target);
	if (status == 0) {
		if (origin)
			status = make_over(target.fd, argv[optind], path.base, origin,
					   sized ? size : CONTROL_SIZE_OF_ORIGIN);
		else
			status = make_volume(target.fd, argv[optind], path.base, size);
		target_close(&target);
	}
	common_free_path(&path);
	return status;
}
