/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flush of the data that goes on while a commit writes its metadata, on one thread: it is done at one of those
 * writes and flushes, or when it is waited for, always at the same one in the same run. The linker puts this in the place of
 * data_flush_begin() and data_flush_end().
 */
#include <config.h>

#include "crash/disks.h"
#include "pool/data_flush.h"
#include "pool/pool_internal.h"

bool __wrap_data_flush_begin(struct pool *p);
int __wrap_data_flush_end(struct pool *p);

bool
__wrap_data_flush_begin(struct pool *p)
{
	struct disks *d = disks_of(p->data);
	uint64_t chance = d ? (d->nr_log * 0x9E3779B97F4A7C15ULL) >> 60 : 0;

	if (chance < 4)
		return false;
	disks_flush_begin(d, (unsigned)chance % 6);
	return true;
}

int
__wrap_data_flush_end(struct pool *p)
{
	return disks_flush_end(disks_of(p->data));
}
