/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control_proto: what the commands ask the daemon, by ioctl(2) on a directory of the mount.
 *
 * FUSE passes the structs as they are; _IOC_SIZE limits them to 16 KiB less a byte.
 */
#ifndef THINFS_FUSE_CONTROL_PROTO_H
#define THINFS_FUSE_CONTROL_PROTO_H

#include <stdint.h>
#include <sys/ioctl.h>

#define CONTROL_MAGIC 0x74686e66U
#define CONTROL_VERSION 1

struct control_info {
	uint32_t magic; /* CONTROL_MAGIC: this is thinfs */
	uint32_t version;
	int32_t pid; /* of the daemon, as it sees itself */
	uint32_t uid; /* who mounted */
	char data_path[4000];
	char meta_path[4000];
};

enum control_report {
	CONTROL_LIST = 1, /* report_list() */
	CONTROL_STATUS, /* report_status() */
};

/*
 * Read a piece of a report. Offset 0 makes it anew; the rest is of the same one, kept with the
 * directory handle.
 */
struct control_read {
	uint32_t report;
	uint32_t len; /* out: bytes in TEXT; 0: the end */
	uint64_t offset;
	uint64_t total; /* out: bytes of the whole */
	char text[16000];
};

/*
 * Snapshot some volumes. The names, each ended by NUL, may come in several calls: all but the last
 * say MORE.
 */
struct control_snapshot {
	char name[256];
	uint32_t more;
	uint32_t mode;
	uint32_t nr; /* volumes in this call */
	uint32_t len; /* bytes of them */
	char volumes[16000];
};

/*
 * Clone FROM, a file of the directory that is asked, as the volume TO; or let the volume TO be as FROM, a file of the snapshot
 * that is asked, is: then what it was becomes the snapshot SAFETY. Each ends with NUL.
 */
struct control_clone {
	char from[256];
	char to[256];
	char safety[256];
};

/*
 * How many bytes removing volumes would free, all of them together. Their ids may come in several calls: all but the last say
 * MORE. Only root and who mounted.
 */
struct control_freed {
	uint64_t bytes; /* out */
	uint32_t more;
	uint32_t nr; /* ids in this call */
	uint32_t ids[4000];
};

/* pool_resize(): sizes in bytes, 0: as it is. Answered also when it fails: *error, and what the pool has now. */
struct control_resize {
	uint64_t data, metadata;
	int32_t error; /* negative errno */
	uint32_t block; /* bytes */
};

enum control_shrink_what {
	CONTROL_SHRINK_START = 1, /* to DATA bytes; EBUSY while one is running */
	CONTROL_SHRINK_TELL, /* nothing else */
	CONTROL_SHRINK_CANCEL, /* it ends soon */
};

/* pool_shrink(), which takes its time: a thread of the daemon does it, whether anybody asks how it goes or not. */
struct control_shrink {
	uint32_t what;
	int32_t error; /* out: how the last one ended, negative errno */
	uint32_t running; /* out */
	uint32_t padding;
	uint64_t data; /* bytes wanted; out: that the pool has */
	uint64_t moved, total; /* out: bytes */
	uint64_t possible; /* out: the smallest size at present */
};

/*
 * Make the volume NAME over the external origin ORIGIN, an absolute path, which the daemon opens with what it may: so only root and
 * who mounted may ask. SIZE in bytes, CONTROL_SIZE_OF_ORIGIN: the origin's. Both names end with NUL.
 */
struct control_create {
	uint64_t size;
	uint32_t mode;
	uint32_t unused;
	char name[256];
	char origin[1024];
};

#define CONTROL_SIZE_OF_ORIGIN UINT64_MAX

#define CONTROL_IOC_INFO _IOR(0xf5, 0x60, struct control_info)
#define CONTROL_IOC_READ _IOWR(0xf5, 0x61, struct control_read)
#define CONTROL_IOC_SNAPSHOT _IOW(0xf5, 0x62, struct control_snapshot)
/* Leave at once, also with files open. Only root and who mounted. */
#define CONTROL_IOC_SHUTDOWN _IO(0xf5, 0x63)
#define CONTROL_IOC_CLONE _IOW(0xf5, 0x64, struct control_clone)
#define CONTROL_IOC_REVERT _IOW(0xf5, 0x65, struct control_clone)
#define CONTROL_IOC_FREED _IOWR(0xf5, 0x66, struct control_freed)
#define CONTROL_IOC_RESIZE _IOWR(0xf5, 0x67, struct control_resize)
#define CONTROL_IOC_SHRINK _IOWR(0xf5, 0x68, struct control_shrink)
#define CONTROL_IOC_CREATE _IOW(0xf5, 0x69, struct control_create)

#endif
