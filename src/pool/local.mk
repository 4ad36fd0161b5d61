# SPDX-License-Identifier: GPL-2.0-or-later
libpool_a_SOURCES = \
	src/pool/buf.c \
	src/pool/catalog.c \
	src/pool/catalog.h \
	src/pool/catalog_check.c \
	src/pool/catalog_check.h \
	src/pool/catalog_record.c \
	src/pool/catalog_record.h \
	src/pool/clone.c \
	src/pool/commit.c \
	src/pool/copy_range.c \
	src/pool/directory.c \
	src/pool/discard.c \
	src/pool/format.c \
	src/pool/grow.c \
	src/pool/names.c \
	src/pool/passdown.c \
	src/pool/passdown.h \
	src/pool/placement.c \
	src/pool/pool.c \
	src/pool/pool.h \
	src/pool/pool_internal.h \
	src/pool/provision.c \
	src/pool/range_lock.c \
	src/pool/range_lock.h \
	src/pool/reclaim.c \
	src/pool/report.c \
	src/pool/report.h \
	src/pool/seek.c \
	src/pool/shrink.c \
	src/pool/snapshot.c \
	src/pool/sync.c \
	src/pool/timer.c \
	src/pool/usage.c \
	src/pool/vol.c \
	src/pool/vol_io.c \
	src/pool/watch.c
