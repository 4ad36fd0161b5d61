/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cmd/removal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd/common.h"
#include "fuse/inode.h"
#include "pool/report.h"
#include "util/size.h"

/* Blocks are shared within a pool, so the volumes of each are asked about together. */
struct removal_pool {
	struct removal_pool *next;
	dev_t dev; /* of the mount */
	struct target target; /* a directory of it, of its own */
	uint32_t *ids;
	size_t nr_ids, max_ids;
};

/* One of the paths given. */
struct item {
	uint64_t volumes, mapped;
};

static struct removal_pool *
pool_of(struct removal *r, const struct target *t, dev_t dev)
{
	struct removal_pool *p = r->pools;

	while (p && p->dev != dev)
		p = p->next;
	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->dev = dev;
	p->target = *t;
	p->target.fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 0);
	if (p->target.fd < 0) {
		free(p);
		return NULL;
	}
	p->next = r->pools;
	r->pools = p;
	return p;
}

static int
add_volume(struct removal_pool *p, const struct stat *st, struct item *item)
{
	if (st->st_ino < INODE_NR_VOLUME(0) || st->st_ino >= INODE_NR_SNAPSHOT(0))
		return -EPERM;
	if (p->nr_ids == p->max_ids) {
		size_t max = p->max_ids ? 2 * p->max_ids : 64;
		uint32_t *ids = reallocarray(p->ids, max, sizeof(*ids));

		if (!ids)
			return -ENOMEM;
		p->ids = ids;
		p->max_ids = max;
	}
	p->ids[p->nr_ids++] = (uint32_t)(st->st_ino - INODE_NR_VOLUME(0));
	item->volumes++;
	item->mapped += (uint64_t)st->st_blocks * 512;
	return 0;
}

/* All that is in the snapshot open as DIR. */
static int
add_entries(struct removal_pool *p, DIR *dir, struct item *item)
{
	const struct dirent *entry;
	struct stat st;
	int r = 0;

	for (errno = 0; !r && (entry = readdir(dir)); errno = 0) {
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			r = errno == ENOENT ? 0 : -errno;
		else if (S_ISREG(st.st_mode))
			r = add_volume(p, &st, item);
	}
	return r ? r : -errno;
}

static int
add_snapshot(struct removal_pool *p, int at, const char *name, struct item *item)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int r = dir ? 0 : -errno;

	if (!r)
		r = add_entries(p, dir, item);
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return r;
}

int
removal_add(struct removal *r, const char *path, struct target *t, const char *base, const struct stat *st)
{
	struct removal_pool *p = pool_of(r, t, st->st_dev);
	struct item item = {0};
	int e = p ? 0 : -ENOMEM;

	if (!r->paths)
		r->paths = json_array();
	if (!e)
		e = S_ISDIR(st->st_mode) ? add_snapshot(p, t->fd, base, &item) : add_volume(p, st, &item);
	if (e)
		return e;
	return json_array_append_new(r->paths, json_pack("{s:o, s:b, s:I, s:I}",
		"path", report_text(path), "snapshot", S_ISDIR(st->st_mode),
		"volumes", (json_int_t)item.volumes, "mapped", (json_int_t)item.mapped)) ? -ENOMEM : 0;
}

int
removal_freed(struct removal *r, uint64_t *bytes)
{
	uint64_t one;
	int status = 0;

	*bytes = 0;
	for (struct removal_pool *p = r->pools; p && !status; p = p->next) {
		status = target_freed_by(&p->target, p->ids, p->nr_ids, &one);
		*bytes += status ? 0 : one;
	}
	return status;
}

static void
print_one(const json_t *item)
{
	const char *path = common_json_string(item, "path", "?");
	char mapped[32];

	size_format(common_json_number(item, "mapped", 0), mapped, sizeof(mapped));
	if (json_is_true(json_object_get(item, "snapshot")))
		printf("would remove the snapshot %s with all that is in it (volumes: %" PRIu64 ", %s mapped)\n", path,
		       common_json_number(item, "volumes", 0), mapped);
	else
		printf("would remove %s (%s mapped)\n", path, mapped);
}

int
removal_print(const struct removal *r, uint64_t freed, bool as_json)
{
	char text[32];
	size_t i;
	json_t *item;

	if (as_json) {
		json_t *report = json_pack("{s:O?, s:I}", "paths", r->paths, "freed", (json_int_t)freed);
		int status = common_print_json(report);

		json_decref(report);
		return status;
	}
	json_array_foreach(r->paths, i, item)
		print_one(item);
	printf("would free %s\n", size_format(freed, text, sizeof(text)));
	return common_flush();
}

void
removal_clear(struct removal *r)
{
	struct removal_pool *p;

	while ((p = r->pools)) {
		r->pools = p->next;
		target_close(&p->target);
		free(p->ids);
		free(p);
	}
	json_decref(r->paths);
	r->paths = NULL;
}
