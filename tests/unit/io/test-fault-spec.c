/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "io/fault_spec.h"
#include "util/msg.h"

static char last[200];

static void
keep(const char *text)
{
	strncpy(last, text, sizeof(last) - 1);
}

static int
apply(const char *spec, struct image **data, struct image **meta)
{
	cr_assert_eq(image_open_memory("data", 8192, data), 0);
	cr_assert_eq(image_open_memory("meta", 8192, meta), 0);
	msg_set_sink(keep);
	return fault_spec_apply(spec, data, meta);
}

Test(fault_spec, each_fault_is_of_its_image_operation_and_number)
{
	struct image *data, *meta;
	char bytes[1024] = "x", c;

	cr_assert_eq(apply("data:flush:2:EIO,meta:write:1-:ENOSPC,meta:write:short=1,data:read:delay=1us",
			   &data, &meta), 0);
	cr_assert_eq(image_flush(data), 0);
	cr_assert_eq(image_flush(data), -EIO);
	cr_assert_eq(image_flush(data), 0);
	cr_assert_eq(image_write(data, "x", 1, 0), 0);
	cr_assert_eq(image_flush(meta), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(image_write(meta, bytes, sizeof(bytes), 0), -ENOSPC);
	cr_assert_eq(image_read(meta, &c, 1, 0), 0);
	cr_assert_eq(c, 'x');
	image_close(data);
	image_close(meta);
}

Test(fault_spec, a_flush_that_drops)
{
	struct image *data, *meta;
	char c;

	cr_assert_eq(apply("meta:flush:drop,meta:flush:1:EIO", &data, &meta), 0);
	cr_assert_eq(image_write(meta, "x", 1, 0), 0);
	cr_assert_eq(image_flush(meta), -EIO);
	cr_assert_eq(image_read(meta, &c, 1, 0), 0);
	cr_assert_eq(c, 0);
	image_close(data);
	image_close(meta);
}

Test(fault_spec, what_is_not_understood_is_refused_with_a_message)
{
	static const char *const specs[] = {
		"data", "data:flush", "data:flush:", "data:flush:0:EIO", "data:flush:1", "data:flush:1:",
		"data:flush:1:EGG", "data:flush:1-EIO", "data:flush:-1:EIO", "data:flush:1:EIO:",
		"data:resize:1:EIO", "both:flush:1:EIO", "data:write:drop", "data:flush:short=1",
		"data:write:short=", "data:write:short=x", "data:read:delay=5", "data:read:delay=5s",
		"data:read:delay=99999999us", ",", "data:flush:1:EIO,",
	};

	for (unsigned i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct image *data, *meta;

		last[0] = '\0';
		cr_assert_eq(apply(specs[i], &data, &meta), -EINVAL, "%s", specs[i]);
		cr_assert(strstr(last, specs[i]), "%s: %s", specs[i], last);
		image_close(data);
		image_close(meta);
	}
}

Test(fault_spec, none_leaves_the_images_alone)
{
	struct image *data, *meta, *before;

	cr_assert_eq(apply(NULL, &data, &meta), 0);
	before = data;
	cr_assert_eq(fault_spec_apply("", &data, &meta), 0);
	cr_assert_eq(data, before);
	image_close(data);
	image_close(meta);
}
