# SPDX-License-Identifier: GPL-2.0-or-later
libutil_a_SOURCES = \
	src/util/clock.h \
	src/util/crc32c.c \
	src/util/crc32c.h \
	src/util/hazard.c \
	src/util/hazard.h \
	src/util/le.h \
	src/util/lock.h \
	src/util/lock_order.c \
	src/util/lock_order.h \
	src/util/minmax.h \
	src/util/msg.c \
	src/util/msg.h \
	src/util/runs.c \
	src/util/runs.h \
	src/util/rwlock.c \
	src/util/size.c \
	src/util/size.h \
	src/util/thread_slot.c \
	src/util/thread_slot.h \
	src/util/u64map.c \
	src/util/u64map.h
