/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An image in a regular file or on a block device.
 *
 * Writes past the end are refused here, because the kernel would let a file grow; the size is
 * remembered for that, and looked up again before anything is refused.
 */
#include <config.h>

#include "io/image.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/hole_cache.h"
#include "io/image_lock.h"
#include "util/msg.h"

struct image_file {
	struct image image;
	char *path; /* const */
	int fd; /* const */
	unsigned sector; /* const; what a punch must be aligned to: 1 for a file */
	_Atomic uint64_t size; /* bytes, as last seen */
	/* What a punch need not try again, because it is not supported. */
	atomic_bool no_punch;
	atomic_bool no_discard;
	atomic_bool no_zeroout; /* BLKZEROOUT, or ZERO_RANGE of a file */
	struct hole_cache holes; /* only the one who has the image locked writes to it */
};

/* A quota is space, too. */
static int
last_error(void)
{
	return errno == EDQUOT ? -ENOSPC : -errno;
}

/* What moves bytes between memory and an image: of one buffer, and of several, which costs more. */
struct transfer {
	ssize_t (*one)(int fd, void *buf, size_t len, off_t offset);
	ssize_t (*many)(int fd, const struct iovec *iov, int nr_iov, off_t offset);
};

#define IOV_AT_A_TIME 64

static struct image_file *
to_file(struct image *img)
{
	return (struct image_file *)img;
}

static ssize_t
write_one(int fd, void *buf, size_t len, off_t offset)
{
	return pwrite(fd, buf, len, offset);
}

static const struct transfer reading = {pread, preadv}, writing = {write_one, pwritev};

/* As much of IOV as goes at a time, without the first DONE bytes. */
static ssize_t
transfer_some(const struct transfer *t, int fd, const struct iovec *iov, int nr_iov, size_t done, off_t offset)
{
	int nr = nr_iov < IOV_AT_A_TIME ? nr_iov : IOV_AT_A_TIME;
	struct iovec part[IOV_AT_A_TIME];

	if (nr == 1)
		return t->one(fd, (char *)iov->iov_base + done, iov->iov_len - done, offset);
	memcpy(part, iov, (size_t)nr * sizeof(*part));
	part[0].iov_base = (char *)part[0].iov_base + done;
	part[0].iov_len -= done;
	return t->many(fd, part, nr, offset);
}

/* All of IOV, however little T moves at a time. Nothing moved: the end of the image. */
static int
transfer_all(const struct transfer *t, int fd, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	size_t done = 0; /* of iov[0] */

	while (nr_iov) {
		ssize_t n;

		if (iov->iov_len == done) {
			iov++;
			nr_iov--;
			done = 0;
			continue;
		}
		n = transfer_some(t, fd, iov, nr_iov, done, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? last_error() : -EIO;

		offset += (uint64_t)n;
		done += (size_t)n;
		while (nr_iov && done >= iov->iov_len) {
			done -= iov->iov_len;
			iov++;
			nr_iov--;
		}
	}
	return 0;
}

static uint64_t
iov_length(const struct iovec *iov, int nr_iov)
{
	uint64_t len = 0;

	while (nr_iov--)
		len += (iov++)->iov_len;
	return len;
}

static int
file_get_size(struct image *img, uint64_t *size)
{
	struct image_file *f = to_file(img);
	struct stat st;

	if (img->is_block_device) {
		if (ioctl(f->fd, BLKGETSIZE64, size))
			return -errno;
	} else {
		if (fstat(f->fd, &st))
			return -errno;
		*size = (uint64_t)st.st_size;
	}
	atomic_store(&f->size, *size);
	return 0;
}

/* -EIO unless the range lies in the image. */
static int
check_range(struct image_file *f, uint64_t offset, uint64_t len)
{
	uint64_t size = atomic_load(&f->size);
	int r;

	if (offset <= size && len <= size - offset)
		return 0;
	r = file_get_size(&f->image, &size);
	if (r)
		return r;
	return offset <= size && len <= size - offset ? 0 : -EIO;
}

static int
file_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	if (offset > INT64_MAX)
		return -EIO;
	return transfer_all(&reading, to_file(img)->fd, iov, nr_iov, offset);
}

static int
file_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	struct image_file *f = to_file(img);
	uint64_t len = iov_length(iov, nr_iov);
	int r;

	if (img->read_only)
		return -EROFS;
	r = check_range(f, offset, len);
	if (r)
		return r;
	r = transfer_all(&writing, f->fd, iov, nr_iov, offset);
	hole_cache_written(&f->holes, offset, len);
	return r;
}

static int
file_flush(struct image *img)
{
	int r;

	if (img->read_only)
		return 0;
	do
		r = fdatasync(to_file(img)->fd);
	while (r && errno == EINTR);
	return r ? -errno : 0;
}

static bool
is_unsupported(int err)
{
	return err == EOPNOTSUPP || err == ENOSYS || err == ENOTTY || err == EINVAL;
}

