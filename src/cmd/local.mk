# SPDX-License-Identifier: GPL-2.0-or-later
thinfs_SOURCES += \
	src/cmd/check.c \
	src/cmd/clone.c \
	src/cmd/cmd.h \
	src/cmd/common.c \
	src/cmd/common.h \
	src/cmd/create.c \
	src/cmd/daemon.c \
	src/cmd/daemon.h \
	src/cmd/format.c \
	src/cmd/holders.c \
	src/cmd/holders.h \
	src/cmd/list.c \
	src/cmd/mount.c \
	src/cmd/mount_options.c \
	src/cmd/mount_options.h \
	src/cmd/removal.c \
	src/cmd/removal.h \
	src/cmd/remove.c \
	src/cmd/report.c \
	src/cmd/report.h \
	src/cmd/resize.c \
	src/cmd/revert.c \
	src/cmd/shrink.c \
	src/cmd/snapshot.c \
	src/cmd/status.c \
	src/cmd/sync.c \
	src/cmd/target.c \
	src/cmd/target.h \
	src/cmd/umount.c
