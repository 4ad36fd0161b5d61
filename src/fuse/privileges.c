/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/privileges.h"

/* glibc has no name for these system calls, and libcap does not more than this with them. */
static int
get_capabilities(struct __user_cap_header_struct *head, struct __user_cap_data_struct *sets)
{
	*head = (struct __user_cap_header_struct){.version = _LINUX_CAPABILITY_VERSION_3};
	return syscall(SYS_capget, head, sets) ? -errno : 0;
}

bool
privileges_has(unsigned capability)
{
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
	struct __user_cap_header_struct head;

	return get_capabilities(&head, sets) == 0 &&
	       sets[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability);
}

int
privileges_keep(uint64_t keep)
{
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
	struct __user_cap_header_struct head;
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	r = get_capabilities(&head, sets);
	if (r)
		return r;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		sets[i].permitted &= (uint32_t)(keep >> 32 * i);
		sets[i].effective = sets[i].permitted;
		sets[i].inheritable = 0; /* takes the ambient ones along */
	}
	return syscall(SYS_capset, &head, sets) ? -errno : 0;
}
