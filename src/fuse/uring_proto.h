/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uring_proto: what the kernel and a FUSE daemon exchange over io_uring, Linux 6.14 and later. Under names of our own,
 * as <linux/fuse.h> may be older or newer.
 *
 * There is a queue for each possible processor. A request goes to the queue of the processor that its caller runs on.
 * It is handed out in an *entry*: memory of the daemon for the headers and for the payload. An entry is made known by a
 * REGISTER command, which completes when the entry holds a request. A COMMIT gives the answer, which lies in the same
 * memory, and completes with the next request. An entry belongs to no ring: what matters is who sent its last command.
 */
#ifndef THINFS_FUSE_URING_PROTO_H
#define THINFS_FUSE_URING_PROTO_H

#include <stdint.h>

/* Of the flags in the exchange of INIT. */
#define URING_INIT_FLAG (1ULL << 41)

enum uring_command {
	URING_REGISTER = 1,
	URING_COMMIT = 2, /* and fetch the next */
};

/* At the start of an entry. */
struct uring_headers {
	char in_out[128]; /* struct fuse_in_header, and to answer struct fuse_out_header */
	char op_in[128]; /* the first argument of the request, if it has a fixed size; the others are payload */
	uint64_t flags;
	uint64_t commit_id; /* names the request in the COMMIT */
	uint32_t payload_bytes; /* of the request, then of the answer */
	uint32_t padding;
	uint64_t reserved;
};

/* In the last 80 bytes of a submission of 128. */
struct uring_command_args {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t queue;
	uint8_t padding[6];
};

#endif
