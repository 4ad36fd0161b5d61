/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * removal: what 'thinfs remove' would do, without doing it: the volumes that would go, of however many
 * pools, and the bytes that come back when all of them have gone.
 */
#ifndef THINFS_CMD_REMOVAL_H
#define THINFS_CMD_REMOVAL_H

#include <jansson.h>
#include <sys/stat.h>

#include "cmd/target.h"

struct removal_pool;

/* A zeroed struct is an empty one. */
struct removal {
	json_t *paths; /* of what would be removed: array of {"path", "snapshot": bool, "volumes", "mapped"} */
	struct removal_pool *pools;
};

/* Add PATH, a volume or a snapshot: BASE in T's directory, as ST says. 0, or a negative errno without a message. */
int removal_add(struct removal *r, const char *path, struct target *t, const char *base, const struct stat *st);
/* Ask each pool what would be freed: 0 or EXIT_FAILED after a message. */
int removal_freed(struct removal *r, uint64_t *bytes);
/* Text or {"paths", "freed"}: the exit status. */
int removal_print(const struct removal *r, uint64_t freed, bool as_json);
void removal_clear(struct removal *r);

#endif
