/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image: the bytes of a data or metadata image, wherever they are.
 *
 * The one interface between thinfs and stable storage: a regular file, a block device, or in
 * tests something that fails, lies or loses power. All offsets and lengths are in bytes.
 *
 * Writes may stay in a volatile cache until image_flush() has returned 0; after a flush that
 * failed nothing is known about what was written before it, and flushing again proves nothing.
 *
 * Locking: none needed; any number of threads may call any function but image_close().
 * Errors: 0 or negative errno, without a message, but for the open functions, which print the
 * reason. Reads and writes are whole or an error: short ones are continued, past the end is -EIO.
 */
#ifndef THINFS_IO_IMAGE_H
#define THINFS_IO_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

struct image;

struct image_ops {
	int (*readv)(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset);
	int (*writev)(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset);
	int (*flush)(struct image *img);
	/* Make [offset, offset + len) read as zeros, and give its space back where possible. */
	int (*punch)(struct image *img, uint64_t offset, uint64_t len);
	/* Make it read as zeros, and keep its space. NULL: image_zero_in_place() writes. */
	int (*zero)(struct image *img, uint64_t offset, uint64_t len);
	/* Give the space of [offset, offset + len) back; what it reads as then is undefined. */
	int (*discard)(struct image *img, uint64_t offset, uint64_t len);
	/* Whether all of it is known to be a hole, which reads as zeros. NULL: never. */
	bool (*is_hole)(struct image *img, uint64_t offset, uint64_t len);
	/* May be NULL: image_allocate(). */
	int (*allocate)(struct image *img, uint64_t offset, uint64_t len);
	int (*resize)(struct image *img, uint64_t size); /* -EOPNOTSUPP for a block device */
	int (*get_size)(struct image *img, uint64_t *size);
	void (*close)(struct image *img);
};

struct image {
	const struct image_ops *ops;
	const char *name; /* for messages: the path, owned by the implementation */
	bool is_block_device;
	bool read_only;
};

enum image_flags {
	IMAGE_RDWR = 1, /* else read-only */
	IMAGE_CREATE = 2, /* make an absent file, mode 0600 */
};

/*
 * Open a regular file or block device and lock it as long as it is open: exclusively for IMAGE_RDWR, shared otherwise (open file description lock;
 * a block device also O_EXCL for IMAGE_RDWR). On failure prints the reason: -EBUSY names the process that holds
 * it where it can be found. Symbolic links are followed.
 */
int image_open_file(const char *path, int flags, struct image **out);

/*
 * A read-only image over FD, open for reading, which becomes its own, also on failure; it takes no lock. No message.
 */
int image_adopt(int fd, const char *path, struct image **out);
/* Of an image that is a file: when its content was last changed. */
int image_file_mtime(struct image *img, struct timespec *mtime);

static inline int
image_readv(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	return img->ops->readv(img, iov, nr_iov, offset);
}

static inline int
image_writev(struct image *img, const struct iovec *iov, int nr_iov, uint64_t offset)
{
	return img->ops->writev(img, iov, nr_iov, offset);
}

static inline int
image_read(struct image *img, void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {buf, len};

	return img->ops->readv(img, &iov, 1, offset);
}

static inline int
image_write(struct image *img, const void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {(void *)buf, len};

	return img->ops->writev(img, &iov, 1, offset);
}

static inline int
image_flush(struct image *img)
{
	return img->ops->flush(img);
}

static inline int
image_punch(struct image *img, uint64_t offset, uint64_t len)
{
	return img->ops->punch(img, offset, len);
}

/* A wish: where it cannot be done, nothing happens, and that is 0. */
static inline int
image_discard(struct image *img, uint64_t offset, uint64_t len)
{
	return img->ops->discard(img, offset, len);
}

/*
 * Whether [offset, offset + len) is known to read as zeros, cheaply. Nobody may write there meanwhile. False proves nothing.
 */
static inline bool
image_is_hole(struct image *img, uint64_t offset, uint64_t len)
{
	return img->ops->is_hole && img->ops->is_hole(img, offset, len);
}

/*
 * Have what is below provide for [offset, offset + len), so that writing there does not fail for lack of space.
 * -ENOSPC: there is too little. Where this cannot be done nothing happens, and that is 0. What the range reads as stays.
 */
static inline int
image_allocate(struct image *img, uint64_t offset, uint64_t len)
{
	return img->ops->allocate ? img->ops->allocate(img, offset, len) : 0;
}

static inline int
image_resize(struct image *img, uint64_t size)
{
	return img->ops->resize(img, size);
}

static inline int
image_get_size(struct image *img, uint64_t *size)
{
	return img->ops->get_size(img, size);
}

static inline void
image_close(struct image *img)
{
	if (img)
		img->ops->close(img);
}

/* Write zeros over [offset, offset + len): small ranges by writing, large ones by punching. */
int image_zero(struct image *img, uint64_t offset, uint64_t len);

/* The same, without giving back what image_allocate() provided; large ranges may have to be written all the same. */
int image_zero_in_place(struct image *img, uint64_t offset, uint64_t len);

/* The same, always by writing. */
int image_write_zeros(struct image *img, uint64_t offset, uint64_t len);

/*
 * An image in memory, for tests: SIZE bytes of zeros, lost at close. Grows by image_resize().
 */
int image_open_memory(const char *name, uint64_t size, struct image **out);

#endif