static int
change_space(struct image_file *f, int mode, uint64_t offset, uint64_t len)
{
	int r;

	do
		r = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
	while (r && errno == EINTR);
	return r ? last_error() : 0;
}

static int
punch_hole(struct image_file *f, uint64_t offset, uint64_t len)
{
	return change_space(f, FALLOC_FL_PUNCH_HOLE, offset, len);
}

/* Zero an aligned range without giving its space back. */
static int
zero_aligned(struct image_file *f, uint64_t offset, uint64_t len)
{
	uint64_t range[2] = {offset, len};
	int r;

	if (!atomic_load(&f->no_zeroout)) {
		if (f->image.is_block_device)
			do
				r = ioctl(f->fd, BLKZEROOUT, range) ? -errno : 0;
			while (r == -EINTR);
		else
			r = change_space(f, FALLOC_FL_ZERO_RANGE, offset, len);
		if (!r || !is_unsupported(-r))
			return r;
		atomic_store(&f->no_zeroout, true);
	}
	return image_write_zeros(&f->image, offset, len);
}

/*
 * Zero an aligned range with the system call that gives most back. A block device's discard is not
 * among these: it need not read as zeros after it.
 */
static int
punch_aligned(struct image_file *f, uint64_t offset, uint64_t len)
{
	int r;

	if (!atomic_load(&f->no_punch)) {
		r = punch_hole(f, offset, len);
		if (!r || !is_unsupported(-r))
			return r;
		atomic_store(&f->no_punch, true);
	}
	return f->image.is_block_device ? zero_aligned(f, offset, len)
					: image_write_zeros(&f->image, offset, len);
}

/* [offset, offset + len), as far as the image goes: FN does what is whole sectors, the edges are written. */
static int
zero_with(struct image *img, uint64_t offset, uint64_t len,
	  int (*fn)(struct image_file *f, uint64_t offset, uint64_t len))
{
	struct image_file *f = to_file(img);
	uint64_t size, end, begin_aligned, end_aligned;
	int r;

	if (img->read_only)
		return -EROFS;
	r = file_get_size(img, &size);
	if (r)
		return r;
	if (offset >= size || !len)
		return 0;
	end = len < size - offset ? offset + len : size;

	begin_aligned = offset + (f->sector - offset % f->sector) % f->sector;
	end_aligned = end - end % f->sector;
	if (begin_aligned >= end_aligned)
		return image_write_zeros(img, offset, end - offset);

	r = image_write_zeros(img, offset, begin_aligned - offset);
	if (!r)
		r = fn(f, begin_aligned, end_aligned - begin_aligned);
	if (!r)
		r = image_write_zeros(img, end_aligned, end - end_aligned);
	return r;
}

static int
file_punch(struct image *img, uint64_t offset, uint64_t len)
{
	return zero_with(img, offset, len, punch_aligned);
}

static int
file_zero(struct image *img, uint64_t offset, uint64_t len)
{
	return zero_with(img, offset, len, zero_aligned);
}

static int
file_discard(struct image *img, uint64_t offset, uint64_t len)
{
	struct image_file *f = to_file(img);
	uint64_t range[2] = {offset, len};
	int r;

	if (img->read_only)
		return -EROFS;
	if (atomic_load(&f->no_discard))
		return 0;
	if (img->is_block_device)
		r = ioctl(f->fd, BLKDISCARD, range) ? -errno : 0;
	else
		r = punch_hole(f, offset, len);
	if (r && is_unsupported(-r)) {
		atomic_store(&f->no_discard, true);
		r = 0;
	}
	return r;
}

static bool
file_is_hole(struct image *img, uint64_t offset, uint64_t len)
{
	struct image_file *f = to_file(img);

	if (img->is_block_device || offset > INT64_MAX)
		return false;
	/* Others may write to a file that is not locked for this process alone. */
	return img->read_only ? hole_ask(f->fd, offset, offset + len) >= offset + len
			      : hole_cache_is_hole(&f->holes, f->fd, offset, len);
}

static int
file_allocate(struct image *img, uint64_t offset, uint64_t len)
{
	int r;

	if (img->is_block_device)
		return 0;
	if (img->read_only)
		return -EROFS;
	r = change_space(to_file(img), 0, offset, len);
	return r && is_unsupported(-r) ? 0 : r;
}

static int
file_resize(struct image *img, uint64_t size)
{
	struct image_file *f = to_file(img);
	int r;

	if (img->is_block_device)
		return -EOPNOTSUPP;
	if (img->read_only)
		return -EROFS;
	if (size > INT64_MAX)
		return -EFBIG;
	do
		r = ftruncate(f->fd, (off_t)size);
	while (r && errno == EINTR);
	if (r)
		return -errno;
	atomic_store(&f->size, size);
	return 0;
}

static void
file_close(struct image *img)
{
	struct image_file *f = to_file(img);

	if (f->fd >= 0)
		close(f->fd);
	hole_cache_destroy(&f->holes);
	free(f->path);
	free(f);
}

