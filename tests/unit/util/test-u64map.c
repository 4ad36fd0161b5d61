/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>

#include "unit/random.h"
#include "util/u64map.h"

Test(u64map, an_empty_map_has_nothing)
{
	struct u64map m = {0};
	uint64_t key, value = 7;
	size_t pos = 0;

	cr_assert_not(u64map_get(&m, 0, &value));
	cr_assert_not(u64map_remove(&m, 0));
	cr_assert_not(u64map_next(&m, &pos, &key, &value));
	cr_assert_eq(value, 7);
	u64map_clear(&m);
}

Test(u64map, any_key_may_be_used)
{
	const uint64_t keys[] = {0, 1, UINT64_MAX, UINT64_MAX - 1, 1ULL << 63, 0xffffffffULL};
	struct u64map m = {0};
	uint64_t value;

	for (size_t i = 0; i < 6; i++)
		cr_assert_eq(u64map_set(&m, keys[i], i), 0);
	cr_assert_eq(m.nr, 6);
	for (size_t i = 0; i < 6; i++) {
		cr_assert(u64map_get(&m, keys[i], &value));
		cr_assert_eq(value, i);
	}
	u64map_clear(&m);
	cr_assert_eq(m.nr, 0);
	cr_assert_not(u64map_get(&m, 0, NULL));
}

Test(u64map, overwriting_keeps_the_number_of_entries)
{
	struct u64map m = {0};
	uint64_t value;

	for (uint64_t i = 0; i < 1000; i++)
		cr_assert_eq(u64map_set(&m, 5, i), 0);
	cr_assert_eq(m.nr, 1);
	cr_assert_eq(m.nr_slots, 16);
	cr_assert(u64map_get(&m, 5, &value));
	cr_assert_eq(value, 999);
	u64map_clear(&m);
}

#define MODEL_KEYS 4096

struct model {
	bool present[MODEL_KEYS];
	uint64_t value[MODEL_KEYS];
	size_t nr;
};

static void
check_against_model(const struct u64map *m, const struct model *model)
{
	static bool seen[MODEL_KEYS];
	uint64_t key, value;
	size_t pos = 0, nr = 0;

	cr_assert_eq(m->nr, model->nr);
	for (key = 0; key < MODEL_KEYS; key++) {
		seen[key] = false;
		cr_assert_eq(u64map_get(m, key, &value), model->present[key]);
		cr_assert(!model->present[key] || value == model->value[key]);
	}
	for (; u64map_next(m, &pos, &key, &value); nr++) {
		cr_assert(model->present[key] && !seen[key] && value == model->value[key]);
		seen[key] = true;
	}
	cr_assert_eq(nr, model->nr, "iteration visits each entry once");
}

Test(u64map, random_changes_agree_with_an_array)
{
	struct random_source rs = random_start("u64map");
	static struct model model;
	struct u64map m = {0};

	for (int round = 0; round < 60; round++) {
		/* Swing between filling and emptying; few keys make collisions and reuse. */
		unsigned removals = round % 6 < 3 ? 30 : 70;
		uint64_t range = 1ULL << (3 + random_below(&rs, 10));

		for (int i = 0; i < 2000; i++) {
			uint64_t key = random_below(&rs, range);

			if (random_below(&rs, 100) < removals) {
				cr_assert_eq(u64map_remove(&m, key), model.present[key]);
				model.nr -= model.present[key];
				model.present[key] = false;
			} else {
				uint64_t value = random_u64(&rs);

				cr_assert_eq(u64map_set(&m, key, value), 0);
				model.nr += !model.present[key];
				model.present[key] = true;
				model.value[key] = value;
			}
		}
		check_against_model(&m, &model);
	}
	u64map_clear(&m);
}

Test(u64map, memory_stays_within_its_promise_after_a_million_entries)
{
	struct u64map m = {0};

	for (uint64_t i = 0; i < 1000000; i++)
		cr_assert_eq(u64map_set(&m, i << 12, i), 0);
	cr_assert_eq(m.nr, 1000000);
	cr_assert_leq(m.nr_slots * (sizeof(*m.slots) + 1), 48 * m.nr);
	u64map_clear(&m);
}
