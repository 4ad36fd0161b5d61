/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * floor FILE DIR [OPTION...]: a filesystem of one file, DIR/volume, whose bytes are those of FILE, and of
 * DIR/volume.0 to DIR/volume.7, each an eighth of it. The least that a FUSE daemon with libfuse can do, with the
 * settings that were found best: what any such daemon, thinfs too, is measured against. Serves in the
 * foreground until it is unmounted.
 *
 *   threads=N   serve with N threads (twice the processors, as thinfs does)
 *   writeback   through the kernel's page cache, with write-back; otherwise direct I/O
 *   copy=BYTES  before the first write to each block of that many bytes, copy it to another place of FILE, which
 *               must be twice as large as the volume: what the first write after a snapshot cannot do without
 */
#define FUSE_USE_VERSION 312
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define VOLUME_INO 2
#define FIRST_PART_INO 3
#define NR_PARTS 8
#define IO_MAX (1U << 20)
#define NEVER 1e9 /* seconds until the kernel asks again for what does not change */

static struct {
	int fd;
	off_t size; /* of the volume */
	unsigned threads;
	bool writeback;
	size_t copy; /* bytes of a block, or 0 */
	atomic_bool *copied; /* for each block */
} fs;

/* Memory of a thread's own, which lives as long as the process. */
static char *
thread_buffer(void)
{
	static __thread char *buf;

	if (!buf) {
		buf = mmap(NULL, IO_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (buf == MAP_FAILED)
			abort();
	}
	return buf;
}

/* Where the bytes of a file begin. */
static off_t
base(fuse_ino_t ino)
{
	return ino < FIRST_PART_INO ? 0 : (off_t)(ino - FIRST_PART_INO) * (fs.size / NR_PARTS);
}

static fuse_ino_t
find(const char *name)
{
	unsigned part;

	if (!strcmp(name, "volume"))
		return VOLUME_INO;
	return sscanf(name, "volume.%u", &part) == 1 && part < NR_PARTS ? FIRST_PART_INO + part : 0;
}

static void
fill_stat(fuse_ino_t ino, struct stat *st)
{
	fstat(fs.fd, st);
	st->st_ino = ino;
	st->st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0700 : S_IFREG | 0600;
	st->st_nlink = 1;
	st->st_size = ino == FUSE_ROOT_ID ? 0 : ino == VOLUME_INO ? fs.size : fs.size / NR_PARTS;
}

static void
floor_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	if (fs.writeback)
		conn->want |= FUSE_CAP_WRITEBACK_CACHE;
	conn->max_write = IO_MAX;
	conn->max_readahead = IO_MAX;
	conn->max_background = 64;
}

static void
floor_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {.ino = find(name), .attr_timeout = NEVER, .entry_timeout = NEVER};

	if (parent != FUSE_ROOT_ID || !e.ino) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill_stat(e.ino, &e.attr);
	fuse_reply_entry(req, &e);
}

static void
floor_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fill_stat(ino, &st);
	fuse_reply_attr(req, &st, NEVER);
}

/* Only the times can be changed. */
static void
floor_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)attr;
	if (to_set & FUSE_SET_ATTR_SIZE)
		fuse_reply_err(req, EPERM);
	else
		floor_getattr(req, ino, fi);
}

/* libfuse 3.14 has no name for parallel direct writes: so the answer is as the kernel reads it. */
static void
floor_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out out = {
		.open_flags = fs.writeback ? FOPEN_KEEP_CACHE : FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES,
	};

	(void)fi;
	if (ino != FUSE_ROOT_ID)
		fuse_reply_buf(req, (const char *)&out, sizeof(out));
	else
		fuse_reply_err(req, EISDIR);
}

static void
floor_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char *buf = thread_buffer();
	ssize_t n = pread(fs.fd, buf, size < IO_MAX ? size : IO_MAX, base(ino) + offset);

	(void)fi;
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

static int
copy_block(off_t offset)
{
	char *buf = thread_buffer();
	off_t block = offset / (off_t)fs.copy * (off_t)fs.copy;
	ssize_t n;

	if (atomic_exchange(&fs.copied[offset / (off_t)fs.copy], true))
		return 0;
	n = pread(fs.fd, buf, fs.copy, block);
	return n < 0 || pwrite(fs.fd, buf, (size_t)n, fs.size + block) != n ? -1 : 0;
}

static void
floor_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
	    struct fuse_file_info *fi)
{
	ssize_t n;

	(void)fi;
	offset += base(ino);
	if (fs.copy && copy_block(offset)) {
		fuse_reply_err(req, EIO);
		return;
	}
	n = pwrite(fs.fd, buf, size, offset);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static void
floor_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, fdatasync(fs.fd) ? errno : 0);
}

static void
floor_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len, struct fuse_file_info *fi)
{
	(void)fi;
	fuse_reply_err(req, fallocate(fs.fd, mode | FALLOC_FL_KEEP_SIZE, base(ino) + offset, len) ? errno : 0);
}

static const struct fuse_lowlevel_ops ops = {
	.init = floor_init,
	.lookup = floor_lookup,
	.getattr = floor_getattr,
	.setattr = floor_setattr,
	.open = floor_open,
	.read = floor_read,
	.write = floor_write,
	.fsync = floor_fsync,
	.fallocate = floor_fallocate,
};

static bool
parse_option(const char *text)
{
	unsigned long value;

	if (!strcmp(text, "writeback"))
		return fs.writeback = true;
	if (sscanf(text, "threads=%lu", &value) == 1 && value > 0 && value < 1000) {
		fs.threads = (unsigned)value;
		return true;
	}
	if (sscanf(text, "copy=%lu", &value) == 1 && value > 0 && value <= IO_MAX) {
		fs.copy = value;
		return true;
	}
	return false;
}

static int
serve(const char *dir)
{
	char *argv[] = {(char *)"floor", (char *)"-o", (char *)"fsname=floor,subtype=floor"};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r = 1;

	if (!se || !config)
		return 1;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, fs.threads);
	fuse_loop_cfg_set_idle_threads(config, fs.threads);
	if (fuse_set_signal_handlers(se) == 0 && fuse_session_mount(se, dir) == 0) {
		r = fuse_session_loop_mt(se, config);
		fuse_session_unmount(se);
	}
	fuse_session_destroy(se);
	fuse_loop_cfg_destroy(config);
	fuse_opt_free_args(&args);
	return r;
}

int
main(int argc, char **argv)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	struct stat st;

	fs.threads = processors < 2 ? 4 : 2 * (unsigned)processors;
	if (argc < 3) {
		fprintf(stderr, "usage: floor FILE DIR [threads=N] [writeback] [copy=BYTES]\n");
		return 2;
	}
	for (int i = 3; i < argc; i++) {
		if (!parse_option(argv[i])) {
			fprintf(stderr, "floor: %s: not understood\n", argv[i]);
			return 2;
		}
	}
	fs.fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (fs.fd < 0 || fstat(fs.fd, &st)) {
		perror(argv[1]);
		return 1;
	}
	fs.size = fs.copy ? st.st_size / 2 : st.st_size;
	if (fs.copy)
		fs.copied = calloc((size_t)fs.size / fs.copy + 1, sizeof(*fs.copied));
	if (fs.copy && !fs.copied)
		return 1;
	return serve(argv[2]);
}
