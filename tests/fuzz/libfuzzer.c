/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way into a target for libFuzzer: FUZZ_TARGET is its variable.
 */
#include <config.h>

#include <stdlib.h>

#include "fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (FUZZ_TARGET.init && FUZZ_TARGET.init())
		exit(2);
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FUZZ_TARGET.run(data, size);
	return 0;
}
