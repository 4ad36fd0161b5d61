#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sizes: a volume much larger than its pool, ten thousand volumes, a thousand snapshots, two million
# mappings; and that time and memory stay within what was promised.
TEST_TIMEOUT=600
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 thin_check thin_restore
plan $((7 + 8 + 8 + 11))

# Sanitizers take time and memory of their own.
sanitized=
! grep -q __asan_init "$THINFS" || sanitized="built with sanitizers"

# Of the daemon of a mount, in KiB: the most memory it has had.
memory_peak() {
	sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$(thinfs status "$1" | sed -n 's/^served by *process //p')/status"
}

# milliseconds COMMAND...: its time goes to MS; fails if it does. A command of the shell itself does not
# add a fork.
milliseconds() {
	local begin=${EPOCHREALTIME/./}
	"$@" || return 1
	MS=$(((${EPOCHREALTIME/./} - begin) / 1000))
}

# within CLAIM VALUE LIMIT UNIT
within() {
	if [ -n "$sanitized" ]; then
		skip 1 "$1 ($2 $4): $sanitized"
	elif [ "$2" -le "$3" ]; then
		ok "$1: $2 $4, at most $3"
	else
		not_ok "$1: $2 $4, more than $3"
	fi
}

# --- 16 TiB in 1 GiB ---

dir=$(mktmp)
thinfs format --data-size 1G "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir"
expect "a volume of 16 TiB" truncate -s 16T "$MNT/huge"
head -c 100000 /dev/urandom >"$dir/random"
expect "writing at its end" dd if="$dir/random" of="$MNT/huge" bs=100000 oflag=seek_bytes seek=$(((16 << 40) - 100000)) \
	conv=notrunc,fsync status=none
is "its size stays" "$(stat -c %s "$MNT/huge")" $((16 << 40))
is "it reads back" "$(tail -c 100000 "$MNT/huge" | sha256sum)" "$(sha256sum <"$dir/random")"
if [ "$(id -u)" -eq 0 ] && command -v mkfs.xfs >/dev/null && dev=$(attach_loop "$MNT/huge" --direct-io=on 2>/dev/null); then
	expect "XFS in it" mkfs.xfs -q -f "$dev"
	within "XFS takes" $(($(du_bytes "$MNT/huge") >> 20)) 512 MiB
	detach_loop "$dev" "$MNT/huge"
else
	skip 2 "no loop devices, or no mkfs.xfs"
fi
thinfs umount "$MNT"
expect "16 TiB: the audit is clean" audit_pool "$dir/meta.img"
rm -rf "$dir"

# --- 10,000 volumes ---

dir=$(mktmp)
thinfs format --data-size 1G --metadata-size 256M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir"
create_volumes() {
	python3 -c 'import os, sys
for n in range(10000):
    fd = os.open(f"{sys.argv[1]}/volume-{n}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    os.ftruncate(fd, 1 << 20)
    os.close(fd)' "$MNT"
}
milliseconds create_volumes && ok "10,000 volumes: created in $MS ms" || not_ok "10,000 volumes: created"
milliseconds thinfs sync "$MNT"
diag "sync takes $MS ms"
names=$(milliseconds ls "$MNT" && echo "$MS ms" >"$dir/time")
is "10,000 volumes: readdir shows all" "$(wc -l <<<"$names")" 10000
diag "ls takes $(cat "$dir/time")"
count=$(thinfs list --json "$MNT" | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["devices"]))')
is "10,000 volumes: list shows all" "$count" 10000
milliseconds mkdir "$MNT/.snapshots/all" && ok "10,000 volumes: a snapshot of all, $MS ms" || not_ok "10,000 volumes: a snapshot of all"
is "10,000 volumes: all are in it" "$(ls "$MNT/.snapshots/all" | wc -l)" 10000
milliseconds thinfs umount "$MNT"
diag "umount takes $MS ms"
milliseconds thinfs mount "$dir/data.img" "$dir/meta.img" "$MNT"
diag "mounting 20,000 devices takes $MS ms"
is "10,000 volumes: all are there after a new mount" "$(find "$MNT" -maxdepth 1 -type f -size 1048576c | wc -l)" 10000
expect "10,000 volumes: removing the snapshot" rmdir "$MNT/.snapshots/all"
thinfs umount "$MNT"
expect "10,000 volumes: the audit is clean" audit_pool "$dir/meta.img"
rm -rf "$dir"

# --- 1,000 snapshots ---

