/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdbool.h>

#include "cmd/common.h"
#include "pool/pool.h"

static const char help[] =
	"Usage: thinfs format [OPTION...] DATA META\n"
	"Make a storage pool of two images, which are files or block devices.\n"
	"\n"
	"      --data-size S       size of the data image; needed when DATA is absent\n"
	"      --metadata-size S   size of the metadata image; otherwise fits the data\n"
	"      --block-size S      data block, a multiple of 64K up to 1G; otherwise 64K,\n"
	"                          or more for very large data\n"
	"      --force             also over images that hold something: that is lost\n"
	"  -h, --help              print this\n"
	"\n"
	"Sizes are like 10G or 1.5T, powers of 1024. Image files take up only the space\n"
	"that is used.\n"
	"\n"
	"Example: thinfs format --data-size 10G data.img meta.img\n";

int
cmd_format(int argc, char **argv)
{
	static const struct option longs[] = {
		{"data-size", required_argument, NULL, 'd'},
		{"metadata-size", required_argument, NULL, 'm'},
		{"block-size", required_argument, NULL, 'b'},
		{"force", no_argument, NULL, 'f'},
		COMMON_HELP,
		COMMON_END,
	};
	struct pool_format_options options = {0};
	int c, status = 0;

	while ((c = common_option(argc, argv, "", longs, help, &status)) != COMMON_NO_MORE) {
		switch (c) {
		case 'd':
			status = common_size(argv, "--data-size", optarg, &options.data_bytes);
			break;
		case 'm':
			status = common_size(argv, "--metadata-size", optarg,
					     &options.metadata_bytes);
			break;
		case 'b':
			status = common_size(argv, "--block-size", optarg, &options.block_bytes);
			if (!status && !options.block_bytes)
				status = common_usage(argv, "--block-size 0: nothing fits in it");
			break;
		case 'f':
			options.force = true;
			break;
		default:
			return status;
		}
		if (status)
			return status;
	}
	if (argc - optind != 2)
		return common_usage(argv, "needs two images, DATA and META");
	return pool_format(argv[optind], argv[optind + 1], &options) ? EXIT_FAILED : EXIT_DONE;
}
