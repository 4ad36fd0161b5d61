#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The operations by which the kernel's pools came to be, done to a fresh pool of thinfs, lead to
# the same content.
. "${srcdir:-.}/tests/lib.sh" || exit 99
. "$top_srcdir/tests/interop/fixtures.inc" || exit 99
requires_fuse
requires_program python3
# Three are done but for the case that is skipped.
plan $((3 * ${#FIXTURES[@]} - 2))

for case in "${FIXTURES[@]}"; do
	case $case in
	ext4)
		skip 1 "$case: a file system wrote it, not the operations"
		continue
		;;
	esac
	DIR=$(mktmp)
	[[ $case != external-origin* ]] ||
		tar -xJf "$top_srcdir/tests/data/fixtures/$case/images.tar.xz" -C "$DIR" origin.img
	on_exit _end_mount "$DIR/mnt"
	audit_at_exit "$DIR/meta.img"
	expect "$case: the same sums" \
		fixture replay "$top_srcdir/tests/data/fixtures/$case/manifest.json" "$THINFS" "$DIR"
	expect "$case: unmounts" thinfs umount "$DIR/mnt"
	expect "$case: the audit is clean" audit_pool "$DIR/meta.img"
	rm -rf "$DIR"
done
