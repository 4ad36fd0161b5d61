/* SPDX-License-Identifier: GPL-2.0-or-later */
/* oracle_internal: what recording (oracle.c) and checking (oracle_check.c) have in common. */
#ifndef THINFS_TESTS_ORACLE_INTERNAL_H
#define THINFS_TESTS_ORACLE_INTERNAL_H

#include "crash/oracle.h"

extern const uint8_t oracle_zero_sector[ORACLE_SECTOR];

/* Say what is wrong; false. */
bool oracle_problem(struct oracle *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a sector has if nothing is lost. */
const uint8_t *oracle_last_value(const struct history *h);

/* Names and sizes as they are in the pool; the caller frees .v. Contents are not looked for. */
struct version oracle_list(struct pool *p);
/* Whatever the order: directories are numbered anew at each mount. */
bool oracle_same_version(const struct version *a, const struct version *b);
/* V, which is the same as KNOWN, has its contents, too. */
bool oracle_same_contents(const struct version *v, const struct version *known);

/* Bytes of an entry to BUF, of ORACLE_BYTES; whether they could be read. */
bool oracle_read_entry(struct oracle *o, struct pool *p, const struct entry *e, uint8_t *buf);

/* Whether the volumes have what they may have in version V, after a cut before event AT; or LIVE, all that was written. */
bool oracle_check_version(struct oracle *o, struct pool *p, const struct version *v, size_t at, bool live);

#endif
