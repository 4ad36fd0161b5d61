#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Make ./configure from a git checkout. A release tarball needs no such step.
set -eu
cd "$(dirname "$0")"

if ! command -v autoreconf >/dev/null; then
	echo "autogen.sh: no autoreconf; install autoconf, automake, autoconf-archive, pkg-config" >&2
	exit 1
fi
exec autoreconf -fi
