/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs clone PATH NEW\n"
	"Make the volume NEW, which has all that PATH has now: a volume, or a file of a\n"
	"snapshot. Both share their space until one of them is written. It takes the same\n"
	"short time whatever the size.\n"
	"\n"
	"  -h, --help   print this\n"
	"\n"
	"Example: thinfs clone /mnt/pool/.snapshots/monday/vm1 /mnt/pool/vm1-test\n";

static void
say_why(const char *from, const char *to, int error)
{
	switch (error) {
	case EEXIST:
		msg_error("cannot clone %s: there is a volume %s already", from, to);
		break;
	case ENOENT:
		msg_error("cannot clone %s: no such volume", from);
		break;
	case EACCES:
		msg_error("cannot clone %s: only who mounted the pool, and root, may; 'cp' does "
			  "nearly the same",
			  from);
		break;
	default:
		msg_error("cannot clone %s to %s: %s", from, to, strerror(error));
	}
}

static int
clone_volume(char **argv, const struct path *from, const struct path *to)
{
	struct control_clone c = {0};
	struct target target;
	int status = EXIT_FAILED;

	if (target_open_mount(from->dir, &target))
		return EXIT_FAILED;
	snprintf(c.from, sizeof(c.from), "%s", from->base);
	snprintf(c.to, sizeof(c.to), "%s", to->base);
	if (strlen(from->base) >= sizeof(c.from) || strlen(to->base) >= sizeof(c.to))
		say_why(argv[0], argv[1], ENAMETOOLONG);
	else if (!target_is_top(&target, to->dir))
		msg_error("cannot clone %s to %s: volumes are made in the top directory of the same "
			  "pool only",
			  argv[0], argv[1]);
	else if (ioctl(target.fd, CONTROL_IOC_CLONE, &c))
		say_why(argv[0], argv[1], errno);
	else
		status = EXIT_DONE;
	target_close(&target);
	return status;
}

int
cmd_clone(int argc, char **argv)
{
	static const struct option longs[] = {COMMON_HELP, COMMON_END};
	struct path from, to;
	int status;

	while (common_option(argc, argv, "", longs, help, &status) != COMMON_NO_MORE)
		return status;
	if (argc - optind != 2)
		return common_usage(argv, "needs the path of a volume and that of the new one");
	if (common_split_path(argv[optind], &from))
		return EXIT_FAILED;
	status = common_split_path(argv[optind + 1], &to);
	if (!status) {
		status = clone_volume(argv + optind, &from, &to);
		common_free_path(&to);
	}
	common_free_path(&from);
	return status;
}
