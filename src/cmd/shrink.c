/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/target.h"
#include "util/msg.h"
#include "util/size.h"

static const char help[] =
	"Usage: thinfs shrink DIR --data SIZE\n"
	"Make the data image of the mounted pool DIR smaller, while it is in use: what lies\n"
	"behind the new end is moved, the pool ends there, and an image file is cut off.\n"
	"Make a block device smaller only after that, and before anything makes the pool\n"
	"larger again: its next mount, or being full, takes in what there is.\n"
	"Ctrl-C ends it early; the pool is then as large as before.\n"
	"\n"
	"      --data SIZE  of the data image, like 50G; rounded down to blocks\n"
	"  -h, --help       print this\n"
	"\n"
	"Example: thinfs shrink /mnt/pool --data 50G\n";

static volatile sig_atomic_t interrupted;

static void
on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

static void
say_why(const char *dir, int error, const struct control_shrink *c)
{
	char text[32];

	switch (error) {
	case ENOSPC:
		/* To the byte: rounded, it might not do. */
		if (c->possible)
			msg_error("cannot shrink %s: too little free space; %llu bytes (%s) would do now; "
				  "remove volumes or snapshots, or discard, for less", dir,
				  (unsigned long long)c->possible,
				  size_format(c->possible, text, sizeof(text)));
		else
			msg_error("cannot shrink %s: too little free space", dir);
		break;
	case EINVAL:
		msg_error("cannot shrink %s: it has %s, which is no more than that; 'thinfs resize --data SIZE "
			  "%s' makes it larger", dir, size_format(c->data, text, sizeof(text)), dir);
		break;
	case EBUSY:
		msg_error("cannot shrink %s: that is being done already, or a metadata snapshot is held "
			  "('held_root' of 'thinfs status --json %s'), which must be released first", dir, dir);
		break;
	case EACCES:
		msg_error("cannot shrink %s: only who mounted the pool, and root, may", dir);
		break;
	case EROFS:
	case EIO:
		msg_error("cannot shrink %s: the pool is read-only, or failed meanwhile; 'thinfs status %s' tells",
			  dir, dir);
		break;
	case EUCLEAN:
		msg_error("cannot shrink %s: its metadata have errors, or space that is lost: unmount it and run "
			  "'thinfs check' with --repair", dir);
		break;
	case ECANCELED:
		msg_error("%s: not shrunk: ended early; nothing is lost", dir);
		break;
	default:
		msg_error("cannot shrink %s: %s", dir, strerror(error));
	}
}

static void
show(const struct control_shrink *c, bool end)
{
	char moved[32], total[32];

	if (!isatty(STDERR_FILENO) || !c->total)
		return;
	fprintf(stderr, "\r%s of %s moved%s", size_format(c->moved, moved, sizeof(moved)),
		size_format(c->total, total, sizeof(total)), end ? "\n" : "   ");
}

/* Until it has ended; an error of asking. */
static int
wait_for_end(const struct target *target, struct control_shrink *c)
{
	struct timespec pause = {.tv_nsec = 20000000};

	for (;;) {
		c->what = interrupted ? CONTROL_SHRINK_CANCEL : CONTROL_SHRINK_TELL;
		if (ioctl(target->fd, CONTROL_IOC_SHRINK, c))
			return errno;
		show(c, !c->running);
		if (!c->running)
			return -c->error;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 300000000)
			pause.tv_nsec += 20000000;
	}
}

static int
shrink(const char *dir, uint64_t bytes)
{
	struct control_shrink c = {.what = CONTROL_SHRINK_START, .data = bytes};
	struct sigaction action = {.sa_handler = on_signal};
	struct target target;
	int error;

	if (target_open_mount(dir, &target))
		return EXIT_FAILED;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	error = ioctl(target.fd, CONTROL_IOC_SHRINK, &c) ? errno : wait_for_end(&target, &c);
	target_close(&target);
	if (error)
		say_why(dir, error, &c);
	return error ? EXIT_FAILED : EXIT_DONE;
}

int
cmd_shrink(int argc, char **argv)
{
	static const struct option longs[] = {
		{"data", required_argument, NULL, 'D'},
		COMMON_HELP,
		COMMON_END,
	};
	uint64_t bytes = 0;
	int c, status = EXIT_DONE;

	while ((c = common_option(argc, argv, "", longs, help, &status)) != COMMON_NO_MORE) {
		if (c != 'D')
			return status;
		status = common_size(argv, "--data", optarg, &bytes);
		if (status)
			return status;
	}
	if (argc - optind != 1 || !bytes)
		return common_usage(argv, "needs the directory of a mounted pool, and --data SIZE");
	return shrink(argv[optind], bytes);
}
