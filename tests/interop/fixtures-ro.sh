#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Pools that the kernel made, mounted read-only: every device reads as the kernel reads it, and no byte
# of the images changes.
. "${srcdir:-.}/tests/lib.sh" || exit 99
. "$top_srcdir/tests/interop/fixtures.inc" || exit 99
requires_fuse
requires_program python3 xz
plan $((5 * ${#FIXTURES[@]}))

for case in "${FIXTURES[@]}"; do
	unpack_fixture "$case"
	if ! expect "$case: mounts read-only" mount_fixture -o ro; then
		skip 4 "$case is not mounted"
		continue
	fi
	is "$case: every device is there, and nothing else" \
		"$(cd "$DIR/mnt" && echo *)" "$(fixture_names "$case")"
	expect "$case: reads as the kernel reads it" fixture sums "$MANIFEST" "$DIR/mnt"
	expect "$case: unmounts" thinfs umount "$DIR/mnt"
	expect "$case: no byte of the images has changed" fixture images "$MANIFEST" "$DIR"
	rm -rf "$DIR"
done
