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
#include "cmd/removal.h"
#include "cmd/target.h"
#include "fuse/inode.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs remove [--dry-run [--json]] PATH...\n"
	"Remove volumes, snapshots, or volumes in snapshots from a mounted pool.\n"
	"\n"
	"The name goes at once, the space comes back in the background. A volume in use\n"
	"goes when it is no more; a snapshot of which something is in use is refused.\n"
	"\n"
	"  -n, --dry-run   only say what would go, and what space would come back\n"
	"      --json      say it as JSON; sizes in bytes\n"
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

/* With PLAN, only put it there. */
static int
remove_one(const char *path, struct removal *plan)
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
	else if (plan)
		error = -removal_add(plan, path, &target, split.base, &st);
	else if (unlinkat(target.fd, split.base, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0))
		error = errno;
	if (error)
		say_why(path, error);
	target_close(&target);
	common_free_path(&split);
	return error ? EXIT_FAILED : EXIT_DONE;
}

/* What would be freed is said of all paths or not at all. */
static int
dry_run(char **paths, int nr, bool as_json)
{
	struct removal plan = {0};
	int status = EXIT_DONE;
	uint64_t freed;

	for (int i = 0; i < nr; i++) {
		if (remove_one(paths[i], &plan) != EXIT_DONE)
			status = EXIT_FAILED;
	}
	if (status == EXIT_DONE)
		status = removal_freed(&plan, &freed);
	if (status == EXIT_DONE)
		status = removal_print(&plan, freed, as_json);
	removal_clear(&plan);
	return status;
}

int
cmd_remove(int argc, char **argv)
{
	static const struct option longs[] = {
		{"dry-run", no_argument, NULL, 'n'},
		{"json", no_argument, NULL, 'j'},
		COMMON_HELP,
		COMMON_END,
	};
	bool only_say = false, as_json = false;
	int c, status;

	while ((c = common_option(argc, argv, "n", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == COMMON_EXIT)
			return status;
		if (c == 'n')
			only_say = true;
		else
			as_json = true;
	}
	if (optind == argc)
		return common_usage(argv, "needs the paths to remove");
	if (as_json && !only_say)
		return common_usage(argv, "--json goes with --dry-run");
	if (only_say)
		return dry_run(argv + optind, argc - optind, as_json);
	status = EXIT_DONE;
	for (int i = optind; i < argc; i++) {
		if (remove_one(argv[i], NULL) != EXIT_DONE)
			status = EXIT_FAILED;
	}
	return status;
}
