/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "fuse/transport.h"

static const char *const names[] = {
	[TRANSPORT_AUTO] = "auto",
	[TRANSPORT_CLASSIC] = "classic",
	[TRANSPORT_IO_URING] = "io_uring",
};

int
transport_parse(const char *text, enum transport *out)
{
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *
transport_name(enum transport t)
{
	return names[t];
}
