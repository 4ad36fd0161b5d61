/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cmd/common.h"
#include "pdata/check.h"
#include "pool/catalog_check.h"
#include "util/msg.h"

/* More than this of one kind are counted, not shown. */
#define SHOWN_MAX 1000U

static const char help[] =
	"Usage: thinfs check [--json] [--repair] [--data DATA] META\n"
	"Verify all metadata of a pool that is not mounted, and mend them.\n"
	"\n"
	"META is the metadata image. Only reads, unless told to repair. Exit status 0: all is\n"
	"well, or mended; 1: there are errors or leaked blocks; 2: wrong usage.\n"
	"\n"
	"      --data DATA   verify the names and sizes, too, which are in the data image\n"
	"      --json        print JSON\n"
	"      --repair      reclaim leaked blocks, set wrong reference counts right, clear\n"
	"                    needs_check; all or nothing, and only what can be mended without\n"
	"                    guessing\n"
	"  -h, --help        print this\n";

struct report {
	const char *image;
	const char *data; /* NULL: names and sizes are not verified */
	bool as_json;
	uint64_t nr_shown; /* as text */
	uint64_t nr_hidden;
	json_t *lists[3]; /* by enum check_severity */
	struct catalog_check_result records;
	json_t *bad_records;
};

static void
add_json(struct report *r, const struct check_problem *p)
{
	json_t *list = r->lists[p->severity];
	json_t *o;

	if (json_array_size(list) >= SHOWN_MAX) {
		r->nr_hidden++;
		return;
	}
	o = json_pack("{s:I, s:s}", p->of_data ? "data_block" : "block", (json_int_t)p->block, "what",
		      p->what);
	if (p->nr > 1)
		json_object_set_new(o, "blocks", json_integer((json_int_t)p->nr));
	if (p->severity == CHECK_ERROR)
		json_object_set_new(o, "mendable", json_boolean(p->mendable));
	json_array_append_new(list, o);
}

static void
print_problem(void *arg, const struct check_problem *p)
{
	struct report *r = arg;
	const char *device = p->of_data ? "data" : "metadata";

	if (r->as_json) {
		add_json(r, p);
		return;
	}
	if (r->nr_shown == SHOWN_MAX) {
		r->nr_hidden++;
		return;
	}
	r->nr_shown++;
	printf("%s: %s%s block", r->image, p->severity == CHECK_WARNING ? "warning: " : "", device);
	if (p->nr > 1)
		printf("s %" PRIu64 " to %" PRIu64, p->block, p->block + p->nr - 1);
	else
		printf(" %" PRIu64, p->block);
	printf(": %s\n", p->what);
}

/* "3 errors, ": the next part of a sentence. */
static void
print_number(uint64_t nr, const char *singular, const char *plural, bool *any)
{
	if (!nr)
		return;
	printf("%s%" PRIu64 " %s", *any ? ", " : "", nr, nr == 1 ? singular : plural);
	*any = true;
}

static bool
is_damaged(const struct check_result *c)
{
	return c->nr_errors || c->leaked_metadata || c->leaked_data;
}

static bool
is_mendable(const struct check_result *c)
{
	return !c->nr_unmendable && !c->unreadable;
}

static void
print_found(const char *image, const struct check_result *c)
{
	bool any = false;

	printf("%s: ", image);
	print_number(c->nr_errors, "error", "errors", &any);
	print_number(c->leaked_metadata, "leaked metadata block", "leaked metadata blocks", &any);
	print_number(c->leaked_data, "leaked data block", "leaked data blocks", &any);
	print_number(c->nr_warnings, "warning", "warnings", &any);
	if (!any)
		printf("clean, %" PRIu64 " devices with %" PRIu64 " mapped blocks", c->nr_devices,
		       c->nr_mappings);
	if (c->needs_check)
		printf(", needs_check is set");
	if (c->partial)
		printf("; because of the damage not all could be verified");
}

/* What to do about damage that cannot be mended here. */
static void
print_way_out(const char *image, const struct check_result *c)
{
	if (c->unreadable)
		printf("; it cannot be read everywhere: copy the image to storage that can, and "
		       "check that");
	else
		printf("; %" PRIu64 " of them cannot be mended without guessing: 'thin_repair -i %s -o "
		       "NEW' saves what it can to a new image", c->nr_unmendable, image);
}

static void
print_checked(const char *image, const struct check_result *c)
{
	print_found(image, c);
	if (!is_mendable(c))
		print_way_out(image, c);
	else if (is_damaged(c) || c->nr_warnings || c->needs_check)
		printf("; 'thinfs check --repair %s' mends it", image);
	putchar('\n');
}

static void
print_done(const char *image, const struct repair_result *r)
{
	printf("%s: mended:%s%s", image, r->rebuilt_maps ? " all reference counts were made anew" : "",
	       r->cleared_needs_check ? r->rebuilt_maps ? ", needs_check was cleared" :
						       " needs_check was cleared" : "");
	if (r->mended_details)
		printf(", mapped blocks of %" PRIu64 " devices were set right", r->mended_details);
	if (r->grown_to)
		printf(", the metadata have grown to %" PRIu64 " blocks to have room for it",
		       r->grown_to);
	putchar('\n');
}

static void
print_repaired(const char *image, const struct repair_result *r)
{
	print_found(image, &r->before);
	switch (r->outcome) {
	case REPAIR_NOTHING_TO_DO:
		printf("; nothing to mend\n");
		break;
	case REPAIR_DONE:
		putchar('\n');
		print_done(image, r);
		break;
	case REPAIR_IMPOSSIBLE:
		print_way_out(image, &r->before);
		printf("; nothing was changed\n");
		break;
	case REPAIR_NO_SPACE:
		printf("; there is no room to write new space maps: make the image larger ('truncate -s "
		       "+4M %s'), then repair it again; nothing was changed\n", image);
		break;
	}
}

