/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/image.h"
#include "unit/io/image_model.h"
#include "unit/random.h"
#include "unit/scratch.h"
#include "util/msg.h"

static char dir[128];
static char path[sizeof(dir) + 16];
static char last_message[4096];

static void
keep_message(const char *text)
{
	snprintf(last_message, sizeof(last_message), "%s", text);
}

static void
setup(void)
{
	scratch_template(dir, sizeof(dir), "unit");
	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/data.img", dir);
	msg_set_sink(keep_message);
}

static void
teardown(void)
{
	unlink(path);
	rmdir(dir);
}

TestSuite(image_file, .init = setup, .fini = teardown);

static void
make_file(uint64_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static struct image *
open_image(uint64_t size)
{
	struct image *img;

	make_file(size);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &img), 0, "%s", last_message);
	return img;
}

Test(image_file, random_operations_agree_with_an_array)
{
	struct image *img = open_image(300000);

	cr_assert_not(img->is_block_device);
	image_model_run(img, "image_file", 5000);
	image_close(img);
}

Test(image_file, more_pieces_than_the_kernel_takes_at_once_are_written_and_read)
{
	enum { NR = 3000 };
	static struct iovec iov[NR];
	static char out[NR], in[NR];
	struct image *img = open_image(NR + 1);

	for (int i = 0; i < NR; i++) {
		out[i] = (char)(i * 7);
		iov[i] = (struct iovec){&out[i], 1};
	}
	cr_assert_eq(image_writev(img, iov, NR, 1), 0);
	for (int i = 0; i < NR; i++)
		iov[i].iov_base = &in[i];
	cr_assert_eq(image_readv(img, iov, NR, 1), 0);
	cr_assert_eq(memcmp(in, out, NR), 0);
	image_close(img);
}

Test(image_file, nothing_is_read_past_the_end_and_writes_do_not_grow_the_file)
{
	struct image *img = open_image(100);
	char buf[2] = {1, 1};
	uint64_t size;

	cr_assert_eq(image_write(img, buf, 2, 98), 0);
	cr_assert_eq(image_write(img, buf, 2, 99), -EIO);
	cr_assert_eq(image_write(img, buf, 1, UINT64_MAX), -EIO);
	cr_assert_eq(image_read(img, buf, 2, 99), -EIO);
	cr_assert_eq(image_read(img, buf, 1, UINT64_MAX), -EIO);
	cr_assert_eq(image_get_size(img, &size), 0);
	cr_assert_eq(size, 100);
	image_close(img);
}

Test(image_file, a_file_that_others_made_larger_can_be_written_there)
{
	struct image *img = open_image(100);

	cr_assert_eq(truncate(path, 200), 0);
	cr_assert_eq(image_write(img, "x", 1, 199), 0);
	image_close(img);
}

Test(image_file, a_short_write_is_continued_and_its_cause_reported)
{
	struct image *img = open_image(8192);
	struct rlimit limit = {5000, RLIM_INFINITY};
	static char buf[8192], in[8192];

	memset(buf, 'x', sizeof(buf));
	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(image_write(img, buf, sizeof(buf), 0), -EFBIG);
	cr_assert_eq(image_read(img, in, sizeof(in), 0), 0);
	cr_assert_eq(memcmp(in, buf, 5000), 0);
	cr_assert_eq(in[5000], 0);
	image_close(img);
}

Test(image_file, punching_gives_the_space_back_and_keeps_the_size)
{
	struct image *img = open_image(4 << 20);
	static char buf[4 << 20];
	struct stat before, after;

	memset(buf, 'x', sizeof(buf));
	cr_assert_eq(image_write(img, buf, sizeof(buf), 0), 0);
	cr_assert_eq(image_flush(img), 0);
	cr_assert_eq(stat(path, &before), 0);
	cr_assert_eq(image_punch(img, 1 << 20, UINT64_MAX), 0);
	cr_assert_eq(stat(path, &after), 0);
	cr_assert_eq(after.st_size, before.st_size);
	cr_assert_lt(after.st_blocks, before.st_blocks);
	cr_assert_eq(image_read(img, buf, sizeof(buf), 0), 0);
	cr_assert_eq(buf[(1 << 20) - 1], 'x');
	cr_assert_eq(buf[1 << 20], 0);
	cr_assert_eq(memcmp(buf + (1 << 20), buf + (1 << 20) + 1, (3 << 20) - 1), 0);
	cr_assert_eq(image_punch(img, 4 << 20, 1), 0);
	image_close(img);
}

