/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "io/image_fault.h"
#include "pdata/block_cache.h"
#include "pdata/format.h"
#include "unit/random.h"
#include "util/msg.h"

#define NR_BLOCKS 4000U
#define MEMORY (2U << 20) /* about 500 blocks */

static void
ignore(const char *text)
{
	(void)text;
}

/* NR_BLOCKS bitmaps that hold their own number, in an image that counts what is read. */
static struct image *
make_image(void)
{
	struct disk_bitmap bitmap = {0};
	struct image *memory, *img;

	cr_assert_eq(image_open_memory("meta", NR_BLOCKS * METADATA_BLOCK_SIZE, &memory), 0);
	cr_assert_eq(image_fault_wrap(memory, &img), 0);
	for (uint64_t b = 0; b < NR_BLOCKS; b++) {
		bitmap.words[7] = le64_make(b);
		cr_assert_eq(block_write_sealed(img, b, BLOCK_BITMAP, &bitmap), 0);
	}
	msg_set_sink(ignore);
	return img;
}

static bool
holds(const struct block *b, uint64_t number)
{
	const struct disk_bitmap *bitmap = b->data;

	return le64_get(bitmap->words[7]) == number;
}

Test(block_cache, memory_is_bounded_however_many_blocks_are_read)
{
	struct image *img = make_image();
	struct block_cache *bc;
	struct block *b;

	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &bc), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t nr = 0; nr < NR_BLOCKS; nr++) {
			cr_assert_eq(bc_read(bc, nr, BLOCK_BITMAP, &b), 0);
			cr_assert(holds(b, nr));
			bc_put(b);
			cr_assert_leq(bc_nr_cached(bc), MEMORY / METADATA_BLOCK_SIZE);
		}
	}
	bc_close(bc);
	image_close(img);
}

Test(block_cache, a_block_is_read_once_while_it_is_cached)
{
	struct image *img = make_image();
	struct block_cache *bc;
	struct block *b, *held, *other, *found;

	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &bc), 0);
	cr_assert_eq(bc_read(bc, 7, BLOCK_BITMAP, &held), 0);
	uint64_t reads = image_fault_count(img, IMAGE_OP_READ);
	cr_assert_eq(bc_read(bc, 7, BLOCK_BITMAP, &b), 0);
	cr_assert_eq(b, held);
	bc_put(held);
	cr_assert_eq(image_fault_count(img, IMAGE_OP_READ), reads);

	/* Held blocks stay, whatever comes: one that was read, and one that was only found. */
	held = b;
	cr_assert_eq(bc_read(bc, 8, BLOCK_BITMAP, &other), 0);
	cr_assert_eq(bc_read(bc, 9, BLOCK_BITMAP, &b), 0);
	bc_put(b);
	cr_assert_eq(bc_read(bc, 9, BLOCK_BITMAP, &found), 0); /* held by nothing but a hazard */
	for (uint64_t i = 0; i < 2 * NR_BLOCKS; i++) {
		uint64_t nr = i % NR_BLOCKS;

		if (nr >= 7 && nr <= 9)
			continue; /* or it would have been used lately */
		cr_assert_eq(bc_read(bc, nr, BLOCK_BITMAP, &b), 0);
		bc_put(b);
	}
	cr_assert(holds(held, 7));
	cr_assert(holds(other, 8));
	cr_assert(holds(found, 9));
	bc_put(held);
	bc_put(other);
	bc_put(found);
	bc_close(bc);
	image_close(img);
}

Test(block_cache, damage_is_found_and_can_be_mended)
{
	struct image *img = make_image();
	struct disk_bitmap bitmap;
	struct block_cache *bc;
	struct block *b;

	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &bc), 0);
	cr_assert_eq(bc_read(bc, NR_BLOCKS, BLOCK_BITMAP, &b), -EUCLEAN);
	cr_assert_eq(bc_read(bc, 5, BLOCK_NODE, &b), -EUCLEAN); /* another type */
	cr_assert_eq(bc_read(bc, 5, BLOCK_BITMAP, &b), 0);
	bc_put(b);
	cr_assert_eq(bc_read(bc, 5, BLOCK_INDEX, &b), -EUCLEAN); /* though cached */

	cr_assert_eq(image_read(img, &bitmap, sizeof(bitmap), 9 * METADATA_BLOCK_SIZE), 0);
	cr_assert_eq(image_write(img, &bitmap, sizeof(bitmap), 11 * METADATA_BLOCK_SIZE), 0);
	cr_assert_eq(bc_read(bc, 11, BLOCK_BITMAP, &b), -EUCLEAN); /* another's place */

	bitmap.words[0] = le64_make(1);
	cr_assert_eq(image_write(img, &bitmap, sizeof(bitmap), 9 * METADATA_BLOCK_SIZE), 0);
	cr_assert_eq(bc_read(bc, 9, BLOCK_BITMAP, &b), -EUCLEAN); /* checksum */
	cr_assert_eq(block_write_sealed(img, 9, BLOCK_BITMAP, &bitmap), 0);
	cr_assert_eq(bc_read(bc, 9, BLOCK_BITMAP, &b), 0);
	bc_put(b);

	image_fault_set(img, IMAGE_OP_READ, 1, EIO, false);
	cr_assert_eq(bc_read(bc, 20, BLOCK_BITMAP, &b), -EIO);
	cr_assert_eq(bc_read(bc, 20, BLOCK_BITMAP, &b), 0);
	bc_put(b);
	bc_close(bc);
	image_close(img);
}

