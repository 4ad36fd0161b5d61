/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef THINFS_TESTS_TARGET_META_H
#define THINFS_TESTS_TARGET_META_H

#include "fuzz/fuzz.h"
#include "fuzz/seeds.h"

/* Open the metadata of S, use them as IN says, with commits, and close them. The error of opening. */
int target_meta_use(struct seed *s, struct fuzz_input *in);

#endif
