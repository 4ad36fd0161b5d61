/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thread_slot: a small number for each thread, so that what many threads write often can be an array with a place for
 * each, in which no two write to the same line of the processor's cache.
 *
 * The usual use: threads announce something in their place and then look whether somebody objects; who objects
 * says so first, and then looks at all places. With sequentially consistent operations one of the two sees the other.
 *
 * Locking: none needed. Cost: a look at a thread's own variable, but for a thread's first call.
 */
#ifndef THINFS_UTIL_THREAD_SLOT_H
#define THINFS_UTIL_THREAD_SLOT_H

#define THREAD_SLOTS 64U
#define CACHE_LINE 64U /* bytes */

/*
 * The number of this thread, which no other has as long as it lives; THREAD_SLOTS: there are none left, and there may be many
 * such threads.
 */
unsigned thread_slot(void);
/* No number was given out that is not below this. */
unsigned thread_slots_used(void);

#endif
