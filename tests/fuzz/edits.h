/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * edits: lies told in the metadata blocks of a seed, with right checksums.
 *
 * Input decodes to a few edits of fields, entries and whole blocks; afterwards each block that was edited
 * is sealed (block number, checksum), so that what is done gets past them. So a short input is a whole
 * damaged image, and each small change of it another one.
 */
#ifndef THINFS_TESTS_EDITS_H
#define THINFS_TESTS_EDITS_H

#include "fuzz/fuzz.h"
#include "fuzz/seeds.h"

#define EDIT(class) (1U << (class))
#define EDIT_ALL ((1U << SEED_CLASSES) - 1)

/* CLASSES: of the blocks that may be edited, EDIT() of them or-ed together. */
void edits_apply(struct seed *s, struct fuzz_input *in, unsigned classes);
/* The same for the records of the catalog. */
void edits_apply_records(struct seed *s, struct fuzz_input *in);

/* A number that is likely to mean something in the metadata of S; TRUTH: what is there. */
uint64_t edits_number(struct seed *s, struct fuzz_input *in, uint64_t truth);

#endif