Test(image_file, zeroing_in_place_keeps_the_space_and_all_around)
{
	struct image *img = open_image(4 << 20);
	static char buf[4 << 20];
	struct stat before, after;

	memset(buf, 'x', sizeof(buf));
	cr_assert_eq(image_write(img, buf, sizeof(buf), 0), 0);
	cr_assert_eq(image_flush(img), 0);
	cr_assert_eq(stat(path, &before), 0);
	cr_assert_eq(image_zero_in_place(img, (1 << 20) + 100, 2 << 20), 0);
	cr_assert_eq(image_zero_in_place(img, 100, 200), 0);
	cr_assert_eq(image_flush(img), 0);
	cr_assert_eq(stat(path, &after), 0);
	cr_assert_eq(after.st_size, before.st_size);
	cr_assert_geq(after.st_blocks, before.st_blocks);
	cr_assert_eq(image_read(img, buf, sizeof(buf), 0), 0);
	for (unsigned i = 0; i < sizeof(buf); i++) {
		bool zeroed = (i >= 100 && i < 300) || (i >= (1 << 20) + 100 && i < (3 << 20) + 100);

		cr_assert_eq(buf[i], zeroed ? 0 : 'x', "at %u", i);
	}
	image_close(img);
}

Test(image_file, read_only_changes_nothing)
{
	struct image *img;
	char c;

	make_file(100);
	cr_assert_eq(image_open_file(path, 0, &img), 0);
	cr_assert(img->read_only);
	cr_assert_eq(image_write(img, "x", 1, 0), -EROFS);
	cr_assert_eq(image_punch(img, 0, 100), -EROFS);
	cr_assert_eq(image_zero_in_place(img, 0, 100), -EROFS);
	cr_assert_eq(image_resize(img, 200), -EROFS);
	cr_assert_eq(image_flush(img), 0);
	cr_assert_eq(image_read(img, &c, 1, 99), 0);
	image_close(img);
}

Test(image_file, an_absent_file_is_made_only_when_asked_and_for_its_owner_only)
{
	struct image *img;
	struct stat st;

	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &img), -ENOENT);
	cr_assert(strstr(last_message, path), "%s", last_message);
	umask(0);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR | IMAGE_CREATE, &img), 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
	cr_assert_eq(image_resize(img, 1000), 0);
	image_close(img);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR | IMAGE_CREATE, &img), 0);
	cr_assert_eq(image_write(img, "x", 1, 999), 0, "an existing file keeps its contents");
	image_close(img);
}

Test(image_file, what_is_no_image_is_refused_with_the_reason)
{
	struct image *img;

	cr_assert_eq(image_open_file(dir, IMAGE_RDWR, &img), -EISDIR);
	cr_assert(strstr(last_message, "is a directory"), "%s", last_message);
	cr_assert_eq(image_open_file("/dev/null", IMAGE_RDWR, &img), -EINVAL);
	cr_assert(strstr(last_message, "is a character device"), "%s", last_message);
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_eq(image_open_file(path, 0, &img), -EINVAL, "and does not wait for a writer");
	cr_assert(strstr(last_message, "is a pipe"), "%s", last_message);
}

Test(image_file, symbolic_links_are_followed)
{
	struct image *img, *other;
	char link[160];

	make_file(100);
	snprintf(link, sizeof(link), "%s.link", path);
	cr_assert_eq(symlink(path, link), 0);
	cr_assert_eq(image_open_file(link, IMAGE_RDWR, &img), 0);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &other), -EBUSY, "one lock by any name");
	image_close(img);
	unlink(link);
}

Test(image_file, a_writer_is_alone_and_readers_share)
{
	struct image *a, *b, *c;

	make_file(100);
	cr_assert_eq(image_open_file(path, 0, &a), 0);
	cr_assert_eq(image_open_file(path, 0, &b), 0);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &c), -EBUSY);
	image_close(a);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &c), -EBUSY);
	image_close(b);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &c), 0);
	cr_assert_eq(image_open_file(path, 0, &a), -EBUSY);
	image_close(c);
	cr_assert_eq(image_open_file(path, 0, &a), 0);
	image_close(a);
}

/* A process that holds the image until it is killed. */
static pid_t
fork_holder(bool posix_lock)
{
	int ready[2];
	char c = 0;
	pid_t pid;

	cr_assert_eq(pipe(ready), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		struct image *img;
		int r;

		if (posix_lock)
			r = fcntl(open(path, O_RDWR | O_CLOEXEC), F_SETLK, &lock);
		else
			r = image_open_file(path, IMAGE_RDWR, &img);
		if (!r && write(ready[1], "!", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	cr_assert_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void
expect_holder_named(bool posix_lock)
{
	pid_t pid = fork_holder(posix_lock);
	struct image *img;
	char want[64];
	/* It has the file open, but holds nothing. */
	int bystander = open(path, O_RDONLY | O_CLOEXEC);

	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &img), -EBUSY);
	snprintf(want, sizeof(want), "in use by process %d (", (int)pid);
	cr_assert(strstr(last_message, want), "%s", last_message);
	cr_assert(strstr(last_message, path), "%s", last_message);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(bystander);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &img), 0, "the lock goes with its holder");
	image_close(img);
}

Test(image_file, the_process_in_the_way_is_named)
{
	make_file(100);
	expect_holder_named(false);
}

Test(image_file, so_is_one_with_an_ordinary_lock)
{
	make_file(100);
	expect_holder_named(true);
}