Test(block_cache, what_is_freed_or_dropped_is_not_found_past_the_table)
{
	struct image *img = make_image();
	struct block_cache *bc;
	struct block *b;

	/* Something still points to a block that was freed: it is in use after all, and not to be written over. */
	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &bc), 0);
	for (unsigned i = 0; i < 3; i++) {
		if (i == 2)
			bc_forget(bc, 5);
		cr_assert_eq(bc_read(bc, 5, BLOCK_BITMAP, &b), 0);
		bc_put(b);
	}
	cr_assert_eq(bc_new(bc, 5, BLOCK_BITMAP, &b), -EUCLEAN);

	/* After a failed transaction all is read anew. */
	bc_drop_all(bc);
	uint64_t reads = image_fault_count(img, IMAGE_OP_READ);
	cr_assert_eq(bc_read(bc, 5, BLOCK_BITMAP, &b), 0);
	cr_assert_eq(image_fault_count(img, IMAGE_OP_READ), reads + 1);
	cr_assert(holds(b, 5));
	bc_put(b);
	bc_close(bc);
	image_close(img);
}

Test(block_cache, dirty_blocks_stay_until_they_are_written)
{
	struct image *img = make_image();
	struct block_cache *bc;
	struct block *b;

	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &bc), 0);
	for (uint64_t nr = 0; nr < 1500; nr++) {
		cr_assert_eq(bc_new(bc, nr, BLOCK_BITMAP, &b), 0);
		((struct disk_bitmap *)b->data)->words[7] = le64_make(nr + 10000);
		cr_assert(bc_is_dirty(b));
		bc_put(b);
	}
	cr_assert_eq(bc_nr_dirty(bc), 1500);
	bc_forget(bc, 3);
	cr_assert_eq(bc_nr_dirty(bc), 1499);
	bc_freeze(bc);
	cr_assert_eq(bc_nr_dirty(bc), 0);
	cr_assert_eq(bc_read(bc, 4, BLOCK_BITMAP, &b), 0);
	cr_assert(holds(b, 10004));
	cr_assert(!bc_is_dirty(b));
	bc_put(b);
	uint64_t writes = image_fault_count(img, IMAGE_OP_WRITE);
	cr_assert_eq(bc_write(bc), 0);
	/* Adjacent ones go together. */
	cr_assert_lt(image_fault_count(img, IMAGE_OP_WRITE) - writes, 20);
	bc_thaw(bc);
	for (uint64_t nr = 0; nr < NR_BLOCKS; nr++) {
		cr_assert_eq(bc_read(bc, nr, BLOCK_BITMAP, &b), 0);
		cr_assert(nr == 3 || holds(b, nr < 1500 ? nr + 10000 : nr), "block %llu",
			  (unsigned long long)nr);
		bc_put(b);
	}
	cr_assert_leq(bc_nr_cached(bc), MEMORY / METADATA_BLOCK_SIZE);
	bc_close(bc);
	image_close(img);
}

/* --- threads --- */

struct shared {
	struct block_cache *bc;
	atomic_uint bad;
};

static void *
read_many(void *arg)
{
	struct random_source rs = {(uintptr_t)&rs};
	struct shared *s = arg;

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t nr = random_below(&rs, random_below(&rs, 2) ? 100 : NR_BLOCKS);
		struct block *b;

		if (bc_read(s->bc, nr, BLOCK_BITMAP, &b)) {
			s->bad++;
			continue;
		}
		s->bad += !holds(b, nr);
		bc_put(b);
	}
	return NULL;
}

