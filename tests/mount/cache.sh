#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Metadata of which a small part fits into the cache, with all of it in use, and no commit by the timer: memory keeps
# its bound, what has to be committed for it is, and everything reads as it should.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 thin_check thin_restore

mapped=1000000
cache=1 # MiB; of metadata there are 33
constant=20 # MiB: threads' buffers, bitmaps in use, the program
plan 6

dir=$(mktmp)
truncate -s $((2154240 * 65536)) "$dir/data.img"
truncate -s 256M "$dir/meta.img"
cat >"$dir/pool.xml" <<END
<superblock uuid="" time="0" transaction="1" version="2" data_block_size="128" nr_data_blocks="2154240">
<device dev_id="1" mapped_blocks="$mapped" transaction="0" creation_time="0" snap_time="0">
<range_mapping origin_begin="0" data_begin="0" length="$mapped" time="0"/>
</device></superblock>
END
expect "$mapped mappings can be made" thin_restore -q -i "$dir/pool.xml" -o "$dir/meta.img"
mount_pool "$dir" -o metadata_cache=${cache}M,commit=300
mv "$MNT/thin-1" "$MNT/v" && truncate -s $((2 * mapped * 65536)) "$MNT/v"
pid=$(thinfs status "$MNT" | sed -n 's/^served by *process //p')

expect "reads, writes and discards all over, with a snapshot, read back" \
	python3 "${srcdir:-.}/tests/tools/all_over.py" "$MNT/v" "$mapped" "$MNT/.snapshots/then" "$MNT/.snapshots/then/v"
peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status")
if grep -q __asan_init "$THINFS"; then
	skip 1 "the daemon's memory ($peak KiB): built with sanitizers"
elif [ "$peak" -le $(((cache + constant) << 10)) ]; then
	ok "the daemon took $peak KiB, at most $cache MiB of cache and $constant more"
else
	not_ok "the daemon took $peak KiB, more than $cache MiB of cache and $constant more"
fi
expect "unmounts" thinfs umount "$MNT"
expect "thin_check is content" thin_check -q "$dir/meta.img"
expect "thinfs check is content" thinfs check "$dir/meta.img"
