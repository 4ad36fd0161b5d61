/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * size: numbers of bytes as people write them.
 *
 * "4096", "64K", "10G", "1.5T", "16TiB": powers of 1024, suffix K M G T P E in either case, an
 * optional "B" or "iB" after it. No sign, no blanks, no other suffix.
 */
#ifndef THINFS_UTIL_SIZE_H
#define THINFS_UTIL_SIZE_H

#include <stddef.h>
#include <stdint.h>

/* 0; -EINVAL: not such a number, or a fraction that is no whole number of bytes; -ERANGE: over 2^63 - 1. */
int size_parse(const char *text, uint64_t *bytes);

/* A plain decimal number, of at most MAX; -EINVAL or -ERANGE otherwise. */
int number_parse(const char *text, uint64_t max, uint64_t *value);

/* "10G", "1.5T", "4096": at most one decimal, rounded to nearest. Returns BUF. */
char *size_format(uint64_t bytes, char *buf, size_t len);

#endif
