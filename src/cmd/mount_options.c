/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/common.h"
#include "cmd/mount_options.h"
#include "util/msg.h"
#include "util/size.h"

#define COMMIT_MAX_S 3600
#define METADATA_CACHE_MIN (1ULL << 20)
#define THREADS_MAX 1024
#define GROW_PERCENT_MAX 1000
#define DEVICE_MAX 16777215

static const struct flag {
	const char *name;
	size_t offset; /* of a bool in struct mount_options */
	bool value;
} flags[] = {
#define FLAG(name, field, value) {name, offsetof(struct mount_options, field), value}
	FLAG("ro", pool.read_only, true),
	FLAG("rw", pool.read_only, false),
	FLAG("skip_block_zeroing", pool.skip_block_zeroing, true),
	FLAG("ignore_discard", pool.ignore_discard, true),
	FLAG("discard_to_origin", pool.discard_to_origin, true),
	FLAG("no_discard_passdown", pool.no_discard_passdown, true),
	FLAG("error_if_no_space", pool.error_if_no_space, true),
	FLAG("writeback_cache", writeback_cache, true),
	FLAG("page_cache", page_cache, true),
	FLAG("allow_other", allow_other, true),
	FLAG("allow_root", allow_root, true),
#undef FLAG
};

/* Go to mount(2). */
static const char *const kernel_flags[] = {
	"exec", "noexec", "atime", "noatime", "diratime", "nodiratime",
	"relatime", "norelatime", "strictatime", "nostrictatime",
};

/*
 * Said by mount(8) and in fstab(5), and without effect here: nosuid, nodev and default_permissions
 * always hold.
 */
static const char *const ignored[] = {
	"defaults", "dev", "nodev", "suid", "nosuid", "auto", "noauto", "user", "users",
	"nouser", "owner", "group", "nofail", "_netdev", "default_permissions",
};

#define NR(array) (sizeof(array) / sizeof((array)[0]))

