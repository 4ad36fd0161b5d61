/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/daemon.h"
#include "cmd/mount_options.h"
#include "fuse/mount.h"
#include "fuse/mountinfo.h"
#include "util/msg.h"

static const char help[] =
	"Usage: thinfs mount [-f] [-o OPTION,...] DATA META DIR\n"
	"Show the volumes of a pool as files in DIR. Returns when the mount can be used.\n"
	"An all-zero metadata image is formatted first. 'thinfs umount DIR' ends it.\n"
	"\n"
	"  -f, --foreground     stay in the foreground; messages go to stderr\n"
	"  -h, --help           print this\n"
	"  -o OPTION,...        mount options:\n"
	"      ro                       change no byte of either image\n"
	"      commit=SECONDS           make writes durable that often (1)\n"
	"      metadata_cache=SIZE      memory for metadata (64M)\n"
	"      threads=N                that serve requests (twice the processors)\n"
	"      transport=NAME           of requests: auto, classic, io_uring\n"
	"      error_if_no_space        fail writes at once when the pool is full\n"
	"      no_space_timeout=SECONDS or after so long (60; 0: never)\n"
	"      low_water=SIZE|PERCENT%  warn when less data space than that is free\n"
	"      grow=SIZE or grow=N%     enlarge the images, files, when they fill up\n"
	"      max=SIZE                 the data image not beyond that\n"
	"      metadata_max=SIZE        and the metadata image\n"
	"      skip_block_zeroing       new blocks may show what was there before\n"
	"      origin=FILE              what devices that the kernel made show where\n"
	"                               nothing was written: the external origin\n"
	"      origin=ID:FILE           the same for one device, or where it is now\n"
	"      discard_to_origin        discarding shows the external origin again\n"
	"      ignore_discard           keep blocks that are discarded\n"
	"      no_discard_passdown      do not give their space back to the data image\n"
	"      page_cache               let the kernel cache what is read\n"
	"      writeback_cache          and what is written, until it is synced\n"
	"      allow_other, allow_root  let other users in, or only root\n"
	"      noexec, noatime, ...     as in mount(8)\n";

static bool
fuse_is_there(void)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int error = errno;

	if (fd >= 0) {
		close(fd);
		return true;
	}
	if (error == ENOENT || error == ENODEV || error == ENXIO)
		msg_error("cannot mount: /dev/fuse: %s; load the kernel's FUSE with 'modprobe "
			  "fuse'",
			  strerror(error));
	else
		msg_error("cannot mount: /dev/fuse: %s; its owner must let you read and write it",
			  strerror(error));
	return false;
}

/* The directory to mount on, absolute; from malloc, or NULL after a message. */
static char *
mount_point(const char *dir)
{
	struct mount_found found;
	struct stat st;
	char *path;

	if (mountinfo_is_dead(dir)) {
		msg_error("cannot mount on %s: a mount whose daemon has died is there; remove it "
			  "with 'thinfs umount %s'",
			  dir, dir);
		return NULL;
	}
	if (stat(dir, &st)) {
		if (errno == ENOENT)
			msg_error("cannot mount on %s: no such directory; make it with 'mkdir %s'",
				  dir, dir);
		else
			msg_error("cannot mount on %s: %s", dir, strerror(errno));
		return NULL;
	}
	if (!S_ISDIR(st.st_mode)) {
		msg_error("cannot mount on %s: not a directory", dir);
		return NULL;
	}
	path = realpath(dir, NULL);
	if (!path) {
		msg_error("cannot mount on %s: %s", dir, strerror(errno));
		return NULL;
	}
	if (mountinfo_find(path, &found) == 0 && found.is_thinfs) {
		msg_error("cannot mount on %s: a pool is mounted there already; choose another "
			  "directory, or unmount it with 'thinfs umount %s'",
			  dir, dir);
		free(path);
		return NULL;
	}
	return path;
}

static void
on_ready(void *arg)
{
	const bool *foreground = arg;

	if (!*foreground)
		daemon_ready();
}

static int
mount_pool(char **args, const struct mount_options *options, bool foreground)
{
	char *data = NULL, *meta = NULL, *dir = NULL;
	int status = EXIT_FAILED;

	if (!fuse_is_there())
		return EXIT_FAILED;
	data = common_absolute(args[0]);
	if (data)
		meta = common_absolute(args[1]);
	if (meta)
		dir = mount_point(args[2]);
	if (dir && (foreground || daemon_start() == 0))
		status = mount_serve(data, meta, dir, options, on_ready, &foreground)
				 ? EXIT_FAILED
				 : EXIT_DONE;
	free(dir);
	free(meta);
	free(data);
	return status;
}

/* The daemon has another working directory. */
static int
make_absolute(struct mount_option_text *o)
{
	for (size_t i = 0; i < o->options.pool.nr_origins; i++) {
		char *path = common_absolute(o->origins[i].path);

		if (!path)
			return EXIT_FAILED;
		free(o->origins[i].path);
		o->origins[i].path = path;
	}
	return 0;
}

int
cmd_mount(int argc, char **argv)
{
	static const struct option longs[] = {
		{"foreground", no_argument, NULL, 'f'},
		{"options", required_argument, NULL, 'o'},
		COMMON_HELP,
		COMMON_END,
	};
	struct mount_option_text o;
	bool foreground = false;
	int c, status = 0;

	mount_options_init(&o);
	while ((c = common_option(argc, argv, "fo:", longs, help, &status)) != COMMON_NO_MORE) {
		if (c == 'f')
			foreground = true;
		else if (c == 'o')
			status = mount_options_parse(&o, argv, optarg);
		else
			return status;
		if (status)
			return status;
	}
	if (argc - optind != 3)
		return common_usage(argv, "needs DATA, META and the directory to mount on");
	status = mount_options_check(&o, argv);
	if (!status)
		status = make_absolute(&o) ? EXIT_FAILED : mount_pool(argv + optind, &o.options, foreground);
	mount_options_free(&o);
	return status;
}
