/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cmd/common.h"
#include "cmd/report.h"

int
report_run(int argc, char **argv, const char *help, enum control_report what,
	   int (*print)(const struct target *target, const json_t *report))
{
	static const struct option longs[] = {
		{"json", no_argument, NULL, 'j'},
		COMMON_HELP,
		COMMON_END,
	};
	struct target target;
	bool as_json = false;
	int c, status;
	json_t *report;

	while ((c = common_option(argc, argv, "", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == COMMON_EXIT)
			return status;
		as_json = true;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return common_usage(argv, "needs the directory of a mounted pool, or two images");
	if (target_open(argv + optind, argc - optind, &target))
		return EXIT_FAILED;

	report = target_report(&target, what);
	if (!report)
		status = EXIT_FAILED;
	else
		status = as_json ? common_print_json(report) : print(&target, report);
	json_decref(report);
	target_close(&target);
	return status;
}
