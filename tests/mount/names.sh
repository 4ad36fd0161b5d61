#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A hundred thousand names: directories are read as a stream, each name once, whatever changes meanwhile, and what
# the daemon keeps does not grow by it.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 thin_check thin_restore

nr=100000
tool=${srcdir:-.}/tests/tools/names.py
plan 9

dir=$(mktmp)
truncate -s $((65280 * 65536)) "$dir/data.img"
truncate -s 256M "$dir/meta.img"
python3 - "$nr" >"$dir/pool.xml" <<'END'
import sys
print('<superblock uuid="" time="0" transaction="1" version="2" data_block_size="128" nr_data_blocks="65280">')
for n in range(1, int(sys.argv[1]) + 1):
    print(f'<device dev_id="{n}" mapped_blocks="0" transaction="0" creation_time="0" snap_time="0"/>')
print('</superblock>')
END
expect "$nr devices can be made" thin_restore -q -i "$dir/pool.xml" -o "$dir/meta.img"
begin=${EPOCHREALTIME/./}
mount_pool "$dir"
diag "mounting takes $(((${EPOCHREALTIME/./} - begin) / 1000)) ms"

pid=$(thinfs status "$MNT" | sed -n 's/^served by *process //p')
memory() {
	sed -n "s/^$1:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$pid/status"
}

# From here on, not what mounting took for a moment.
echo 5 2>/dev/null >"/proc/$pid/clear_refs"
before=$(memory VmHWM)
expect "each name is listed once, the first ones early" python3 "$tool" stream "$MNT" "$nr"
after=$(memory VmHWM)
if grep -q __asan_init "$THINFS"; then
	skip 1 "the daemon's memory does not grow by listing: built with sanitizers"
elif [ $((after - before)) -le 4096 ]; then
	ok "the daemon's memory does not grow by listing: $before, then $after KiB"
else
	not_ok "the daemon's memory does not grow by listing: $before, then $after KiB"
fi
expect "nor missed or listed twice while others come and go" python3 "$tool" changes "$MNT" "$nr"
expect "places lead back to their names" python3 "$tool" places "$MNT" "$nr"
is "status counts them" "$(thinfs status --json "$MNT" | python3 -c 'import json, sys; print(json.load(sys.stdin)["volumes"] >= int(sys.argv[1]))' "$nr")" True
expect "one of them is found, and goes" rm "$MNT/thin-54321"
expect "unmounts" thinfs umount "$MNT"
expect "thin_check is content" thin_check -q "$dir/meta.img"
