/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

#include "io/image.h"
#include "unit/io/image_model.h"

Test(image_memory, random_operations_agree_with_an_array)
{
	struct image *img;

	cr_assert_eq(image_open_memory("mem", 300000, &img), 0);
	cr_assert_str_eq(img->name, "mem");
	image_model_run(img, "image_memory", 20000);
	image_close(img);
}

Test(image_memory, nothing_is_read_or_written_past_the_end)
{
	char buf[2] = {1, 1};
	struct image *img;
	uint64_t size;

	cr_assert_eq(image_open_memory("mem", 100, &img), 0);
	cr_assert_eq(image_write(img, buf, 2, 98), 0);
	cr_assert_eq(image_write(img, buf, 2, 99), -EIO);
	cr_assert_eq(image_write(img, buf, 1, UINT64_MAX), -EIO);
	cr_assert_eq(image_read(img, buf, 2, 99), -EIO);
	cr_assert_eq(image_read(img, buf, 1, 100), -EIO);
	cr_assert_eq(image_read(img, NULL, 0, 100), 0);
	cr_assert_eq(image_get_size(img, &size), 0);
	cr_assert_eq(size, 100);
	image_close(img);
}

Test(image_memory, an_image_of_many_terabytes_costs_nothing)
{
	struct image *img;
	char c = 'x';

	cr_assert_eq(image_open_memory("mem", 8ULL << 40, &img), 0);
	cr_assert_eq(image_write(img, &c, 1, (8ULL << 40) - 1), 0);
	cr_assert_eq(image_punch(img, 0, 8ULL << 40), 0);
	cr_assert_eq(image_read(img, &c, 1, (8ULL << 40) - 1), 0);
	cr_assert_eq(c, 0);
	image_close(img);
}

Test(image_memory, an_empty_image_can_grow_and_shrink_to_nothing)
{
	struct image *img;
	char c = 'x';

	cr_assert_eq(image_open_memory("mem", 0, &img), 0);
	cr_assert_eq(image_read(img, &c, 1, 0), -EIO);
	cr_assert_eq(image_punch(img, 0, 100), 0);
	cr_assert_eq(image_resize(img, 5), 0);
	cr_assert_eq(image_write(img, &c, 1, 4), 0);
	cr_assert_eq(image_resize(img, 0), 0);
	cr_assert_eq(image_resize(img, 5), 0);
	cr_assert_eq(image_read(img, &c, 1, 4), 0);
	cr_assert_eq(c, 0);
	image_close(img);
}
