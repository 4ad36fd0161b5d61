/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "io/origin_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LINKS_MAX 40U

#define SAMPLES 16U
#define SAMPLE_BYTES 4096U

/* --- the way to it --- */

struct walk {
	int at; /* O_PATH */
	unsigned nr_links;
	char rest[2 * PATH_MAX]; /* the steps to go */
};

static int
walk_to_root(struct walk *w)
{
	int fd = open("/", O_PATH | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (w->at >= 0)
		close(w->at);
	w->at = fd;
	return 0;
}

/* The symbolic link FD, in place of the step that it was. */
static int
walk_link(struct walk *w, int fd)
{
	char target[2 * PATH_MAX];
	ssize_t n = readlinkat(fd, "", target, PATH_MAX - 1);

	if (n < 0)
		return -errno;
	if (++w->nr_links > LINKS_MAX)
		return -ELOOP;
	if (strlen(w->rest) + (size_t)n + 2 > sizeof(target))
		return -ENAMETOOLONG;
	sprintf(target + n, "/%s", w->rest);
	strcpy(w->rest, target);
	return target[0] == '/' ? walk_to_root(w) : 0;
}

/* Asks no server of files, but the kernel alone. */
static int
look(int fd, struct statx *st)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, st) ? -errno : 0;
}

static int
walk_step(struct walk *w, const struct origin_guard *guard, struct statx *st)
{
	char *name = w->rest + strspn(w->rest, "/");
	size_t len = strcspn(name, "/");
	char step[NAME_MAX + 1];
	int fd, r;

	if (len >= sizeof(step))
		return -ENAMETOOLONG;
	memcpy(step, name, len);
	step[len] = '\0';
	memmove(w->rest, name + len, strlen(name + len) + 1);
	if (!len)
		return 0;
	fd = openat(w->at, step, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = look(fd, st);
	if (!r && guard->has_mount && makedev(st->stx_dev_major, st->stx_dev_minor) == guard->mount)
		r = -EXDEV;
	if (!r && S_ISLNK(st->stx_mode)) {
		r = walk_link(w, fd);
		close(fd);
	} else if (!r) {
		close(w->at);
		w->at = fd;
	} else {
		close(fd);
	}
	return r;
}

/* An O_PATH descriptor; -EXDEV: the way leads into the mount. */
static int
walk_path(const char *path, const struct origin_guard *guard, struct statx *st, int *fd)
{
	struct walk w = {.at = -1};
	int r = 0;

	if (path[0] != '/')
		return -EINVAL;
	if (strlen(path) >= PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(w.rest, path);
	r = walk_to_root(&w);
	if (!r)
		r = look(w.at, st);
	while (!r && w.rest[0])
		r = walk_step(&w, guard, st);
	if (r && w.at >= 0)
		close(w.at);
	*fd = w.at;
	return r;
}

/* A loop device on a file of the mount waits for the mount as well. */
static int
check_loop(const struct statx *st, const struct origin_guard *guard)
{
	char path[96], file[PATH_MAX];
	struct statx unused;
	FILE *f;
	int fd, r = 0;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/loop/backing_file", st->stx_rdev_major,
		 st->stx_rdev_minor);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fgets(file, sizeof(file), f)) {
		file[strcspn(file, "\n")] = '\0';
		r = walk_path(file, guard, &unused, &fd);
		if (!r)
			close(fd);
	}
	fclose(f);
	return r == -EXDEV ? r : 0;
}

/* --- what it is --- */

static uint64_t
fnv1a(uint64_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum = (sum ^ p[i]) * 0x100000001b3ULL;
	return sum;
}

