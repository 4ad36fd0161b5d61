# SPDX-License-Identifier: GPL-2.0-or-later
thinfs_SOURCES += \
	src/fuse/control.c \
	src/fuse/control_proto.h \
	src/fuse/dir_handle.c \
	src/fuse/dir_handle.h \
	src/fuse/inode.c \
	src/fuse/inode.h \
	src/fuse/mount.c \
	src/fuse/mount.h \
	src/fuse/mountinfo.c \
	src/fuse/mountinfo.h \
	src/fuse/ops.c \
	src/fuse/ops.h \
	src/fuse/ops_attr.c \
	src/fuse/ops_dir.c \
	src/fuse/ops_file.c \
	src/fuse/ops_name.c \
	src/fuse/ops_xattr.c \
	src/fuse/parked.c \
	src/fuse/parked.h \
	src/fuse/privileges.c \
	src/fuse/privileges.h \
	src/fuse/session.c \
	src/fuse/session.h \
	src/fuse/shrinker.c \
	src/fuse/shrinker.h \
	src/fuse/snapshot.c \
	src/fuse/snapshot.h \
	src/fuse/transport.c \
	src/fuse/transport.h \
	src/fuse/transport_name.c \
	src/fuse/unmounter.c \
	src/fuse/unmounter.h \
	src/fuse/uring.h \
	src/fuse/uring_internal.h \
	src/fuse/uring_proto.h

if HAVE_LIBURING
thinfs_SOURCES += src/fuse/uring.c src/fuse/uring_entry.c src/fuse/uring_worker.c
else
thinfs_SOURCES += src/fuse/uring_none.c
endif
