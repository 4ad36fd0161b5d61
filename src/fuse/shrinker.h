/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shrinker: pool_shrink() in a thread of its own, so that it can be asked how it goes, and told to end.
 */
#ifndef THINFS_FUSE_SHRINKER_H
#define THINFS_FUSE_SHRINKER_H

#include "fuse/control_proto.h"
#include "fuse/session.h"

/* 0 or -ENOMEM; shrinker_free() when no request is under way. */
int shrinker_new(struct mount *m, struct shrinker **out);
/* Cancel what runs, and wait for it. Nothing can be started after that. */
void shrinker_stop(struct shrinker *s);
void shrinker_free(struct shrinker *s);

/* Do what C asks, and fill in the rest of it. Negative errno when that could not be done. */
int shrinker_control(struct shrinker *s, struct control_shrink *c);

#endif
