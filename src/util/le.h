/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * le: little-endian integers as they lie on disk.
 *
 * Each is a struct, so that using one without converting it does not compile.
 */
#ifndef THINFS_UTIL_LE_H
#define THINFS_UTIL_LE_H

#include <endian.h>
#include <stdint.h>

struct le32 {
	uint32_t raw;
};

struct le64 {
	uint64_t raw;
};

static inline uint32_t
le32_get(struct le32 v)
{
	return le32toh(v.raw);
}

static inline struct le32
le32_make(uint32_t v)
{
	return (struct le32){htole32(v)};
}

static inline uint64_t
le64_get(struct le64 v)
{
	return le64toh(v.raw);
}

static inline struct le64
le64_make(uint64_t v)
{
	return (struct le64){htole64(v)};
}

#endif
