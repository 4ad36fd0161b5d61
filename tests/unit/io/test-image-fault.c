/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <time.h>

#include "io/image_fault.h"
#include "unit/io/image_model.h"

static struct image *
open_wrapped(uint64_t size)
{
	struct image *inner, *img;

	cr_assert_eq(image_open_memory("mem", size, &inner), 0);
	cr_assert_eq(image_fault_wrap(inner, &img), 0);
	return img;
}

Test(image_fault, without_faults_it_is_the_image_below)
{
	struct image *img = open_wrapped(300000);

	cr_assert_str_eq(img->name, "mem");
	image_model_run(img, "image_fault", 5000);
	image_close(img);
}

Test(image_fault, the_nth_write_fails_once_and_changes_nothing)
{
	struct image *img = open_wrapped(100);
	char c = 'a';

	cr_assert_eq(image_write(img, &c, 1, 0), 0);
	image_fault_set(img, IMAGE_OP_WRITE, 2, ENOSPC, false);
	cr_assert_eq(image_write(img, &c, 1, 1), 0);
	cr_assert_eq(image_write(img, &c, 1, 2), -ENOSPC);
	cr_assert_eq(image_write(img, &c, 1, 3), 0);
	cr_assert_eq(image_fault_count(img, IMAGE_OP_WRITE), 4);
	cr_assert_eq(image_read(img, &c, 1, 2), 0);
	cr_assert_eq(c, 0);
	image_close(img);
}

Test(image_fault, a_lasting_fault_lasts_until_cleared_and_hits_one_kind_only)
{
	struct image *img = open_wrapped(100);
	char c = 'a';

	image_fault_set(img, IMAGE_OP_FLUSH, 1, EIO, true);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(image_flush(img), -EIO);
		cr_assert_eq(image_write(img, &c, 1, 0), 0);
		cr_assert_eq(image_read(img, &c, 1, 0), 0);
	}
	image_fault_clear(img);
	cr_assert_eq(image_flush(img), 0);
	image_fault_set(img, IMAGE_OP_READ, 1, EIO, false);
	image_fault_set(img, IMAGE_OP_PUNCH, 1, EIO, false);
	image_fault_set(img, IMAGE_OP_RESIZE, 1, ENOSPC, false);
	cr_assert_eq(image_read(img, &c, 1, 0), -EIO);
	cr_assert_eq(image_punch(img, 0, 1), -EIO);
	cr_assert_eq(image_resize(img, 200), -ENOSPC);
	image_close(img);
}

Test(image_fault, delays_delay)
{
	struct image *img = open_wrapped(100);
	struct timespec before, after;
	char c;

	image_fault_delay(img, IMAGE_OP_READ, 20000);
	clock_gettime(CLOCK_MONOTONIC, &before);
	cr_assert_eq(image_read(img, &c, 1, 0), 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	cr_assert_geq((after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec,
		      20000000L);
	image_close(img);
}

#define LOG_MAX 16

struct log {
	struct image_event events[LOG_MAX];
	char data[LOG_MAX][8];
	int nr;
};

static void
record(void *arg, const struct image_event *event)
{
	struct log *log = arg;

	cr_assert_lt(log->nr, LOG_MAX);
	log->events[log->nr] = *event;
	if (event->data)
		memcpy(log->data[log->nr], event->data, event->len);
	log->nr++;
}

Test(image_fault, an_observer_sees_what_succeeded_in_order_with_its_data)
{
	const enum image_op ops[] = {IMAGE_OP_WRITE, IMAGE_OP_FLUSH, IMAGE_OP_PUNCH, IMAGE_OP_RESIZE};
	struct iovec iov[3] = {{(char *)"ab", 2}, {NULL, 0}, {(char *)"cd", 2}};
	struct image *img = open_wrapped(100);
	struct log log = {.nr = 0};
	char c;

	image_fault_observe(img, record, &log);
	image_fault_set(img, IMAGE_OP_WRITE, 2, EIO, false);
	cr_assert_eq(image_writev(img, iov, 3, 7), 0);
	cr_assert_eq(image_write(img, "no", 2, 0), -EIO);
	cr_assert_eq(image_write(img, "no", 2, 99), -EIO, "refused by the image below");
	cr_assert_eq(image_read(img, &c, 1, 0), 0);
	cr_assert_eq(image_flush(img), 0);
	cr_assert_eq(image_punch(img, 3, 4), 0);
	cr_assert_eq(image_resize(img, 50), 0);

	cr_assert_eq(log.nr, 4);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(log.events[i].op, ops[i]);
	cr_assert_eq(log.events[0].offset, 7);
	cr_assert_eq(log.events[0].len, 4);
	cr_assert_eq(memcmp(log.data[0], "abcd", 4), 0);
	cr_assert_eq(log.events[2].offset, 3);
	cr_assert_eq(log.events[2].len, 4);
	cr_assert_eq(log.events[3].offset, 50);
	image_close(img);
}

Test(image_fault, a_short_write_writes_whole_sectors_and_never_all)
{
	struct image *img = open_wrapped(4096);
	char ones[1024], back[4096];

	memset(ones, 1, sizeof(ones));
	image_fault_short(img, 2);
	image_fault_set(img, IMAGE_OP_WRITE, 1, EIO, true);
	cr_assert_eq(image_write(img, ones, 1000, 100), -EIO);
	cr_assert_eq(image_write(img, ones, 1024, 2048), -EIO);
	cr_assert_eq(image_write(img, ones, 100, 1600), -EIO);
	image_fault_clear(img);
	cr_assert_eq(image_read(img, back, sizeof(back), 0), 0);
	for (int i = 0; i < 4096; i++)
		cr_assert_eq(back[i], (i >= 100 && i < 1024) || (i >= 2048 && i < 2560), "byte %d", i);
	image_close(img);
}

Test(image_fault, a_failed_flush_drops_what_was_not_flushed_and_the_next_one_succeeds)
{
	struct image *img = open_wrapped(10000);
	char c;

	cr_assert_eq(image_fault_drop_unflushed(img), 0);
	cr_assert_eq(image_write(img, "a", 1, 9999), 0);
	cr_assert_eq(image_flush(img), 0);
	cr_assert_eq(image_write(img, "b", 1, 9999), 0);
	cr_assert_eq(image_write(img, "c", 1, 9999), 0);
	cr_assert_eq(image_write(img, "d", 1, 5), 0);
	image_fault_set(img, IMAGE_OP_FLUSH, 1, EIO, false);
	cr_assert_eq(image_flush(img), -EIO);
	cr_assert_eq(image_flush(img), 0);
	cr_assert_eq(image_read(img, &c, 1, 9999), 0);
	cr_assert_eq(c, 'a');
	cr_assert_eq(image_read(img, &c, 1, 5), 0);
	cr_assert_eq(c, 0);
	cr_assert_eq(image_write(img, "e", 1, 5), 0);
	cr_assert_eq(image_punch(img, 9000, 1000), 0);
	image_fault_set(img, IMAGE_OP_FLUSH, 1, EIO, false);
	cr_assert_eq(image_flush(img), -EIO);
	cr_assert_eq(image_read(img, &c, 1, 9999), 0);
	cr_assert_eq(c, 'a');
	image_close(img);
}