dir=$(mktmp)
thinfs format --data-size 2G --metadata-size 128M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir"
truncate -s 64M "$MNT/v"
dd if="$dir/data.img" of="$MNT/v" bs=1M count=64 conv=notrunc status=none
take_snapshots() {
	python3 -c 'import os, sys
fd = os.open(f"{sys.argv[1]}/v", os.O_RDWR)
for n in range(1000):
    os.pwrite(fd, b"%-4096d" % n, n % 997 * 65536 + 4096)
    os.mkdir(f"{sys.argv[1]}/.snapshots/v@{n}")' "$MNT"
}
milliseconds take_snapshots && ok "1,000 snapshots, with a write before each: $MS ms" || not_ok "1,000 snapshots"
is "1,000 snapshots: all are there" "$(ls "$MNT/.snapshots" | wc -l)" 1000
old_and_new() {
	for n in 0 1 500 998 999; do
		[ "$(tail -c +$((n % 997 * 65536 + 4097)) "$MNT/.snapshots/v@$n/v" | head -c 10 | tr -d ' ')" = $n ] || return 1
	done
	# 998 wrote over 1
	[ "$(tail -c +69633 "$MNT/.snapshots/v@999/v" | head -c 10 | tr -d ' \0')" != 1 ]
}
expect "1,000 snapshots: each has its own" old_and_new
expect "1,000 snapshots: unmounts" thinfs umount "$MNT"
milliseconds thinfs mount "$dir/data.img" "$dir/meta.img" "$MNT"
is "1,000 snapshots: mounts again" $? 0
diag "in $MS ms"
remove_half() {
	local n
	for ((n = 0; n < 1000; n += 2)); do
		rmdir "$MNT/.snapshots/v@$n" || return 1
	done
}
milliseconds remove_half && ok "1,000 snapshots: removing 500, $MS ms" || not_ok "1,000 snapshots: removing 500"
expect "1,000 snapshots: unmounts again" thinfs umount "$MNT"
expect "1,000 snapshots: the audit is clean" audit_pool "$dir/meta.img"
rm -rf "$dir"

# --- 2 million mappings ---

dir=$(mktmp)
cache=8
# Made by thin_restore, which writes no data: the image stays sparse. Its size is that of whole bitmaps, as thin_restore needs.
truncate -s $((2154240 * 65536)) "$dir/data.img"
truncate -s 256M "$dir/meta.img"
cat >"$dir/pool.xml" <<'END'
<superblock uuid="" time="0" transaction="1" version="2" data_block_size="128" nr_data_blocks="2154240">
<device dev_id="1" mapped_blocks="2097152" transaction="0" creation_time="0" snap_time="0">
<range_mapping origin_begin="0" data_begin="0" length="2097152" time="0"/>
</device></superblock>
END
expect "2 million mappings: can be made" thin_restore -q -i "$dir/pool.xml" -o "$dir/meta.img"
mount_pool "$dir" -o metadata_cache=${cache}M,skip_block_zeroing
mv "$MNT/thin-1" "$MNT/v"
is "2 million mappings: they are there" "$(du_bytes "$MNT/v")" $((128 << 30))
expect "2 million mappings: unmounts" thinfs umount "$MNT"
best=999999
for n in 1 2 3; do
	milliseconds thinfs mount -o metadata_cache=${cache}M,skip_block_zeroing "$dir/data.img" "$dir/meta.img" "$MNT"
	[ "$MS" -ge "$best" ] || best=$MS
	[ $n = 3 ] || thinfs umount "$MNT"
done
within "2 million mappings: mounts in" "$best" 200 ms
take_timed() {
	python3 -c 'import os, sys, time
best = 9e9
for n in range(5):
    begin = time.monotonic()
    os.mkdir(f"{sys.argv[1]}/.snapshots/s{n}")
    best = min(best, time.monotonic() - begin)
    fd = os.open(sys.argv[1], os.O_RDONLY)
    begin = time.monotonic()
    os.fsync(fd)
    commit = time.monotonic() - begin
    os.close(fd)
print(int(best * 1000), int(commit * 1000))' "$MNT"
}
read -r snapshot commit <<<"$(take_timed)"
within "2 million mappings: a snapshot takes" "${snapshot:-999}" 20 ms
diag "the commit after it takes ${commit:-?} ms"
touch_everywhere() {
	python3 -c 'import os, random, sys
fd = os.open(f"{sys.argv[1]}/v", os.O_RDWR)
rng = random.Random(1)
for n in range(20000):
    os.pread(fd, 4096, rng.randrange(128 << 18) * 4096)
for n in range(3000):
    os.pwrite(fd, bytes(4096), rng.randrange(128 << 18) * 4096)' "$MNT"
}
milliseconds touch_everywhere && ok "2 million mappings: 20,000 reads and 3,000 writes all over, $MS ms" ||
	not_ok "2 million mappings: reads and writes all over"
expect "2 million mappings: list" thinfs list "$MNT"
within "2 million mappings: the daemon takes" $(($(memory_peak "$MNT") / 1024)) $((cache + 64)) MiB
milliseconds rm "$MNT/v" && within "2 million mappings: removing returns in" "$MS" 200 ms
expect "2 million mappings: unmounts again" thinfs umount "$MNT"
expect "2 million mappings: thin_check is content" thin_check -q "$dir/meta.img"
rm -rf "$dir"
