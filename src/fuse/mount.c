/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a mount:
 *
 *   opening   unmounter started, images open and locked, session mounted, privileges given up,
 *             threads started
 *   ready     the kernel has the answer to INIT
 *   serving   until one of
 *               the session ended: unmounted from outside;
 *               SIGTERM with no volume open, or the last close after one, a second one, SHUTDOWN:
 *               leave, which unmounts
 *   closing   threads ended, requests answered, the pool committed and closed
 *
 * Order of the end, which matters: writes that wait for space fail first, so that the kernel can
 * finish writing back; the snapshot thread ends while workers still serve, as it waits for them;
 * then the unmount, then the workers.
 */
#include <config.h>

#include <errno.h>
#include <fuse_opt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "fuse/dir_handle.h"
#include "fuse/mount.h"
#include "fuse/mountinfo.h"
#include "fuse/ops.h"
#include "fuse/parked.h"
#include "fuse/privileges.h"
#include "fuse/session.h"
#include "fuse/shrinker.h"
#include "fuse/snapshot.h"
#include "fuse/uring.h"
#include "util/msg.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

/*
 * How long after an unmount the kernel may take to end the session: another mount namespace may
 * still hold it.
 */
#define END_TIMEOUT_MS 2000

/* --- libfuse's own messages --- */

static char fuse_message[256]; /* the last one, while mounting; one thread then */
static bool mounting;

__attribute__((format(printf, 2, 0))) static void
on_fuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[256];

	if (level > FUSE_LOG_WARNING)
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	if (mounting)
		strcpy(fuse_message, text);
	else
		msg_warn("%s", text);
}

/* --- set-up --- */

/* systemd takes a FUSE mount of something under /dev for one of a device, and unmounts it. */
static char *
source_name(const char *data_path)
{
	const char *base = strrchr(data_path, '/');
	char *name;

	if (strncmp(data_path, "/dev/", 5) != 0)
		return strdup(data_path);
	base = base ? base + 1 : data_path;
	return asprintf(&name, "thinfs#%s", base) < 0 ? NULL : name;
}

static int
session_options(const struct mount *m, const struct mount_options *options, char **out)
{
	char *name = source_name(m->data_path), *fsname = NULL, *opts = NULL;
	int r = -ENOMEM;

	if (!name || asprintf(&fsname, "fsname=%s", name) < 0)
		goto out;
	r = fuse_opt_add_opt(&opts, "default_permissions,nosuid,nodev,subtype=thinfs");
	if (r == 0)
		r = fuse_opt_add_opt_escaped(&opts, fsname);
	if (r == 0 && options->kernel_options && options->kernel_options[0])
		r = fuse_opt_add_opt(&opts, options->kernel_options);
	if (r == 0 && m->read_only)
		r = fuse_opt_add_opt(&opts, "ro");
	if (r == 0 && options->allow_other)
		r = fuse_opt_add_opt(&opts, "allow_other");
	else if (r == 0 && options->allow_root)
		r = fuse_opt_add_opt(&opts, "allow_root");
	r = r ? -ENOMEM : 0;
	*out = opts;
out:
	free(fsname);
	free(name);
	return r;
}

/* Why serving ends. */
enum {
	SESSION_ENDED = 0,
	LEAVE = 1,
};

static int
open_session(struct mount *m, const struct mount_options *options)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct mount_found found;
	char *opts = NULL;
	int r;

	r = session_options(m, options, &opts);
	if (r == 0 && (fuse_opt_add_arg(&args, "thinfs") || fuse_opt_add_arg(&args, "-o") ||
		       fuse_opt_add_arg(&args, opts)))
		r = -ENOMEM;
	free(opts);

	mounting = true;
	fuse_message[0] = '\0';
	fuse_set_log_func(on_fuse_log);
	if (r == 0) {
		m->se = fuse_session_new(&args, &ops_table, sizeof(ops_table), m);
		r = m->se ? 0 : -EINVAL;
	}
	fuse_opt_free_args(&args);
	if (r == 0) {
		r = fuse_session_mount(m->se, m->dir) ? -EIO : session_attach(m);
		if (r) {
			fuse_session_destroy(m->se);
			m->se = NULL;
		}
	}
	mounting = false;
	if (r) {
		msg_error("cannot mount %s on %s: %s", m->data_path, m->dir,
			  fuse_message[0] ? fuse_message : "the kernel or fusermount3 refused it");
		return r;
	}
	if (mountinfo_find(m->dir, &found) == 0 && found.is_thinfs) {
		m->dev_major = found.dev_major;
		m->dev_minor = found.dev_minor;
		unmounter_watch(&m->unmounter, m->dev_major, m->dev_minor);
	}
	return 0;
}

