#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Removing a volume with two million scattered mappings: the name goes at once, the space in the background, without
# holding up what others do; a daemon that is killed half-way leaves a sound pool, and the next one goes on.
TEST_TIMEOUT=600
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program jq python3 thin_check thin_restore
plan 12

# The promise; the best of some rounds has to keep it, since other tests take time, too. With sanitizers all takes ten times as long.
rm_ms=10 stall_ms=50 rounds=10
! grep -q __asan_init "$THINFS" || rm_ms=100 stall_ms=500

dir=$(mktmp)

# Runs of 16 blocks, all over the data image; its size is that of whole bitmaps, which thin_restore needs to be right.
python3 - >"$dir/pool.xml" <<'END'
n = 131072
print('<superblock uuid="" time="0" transaction="1" version="2" data_block_size="128" nr_data_blocks="2154240">')
print('<device dev_id="1" mapped_blocks="%d" transaction="0" creation_time="0" snap_time="0">' % (16 * n))
for i in range(n):
    print('<range_mapping origin_begin="%d" data_begin="%d" length="16" time="0"/>' % (16 * i, i * 40503 % n * 16))
print('</device></superblock>')
END
truncate -s $((2154240 * 65536)) "$dir/data.img" && truncate -s 128M "$dir/meta.img" &&
	thin_restore -q -i "$dir/pool.xml" -o "$dir/meta.img" || bail_out "cannot make a pool"
cp "$dir/meta.img" "$dir/restored.img"
mount_pool "$dir"

# How long unlink(2) takes, in ms.
remove() {
	python3 -c 'import os, sys, time
begin = time.perf_counter()
os.unlink(sys.argv[1])
print(round((time.perf_counter() - begin) * 1000, 1))' "$1"
}

used_at_most() {
	[ "$(status .data.used)" -le "$1" ]
}

mv "$MNT/thin-1" "$MNT/big"
truncate -s 16M "$MNT/other"
fallocate -l 16M "$MNT/other"
cat "$MNT/other" >"$dir/other"
thinfs clone "$MNT/big" "$MNT/again" # which keeps all of it, for another time
thinfs sync "$MNT"
full=$(status .data.used)
is "two million mappings" "$(status '.data.used >= 2097152 * 65536')" true

# What a clone shares needs no time at all: give the other one a root of its own.
rm "$MNT/again"
thinfs sync "$MNT"
is "rm of a clone that shares all of it frees nothing" "$(($(status .data.used) >= full - 65536)) $(status .reclaim.volumes)" "1 0"

# In the middle of it.
kill_half_way() {
	local left tries
	for ((tries = 0; tries < 2000; tries++)); do
		left=$(status .reclaim.bytes)
		[ "$left" -lt $((2097152 * 65536)) ] && break
	done
	kill_daemon "$MNT"
	umount -l "$MNT"
	diag "killed with $((left >> 20)) MiB left"
	[ "$left" -gt 0 ]
}

diag "rm takes $(remove "$MNT/big") ms"
is "the name has gone" "$(ls "$MNT")" other
is "status says what is to come back" "$(status '.reclaim.volumes == 1 and .reclaim.bytes > 0')" true
expect "the daemon is killed half-way" kill_half_way
expect "what it leaves is sound" audit_pool "$dir/meta.img"
mount_pool "$dir"
expect "the space comes back after the next mount" eventually used_at_most $((32 << 20))
is "nothing more is to come" "$(status .reclaim.volumes)" 0
expect "others' data are as they were" cmp "$MNT/other" "$dir/other"
thinfs umount "$MNT"

# Once more, with fio on another volume: usually, and during the removal.
expect "what is left when all has come back is sound" audit_pool "$dir/meta.img"

# Writes of 4 KiB to the other volume for $1 ms: in ms, what 99 of 100 take at most, and the longest.
write_meanwhile() {
	fio --name=w --filename="$MNT/other" --size=16M --rw=randwrite --bs=4k --direct=1 --ioengine=psync --thread \
		--time_based --runtime="$1ms" --output-format=json |
		jq -r '.jobs[0].write.clat_ns | "\(.percentile["99.000000"] / 1e6) \(.max / 1e6)"'
}

# One round: rm_kept and stall_kept are set when it was as promised.
removal_under_load() {
	local usual longest took
	cp "$dir/restored.img" "$dir/meta.img"
	mount_pool "$dir"
	mv "$MNT/thin-1" "$MNT/big"
	truncate -s 16M "$MNT/other"
	fallocate -l 16M "$MNT/other"
	thinfs sync "$MNT"
	read -r usual _ < <(write_meanwhile 1500)
	coproc { write_meanwhile 3000; }
	sleep 1
	took=$(remove "$MNT/big")
	read -r _ longest <&"${COPROC[0]}"
	wait "$COPROC_PID"
	eventually used_at_most $((32 << 20)) && thinfs umount "$MNT" || { diag "the space does not come back"; return 1; }
	diag "99 of 100 writes usually take $usual ms; during the removal the longest took $longest ms; rm: $took ms"
	! jq -en "$took <= $rm_ms" >/dev/null || rm_kept=true
	! jq -en "$longest <= $usual + $stall_ms" >/dev/null || stall_kept=true
}

rm_kept=false stall_kept=false
if command -v fio >/dev/null; then
	for ((round = 0; round < rounds; round++)); do
		removal_under_load || break
		$rm_kept && $stall_kept && break
	done
	expect "rm returns within $rm_ms ms" $rm_kept
	expect "meanwhile no write to another volume takes $stall_ms ms longer than 99 of 100 usually do" $stall_kept
else
	skip 2 "no program 'fio'"
fi
