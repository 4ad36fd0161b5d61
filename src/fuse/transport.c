/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fuse/session.h"
#include "fuse/transport.h"
#include "fuse/uring.h"
#include "fuse/uring_proto.h"
#include "util/msg.h"

#define PARAMETER "/sys/module/fuse/parameters/enable_uring"

/* It is WHY that there is no io_uring: a failure if it was asked for. */
static int
do_without(const struct mount *m, const char *why, int error)
{
	if (m->transport_wanted != TRANSPORT_IO_URING)
		return 0;
	msg_error("cannot mount %s with transport=io_uring: %s%s%s", m->data_path, why, error ? ": " : "",
		  error ? strerror(-error) : "");
	return error ? error : -EOPNOTSUPP;
}

/* Where that cannot be seen, INIT tells. */
static bool
kernel_refuses(void)
{
	int fd = open(PARAMETER, O_RDONLY | O_CLOEXEC);
	char value = 'Y';
	ssize_t n = fd < 0 ? 1 : read(fd, &value, 1);

	if (fd >= 0)
		close(fd);
	return n == 1 && value == 'N';
}

int
transport_prepare(struct mount *m)
{
	int r;

	if (m->transport_wanted == TRANSPORT_CLASSIC)
		return 0;
	if (kernel_refuses())
		return do_without(m, "the kernel's FUSE has it off; write Y to " PARAMETER, 0);
	r = uring_create(m, m->uring_threads, &m->uring);
	if (r == -ENOSYS)
		return do_without(m, "thinfs was built without liburing, or the kernel has no io_uring", 0);
	if (r == -EPERM || r == -EACCES)
		return do_without(m, "io_uring is forbidden here (kernel.io_uring_disabled, or a container)",
				  r);
	if (r == -ENXIO)
		return do_without(m, "the daemon may not use all processors, or cannot see in /sys which there are", 0);
	if (r == -ENOMEM)
		return do_without(m, "io_uring needs more memory than there is or may be locked (ulimit -l)", r);
	return r ? do_without(m, "setting up io_uring failed", r) : 0;
}

int
transport_start(struct mount *m)
{
	int r;

	if (!m->uring)
		return 0;
	r = uring_start(m->uring);
	if (!r)
		return 0;
	uring_destroy(m->uring);
	m->uring = NULL;
	return do_without(m, "starting its threads failed", r);
}

uint64_t
transport_init_flags(struct mount *m, uint64_t offered)
{
	return m->uring ? offered & URING_INIT_FLAG : 0;
}

/* Without io_uring m->uring stays, as threads look at it, and does nothing. */
int
transport_settle(struct mount *m)
{
	int r;

	atomic_store(&m->transport, TRANSPORT_CLASSIC);
	if (!m->uring)
		return 0;
	if (!(m->init_flags & URING_INIT_FLAG)) {
		uring_stop(m->uring);
		return do_without(m, "the kernel does not offer it: it needs Linux 6.14, and Y in " PARAMETER, 0);
	}
	r = uring_register(m->uring);
	if (r) {
		uring_stop(m->uring);
		return do_without(m, "the kernel refused it", r);
	}
	atomic_store(&m->transport, TRANSPORT_IO_URING);
	return 0;
}