static const struct image_ops file_ops = {
	.readv = file_readv,
	.writev = file_writev,
	.flush = file_flush,
	.punch = file_punch,
	.zero = file_zero,
	.discard = file_discard,
	.is_hole = file_is_hole,
	.allocate = file_allocate,
	.resize = file_resize,
	.get_size = file_get_size,
	.close = file_close,
};

/* A new file's name lies in its directory, which has to be flushed for itself. */
static int
flush_directory(const char *path)
{
	char *real = realpath(path, NULL);
	int fd = -1;
	int r = 0;

	if (real)
		fd = open(dirname(real), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || (fsync(fd) && errno != EINVAL))
		r = -errno;
	if (fd >= 0)
		close(fd);
	free(real);
	return r;
}

/* Why a file of this type is no image; NULL if it may be one. */
static const char *
refuse_type(mode_t mode)
{
	if (S_ISREG(mode) || S_ISBLK(mode))
		return NULL;
	if (S_ISDIR(mode))
		return "is a directory";
	if (S_ISCHR(mode))
		return "is a character device";
	if (S_ISFIFO(mode))
		return "is a pipe";
	return "is a socket or something else";
}

static int
open_fd(const char *path, int flags, const struct stat *st, bool absent)
{
	int fd, r, err;
	int mode = O_CLOEXEC | O_NOCTTY | (flags & IMAGE_RDWR ? O_RDWR : O_RDONLY);

	if (absent)
		mode |= O_CREAT;
	else if (S_ISBLK(st->st_mode) && (flags & IMAGE_RDWR))
		mode |= O_EXCL;

	fd = open(path, mode, 0600);
	err = errno;
	if (fd >= 0) {
		r = absent ? flush_directory(path) : 0;
		if (!r)
			return fd;
		msg_error("%s: cannot flush the directory it is in: %s", path, strerror(-r));
		close(fd);
		return r;
	}
	if (err == EBUSY && !absent && S_ISBLK(st->st_mode))
		image_report_busy_device(path);
	else
		msg_error("%s: cannot %s it: %s", path, absent ? "create" : "open", strerror(err));
	return -err;
}

/* Type, sector and size of what has been opened. */
static int
look_at(struct image_file *f)
{
	struct stat st;
	uint64_t size;
	int sector = 512;
	int r = 0;

	if (fstat(f->fd, &st)) {
		r = -errno;
	} else if (refuse_type(st.st_mode)) {
		r = -EINVAL; /* it has been replaced meanwhile */
	} else {
		f->image.is_block_device = S_ISBLK(st.st_mode);
		f->sector = 1;
		if (f->image.is_block_device) {
			if (ioctl(f->fd, BLKSSZGET, &sector))
				r = -errno;
			f->sector = (unsigned)sector;
		}
	}
	return r ? r : file_get_size(&f->image, &size);
}

static int
examine(struct image_file *f)
{
	int r = look_at(f);

	if (r)
		msg_error("%s: cannot tell its size: %s", f->path, strerror(-r));
	return r;
}

static struct image_file *
new_file(const char *path, bool read_only)
{
	struct image_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fd = -1;
	f->path = strdup(path);
	if (!f->path) {
		free(f);
		return NULL;
	}
	f->image.ops = &file_ops;
	f->image.name = f->path;
	f->image.read_only = read_only;
	hole_cache_init(&f->holes);
	return f;
}

int
image_adopt(int fd, const char *path, struct image **out)
{
	struct image_file *f = new_file(path, true);
	int r;

	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	f->fd = fd;
	r = look_at(f);
	if (r) {
		file_close(&f->image);
		return r;
	}
	*out = &f->image;
	return 0;
}

int
image_file_mtime(struct image *img, struct timespec *mtime)
{
	struct stat st;

	if (fstat(to_file(img)->fd, &st))
		return -errno;
	*mtime = st.st_mtim;
	return 0;
}

int
image_open_file(const char *path, int flags, struct image **out)
{
	struct image_file *f;
	struct stat st = {0};
	bool absent = false;
	int r;

	if (stat(path, &st)) {
		absent = errno == ENOENT && (flags & IMAGE_CREATE);
		if (!absent) {
			r = -errno;
			msg_error("%s: %s", path, strerror(errno));
			return r;
		}
	} else if (refuse_type(st.st_mode)) {
		msg_error("%s: %s; an image is a regular file or a block device", path,
			  refuse_type(st.st_mode));
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	}

	f = new_file(path, !(flags & IMAGE_RDWR));
	if (!f)
		return -ENOMEM;
	r = f->fd = open_fd(path, flags, &st, absent);
	if (r < 0)
		goto err;
	r = image_lock(f->fd, flags & IMAGE_RDWR, path);
	if (!r)
		r = examine(f);
	if (r)
		goto err;

	*out = &f->image;
	return 0;

err:
	file_close(&f->image);
	return r;
}
