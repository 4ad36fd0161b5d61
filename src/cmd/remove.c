/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "fuse/inode.h"
#include "util/msg.h"
#include "util/size.h"

static const char help[] =
	"Usage: thinfs remove [--dry-run] PATH...\n"
	"Remove volumes, snapshots, or volumes in snapshots from a mounted pool.\n"
	"\n"
	"The name goes at once, the space comes back in the background. A volume in use\n"
	"goes when it is no more; a snapshot of which something is in use is refused.\n"
	"\n"
	"  -n, --dry-run   only say what would go\n"
	"  -h, --help      print this\n"
	"\n"
	"Example: thinfs remove /mnt/pool/vm1 /mnt/pool/.snapshots/monday\n";

static void
say_why(const char *path, int error)
{
	switch (error) {
	case EBUSY:
		msg_error("cannot remove %s: something in it is in use; detach or close it first",
			  path);
		break;
	case EPERM:
		msg_error("cannot remove %s: it is neither a volume nor a snapshot", path);
		break;
	default:
		msg_error("cannot remove %s: %s", path, strerror(error));
	}
}

static void
print_what(const char *path, const struct stat *st)
{
	char mapped[32];

	if (S_ISDIR(st->st_mode))
		printf("would remove the snapshot %s with all that is in it\n", path);
	else
		printf("would remove %s (%s mapped)\n", path,
		       size_format((uint64_t)st->st_blocks * 512, mapped, sizeof(mapped)));
}

static int
remove_one(const char *path, bool dry_run)
{
	struct target target;
	struct path split;
	struct stat st;
	int error = 0;

	if (common_split_path(path, &split))
		return EXIT_FAILED;
	if (target_open_mount(split.dir, &target)) {
		common_free_path(&split);
		return EXIT_FAILED;
	}
	if (fstatat(target.fd, split.base, &st, AT_SYMLINK_NOFOLLOW))
		error = errno;
	else if (S_ISDIR(st.st_mode) && st.st_ino == INODE_NR_SNAPSHOTS)
		error = EPERM;
	else if (dry_run)
		print_what(path, &st);
	else if (unlinkat(target.fd, split.base, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0))
		error = errno;
	if (error)
		say_why(path, error);
	target_close(&target);
	common_free_path(&split);
	return error ? EXIT_FAILED : EXIT_DONE;
}

int
cmd_remove(int argc, char **argv)
{
	static const struct option longs[] = {
		{"dry-run", no_argument, NULL, 'n'},
		COMMON_HELP,
		COMMON_END,
	};
	bool dry_run = false;
	int c, status;

	while ((c = common_option(argc, argv, "n", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == COMMON_EXIT)
			return status;
		dry_run = true;
	}
	if (optind == argc)
		return common_usage(argv, "needs the paths to remove");
	status = EXIT_DONE;
	for (int i = optind; i < argc; i++) {
		if (remove_one(argv[i], dry_run) != EXIT_DONE)
			status = EXIT_FAILED;
	}
	return dry_run && common_flush() != EXIT_DONE ? EXIT_FAILED : status;
}
