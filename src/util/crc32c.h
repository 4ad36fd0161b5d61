/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * crc32c: CRC-32C (Castagnoli), with the processor's instruction where it has one.
 *
 * crc32c_raw() continues from CRC and does not invert at either end: pass 0xFFFFFFFF to start.
 * crc32c_raw(~0U, "123456789", 9) is 0x1CF96D7C (format sheet, S 2).
 */
#ifndef THINFS_UTIL_CRC32C_H
#define THINFS_UTIL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c_raw(uint32_t crc, const void *buf, size_t len);

/* The portable implementation, for tests to hold the fast one against. */
uint32_t crc32c_raw_table(uint32_t crc, const void *buf, size_t len);

#endif
