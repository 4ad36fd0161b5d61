/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cmd/common.h"
#include "cmd/report.h"
#include "util/size.h"

static const char help[] =
	"Usage: thinfs status [--json] TARGET\n"
	"Tell how a pool is: its mode, its space, its transaction.\n"
	"\n"
	"TARGET is the directory of a mounted pool, or DATA META of one that is not.\n"
	"\n"
	"      --json   print JSON; sizes in bytes\n"
	"  -h, --help   print this\n";

static const struct {
	const char *mode, *text;
} modes[] = {
	{"rw", "read-write"},
	{"out_of_data_space", "out of data space: remove volumes or snapshots, discard, or enlarge the image"},
	{"out_of_metadata_space", "out of metadata space: remove snapshots, or enlarge the metadata image"},
	{"ro", "read-only"},
	{"fail", "failed"},
};

static const char *
mode_text(const char *mode)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(mode, modes[i].mode) == 0)
			return modes[i].text;
	}
	return mode;
}

static void
print_space(const char *what, const json_t *space)
{
	uint64_t total = common_json_number(space, "total", 0);
	uint64_t used = common_json_number(space, "used", 0);
	char total_text[32], used_text[32];

	printf("%-13s %s of %s used (%.1f %%)\n", what, size_format(used, used_text, 32),
	       size_format(total, total_text, 32),
	       total ? 100.0 * (double)used / (double)total : 0.0);
}

/* What was removed or cut and is not all back yet. */
static void
print_reclaim(const json_t *reclaim)
{
	uint64_t volumes = common_json_number(reclaim, "volumes", 0);
	uint64_t open = common_json_number(reclaim, "open", 0);
	char bytes[32];

	if (!volumes)
		return;
	printf("%-13s %s of %" PRIu64 " volumes", "to come back",
	       size_format(common_json_number(reclaim, "bytes", 0), bytes, sizeof(bytes)), volumes);
	if (open)
		printf(", %" PRIu64 " of them still open", open);
	putchar('\n');
}

static int
print_text(const struct target *target, const json_t *status)
{
	char block[32];

	if (target->fd >= 0) {
		printf("%-13s %s\n", "data image", target->info.data_path);
		printf("%-13s %s\n", "metadata", target->info.meta_path);
		printf("%-13s process %d\n", "served by", (int)target->info.pid);
		printf("%-13s %s\n", "transport", common_json_string(status, "transport", "?"));
	}
	printf("%-13s %s\n", "mode", target->fd >= 0
		? mode_text(common_json_string(status, "mode", "?")) : "not mounted");
	if (json_is_true(json_object_get(status, "needs_check")))
		printf("%-13s yes: a commit failed; unmount it, then 'thinfs check --repair %s'\n",
		       "needs check", target->fd >= 0 ? target->info.meta_path : "META");
	printf("%-13s %" PRIu64 "\n", "transaction", common_json_number(status, "transaction", 0));
	printf("%-13s %s\n", "block size",
	       size_format(common_json_number(status, "block_size", 0), block, sizeof(block)));
	print_space("data", json_object_get(status, "data"));
	print_space("metadata", json_object_get(status, "metadata"));
	print_reclaim(json_object_get(status, "reclaim"));
	if (json_object_get(status, "volumes"))
		printf("%-13s %" PRIu64 "\n", "volumes", common_json_number(status, "volumes", 0));
	if (json_object_get(status, "snapshots"))
		printf("%-13s %" PRIu64 "\n", "in snapshots",
		       common_json_number(status, "snapshots", 0));
	if (json_object_get(status, "status_line"))
		printf("%-13s %s\n", "as dm-thin", common_json_string(status, "status_line", ""));
	return common_flush();
}

int
cmd_status(int argc, char **argv)
{
	return report_run(argc, argv, help, CONTROL_STATUS, print_text);
}
