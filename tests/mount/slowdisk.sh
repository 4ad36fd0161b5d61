#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Syncing on a disk whose flush takes 5 ms: those who sync at once share commits and flushes.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3
slow=$top_builddir/tests/bench/thinfs-slow
[ -x "$slow" ] || skip_all "tests/bench/thinfs-slow is not built"
plan 3

dir=$(mktmp)
mnt=$dir/mnt
mkdir "$mnt"
thinfs format --data-size 4G --metadata-size 16M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
on_exit _end_mount "$mnt"
audit_at_exit "$dir/meta.img"
BENCH_FLUSH_US=5000 "$slow" mount -o commit=3600 "$dir/data.img" "$dir/meta.img" "$mnt" || bail_out "cannot mount"
for n in 1 2 3 4 5 6 7 8; do
	truncate -s 64K "$mnt/v$n"
done
dd if=/dev/zero of="$mnt/v1" bs=64K count=1 conv=notrunc,fsync status=none

rate() {
	python3 -B "$top_srcdir/tests/tools/sync_rate.py" "$@" || echo 0
}

# together CLAIM [overwrite]: eight writers get at least three times what one gets. By themselves they get more than seven
# times as much ('make bench', slow-fsync-8), without sharing hardly more than one; what others do on the machine meets
# eight more than one. So by turns, and some tries.
together() {
	local claim=$1 try turn one eight
	shift
	for try in 1 2 3 4; do
		one=0 eight=0
		for turn in 1 2 3; do
			((one += $(rate "$@" 0.6 "$mnt/v1")))
			((eight += $(rate "$@" 0.6 "$mnt"/v[1-8])))
		done
		diag "$claim: one writer $((one / 3)) syncs a second, eight $((eight / 3))"
		((one && eight >= 3 * one)) && ok "$claim" && return
	done
	not_ok "$claim"
}
together "eight who write first and sync get at least three times the rate of one"
together "eight who overwrite and sync get at least three times the rate of one" overwrite
expect "unmounts" thinfs umount "$mnt"
