# SPDX-License-Identifier: GPL-2.0-or-later
libio_a_SOURCES = \
	src/io/fault_spec.c \
	src/io/fault_spec.h \
	src/io/hole_cache.c \
	src/io/hole_cache.h \
	src/io/image.h \
	src/io/image_fault.c \
	src/io/image_fault.h \
	src/io/image_file.c \
	src/io/image_lock.c \
	src/io/image_lock.h \
	src/io/image_memory.c \
	src/io/image_zero.c \
	src/io/origin_file.c \
	src/io/origin_file.h \
	src/io/unflushed.c \
	src/io/unflushed.h