Test(block_cache, many_threads_read_at_once)
{
	struct image *img = make_image();
	struct shared s = {0};
	pthread_t threads[6];

	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &s.bc), 0);
	for (unsigned i = 0; i < 6; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_many, &s), 0);
	for (unsigned i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(s.bad, 0);
	cr_assert_leq(bc_nr_cached(s.bc), MEMORY / METADATA_BLOCK_SIZE);
	bc_close(s.bc);
	image_close(img);
}

/* --- what is kept --- */

static uint64_t
reads_of(struct image *img, struct block_cache *bc, uint64_t first, uint64_t end)
{
	uint64_t before = image_fault_count(img, IMAGE_OP_READ);
	struct block *b;

	for (uint64_t nr = first; nr < end; nr++) {
		cr_assert_eq(bc_read(bc, nr, BLOCK_BITMAP, &b), 0);
		cr_assert(holds(b, nr));
		bc_put(b);
	}
	return image_fault_count(img, IMAGE_OP_READ) - before;
}

Test(block_cache, what_is_used_again_outlives_a_scan)
{
	struct image *img = make_image();
	struct block_cache *bc;
	uint64_t missed = 0;

	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &bc), 0);
	reads_of(img, bc, 0, 100);
	/* All the rest once, which is eight times what fits, and the hundred again after each sixteenth of the cache. */
	for (uint64_t nr = 100; nr + 30 <= NR_BLOCKS; nr += 30) {
		cr_assert_eq(reads_of(img, bc, nr, nr + 30), 30);
		missed += reads_of(img, bc, 0, 100);
	}
	/* First in, first out would read most of them again eight times. */
	cr_assert_leq(missed, 20, "%llu were read again", (unsigned long long)missed);
	bc_close(bc);
	image_close(img);
}

Test(block_cache, most_of_a_skewed_load_is_found)
{
	struct random_source rs = {1};
	struct image *img = make_image();
	struct block_cache *bc;
	uint64_t reads;

	/* Nine of ten go to 350 blocks, of the some 500 that fit; what chance kept would be found for less than 75 %. */
	cr_assert_eq(bc_open(img, NR_BLOCKS, MEMORY, &bc), 0);
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t nr = random_below(&rs, 10) ? random_below(&rs, 350) : 350 + random_below(&rs, NR_BLOCKS - 350);

		reads_of(img, bc, nr, nr + 1);
	}
	reads = image_fault_count(img, IMAGE_OP_READ);
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t nr = random_below(&rs, 10) ? random_below(&rs, 350) : 350 + random_below(&rs, NR_BLOCKS - 350);

		reads_of(img, bc, nr, nr + 1);
	}
	reads = image_fault_count(img, IMAGE_OP_READ) - reads;
	printf("# %llu of 10000 were read\n", (unsigned long long)reads);
	cr_assert_leq(reads, 2000, "%llu of 10000 were read", (unsigned long long)reads);
	bc_close(bc);
	image_close(img);
}

/* With the least memory there is, and more held and dirty than fits: nothing waits, and it shrinks again. */
Test(block_cache, more_held_and_dirty_than_fits_is_no_end)
{
	enum { NR = 1000 };
	static struct block *held[NR];
	struct image *img = make_image();
	struct block_cache *bc;
	struct block *b;

	cr_assert_eq(bc_open(img, NR_BLOCKS, 1, &bc), 0);
	for (uint64_t nr = 0; nr < NR; nr++)
		cr_assert_eq(bc_read(bc, nr, BLOCK_BITMAP, &held[nr]), 0);
	for (uint64_t nr = NR; nr < 2 * NR; nr++) {
		cr_assert_eq(bc_new(bc, nr, BLOCK_BITMAP, &b), 0);
		((struct disk_bitmap *)b->data)->words[7] = le64_make(nr);
		bc_put(b);
	}
	cr_assert_eq(reads_of(img, bc, 2 * NR, 3 * NR), NR);
	/* None of these may have gone. */
	cr_assert_eq(bc_nr_dirty(bc), NR);
	cr_assert_eq(reads_of(img, bc, 0, 2 * NR), 0);
	for (unsigned i = 0; i < NR; i++) {
		cr_assert(holds(held[i], i));
		bc_put(held[i]);
	}
	bc_freeze(bc);
	cr_assert_eq(bc_write(bc), 0);
	bc_thaw(bc);
	reads_of(img, bc, 3 * NR, NR_BLOCKS);
	cr_assert_leq(bc_nr_cached(bc), 64 * 4);
	cr_assert_eq(reads_of(img, bc, NR, 2 * NR), NR); /* as they were written */
	bc_close(bc);
	image_close(img);
}
