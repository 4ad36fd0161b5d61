#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A block that is given to a volume never shows what was in it before, of whichever volume: every byte
# that was not written reads as zero, after crashes too.
#
# THINFS_TEST_SEED: 1 unless told.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3

seed=${THINFS_TEST_SEED:-1}
diag "seed $seed"
dir=$(mktmp)

tool() {
	python3 -B "$top_srcdir/tests/tools/residue.py" "$@"
}

# Kill the daemon in the middle of its work.
crash() {
	local pid
	pid=$(daemon_of "$MNT")
	tool work "$MNT" "$1" 100000 >/dev/null 2>&1 &
	sleep 1.5
	kill -KILL "$pid"
	wait $!
	umount "$MNT" 2>/dev/null || fusermount3 -u "$MNT"
}

# Blocks that are freed keep what was in them: with pass-down, holes of the image would hide it.
plan 16
for block in 64K 256K; do
	rm -f "$dir"/*.img
	thinfs format --data-size 48M --block-size $block "$dir/data.img" "$dir/meta.img"
	mount_pool "$dir" -o no_discard_passdown,commit=0.1,error_if_no_space
	expect "$block: the pool is full, and empty again" tool fill "$MNT"
	expect "$block: nothing but what was written" tool work "$MNT" "$seed" 400
	for round in 1 2; do
		crash $((seed + round))
		mount_pool "$dir" -o no_discard_passdown,commit=0.1,error_if_no_space
		expect "$block: nor after crash $round" tool look "$MNT"
	done
	expect "$block: nor in what is made then" tool work "$MNT" $((seed + 3)) 300
	rm -f "$MNT"/v* && rmdir "$MNT"/.snapshots/* 2>/dev/null
	expect "$block: unmounts" umount_pool
	is "$block: the data image still has the old bytes" "$(LC_ALL=C tr -dc '\377' <"$dir/data.img" | head -c 1 | od -An -tu1 | tr -d ' ')" 255
done

# That this would find something.
mount_pool "$dir" -o no_discard_passdown,skip_block_zeroing,error_if_no_space
expect "with skip_block_zeroing: full and empty again" tool fill "$MNT"

# By whichever of some loads: what a new block holds depends on when old ones are free again.
finds_old_bytes() {
	local try
	for try in {0..9}; do
		! tool work "$MNT" $((seed + try)) 100 >"$dir/found" 2>&1 && grep -q " at [0-9]*: [1-9]" "$dir/found" && return
	done
	cat "$dir/found"
	return 1
}
expect "and old bytes are found" finds_old_bytes
