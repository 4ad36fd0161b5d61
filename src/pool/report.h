/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * report: what `thinfs list` and `thinfs status` say, as JSON (design, section 6).
 *
 * The keys are a contract with other people's scripts: add, never rename.
 * The caller owns the result; NULL when memory is short.
 */
#ifndef THINFS_POOL_REPORT_H
#define THINFS_POOL_REPORT_H

#include <jansson.h>

#include "pool/pool.h"

/* {"devices": [{"id", "path", "name", "snapshot", "size", "mapped", "parent", "read_only", "created", ...}]} */
json_t *report_list(struct pool *p);
/* The same without what is in snapshots that READER may not list, by their mode (of a reader's groups one is known). */
json_t *report_list_for(struct pool *p, const struct pool_caller *reader);

/* {"mode", "transaction", "block_size", "data": {"total", "used"}, "metadata": {"total", "used", "reserve"}, "needs_check", "status_line", ...} */
json_t *report_status(struct pool *p);

/* A name or path as JSON text. They are bytes: what is no UTF-8 is given as Latin-1. */
json_t *report_text(const char *bytes);

#endif
