/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "util/msg.h"

/* --- input --- */

static uint64_t
take(struct fuzz_input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint64_t)*in->p++ << 8 * i;
	return v;
}

uint8_t
fuzz_u8(struct fuzz_input *in)
{
	return (uint8_t)take(in, 1);
}

uint16_t
fuzz_u16(struct fuzz_input *in)
{
	return (uint16_t)take(in, 2);
}

uint32_t
fuzz_u32(struct fuzz_input *in)
{
	return (uint32_t)take(in, 4);
}

uint64_t
fuzz_u64(struct fuzz_input *in)
{
	return take(in, 8);
}

/* --- results --- */

static bool explained; /* a message came that names a block, or says that it is no pool at all */
static int verbose = -1;

static void
listen(const char *text)
{
	if (strpbrk(text, "0123456789") || strstr(text, "magic"))
		explained = true;
	if (verbose < 0)
		verbose = getenv("THINFS_FUZZ_VERBOSE") != NULL;
	if (verbose)
		fprintf(stderr, "# %s\n", text);
}

static void (*on_failure)(void);

/* Of the sanitizers, where they are linked. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void
die(int sig)
{
	on_failure();
	signal(sig, SIG_DFL);
	raise(sig);
}

void
fuzz_on_failure(void (*fn)(void))
{
	on_failure = fn;
	signal(SIGABRT, die);
	signal(SIGALRM, die);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(fn);
}

void
fuzz_begin(void)
{
	explained = false;
	msg_set_sink(listen);
}

void
fuzz_fail(const char *fmt, ...)
{
	va_list ap;

	fputs("fuzz: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

int
fuzz_result(int r)
{
	static const int allowed[] = {
		-EUCLEAN, -ENODATA, -EEXIST, -ENOSPC, -EINVAL, -EIO, -EROFS, -EBUSY, -EOVERFLOW, -EOPNOTSUPP,
		-ENOENT, -ESTALE, -EFBIG, -EPERM, -ENAMETOOLONG, -ENXIO,
	};

	if (r == -EUCLEAN && !explained)
		fuzz_fail("-EUCLEAN, and no message says which block");
	if (r >= 0)
		return r;
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (r == allowed[i])
			return r;
	fuzz_fail("unexpected error %d (%s)", r, strerror(-r));
}
