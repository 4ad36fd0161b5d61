/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "io/fault_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/image_fault.h"
#include "util/msg.h"

static const char *const op_names[IMAGE_NR_OPS] = {
	[IMAGE_OP_READ] = "read",
	[IMAGE_OP_WRITE] = "write",
	[IMAGE_OP_FLUSH] = "flush",
	[IMAGE_OP_PUNCH] = "punch",
	[IMAGE_OP_DISCARD] = "discard",
};

static const struct {
	const char *name;
	int error;
} errors[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM}};

/* The number at *TEXT, which is moved behind it. */
static bool
take_number(const char **text, uint64_t *n)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	*n = strtoull(*text, &end, 10);
	*text = end;
	return !errno;
}

static bool
set_delay(struct image *img, enum image_op op, const char *time)
{
	uint64_t n;

	if (!take_number(&time, &n) || n > 10000000)
		return false;
	if (!strcmp(time, "ms"))
		n *= 1000;
	else if (strcmp(time, "us") != 0)
		return false;
	image_fault_delay(img, op, (unsigned)n);
	return true;
}

/* N:ERROR or N-:ERROR */
static bool
set_failure(struct image *img, enum image_op op, const char *what)
{
	bool from_then_on;
	uint64_t n;

	if (!take_number(&what, &n) || !n)
		return false;
	from_then_on = *what == '-';
	what += from_then_on;
	if (*what++ != ':')
		return false;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (strcmp(what, errors[i].name) != 0)
			continue;
		image_fault_set(img, op, n, errors[i].error, from_then_on);
		return true;
	}
	return false;
}

static bool
set_short(struct image *img, const char *sectors)
{
	uint64_t n;

	if (!take_number(&sectors, &n) || *sectors || n > 1U << 20)
		return false;
	image_fault_short(img, (unsigned)n);
	return true;
}

static bool
apply(char *fault, struct image *data, struct image *meta)
{
	char *op_name = strchr(fault, ':'), *what = op_name ? strchr(op_name + 1, ':') : NULL;
	struct image *img;
	unsigned op = 0;

	if (!what)
		return false;
	*op_name++ = *what++ = '\0';
	img = !strcmp(fault, "data") ? data : !strcmp(fault, "meta") ? meta : NULL;
	while (op < IMAGE_NR_OPS && (!op_names[op] || strcmp(op_names[op], op_name) != 0))
		op++;
	if (!img || op == IMAGE_NR_OPS)
		return false;
	if (!strncmp(what, "delay=", 6))
		return set_delay(img, op, what + 6);
	if (op == IMAGE_OP_WRITE && !strncmp(what, "short=", 6))
		return set_short(img, what + 6);
	if (op == IMAGE_OP_FLUSH && !strcmp(what, "drop"))
		return image_fault_drop_unflushed(img) == 0;
	return set_failure(img, op, what);
}

int
fault_spec_apply(const char *spec, struct image **data, struct image **meta)
{
	char *copy, *rest, *fault;
	int r;

	if (!spec || !*spec)
		return 0;
	r = image_fault_wrap(*data, data);
	if (!r)
		r = image_fault_wrap(*meta, meta);
	copy = r ? NULL : strdup(spec);
	if (!copy)
		return r ? r : -ENOMEM;
	for (rest = copy; !r && (fault = strsep(&rest, ","));) {
		if (apply(fault, *data, *meta))
			continue;
		msg_error("THINFS_FAULT=%s: not understood at '%s'", spec, fault);
		r = -EINVAL;
	}
	free(copy);
	return r;
}
