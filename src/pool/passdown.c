/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <string.h>

#include "pool/pace.h"
#include "pool/passdown.h"
#include "pool/pool_internal.h"
#include "util/minmax.h"

/* Pieces for which meta_lock is taken once. */
#define PIECES_AT_ONCE 256U

/*
 * Punched at once, at most. Filesystems let nobody write to the file meanwhile, and freeing the pages and extents of 2 GiB
 * takes 0.4 s; of this much, 5 to 10 ms. Pieces end where multiples do, so that devices below can take them back as a whole.
 */
#define PIECE_BYTES (32ULL << 20)

static void
release(struct pool *p, const struct run *v, size_t nr)
{
	rwlock_wrlock(&p->meta_lock);
	for (size_t i = 0; i < nr; i++)
		meta_unreserve_data(p->tm, v[i].start, v[i].len);
	pool_update_mode(p);
	rwlock_unlock(&p->meta_lock);
	pool_space_hook(p);
}

/* Cut a piece off the front of RUN: up to a block whose number is a multiple of MAX. */
static struct run
cut_piece(struct run *run, uint64_t max)
{
	struct run piece = *run;

	piece.len = min_u64(run->len, max - run->start % max);
	run->start += piece.len;
	run->len -= piece.len;
	return piece;
}

/* A failure costs space outside the pool only. */
static void
punch(struct pool *p, struct pace *pace, const struct run *piece)
{
	bool hurry = p->passdown.stop; /* the pool is being closed, and nobody writes any more */

	if (!hurry)
		pace_begin(pace);
	image_discard(pool_data(p), piece->start * p->block_bytes, piece->len * p->block_bytes);
	if (!hurry)
		pace_end(pace);
}

void
passdown_now(struct pool *p, uint64_t first, uint64_t nr)
{
	struct pace pace = pace_start(p, (unsigned)max_u64(PIECE_BYTES / p->block_bytes, 1));
	struct run left = {first, nr};

	while (left.len) {
		struct run piece = cut_piece(&left, pace.nr);

		punch(p, &pace, &piece);
	}
}

static void
pass_down(struct pool *p, struct runs *freed)
{
	struct pace pace = pace_start(p, (unsigned)max_u64(PIECE_BYTES / p->block_bytes, 1));
	struct run pieces[PIECES_AT_ONCE];
	size_t n = 0;

	runs_normalise(freed);
	for (size_t i = 0; i < freed->nr; i++) {
		while (freed->v[i].len) {
			struct run piece = cut_piece(&freed->v[i], pace.nr);

			punch(p, &pace, &piece);
			pieces[n++] = piece;
			if (n == PIECES_AT_ONCE) {
				release(p, pieces, n);
				n = 0;
			}
		}
	}
	if (n)
		release(p, pieces, n);
	runs_clear(freed);
}

static void *
passdown_main(void *arg)
{
	struct pool *p = arg;
	struct passdown *q = &p->passdown;

	mutex_lock(&q->lock);
	for (;;) {
		struct runs work;

		while (!q->queue.nr && !q->stop)
			cond_wait(&q->wake, &q->lock);
		if (!q->queue.nr)
			break;
		work = q->queue;
		memset(&q->queue, 0, sizeof(q->queue));
		q->busy = true;
		mutex_unlock(&q->lock);
		pass_down(p, &work);
		mutex_lock(&q->lock);
		q->busy = false;
		pthread_cond_broadcast(&q->idle);
	}
	mutex_unlock(&q->lock);
	return NULL;
}

int
passdown_start(struct pool *p)
{
	int r = -pthread_create(&p->passdown.thread, NULL, passdown_main, p);

	p->passdown.runs = !r;
	return r;
}

void
passdown_stop(struct pool *p)
{
	struct passdown *q = &p->passdown;

	if (!q->runs)
		return;
	mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->wake);
	mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	q->runs = false;
}

bool
passdown_wanted(const struct pool *p)
{
	return !p->options.no_discard_passdown && !p->options.ignore_discard;
}

void
passdown_queue(struct pool *p, struct runs *freed)
{
	struct passdown *q = &p->passdown;
	int r;

	if (!freed->nr)
		return;
	if (!q->runs) {
		pass_down(p, freed);
		return;
	}
	mutex_lock(&q->lock);
	r = runs_move(&q->queue, freed);
	pthread_cond_signal(&q->wake);
	mutex_unlock(&q->lock);
	if (r) {
		/* No memory for the list: hand them out without. */
		release(p, freed->v, freed->nr);
		runs_clear(freed);
	}
}

void
passdown_wait(struct pool *p)
{
	struct passdown *q = &p->passdown;

	mutex_lock(&q->lock);
	while (q->runs && (q->queue.nr || q->busy))
		cond_wait(&q->idle, &q->lock);
	mutex_unlock(&q->lock);
}
