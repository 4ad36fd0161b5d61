/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fault_spec: failures of a pool's images, as the environment's THINFS_FAULT asks for them. For tests: only
 * builds with --enable-debug have it.
 *
 *   THINFS_FAULT=FAULT[,FAULT]...
 *   FAULT:  IMAGE:OPERATION:N:ERROR     the Nth operation fails, once
 *           IMAGE:OPERATION:N-:ERROR    the Nth and all after it
 *           IMAGE:OPERATION:delay=TIME  each takes that much longer: 500us, 20ms
 *           IMAGE:write:short=SECTORS   of writes that fail, so many sectors are written
 *           IMAGE:flush:drop            when a flush fails, what was not flushed is gone
 *   IMAGE: data, meta. OPERATION: read, write, flush, punch, discard. ERROR: EIO, ENOSPC, ENOMEM.
 *   One N for an operation of an image; they are counted from when the pool is opened.
 */
#ifndef THINFS_IO_FAULT_SPEC_H
#define THINFS_IO_FAULT_SPEC_H

#include "io/image.h"

/*
 * Put failing images in the place of *DATA and *META, which then own those. SPEC may be NULL: nothing.
 * -EINVAL, with a message: it is not understood; whatever is wrapped already stays so.
 */
int fault_spec_apply(const char *spec, struct image **data, struct image **meta);

#endif