static int
sum_samples(struct image *img, uint64_t size, uint64_t *sum)
{
	bool small = size <= (uint64_t)SAMPLES * SAMPLE_BYTES;
	uint64_t stride = small ? SAMPLE_BYTES : (size - SAMPLE_BYTES) / (SAMPLES - 1);
	uint8_t buf[SAMPLE_BYTES];
	int r = 0;

	*sum = 0xcbf29ce484222325ULL;
	for (uint64_t i = 0; i < SAMPLES && i * stride < size && !r; i++) {
		uint64_t at = i * stride;
		size_t len = size - at < sizeof(buf) ? (size_t)(size - at) : sizeof(buf);

		r = image_read(img, buf, len, at);
		if (!r)
			*sum = fnv1a(*sum, buf, len);
	}
	return r;
}

int
origin_file_peek(struct image *img, struct origin_identity *identity)
{
	struct timespec mtime = {0};
	int r = image_get_size(img, &identity->size);

	if (!r && !img->is_block_device)
		r = image_file_mtime(img, &mtime);
	identity->mtime_ns = mtime.tv_sec * 1000000000LL + mtime.tv_nsec;
	return r;
}

struct own_image
origin_own_image(const char *path)
{
	struct own_image own = {0};
	struct stat st;

	if (!stat(path, &st)) {
		own.dev = st.st_dev;
		own.ino = st.st_ino;
		own.rdev = S_ISBLK(st.st_mode) ? st.st_rdev : 0;
	}
	return own;
}

static bool
is_own(const struct statx *st, const struct origin_guard *guard)
{
	dev_t rdev = makedev(st->stx_rdev_major, st->stx_rdev_minor);

	for (unsigned i = 0; i < 2; i++) {
		const struct own_image *own = &guard->own[i];

		if (!own->ino)
			continue;
		if (S_ISBLK(st->stx_mode) ? own->rdev == rdev
					  : own->ino == st->stx_ino &&
						    own->dev == makedev(st->stx_dev_major, st->stx_dev_minor))
			return true;
	}
	return false;
}

/* --- opening --- */

static int
refuse(int r, const char *text, const char **why)
{
	*why = text;
	return r;
}

static int
check(const struct statx *st, const struct origin_guard *guard, const char **why)
{
	if (S_ISBLK(st->stx_mode) && check_loop(st, guard))
		return refuse(-EXDEV, "is a loop device on a file of this pool", why);
	if (!S_ISREG(st->stx_mode) && !S_ISBLK(st->stx_mode))
		return refuse(-EINVAL, "is neither a regular file nor a block device", why);
	if (is_own(st, guard))
		return refuse(-EINVAL, "is one of the pool's own images", why);
	return 0;
}

/* The file of an O_PATH descriptor, open. */
static int
reopen(int path_fd)
{
	char name[40];
	int fd;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* Where there are no locks, there is nothing in the way. */
static int
lock_shared(int fd)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : 0;
}

static int
open_checked(const char *path, const struct origin_guard *guard, int *fd, const char **why)
{
	struct statx st;
	int path_fd;
	int r = walk_path(path, guard, &st, &path_fd);

	if (r == -EXDEV)
		return refuse(r, "is within this pool's own mount", why);
	if (r)
		return refuse(r, strerror(-r), why);
	r = check(&st, guard, why);
	if (!r) {
		*fd = reopen(path_fd);
		r = *fd < 0 ? refuse(*fd, strerror(-*fd), why) : 0;
	}
	close(path_fd);
	return r;
}

int
origin_file_open(const char *path, const struct origin_guard *guard, struct image **out,
		 struct origin_identity *identity, const char **why)
{
	int fd = -1;
	int r = open_checked(path, guard, &fd, why);

	if (r)
		return r;
	if (lock_shared(fd)) {
		close(fd);
		return refuse(-EBUSY, "is open for writing by somebody else, who has locked it", why);
	}
	r = image_adopt(fd, path, out);
	if (r)
		return refuse(r, strerror(-r), why);
	r = origin_file_peek(*out, identity);
	if (!r)
		r = sum_samples(*out, identity->size, &identity->sum);
	if (r) {
		image_close(*out);
		return refuse(r, strerror(-r), why);
	}
	return 0;
}