static unsigned
default_threads(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (cores < 2)
		return 4;
	return cores > 64 ? 128 : (unsigned)cores * 2;
}

/*
 * Over io_uring the requests of a processor are served by threads of its own: as many as make WANTED together, if that is
 * not 0. One that waits for the image must not stop the others; where there are many processors there are
 * others for that anyway.
 */
static unsigned
threads_per_processor(unsigned wanted)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned nr = cores < 1 ? 1 : (unsigned)cores;

	if (wanted)
		return (wanted + nr - 1) / nr;
	return nr > 32 ? 2 : 4;
}

/* --- the end --- */

/* Is the mount on our directory still this one? Asks no filesystem. */
static bool
still_mounted(const struct mount *m)
{
	struct mount_found found;

	return mountinfo_find(m->dir, &found) == 0 && found.is_thinfs &&
	       found.dev_major == m->dev_major && found.dev_minor == m->dev_minor;
}

static void
wait_for_end(struct mount *m, int timeout_ms)
{
	struct pollfd wake = {.fd = m->wake_fd, .events = POLLIN};
	uint64_t value;

	while (!atomic_load(&m->ended) && poll(&wake, 1, timeout_ms) > 0) {
		if (read(m->wake_fd, &value, sizeof(value)) < 0)
			break;
	}
}

static void
leave(struct mount *m)
{
	parked_give_up(m->parked);
	snapshot_stop(m);
	if (!still_mounted(m))
		return;
	if (unmounter_unmount(&m->unmounter, false) == 0) {
		wait_for_end(m, END_TIMEOUT_MS);
		return;
	}
	/*
	 * In use. What its users have written shall not be lost, though their files stop working.
	 */
	snapshot_write_back(m);
	if (unmounter_unmount(&m->unmounter, true))
		msg_warn("%s: cannot be unmounted by the daemon, which ends: run 'umount %s'",
			 m->dir, m->dir);
}

/*
 * Close the session's device. libfuse's own unmount also frees what it keeps, but only when the connection has
 * ended does it leave alone whatever may be mounted on the directory by now.
 */
static void
close_session(struct mount *m)
{
	struct pollfd device = {.fd = fuse_session_fd(m->se)};

	if (poll(&device, 1, 0) == 1 && (device.revents & POLLERR))
		fuse_session_unmount(m->se);
	fuse_session_destroy(m->se);
	m->se = NULL;
}

/* --- serving --- */

static void
commit_done(void *arg, int error)
{
	struct mount *m = arg;

	(void)error; /* the pool has said it */
	session_async_end(m);
}

/* Whether to leave now. */
static bool
on_signal(struct mount *m)
{
	uint64_t nr_open = pool_nr_open(m->pool);

	if (nr_open == 0 || atomic_load(&m->leave_when_idle))
		return true;
	atomic_store(&m->leave_when_idle, true);
	session_async_begin(m);
	pool_sync(m->pool, NULL, commit_done, m);
	msg_info("%s: asked to end, but %" PRIu64 " files are open; commits, and ends at the "
		 "last close (a second signal, or 'thinfs umount --force', ends it at once)",
		 m->dir, nr_open);
	return false;
}

/* With io_uring /dev/fuse brings little. */
static int
settle(struct mount *m)
{
	int r = transport_settle(m);

	if (r || atomic_load(&m->transport) == TRANSPORT_IO_URING)
		return r;
	r = session_start(m, m->max_workers);
	if (r)
		msg_error("cannot serve %s: starting threads failed: %s", m->dir, strerror(-r));
	return r;
}

/* Until the session has ended or is to be left: whether the latter; negative errno: it cannot be served. */
static int
serve(struct mount *m, int signal_fd, void (*ready)(void *arg), void *arg)
{
	bool announced = false;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = signal_fd, .events = POLLIN},
			{.fd = m->wake_fd, .events = POLLIN},
		};
		struct signalfd_siginfo info;
		uint64_t value;

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents && read(m->wake_fd, &value, sizeof(value)) < 0)
			continue;
		if (!announced && atomic_load(&m->ready)) {
			int r = settle(m);

			if (r)
				return r;
			announced = true;
			ready(arg);
		}
		if (atomic_load(&m->ended))
			return SESSION_ENDED;
		if (atomic_load(&m->shutdown))
			return LEAVE;
		if (fds[0].revents && read(signal_fd, &info, sizeof(info)) == sizeof(info) &&
		    on_signal(m))
			return LEAVE;
		if (atomic_load(&m->leave_when_idle) && pool_nr_open(m->pool) == 0)
			return LEAVE;
	}
}

/*
 * From now on nothing is needed but the descriptors there are: images, /dev/fuse. Of what root may do nothing is left
 * but what its files let it; that is for the unmounter. Core dumps and /proc stay: a second mount finds by /proc who
 * holds the images.
 */
