/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "crash/mutant.h"
#include "pdata/space_map_internal.h"
#include "pdata/thin_meta.h"

bool mutant_reuse_data, mutant_reuse_metadata, mutant_no_confirm;

int __real_sm_dec(struct space_map *sm, uint64_t block);
int __wrap_sm_dec(struct space_map *sm, uint64_t block);
int __real_meta_confirm(struct thin_meta *m);
int __wrap_meta_confirm(struct thin_meta *m);

int
__wrap_meta_confirm(struct thin_meta *m)
{
	return mutant_no_confirm ? 0 : __real_meta_confirm(m);
}

/* As sm_dec(), but a block whose count has become 0 is free at once and not remembered as freed. */
int
__wrap_sm_dec(struct space_map *sm, uint64_t block)
{
	struct runs *freed = &sm->freed_open;
	uint64_t total = freed->total;
	int r = __real_sm_dec(sm, block);

	if (r || freed->total == total)
		return r;
	if (sm->kind == SM_DATA ? !mutant_reuse_data : !mutant_reuse_metadata)
		return 0;
	freed->total--;
	if (!--freed->v[freed->nr - 1].len)
		freed->nr--;
	sm_unreserve(sm, block, 1);
	return 0;
}
