/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"
#include "util/size.h"

static const char help[] =
	"Usage: thinfs resize [OPTION...] DIR\n"
	"Make the images of the mounted pool DIR larger, and use what is new. Without options:\n"
	"use what has been added to them, as to a block device or by truncate(1). All is\n"
	"durable when this returns. 'thinfs shrink' makes the data image smaller.\n"
	"\n"
	"      --data SIZE      of the data image, like 200G\n"
	"      --metadata SIZE  of the metadata image; at most 15.8G are used\n"
	"  -h, --help           print this\n"
	"\n"
	"Example: thinfs resize --data 200G /mnt/pool\n";

static void
say_why(const char *dir, const struct control_resize *asked, const struct control_resize *now)
{
	char data[32], meta[32];

	size_format(now->data, data, sizeof(data));
	size_format(now->metadata, meta, sizeof(meta));
	switch (-now->error) {
	case EINVAL:
		if (asked->data && asked->data / now->block < now->data / now->block)
			msg_error("cannot resize %s: its data image has %s, which is more; 'thinfs shrink "
				  "--data SIZE %s' makes it smaller", dir, data, dir);
		else
			msg_error("cannot resize %s: its metadata image has %s, which is more, and never "
				  "becomes smaller", dir, meta);
		break;
	case EFBIG:
		msg_error("cannot resize %s: that is more than a pool can have: 16320 * 255 metadata "
			  "blocks of 4096 bytes, 2^40 data blocks", dir);
		break;
	case EOPNOTSUPP:
		msg_error("cannot resize %s: that image is a block device, which has less; make the "
			  "device larger first", dir);
		break;
	case ENOSPC:
		msg_error("cannot resize %s: too little metadata space to keep account of what is new, or "
			  "none on the filesystem of the image; make the metadata image larger, too", dir);
		break;
	case EBUSY:
		msg_error("cannot resize %s: it is being shrunk", dir);
		break;
	case EROFS:
	case EIO:
		msg_error("cannot resize %s: the pool is read-only, or has failed; 'thinfs status %s' "
			  "tells", dir, dir);
		break;
	default:
		msg_error("cannot resize %s: %s", dir, strerror(-now->error));
	}
}

static int
resize(const char *dir, const struct control_resize *asked)
{
	struct control_resize c = *asked;
	struct target target;
	int status = EXIT_DONE;

	if (target_open_mount(dir, &target))
		return EXIT_FAILED;
	if (ioctl(target.fd, CONTROL_IOC_RESIZE, &c)) {
		msg_error("cannot resize %s: %s", dir, errno == EACCES
			  ? "only who mounted the pool, and root, may" : strerror(errno));
		status = EXIT_FAILED;
	} else if (c.error) {
		say_why(dir, asked, &c);
		status = EXIT_FAILED;
	}
	target_close(&target);
	return status;
}

int
cmd_resize(int argc, char **argv)
{
	static const struct option longs[] = {
		{"data", required_argument, NULL, 'D'},
		{"metadata", required_argument, NULL, 'M'},
		COMMON_HELP,
		COMMON_END,
	};
	struct control_resize asked = {0};
	int c, status = EXIT_DONE;

	while ((c = common_option(argc, argv, "", longs, help, &status)) != COMMON_NO_MORE) {
		uint64_t *size = c == 'D' ? &asked.data : &asked.metadata;

		if (c != 'D' && c != 'M')
			return status;
		status = common_size(argv, c == 'D' ? "--data" : "--metadata", optarg, size);
		if (!status && !*size)
			status = common_usage(argv, "'%s': not a size of an image", optarg);
		if (status)
			return status;
	}
	if (argc - optind != 1)
		return common_usage(argv, "needs the directory of a mounted pool");
	return resize(argv[optind], &asked);
}
