/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cmd/common.h"
#include "cmd/report.h"
#include "util/size.h"

#define PATH_BYTES 4096U /* more than two names, each byte of them quoted */

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
	"with others or not; EXCLUSIVE, what removing it alone would give back. PARENT is\n"
	"the id of the one it was made from.\n";

/* A path for a line of text: what would not print, or could do things to a terminal, as \\ooo. */
static char *
quote(const char *path, char *buf, size_t len)
{
	size_t n = 0;

	for (const char *c = path; *c && n + 5 < len; c++) {
		unsigned char b = (unsigned char)*c;

		if (b < ' ' || b == 0x7F || b == '\\')
			n += (size_t)snprintf(buf + n, len - n, "\\%03o", b);
		else
			buf[n++] = *c;
	}
	buf[n] = '\0';
	return buf;
}

static const char *
quoted_path(const json_t *device, char *buf, size_t len)
{
	return quote(common_json_string(device, "path", "?"), buf, len);
}

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
		double seconds = json_number_value(created);

		/* Beyond, there are no whole seconds any more, and no time_t. */
		t = seconds > -1e15 && seconds < 1e15 ? (time_t)seconds : 0;
		if (t && localtime_r(&t, &tm))
			strftime(buf, len, "%Y-%m-%d %H:%M:%S", &tm);
	}
}

static void
print_device(const json_t *device, int width)
{
	const json_t *parent = json_object_get(device, "parent");
	char size[32], mapped[32], exclusive[32], parent_id[24] = "-", created[64], path[PATH_BYTES];

	size_format(common_json_number(device, "size", 0), size, sizeof(size));
	size_format(common_json_number(device, "mapped", 0), mapped, sizeof(mapped));
	size_format(common_json_number(device, "exclusive", 0), exclusive, sizeof(exclusive));
	if (json_is_integer(parent))
		snprintf(parent_id, sizeof(parent_id), "%lld",
			 (long long)json_integer_value(parent));
	format_created(device, created, sizeof(created));
	printf("%-*s %8llu %8s %8s %9s %8s %-2s %s\n", width, quoted_path(device, path, sizeof(path)),
	       (unsigned long long)common_json_number(device, "id", 0), size, mapped, exclusive, parent_id,
	       json_is_true(json_object_get(device, "read_only")) ? "ro" : "rw", created);
}

static int
print_table(const struct target *target, const json_t *report)
{
	const json_t *devices = json_object_get(report, "devices"), *device;
	char path[PATH_BYTES];
	int width = 4, len;
	size_t i;

	(void)target;
	json_array_foreach(devices, i, device) {
		len = (int)strlen(quoted_path(device, path, sizeof(path)));
		if (len > width)
			width = len;
	}
	printf("%-*s %8s %8s %8s %9s %8s %-2s %s\n", width, "PATH", "ID", "SIZE", "MAPPED", "EXCLUSIVE",
	       "PARENT", "", "CREATED");
	json_array_foreach(devices, i, device)
		print_device(device, width);
	return common_flush();
}

int
cmd_list(int argc, char **argv)
{
	return report_run(argc, argv, help, CONTROL_LIST, print_table);
}