static void
give_up_privileges(void)
{
	int r = privileges_keep(0);

	umask(077);
	if (r)
		msg_warn("cannot give up privileges: %s", strerror(-r));
}

/* With the session mounted: serve it and take everything down again. */
static int
run_session(struct mount *m, int signal_fd, void (*ready)(void *arg), void *arg)
{
	int r;

	inode_table_init(&m->inodes, m->pool);
	if (m->dev_major || m->dev_minor)
		pool_avoid_mount(m->pool, makedev(m->dev_major, m->dev_minor));
	give_up_privileges();
	r = pool_start(m->pool);
	if (r)
		goto err_unmount;
	r = shrinker_new(m, &m->shrinker);
	if (r)
		goto err_unmount;
	r = parked_start(m, &m->parked);
	if (r)
		goto err_unmount;
	r = snapshot_start(m, &m->jobs);
	if (r)
		goto err_parked;
	r = transport_start(m);
	if (r)
		goto err_jobs;
	/* One will do until it is settled who does the rest. */
	r = session_start(m, 1);
	if (r)
		goto err_uring;

	r = serve(m, signal_fd, ready, arg);
	if (r != SESSION_ENDED)
		leave(m);
	shrinker_stop(m->shrinker);
	parked_give_up(m->parked);
	snapshot_stop(m);
	session_stop(m);
	if (m->uring)
		uring_stop(m->uring);
	shrinker_free(m->shrinker);
	snapshot_free(m);
	parked_stop(m->parked);
	session_async_wait(m);
	dir_handle_close_all(m);
	inode_table_destroy(&m->inodes);
	uring_destroy(m->uring);
	close_session(m);
	return r < 0 ? r : 0;

err_uring:
	session_stop(m);
	if (m->uring)
		uring_stop(m->uring);
err_jobs:
	snapshot_stop(m);
	snapshot_free(m);
err_parked:
	parked_stop(m->parked);
err_unmount:
	shrinker_free(m->shrinker);
	msg_error("cannot serve %s: starting threads failed: %s", m->dir, strerror(-r));
	inode_table_destroy(&m->inodes);
	unmounter_unmount(&m->unmounter, true);
	uring_destroy(m->uring);
	close_session(m);
	return r;
}

/* Signals come through a descriptor; all threads inherit the mask. */
static int
open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* then making an image larger fails */
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int
mount_serve(const char *data_path, const char *meta_path, const char *dir,
	    const struct mount_options *options, void (*ready)(void *arg), void *arg)
{
	struct mount m = {
		.data_path = data_path,
		.meta_path = meta_path,
		.dir = dir,
		.page_cache = options->page_cache || options->writeback_cache,
		.writeback = options->writeback_cache && !options->pool.read_only,
		.read_only = options->pool.read_only,
		.max_workers = options->threads ? options->threads : default_threads(),
		.transport_wanted = options->transport,
		.uid = geteuid(),
		.gid = getegid(),
		.lock = MUTEX_INITIALIZER("mount->lock", LOCK_LEAF),
		.idle = PTHREAD_COND_INITIALIZER,
		.unmounter = {.fd = -1},
	};
	struct pool_options pool_options = options->pool;
	int signal_fd = open_signals();
	int r, closed;

	clock_gettime(CLOCK_REALTIME, &m.mounted_at);
	m.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (signal_fd < 0 || m.wake_fd < 0) {
		r = -errno;
		msg_error("cannot mount %s: %s", dir, strerror(-r));
		goto out;
	}
	/*
	 * What thinfs writes may be what frees memory, of a loop device on a volume: so its memory
	 * must not be waited for. Threads inherit this. Only root may.
	 */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);

	r = unmounter_start(&m.unmounter, dir);
	if (r) {
		msg_error("cannot mount %s: starting a process failed: %s", dir, strerror(-r));
		goto out;
	}
	pool_options.threads_later = true;
	r = pool_open(data_path, meta_path, &pool_options, &m.pool);
	if (r)
		goto out;
	m.block_bytes = pool_block_bytes(m.pool);
	m.uring_threads = threads_per_processor(options->threads);
	r = transport_prepare(&m);
	if (r == 0) {
		r = open_session(&m, options);
		if (r)
			uring_destroy(m.uring);
	}
	if (r == 0)
		r = run_session(&m, signal_fd, ready, arg);
	closed = pool_close(m.pool);
	if (r == 0)
		r = closed;
out:
	unmounter_stop(&m.unmounter);
	if (m.wake_fd >= 0)
		close(m.wake_fd);
	if (signal_fd >= 0)
		close(signal_fd);
	return r;
}
