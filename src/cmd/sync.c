/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs sync DIR\n"
	"Make durable all that was written to the mounted pool DIR and done in it.\n"
	"\n"
	"sync(1) does not reach a FUSE filesystem; this does, and so does fsync(2) of any\n"
	"volume. What programs or loop devices still hold in memory is not written: sync\n"
	"those first.\n"
	"\n"
	"  -h, --help   print this\n";

int
cmd_sync(int argc, char **argv)
{
	static const struct option longs[] = {COMMON_HELP, COMMON_END};
	struct target target;
	int status = EXIT_DONE;

	while (common_option(argc, argv, "", longs, help, &status) != COMMON_NO_MORE)
		return status;
	if (argc - optind != 1)
		return common_usage(argv, "needs the directory of a mounted pool");
	if (target_open_mount(argv[optind], &target))
		return EXIT_FAILED;
	if (fsync(target.fd)) {
		msg_error("cannot commit the pool on %s: %s; 'thinfs status %s' tells how it is",
			  argv[optind], strerror(errno), argv[optind]);
		status = EXIT_FAILED;
	}
	target_close(&target);
	return status;
}
