/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/target.h"
#include "fuse/inode.h"
#include "pool/report.h"
#include "util/minmax.h"
#include "util/msg.h"

#define FUSE_MAGIC 0x65735546 /* f_type of statfs(2); linux/magic.h of Debian 12 lacks it */

bool
target_is_mount(int fd, struct control_info *info)
{
	struct statfs fs;

	/* Other filesystems must not be sent our ioctl: it might mean something to them. */
	if (fstatfs(fd, &fs) || fs.f_type != FUSE_MAGIC) {
		errno = ENOTTY;
		return false;
	}
	if (ioctl(fd, CONTROL_IOC_INFO, info))
		return false;
	/* Whoever answers may be anybody's daemon. */
	info->data_path[sizeof(info->data_path) - 1] = '\0';
	info->meta_path[sizeof(info->meta_path) - 1] = '\0';
	if (info->magic == CONTROL_MAGIC) {
		/* Another user's daemon may say what it likes. */
		info->data_path[sizeof(info->data_path) - 1] = '\0';
		info->meta_path[sizeof(info->meta_path) - 1] = '\0';
		return true;
	}
	errno = ENOTTY;
	return false;
}

int
target_open_mount(const char *dir, struct target *t)
{
	*t = (struct target){.fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};

	if (t->fd < 0 && errno == ENOTCONN)
		msg_error("%s: its daemon has died; unmount it with 'thinfs umount %s' and mount "
			  "the pool again",
			  dir, dir);
	else if (t->fd < 0 && errno == ENOTDIR)
		msg_error("%s: not a directory: give the directory of a mounted pool, or both "
			  "images of one that is not mounted",
			  dir);
	else if (t->fd < 0)
		msg_error("cannot open %s: %s", dir, strerror(errno));
	else if (!target_is_mount(t->fd, &t->info))
		msg_error("%s: not in a mounted pool (no thinfs there); 'thinfs mount DATA META "
			  "DIR' mounts one",
			  dir);
	else
		return 0;
	target_close(t);
	return EXIT_FAILED;
}

int
target_open(char **argv, int nr, struct target *t)
{
	struct pool_options options = POOL_OPTIONS_DEFAULT;

	if (nr == 1)
		return target_open_mount(argv[0], t);
	*t = (struct target){.fd = -1};
	options.read_only = true;
	options.commit_interval_ms = 0;
	return pool_open(argv[0], argv[1], &options, &t->pool) ? EXIT_FAILED : 0;
}

void
target_close(struct target *t)
{
	if (t->fd >= 0)
		close(t->fd);
	if (t->pool)
		pool_close(t->pool);
	*t = (struct target){.fd = -1};
}

bool
target_is_top(const struct target *t, const char *dir)
{
	struct stat mine, other;

	return fstat(t->fd, &mine) == 0 && stat(dir, &other) == 0 && mine.st_dev == other.st_dev &&
	       other.st_ino == INODE_NR_ROOT;
}

/* Read all of a report through the daemon: its text, from malloc, or NULL with errno. */
static char *
read_report(int fd, enum control_report what)
{
	struct control_read *piece = calloc(1, sizeof(*piece));
	char *text = NULL, *larger;
	size_t len = 0;

	if (!piece)
		return NULL;
	do {
		piece->report = what;
		piece->offset = len;
		larger = NULL;
		if (ioctl(fd, CONTROL_IOC_READ, piece) == 0 && piece->len <= sizeof(piece->text))
			larger = realloc(text, len + piece->len + 1);
		if (!larger) {
			free(text);
			text = NULL;
			break;
		}
		text = larger;
		memcpy(text + len, piece->text, piece->len);
		len += piece->len;
		text[len] = '\0';
	} while (piece->len && len < piece->total);
	free(piece);
	return text;
}

json_t *
target_report(struct target *t, enum control_report what)
{
	json_error_t error;
	json_t *json = NULL;
	char *text;

	if (t->pool) {
		json = what == CONTROL_LIST ? report_list(t->pool) : report_status(t->pool);
		if (!json)
			msg_error("cannot report on the pool: out of memory, or it cannot be read");
		return json;
	}
	text = read_report(t->fd, what);
	if (!text) {
		msg_error("cannot ask the daemon of %s: %s", t->info.data_path, strerror(errno));
		return NULL;
	}
	json = json_loads(text, 0, &error);
	if (!json)
		msg_error("the daemon of %s answered what cannot be understood (%s): is it of "
			  "another version?",
			  t->info.data_path, error.text);
	free(text);
	return json;
}

int
target_freed_by(struct target *t, const uint32_t *ids, size_t nr, uint64_t *bytes)
{
	struct control_freed *f = calloc(1, sizeof(*f));
	int r = f ? 0 : -1;

	for (size_t done = 0; !r; done += f->nr) {
		f->nr = (uint32_t)min_u64(nr - done, sizeof(f->ids) / sizeof(f->ids[0]));
		f->more = done + f->nr < nr;
		if (f->nr)
			memcpy(f->ids, ids + done, f->nr * sizeof(*ids));
		r = ioctl(t->fd, CONTROL_IOC_FREED, f);
		if (!f->more)
			break;
	}
	if (r)
		msg_error("cannot tell what would be freed of %s: %s", t->info.data_path,
			  errno == EACCES ? "only root and who mounted the pool may ask" : strerror(errno));
	else
		*bytes = f->bytes;
	free(f);
	return r ? EXIT_FAILED : 0;
}