/* A loop device on the file; skips the test where there can be none. */
static void
attach_loop(char *device, size_t size)
{
	char command[256];
	FILE *f;

	snprintf(command, sizeof(command), "losetup -f --show '%s' 2>&1", path);
	f = popen(command, "re");
	if (!f || !fgets(device, (int)size, f) || pclose(f)) {
		if (f)
			fprintf(stderr, "# %s", device);
		cr_skip("no loop devices");
	}
	device[strcspn(device, "\n")] = '\0';
}

static void
detach_loop(const char *device)
{
	char command[128];

	snprintf(command, sizeof(command), "losetup -d %s", device);
	cr_assert_eq(system(command), 0);
}

Test(image_file, a_block_device_has_its_size_and_cannot_be_resized)
{
	char device[128] = "";
	struct image *img, *other;
	uint64_t size;

	make_file(1 << 20);
	attach_loop(device, sizeof(device));
	cr_assert_eq(image_open_file(device, IMAGE_RDWR, &img), 0, "%s", last_message);
	cr_assert(img->is_block_device);
	cr_assert_eq(image_get_size(img, &size), 0);
	cr_assert_eq(size, 1 << 20);
	cr_assert_eq(image_resize(img, 2 << 20), -EOPNOTSUPP);
	cr_assert_eq(image_write(img, "x", 1, 1 << 20), -EIO);
	cr_assert_eq(image_open_file(device, IMAGE_RDWR, &other), -EBUSY);
	cr_assert(strstr(last_message, "in use by process"), "%s", last_message);
	image_close(img);
	detach_loop(device);
}

Test(image_file, random_operations_on_a_block_device_agree_with_an_array)
{
	char device[128] = "";
	struct image *img;

	make_file(IMAGE_MODEL_MAX);
	attach_loop(device, sizeof(device));
	cr_assert_eq(image_open_file(device, IMAGE_RDWR, &img), 0, "%s", last_message);
	image_model_run(img, "image_file on a block device", 2000);
	image_close(img);
	detach_loop(device);
}

/* --- holes --- */

#define HOLE_UNIT 4096U
#define HOLE_UNITS 256U
#define HOLE_THREADS 4U

static struct image *holes_image;
static atomic_uint wrong_holes, right_holes;
static bool written[HOLE_UNITS]; /* each thread has every HOLE_THREADS-th */

/* Write, punch and ask for units of its own, as who has blocks for itself. */
static void *
use_holes(void *arg)
{
	struct random_source rs = {(uintptr_t)arg + 1};
	uint8_t byte = 1;

	for (unsigned i = 0; i < 6000; i++) {
		unsigned u = (unsigned)random_below(&rs, HOLE_UNITS / HOLE_THREADS) * HOLE_THREADS + (unsigned)(uintptr_t)arg;
		uint64_t at = (uint64_t)u * HOLE_UNIT;

		if (!random_below(&rs, 3)) {
			image_write(holes_image, &byte, 1, at + random_below(&rs, HOLE_UNIT));
			written[u] = true;
		} else if (random_below(&rs, 2)) {
			image_punch(holes_image, at, HOLE_UNIT);
			written[u] = false;
		}
		if (image_is_hole(holes_image, at, HOLE_UNIT))
			*(written[u] ? &wrong_holes : &right_holes) += 1;
	}
	return NULL;
}

Test(image_file, what_was_written_is_never_taken_for_a_hole)
{
	pthread_t threads[HOLE_THREADS];

	make_file(HOLE_UNITS * HOLE_UNIT);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &holes_image), 0);
	for (uintptr_t i = 0; i < HOLE_THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, use_holes, (void *)i), 0);
	for (unsigned i = 0; i < HOLE_THREADS; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(wrong_holes, 0);
	cr_assert_gt(right_holes, 0);
	image_close(holes_image);
}

Test(image_file, a_hole_is_known_to_its_end_and_its_rest_after_a_write)
{
	struct image *img;
	uint8_t byte = 1;

	make_file(64 * HOLE_UNIT);
	cr_assert_eq(image_open_file(path, IMAGE_RDWR, &img), 0);
	cr_assert_eq(image_write(img, &byte, 1, 40 * HOLE_UNIT), 0);
	cr_assert(image_is_hole(img, 8 * HOLE_UNIT, HOLE_UNIT));
	cr_assert(image_is_hole(img, 8 * HOLE_UNIT, 32 * HOLE_UNIT));
	cr_assert(!image_is_hole(img, 8 * HOLE_UNIT, 33 * HOLE_UNIT));
	cr_assert_eq(image_write(img, &byte, 1, 10 * HOLE_UNIT), 0);
	cr_assert(!image_is_hole(img, 10 * HOLE_UNIT, HOLE_UNIT));
	cr_assert(!image_is_hole(img, 8 * HOLE_UNIT, 32 * HOLE_UNIT));
	cr_assert(image_is_hole(img, 11 * HOLE_UNIT, 29 * HOLE_UNIT));
	cr_assert_eq(image_punch(img, 10 * HOLE_UNIT, HOLE_UNIT), 0);
	cr_assert(image_is_hole(img, 8 * HOLE_UNIT, 32 * HOLE_UNIT));
	image_close(img);
}
