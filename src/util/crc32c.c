/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Three implementations; crc32c_raw() finds out at its first call which one the processor can
 * run. The table one is slicing-by-8: eight tables let it take eight bytes a step.
 */
#include <config.h>

#include "util/crc32c.h"

#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

#define CRC32C_POLYNOMIAL 0x82F63B78U /* bits reversed */

typedef uint32_t (*crc32c_fn)(uint32_t crc, const void *buf, size_t len);

/* tables[k][b]: what byte b does to the remainder when k more bytes follow it. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void
make_tables(void)
{
	for (unsigned b = 0; b < 256; b++) {
		uint32_t crc = b;

		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? CRC32C_POLYNOMIAL : 0);
		tables[0][b] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (unsigned b = 0; b < 256; b++) {
			uint32_t before = tables[k - 1][b];

			tables[k][b] = (before >> 8) ^ tables[0][before & 0xff];
		}
}

uint32_t
crc32c_raw_table(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	pthread_once(&tables_once, make_tables);
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		v = le64toh(v) ^ crc;
		crc = tables[7][v & 0xff] ^ tables[6][v >> 8 & 0xff] ^
		      tables[5][v >> 16 & 0xff] ^ tables[4][v >> 24 & 0xff] ^
		      tables[3][v >> 32 & 0xff] ^ tables[2][v >> 40 & 0xff] ^
		      tables[1][v >> 48 & 0xff] ^ tables[0][v >> 56];
	}
	for (; len; p++, len--)
		crc = (crc >> 8) ^ tables[0][(crc ^ *p) & 0xff];
	return crc;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) static uint32_t
crc32c_raw_hardware(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint64_t wide = crc;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		wide = __builtin_ia32_crc32di(wide, v);
	}
	crc = (uint32_t)wide;
	for (; len; p++, len--)
		crc = __builtin_ia32_crc32qi(crc, *p);
	return crc;
}

static crc32c_fn
choose(void)
{
	return __builtin_cpu_supports("sse4.2") ? crc32c_raw_hardware : crc32c_raw_table;
}

#elif defined(__aarch64__)

__attribute__((target("+crc"))) static uint32_t
crc32c_raw_hardware(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		crc = __crc32cd(crc, le64toh(v));
	}
	for (; len; p++, len--)
		crc = __crc32cb(crc, *p);
	return crc;
}

static crc32c_fn
choose(void)
{
	return getauxval(AT_HWCAP) & HWCAP_CRC32 ? crc32c_raw_hardware : crc32c_raw_table;
}

#else

static crc32c_fn
choose(void)
{
	return crc32c_raw_table;
}

#endif

uint32_t
crc32c_raw(uint32_t crc, const void *buf, size_t len)
{
	static _Atomic(crc32c_fn) chosen;
	crc32c_fn fn = atomic_load_explicit(&chosen, memory_order_relaxed);

	if (!fn) { /* threads that get here at the same time choose the same */
		fn = choose();
		atomic_store_explicit(&chosen, fn, memory_order_relaxed);
	}
	return fn(crc, buf, len);
}