static void
print_records(const struct report *r)
{
	if (r->records.nr_bad)
		printf("%s: the names and sizes of %" PRIu64 " devices are damaged, %" PRIu64 " are good\n",
		       r->data, r->records.nr_bad, r->records.nr_good);
	else if (r->records.nr_good)
		printf("%s: all %" PRIu64 " names and sizes are good\n", r->data, r->records.nr_good);
	else
		printf("%s: there are no names and sizes in it\n", r->data);
}

static int
print_json(struct report *r, const struct check_result *c, const struct repair_result *repair)
{
	json_t *json = json_pack("{s:b, s:O, s:O, s:{s:I, s:I, s:O}, s:b, s:b, s:I, s:I, s:I, s:I}",
		"clean", !is_damaged(c) && !r->records.nr_bad, "errors", r->lists[CHECK_ERROR], "warnings",
		r->lists[CHECK_WARNING], "leaks", "metadata", (json_int_t)c->leaked_metadata, "data",
		(json_int_t)c->leaked_data, "ranges", r->lists[CHECK_LEAK], "needs_check",
		c->needs_check, "partial", c->partial, "not_listed", (json_int_t)r->nr_hidden,
		"devices", (json_int_t)c->nr_devices, "mapped_blocks", (json_int_t)c->nr_mappings,
		"transaction", (json_int_t)c->transaction);
	static const char *const outcomes[] = {
		[REPAIR_NOTHING_TO_DO] = "nothing to mend",
		[REPAIR_DONE] = "mended",
		[REPAIR_IMPOSSIBLE] = "cannot be mended",
		[REPAIR_NO_SPACE] = "no room for new space maps",
	};
	int status;

	if (json && repair) {
		json_object_set_new(json, "repaired", json_boolean(repair->outcome == REPAIR_DONE));
		json_object_set_new(json, "repair", json_string(outcomes[repair->outcome]));
	}
	if (json && r->data)
		json_object_set(json, "damaged_records", r->bad_records);
	if (!json) {
		msg_error("%s: out of memory", r->image);
		return EXIT_FAILED;
	}
	status = common_print_json(json);
	json_decref(json);
	return status;
}

static void
print_record(void *arg, uint32_t id)
{
	struct report *r = arg;

	if (r->as_json)
		json_array_append_new(r->bad_records, json_integer(id));
	else
		printf("%s: the name and size of device %" PRIu32 " are damaged: it is shown as thin-%" PRIu32
		       "; rename it in the mount, and set its size\n", r->data, id, id);
}

/* Names and sizes, of metadata that are well. 0 or negative errno after a message. */
static int
check_names(struct report *report)
{
	struct image *data, *meta;
	int r = image_open_file(report->data, 0, &data);

	if (r)
		return r;
	r = image_open_file(report->image, 0, &meta);
	if (!r) {
		r = catalog_check(data, meta, print_record, report, &report->records);
		image_close(meta);
	}
	image_close(data);
	return r;
}

static int
finish(struct report *r, const struct check_result *c, const struct repair_result *repair)
{
	bool well = repair ? repair->outcome == REPAIR_NOTHING_TO_DO || repair->outcome == REPAIR_DONE
			   : !is_damaged(c);
	bool metadata_well = well;
	int status;

	if (r->data && metadata_well && check_names(r))
		return EXIT_FAILED;
	well = well && !r->records.nr_bad;
	if (r->as_json) {
		status = print_json(r, c, repair);
	} else {
		if (r->nr_hidden)
			printf("%s: ... and %" PRIu64 " more\n", r->image, r->nr_hidden);
		if (repair)
			print_repaired(r->image, repair);
		else
			print_checked(r->image, c);
		if (r->data && metadata_well)
			print_records(r);
		status = common_flush();
	}
	return well ? status : EXIT_FAILED;
}

static int
check_image(struct report *report, bool repair)
{
	struct repair_result repaired;
	struct check_result result;
	struct image *img;
	int r = image_open_file(report->image, repair ? IMAGE_RDWR : 0, &img);

	if (r)
		return EXIT_FAILED;
	if (repair)
		r = meta_repair(img, print_problem, report, &repaired);
	else
		r = meta_check(img, print_problem, report, &result);
	image_close(img);
	if (r) {
		msg_error("%s: the %s failed: %s", report->image, repair ? "repair" : "check",
			  strerror(-r));
		return EXIT_FAILED;
	}
	return repair ? finish(report, &repaired.before, &repaired) : finish(report, &result, NULL);
}

int
cmd_check(int argc, char **argv)
{
	static const struct option longs[] = {
		{"data", required_argument, NULL, 'd'},
		{"json", no_argument, NULL, 'j'},
		{"repair", no_argument, NULL, 'r'},
		COMMON_HELP,
		COMMON_END,
	};
	struct report report = {0};
	bool repair = false;
	int c, status;

	while ((c = common_option(argc, argv, "", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == COMMON_EXIT)
			return status;
		if (c == 'd')
			report.data = optarg;
		else if (c == 'j')
			report.as_json = true;
		else
			repair = true;
	}
	if (argc - optind != 1)
		return common_usage(argv, "needs the metadata image of a pool");
	report.image = argv[optind];
	for (size_t i = 0; i < 3; i++)
		report.lists[i] = json_array();
	report.bad_records = json_array();
	status = check_image(&report, repair);
	for (size_t i = 0; i < 3; i++)
		json_decref(report.lists[i]);
	json_decref(report.bad_records);
	return status;
}
