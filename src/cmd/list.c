/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/size.h"

static const char help[] =
	"Usage: thinfs list [--json] TARGET\n"
	"List the volumes and snapshots of a pool.\n"
	"\n"
	"TARGET is the directory of a mounted pool, or DATA META of one that is not.\n"
	"\n"
	"      --json   print JSON; sizes in bytes\n"
	"  -h, --help   print this\n"
	"\n"
	"PATH is relative to the mount. MAPPED is what the volume has of the pool, shared\n"
	"with others or not. PARENT is the id of the one it was made from.\n";

static void
format_created(const json_t *device, char *buf, size_t len)
{
	const json_t *created = json_object_get(device, "created");
	struct tm tm;
	time_t t;

	snprintf(buf, len, "-");
	if (json_is_string(created)) {
		snprintf(buf, len, "%s", json_string_value(created));
	} else if (json_is_number(created)) {
		t = (time_t)json_number_value(created);
		if (t && localtime_r(&t, &tm))
			strftime(buf, len, "%Y-%m-%d %H:%M:%S", &tm);
	}
}

static void
print_device(const json_t *device, int width)
{
	const json_t *parent = json_object_get(device, "parent");
	char size[32], mapped[32], parent_id[24] = "-", created[64];

	size_format(common_json_number(device, "size", 0), size, sizeof(size));
	size_format(common_json_number(device, "mapped", 0), mapped, sizeof(mapped));
	if (json_is_integer(parent))
		snprintf(parent_id, sizeof(parent_id), "%lld",
			 (long long)json_integer_value(parent));
	format_created(device, created, sizeof(created));
	printf("%-*s %8llu %8s %8s %8s %-2s %s\n", width, common_json_string(device, "path", "?"),
	       (unsigned long long)common_json_number(device, "id", 0), size, mapped, parent_id,
	       json_is_true(json_object_get(device, "read_only")) ? "ro" : "rw", created);
}

static int
print_table(const json_t *report)
{
	const json_t *devices = json_object_get(report, "devices"), *device;
	int width = 4, len;
	size_t i;

	json_array_foreach(devices, i, device) {
		len = (int)strlen(common_json_string(device, "path", "?"));
		if (len > width)
			width = len;
	}
	printf("%-*s %8s %8s %8s %8s %-2s %s\n", width, "PATH", "ID", "SIZE", "MAPPED", "PARENT",
	       "", "CREATED");
	json_array_foreach(devices, i, device)
		print_device(device, width);
	return common_flush();
}

int
cmd_list(int argc, char **argv)
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

	report = target_report(&target, CONTROL_LIST);
	target_close(&target);
	if (!report)
		return EXIT_FAILED;
	status = as_json ? common_print_json(report) : print_table(report);
	json_decref(report);
	return status;
}
