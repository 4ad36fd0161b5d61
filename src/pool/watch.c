/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * watch: saying in the log that space is running short, before it has run out.
 *
 * Looked at after each commit, by the one who leads it: no request pays for it, and since what takes
 * space is committed within the timer's second, nothing is noticed late. Each mark is told of
 * once, when it is passed, and again only after use has fallen clearly below it: a pool that
 * hovers about a mark does not fill the log.
 */
#include <config.h>

#include <inttypes.h>

#include "pool/pool_internal.h"
#include "util/minmax.h"
#include "util/msg.h"
#include "util/size.h"

/* Percent in use. That nothing is left is the pool's mode (pool_set_mode()). */
static const unsigned marks[] = {80, 90, 95};

#define NR_MARKS (sizeof(marks) / sizeof(marks[0]))

/* How far below a mark use must fall before the mark counts again: of the whole, in percent. */
#define MARK_SLACK 2

/* The same for low_water: of the mark. */
#define LOW_WATER_SLACK 10

static bool
is_full_to(uint64_t used, uint64_t total, unsigned percent)
{
	return total && (double)used * 100 >= (double)total * percent;
}

/* Move *TOLD, the number of marks that have been passed; true when one more has. */
static bool
passes_mark(uint64_t used, uint64_t total, unsigned *told)
{
	unsigned before = *told;

	while (*told && !is_full_to(used, total, marks[*told - 1] - MARK_SLACK))
		--*told;
	while (*told < NR_MARKS && is_full_to(used, total, marks[*told]))
		++*told;
	return *told > before;
}

static void
watch_use(const char *image, const char *what, uint64_t used, uint64_t total, uint64_t unit, unsigned *told)
{
	char used_text[32], total_text[32];

	if (passes_mark(used, total, told))
		msg_warn("%s: %.1f %% of the %s space is used, %s of %s; remove volumes or snapshots, or make "
			 "the image larger", image, 100.0 * (double)used / (double)total, what,
			 size_format(used * unit, used_text, sizeof(used_text)),
			 size_format(total * unit, total_text, sizeof(total_text)));
}

uint64_t
pool_low_water(const struct pool *p, uint64_t nr_data_blocks)
{
	const struct pool_options *o = &p->options;

	if (o->low_water_percent)
		return nr_data_blocks / 100 * o->low_water_percent +
		       nr_data_blocks % 100 * o->low_water_percent / 100;
	return o->low_water_bytes / p->block_bytes + (o->low_water_bytes % p->block_bytes != 0);
}

static void
watch_low_water(struct pool *p, uint64_t free_blocks, uint64_t total)
{
	uint64_t mark = pool_low_water(p, total);
	char left[32], mark_text[32];

	if (!mark || free_blocks > mark + mark / (100 / LOW_WATER_SLACK)) {
		p->watch.low = false;
	} else if (free_blocks <= mark && !p->watch.low) {
		p->watch.low = true;
		msg_warn("%s: low water: %s of data space are left (low_water is %s); remove volumes or "
			 "snapshots, discard, or make the image larger", p->data->name,
			 size_format(free_blocks * p->block_bytes, left, sizeof(left)),
			 size_format(mark * p->block_bytes, mark_text, sizeof(mark_text)));
	}
}

void
pool_watch_space(struct pool *p)
{
	struct meta_info info;
	uint64_t meta_usable;

	rwlock_wrlock(&p->meta_lock);
	meta_get_info(p->tm, &info);
	/* What is kept for commits and removing is nobody's to use; in small pools it is far more than the kernel's reserve. */
	meta_usable = info.nr_meta_blocks - meta_out_of_reach(p->tm);
	rwlock_unlock(&p->meta_lock);
	watch_use(p->data->name, "data", info.used_data_blocks, info.nr_data_blocks, p->block_bytes,
		  &p->watch.data_told);
	watch_use(p->meta->name, "metadata", info.used_meta_blocks, meta_usable, METADATA_BLOCK_SIZE,
		  &p->watch.meta_told);
	watch_low_water(p, info.nr_data_blocks - info.used_data_blocks, info.nr_data_blocks);
}
