/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz: what eats hostile input, so that it may be fed by libFuzzer (libfuzzer.c) or without it, from
 * kept inputs (replay.c).
 *
 * A target takes any bytes and must come back: without a crash, a leak, a sanitizer's report, in bounded
 * time, and with only such errors as the headers promise. What it finds wrong itself ends in
 * fuzz_fail().
 */
#ifndef THINFS_TESTS_FUZZ_H
#define THINFS_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fuzz_target {
	const char *name;
	int (*init)(void); /* once, before the first run: 0 or -1 after a message. NULL: nothing to do */
	void (*run)(const uint8_t *data, size_t size);
};

extern const struct fuzz_target fuzz_btree, fuzz_check, fuzz_json, fuzz_meta, fuzz_options, fuzz_pool, fuzz_record,
	fuzz_size, fuzz_spacemap, fuzz_superblock;

/* --- input: decisions, taken off the front; zeros when there is no more --- */

struct fuzz_input {
	const uint8_t *p;
	size_t left;
};

uint8_t fuzz_u8(struct fuzz_input *in);
uint16_t fuzz_u16(struct fuzz_input *in);
uint32_t fuzz_u32(struct fuzz_input *in);
uint64_t fuzz_u64(struct fuzz_input *in);

/* --- what may not happen --- */

/* Print and abort. */
void fuzz_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Called before the process dies of what was found: by fuzz_fail(), an assertion, a signal. */
void fuzz_on_failure(void (*fn)(void));

/* At the beginning of each run: silences messages, and counts them from here on. */
void fuzz_begin(void);
/*
 * R came from the code under test: 0 and above, or an error that it may give. An -EUCLEAN must have
 * been explained by a message with a number in it since fuzz_begin().
 */
int fuzz_result(int r);

#endif