static bool
is_one_of(const char *name, const char *const *names, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

void
mount_options_init(struct mount_option_text *o)
{
	*o = (struct mount_option_text){.options = {.pool = POOL_OPTIONS_DEFAULT}};
	o->options.kernel_options = o->kernel;
}

/* "2", "0.5": seconds to milliseconds. */
static int
parse_seconds(const char *text, unsigned *ms)
{
	size_t whole = strspn(text, "0123456789"), part = 0;
	unsigned long value;

	if (text[whole] == '.')
		part = strspn(text + whole + 1, "0123456789");
	if (whole == 0 || whole > 6 || text[whole + (text[whole] == '.') + part] ||
	    (text[whole] == '.' && (part == 0 || part > 3)))
		return -EINVAL;
	value = strtoul(text, NULL, 10);
	if (value > COMMIT_MAX_S)
		return -ERANGE;
	*ms = (unsigned)value * 1000;
	for (unsigned i = 0, unit = 100; i < part; i++, unit /= 10)
		*ms += (unsigned)(text[whole + 1 + i] - '0') * unit;
	return 0;
}

/* "10G", or "5%" from LEAST to MOST; the other one is 0. */
static int
parse_share(char **argv, const char *name, const char *value, unsigned least, unsigned most,
	    uint64_t *bytes, unsigned *percent)
{
	size_t len = strlen(value);
	char digits[8] = "";
	uint64_t number;

	*bytes = 0;
	*percent = 0;
	if (!len || value[len - 1] != '%')
		return common_size(argv, name, value, bytes);
	if (len <= sizeof(digits))
		memcpy(digits, value, len - 1);
	if (number_parse(digits, most, &number) || number < least)
		return common_usage(argv, "%s=%s: not a size, like 10G, nor from %u%% to %u%%", name, value, least, most);
	*percent = (unsigned)number;
	return 0;
}

static int
parse_grow(struct mount_options *o, char **argv, const char *value)
{
	int r = parse_share(argv, "grow", value, 1, GROW_PERCENT_MAX, &o->pool.grow_bytes,
			    &o->pool.grow_percent);

	if (!r && !o->pool.grow_bytes && !o->pool.grow_percent)
		r = common_usage(argv, "grow=%s: by nothing", value);
	return r;
}

/* "FILE", or "ID:FILE". */
static int
parse_origin(struct mount_option_text *o, char **argv, const char *value)
{
	size_t digits = strspn(value, "0123456789");
	struct pool_origin_option option = {.all = !digits || value[digits] != ':'}, *grown;
	const char *file = option.all ? value : value + digits + 1;
	char number[16] = "";
	uint64_t id = 0;

	if (!option.all) {
		snprintf(number, sizeof(number), "%.*s", (int)digits, value);
		if (digits >= sizeof(number) || number_parse(number, DEVICE_MAX, &id))
			return common_usage(argv, "origin=%s: a thin device's number is 0 to %d", value, DEVICE_MAX);
	}
	if (!*file)
		return common_usage(argv, "origin=%s: names no file", value);
	grown = reallocarray(o->origins, o->options.pool.nr_origins + 1, sizeof(*grown));
	if (grown) {
		o->origins = grown;
		option.id = (uint32_t)id;
		option.path = strdup(file);
	}
	if (!grown || !option.path) {
		msg_error("out of memory");
		return EXIT_USAGE;
	}
	grown[o->options.pool.nr_origins++] = option;
	o->options.pool.origins = grown;
	return 0;
}

static int
parse_value(struct mount_options *o, char **argv, const char *name, const char *value)
{
	uint64_t number = 0;
	int r = 0;

	if (strcmp(name, "commit") == 0) {
		if (parse_seconds(value, &o->pool.commit_interval_ms))
			return common_usage(argv,
					    "commit=%s: not a number of seconds from 0 to %d, like "
					    "5 or 0.5",
					    value, COMMIT_MAX_S);
	} else if (strcmp(name, "no_space_timeout") == 0) {
		r = number_parse(value, INT32_MAX, &number);
		o->pool.no_space_timeout_s = (unsigned)number;
		if (r)
			return common_usage(argv, "no_space_timeout=%s: not a number of seconds",
					    value);
	} else if (strcmp(name, "low_water") == 0) {
		return parse_share(argv, name, value, 0, 100, &o->pool.low_water_bytes,
				   &o->pool.low_water_percent);
	} else if (strcmp(name, "metadata_cache") == 0) {
		r = common_size(argv, "metadata_cache", value, &number);
		if (r)
			return r;
		if (number < METADATA_CACHE_MIN)
			return common_usage(argv, "metadata_cache=%s: needs 1M at least", value);
		o->pool.metadata_cache_bytes = number;
	} else if (strcmp(name, "grow") == 0) {
		return parse_grow(o, argv, value);
	} else if (strcmp(name, "max") == 0) {
		return common_size(argv, "max", value, &o->pool.max_bytes);
	} else if (strcmp(name, "metadata_max") == 0) {
		return common_size(argv, "metadata_max", value, &o->pool.metadata_max_bytes);
	} else if (strcmp(name, "threads") == 0) {
		r = number_parse(value, THREADS_MAX, &number);
		if (r || number == 0)
			return common_usage(argv, "threads=%s: not a number from 1 to %d", value,
					    THREADS_MAX);
		o->threads = (unsigned)number;
	} else if (strcmp(name, "transport") == 0) {
		if (transport_parse(value, &o->transport))
			return common_usage(argv, "transport=%s: not auto, classic or io_uring", value);
	} else {
		return common_usage(argv, "unknown mount option '%s=%s'", name, value);
	}
	return 0;
}

static int
parse_flag(struct mount_option_text *o, char **argv, const char *name)
{
	for (size_t i = 0; i < NR(flags); i++) {
		if (strcmp(name, flags[i].name) != 0)
			continue;
		*(bool *)((char *)&o->options + flags[i].offset) = flags[i].value;
		return 0;
	}
	if (is_one_of(name, kernel_flags, NR(kernel_flags))) {
		if (strlen(o->kernel) + strlen(name) + 2 > sizeof(o->kernel))
			return common_usage(argv, "too many mount options");
		if (o->kernel[0])
			strcat(o->kernel, ",");
		strcat(o->kernel, name);
		return 0;
	}
	if (is_one_of(name, ignored, NR(ignored)) || strncmp(name, "x-", 2) == 0)
		return 0;
	return common_usage(argv, "unknown mount option '%s'", name);
}

static int
parse_one(struct mount_option_text *o, char **argv, char *option)
{
	char *value = strchr(option, '=');

	if (!value)
		return parse_flag(o, argv, option);
	*value++ = '\0';
	if (strncmp(option, "x-", 2) == 0 || strcmp(option, "comment") == 0)
		return 0;
	if (strcmp(option, "origin") == 0)
		return parse_origin(o, argv, value);
	return parse_value(&o->options, argv, option, value);
}

void
mount_options_free(struct mount_option_text *o)
{
	for (size_t i = 0; i < o->options.pool.nr_origins; i++)
		free(o->origins[i].path);
	free(o->origins);
}

int
mount_options_parse(struct mount_option_text *o, char **argv, const char *text)
{
	char *copy = strdup(text), *rest = copy, *option;
	int r = 0;

	if (!copy) {
		msg_error("out of memory");
		return EXIT_USAGE;
	}
	while (r == 0 && (option = strsep(&rest, ",")) != NULL) {
		if (*option)
			r = parse_one(o, argv, option);
	}
	free(copy);
	return r;
}

int
mount_options_check(const struct mount_option_text *o, char **argv)
{
	const struct pool_options *pool = &o->options.pool;

	if ((pool->max_bytes || pool->metadata_max_bytes) && !pool->grow_bytes && !pool->grow_percent)
		return common_usage(argv, "max= and metadata_max= say how far grow= goes, which is missing");
	return 0;
}
