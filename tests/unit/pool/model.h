/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * model: what a pool must look like, in plain memory: volumes as arrays of pages that several
 * states may share, so that snapshots and saved states cost little.
 *
 * Three things are kept: the state now, the state as of the last commit, and the journal: each
 * content that a page got since then. After a crash, or an abort, names and sizes must be those of
 * the last commit, and each sector must have its content of then, or one it got later: a block that
 * was not shared is overwritten in place.
 *
 * Volumes are known by the number of their thin device.
 */
#ifndef THINFS_TESTS_MODEL_H
#define THINFS_TESTS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 65536U
#define MODEL_MAX_VOLS 128U
#define MODEL_PAGES 48U /* what of a volume can be written; all behind reads as zeros */
#define MODEL_BYTES ((uint64_t)MODEL_PAGES * PAGE_SIZE)
#define MODEL_NAME 48U
#define MODEL_SECTOR 512U

/* Never changed once it is in a volume. */
struct page {
	unsigned refs;
	uint8_t bytes[PAGE_SIZE];
};

struct model_vol {
	uint32_t id;
	char name[MODEL_NAME]; /* "": deleted, but somebody has it open */
	char snapshot[MODEL_NAME]; /* "": in the top directory */
	bool read_only;
	bool twins; /* may have a data block at two places */
	uint64_t size;
	struct page *pages[MODEL_PAGES]; /* NULL: zeros */
	bool touched[MODEL_PAGES]; /* may be mapped */
	uint64_t over; /* so many bytes may show an external origin where nothing is mapped */
};

struct model_dir {
	char name[MODEL_NAME];
};

struct model_state {
	struct model_vol *vols[MODEL_MAX_VOLS];
	unsigned nr_vols;
	struct model_dir dirs[MODEL_MAX_VOLS]; /* snapshots, empty ones too */
	unsigned nr_dirs;
};

struct journal_entry {
	uint32_t id;
	uint32_t index;
	struct page *page;
};

struct model {
	struct model_state now, committed;
	struct journal_entry *journal;
	size_t nr_journal, cap_journal;
};

void model_free(struct model *m);
/* All that is now is committed. */
void model_commit(struct model *m);
/* The state is the committed one again; its contents are yet to be read from the pool. */
void model_revert(struct model *m);

struct model_vol *model_add(struct model *m, uint32_t id, const char *snapshot, const char *name);
struct model_vol *model_find(struct model_state *s, const char *snapshot, const char *name);
struct model_vol *model_find_id(struct model_state *s, uint32_t id);
void model_drop(struct model *m, struct model_vol *v);
/* A read-only snapshot of V with number ID. */
struct model_vol *model_snapshot(struct model *m, const struct model_vol *v, uint32_t id,
				 const char *dir);
/* V has what FROM has, and its size. */
void model_assign(struct model *m, struct model_vol *v, const struct model_vol *from);
bool model_has_dir(const struct model_state *s, const char *name);
void model_add_dir(struct model *m, const char *name);
void model_drop_dir(struct model *m, const char *name);

/* BUF NULL: zeros. Past the end extends. */
void model_write(struct model *m, struct model_vol *v, const uint8_t *buf, uint64_t len,
		 uint64_t offset);
void model_read(const struct model_vol *v, uint8_t *buf, uint64_t len, uint64_t offset);
/* BLOCK: of the pool, in pages. */
void model_truncate(struct model *m, struct model_vol *v, uint64_t size, unsigned block);
void model_touch(struct model_vol *v, uint64_t offset, uint64_t len);
/* The most that may be mapped, in pages. */
uint64_t model_touched(const struct model_vol *v, unsigned block);

/* A copy of V, not in any state, sharing its pages; model_vol_free(). */
struct model_vol *model_vol_copy(const struct model_vol *v);
void model_vol_free(struct model_vol *v);

/* Whether the sector at OFFSET of V, as of the last commit, may begin with DATA now. */
bool model_may_hold(const struct model *m, const struct model_vol *v, uint64_t offset,
		    const uint8_t *data, uint64_t len);

#endif
