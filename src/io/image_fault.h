/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image_fault: an image that fails when told to, is slow, and tells what is done to it. For tests.
 *
 * It passes everything on to another image. Per kind of operation it counts, waits and fails; a
 * failed operation does nothing to the image below, unless it is a write that shall fail half-way.
 *
 * Locking: the functions here may be called at any time, from any thread, but for
 * image_fault_observe(), which must come before other threads use the image.
 */
#ifndef THINFS_IO_IMAGE_FAULT_H
#define THINFS_IO_IMAGE_FAULT_H

#include "io/image.h"

enum image_op {
	IMAGE_OP_READ,
	IMAGE_OP_WRITE,
	IMAGE_OP_FLUSH,
	IMAGE_OP_PUNCH,
	IMAGE_OP_DISCARD,
	IMAGE_OP_RESIZE,
	IMAGE_NR_OPS
};

/* An operation that has succeeded. */
struct image_event {
	enum image_op op;
	uint64_t offset; /* new size for IMAGE_OP_RESIZE */
	uint64_t len;
	const void *data; /* of a write, in one piece; valid during the call */
};

typedef void (*image_observer)(void *arg, const struct image_event *event);

/* INNER now belongs to *out and is closed with it; after a failure it is still the caller's. */
int image_fault_wrap(struct image *inner, struct image **out);

/*
 * Let the NTH operation of a kind from now (1: the next) fail with ERROR (an errno, positive), and,
 * if FROM_THEN_ON, all after it. NTH 0: none.
 */
void image_fault_set(struct image *img, enum image_op op, uint64_t nth, int error,
		     bool from_then_on);

/*
 * Of a write that fails, up to SECTORS sectors of 512 bytes reach the image below, but never all of it. 0, at first: nothing does.
 */
void image_fault_short(struct image *img, unsigned sectors);

/*
 * When a flush fails, what was written since the last one that succeeded is taken back, as a kernel may that cannot write its
 * dirty pages: and the next flush succeeds. To be asked for before other threads use the image, whose writes
 * run one at a time from then on. 0 or -ENOMEM.
 */
int image_fault_drop_unflushed(struct image *img);

/* No more failures and delays. */
void image_fault_clear(struct image *img);

/* Every operation of the kind takes that much longer. */
void image_fault_delay(struct image *img, enum image_op op, unsigned usec);

/* How many of the kind were tried since the image was opened, failed ones included. */
uint64_t image_fault_count(struct image *img, enum image_op op);

/*
 * Call FN after each operation but reads. From now on these run one at a time, so that the order of
 * calls is the order in which they reached the image below: a flush covers the writes before it.
 */
void image_fault_observe(struct image *img, image_observer fn, void *arg);

#endif
