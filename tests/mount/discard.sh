#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Discards to the end: a data image on a block device, where they go down to it, or not, as options and the device say;
# and how long they take in a volume of a tebibyte, with few mappings and with a hundred thousand all over it.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_loop
requires_program jq python3 fstrim blkdiscard mkfs.ext4 thin_restore
plan $((7 + 5 + 7 + 8))

# What was measured is far below; other tests, and sanitizers, take time too.
few_ms=1000 stall_ms=300
! grep -q __asan_init "$THINFS" || few_ms=5000 stall_ms=2000

dir=$(mktmp)

# The file under the data image takes at most that many bytes of its disk.
disk_within() {
	[ "$(du_bytes "$dir/disk")" -le "$1" ]
}

# put NAME MIB: random bytes.
put() {
	head -c "$2M" /dev/urandom | dd of="$MNT/$1" bs=1M conv=notrunc,fsync iflag=fullblock status=none
}

new_pool() {
	rm -f "$dir/meta.img"
	blkdiscard "$data"
	thinfs format --force --metadata-size 8M "$data" "$dir/meta.img" || bail_out "cannot format"
}

mount_on_device() {
	MNT=$dir/mnt
	mkdir -p "$MNT"
	on_exit _end_mount "$MNT"
	audit_at_exit "$dir/meta.img"
	thinfs mount "$@" "$data" "$dir/meta.img" "$MNT" || bail_out "cannot mount"
}

unmount_audited() {
	thinfs umount "$MNT" && audit_pool "$dir/meta.img"
}

truncate -s 400M "$dir/disk"
data=$(attach_loop "$dir/disk") || bail_out "no loop device"
stat=/sys/block/${data##*/}/stat
[ "$(cat "/sys/block/${data##*/}/queue/discard_max_bytes")" -gt 0 ] || bail_out "loop devices do not discard here"

# How many discards the disk has had.
discards() {
	awk '{ print $12 }' "$stat"
}

# --- down to the disk ---

new_pool
mount_on_device
truncate -s 300M "$MNT/v"
put v 100
before=$(discards)
rm "$MNT/v"
expect "rm of a volume: the disk gets its space back" eventually disk_within 262144
n=$(($(discards) - before))
# At most 32 MiB each, and less where the disk is slow.
[ $n -le 100 ] && ok "in few and large pieces: $n for 1600 blocks" || not_ok "in few and large pieces: $n for 1600 blocks"

truncate -s 300M "$MNT/v"
dev=$(attach_loop "$MNT/v" --direct-io=on)
mkdir "$dir/fs"
mkfs.ext4 -q -J size=4 "$dev"
on_exit sh -c "! mountpoint -q '$dir/fs' || umount '$dir/fs'"
mount -o minixdf "$dev" "$dir/fs" || bail_out "cannot mount ext4"
head -c 30M /dev/urandom >"$dir/fs/stays"
kept=$(sha256sum <"$dir/fs/stays")
trim() {
	local round
	for round in 1 2 3; do
		head -c 100M /dev/urandom >"$dir/fs/goes" && sync -f "$dir/fs" &&
			rm "$dir/fs/goes" && sync -f "$dir/fs" && fstrim "$dir/fs" || return 1
		eventually disk_within $(($(fs_used "$dir/fs") * 102 / 100 + 262144)) && continue
		echo "round $round: the disk takes $(du_bytes "$dir/disk"), the filesystem uses $(fs_used "$dir/fs")"
		return 1
	done
}
expect "filled, deleted, trimmed: the disk has what the filesystem uses" trim
is "what stays is as it was" "$(sha256sum <"$dir/fs/stays")" "$kept"
umount "$dir/fs"
expect "blkdiscard of the volume" blkdiscard "$dev"
expect "gives all of it back" eventually disk_within 262144
detach_loop "$dev" "$MNT/v"
expect "the audit is clean" unmount_audited

# --- a disk that does not discard: a loop device on a file that refuses holes ---

below=$(mktmp)
thinfs format --data-size 200M --metadata-size 4M "$below/data.img" "$below/meta.img" || bail_out "cannot format"
mount_pool "$below" -o ignore_discard
truncate -s 120M "$MNT/disk"
with_discard=$data
data=$(attach_loop "$MNT/disk" --direct-io=on)
new_pool
mount_on_device
truncate -s 300M "$MNT/v"
for round in 1 2; do
	expect "a disk without discard, round $round: a volume is written" put v 100
	expect "a hole is made, and what was in it can be used again" fallocate -p -o 0 -l 100M "$MNT/v"
done
expect "the audit is clean" unmount_audited
detach_loop "$data" "$below/mnt/disk"
thinfs umount "$below/mnt"
data=$with_discard

# --- the options ---

new_pool
mount_on_device -o no_discard_passdown
truncate -s 100M "$MNT/v"
put v 50
dev=$(attach_loop "$MNT/v" --direct-io=on)
before=$(discards)
blkdiscard -o 0 -l 40M "$dev"
detach_loop "$dev" "$MNT/v"
is "no_discard_passdown: blocks are unmapped" "$(du_bytes "$MNT/v")" $((10 << 20))
rm "$MNT/v"
thinfs sync "$MNT"
sleep 0.5
is "the disk hears nothing of it" "$(($(discards) - before)) $(($(du_bytes "$dir/disk") >= 50 << 20))" "0 1"
expect "the audit is clean" unmount_audited

mount_on_device -o ignore_discard
truncate -s 100M "$MNT/v"
put v 50
sum=$(sha256sum <"$MNT/v")
expect_failure "ignore_discard: a hole is refused" "not supported|unsupported" fallocate -p -o 0 -l 10M "$MNT/v"
dev=$(attach_loop "$MNT/v" --direct-io=on)
# The kernel takes that for no error, or tells; in any case nothing has changed.
blkdiscard -o 0 -l 10M "$dev" 2>/dev/null
is "nothing is unmapped, and all reads as before" "$(du_bytes "$MNT/v") $(sha256sum <"$MNT/v")" "$((50 << 20)) $sum"
blkdiscard -z -o 0 -l 10M "$dev"
fallocate -z -o 10M -l 1M "$MNT/v"
fallocate -z -o 60M -l 1M "$MNT/v"
detach_loop "$dev" "$MNT/v"
is "zeros are zeros, in the same blocks" \
	"$(du_bytes "$MNT/v") $(head -c 11M "$MNT/v" | tr -d '\0' | wc -c)" "$((50 << 20)) 0"
expect "the audit is clean" unmount_audited

# --- large volumes ---

# 131072 single blocks, all over a tebibyte and all over the data image; its size is that of whole bitmaps, which
# thin_restore needs to be right.
big=$(mktmp)
python3 - >"$big/pool.xml" <<'END2'
n = 131072
print('<superblock uuid="" time="0" transaction="1" version="2" data_block_size="128" nr_data_blocks="2154240">')
print('<device dev_id="1" mapped_blocks="%d" transaction="0" creation_time="0" snap_time="0">' % n)
for i in range(n):
    print('<single_mapping origin_block="%d" data_block="%d" time="0"/>' % (128 * i, i * 40503 % n * 16))
print('</device></superblock>')
END2
truncate -s $((2154240 * 65536)) "$big/data.img" && truncate -s 64M "$big/meta.img" &&
	thin_restore -q -i "$big/pool.xml" -o "$big/meta.img" || bail_out "cannot make a pool"
mount_pool "$big"
mv "$MNT/thin-1" "$MNT/scattered"
truncate -s 1T "$MNT/scattered" "$MNT/few"
truncate -s 16M "$MNT/other"
fallocate -l 16M "$MNT/other"
for i in {1..10}; do
	echo "$i" | dd of="$MNT/few" oflag=seek_bytes seek=$((i * 100000000000)) conv=notrunc status=none
done
thinfs sync "$MNT"

# within MS CLAIM COMMAND...
within() {
	local limit=$1 claim=$2 begin ms
	shift 2
	begin=${EPOCHREALTIME/./}
	"$@" || not_ok "$claim: $* failed"
	ms=$(((${EPOCHREALTIME/./} - begin) / 1000))
	[ $ms -le "$limit" ] && ok "$claim: $ms ms" || not_ok "$claim: $ms ms, more than $limit"
}

thinfs clone "$MNT/few" "$MNT/few2"
within $few_ms "a hole of 1 TiB over ten mappings" fallocate -p -o 0 -l 1T "$MNT/few"
within $few_ms "over none" fallocate -p -o 0 -l 1T "$MNT/few"
dev=$(attach_loop "$MNT/few2" --direct-io=on)
within $few_ms "blkdiscard of 1 TiB, with ten mappings" blkdiscard "$dev"
detach_loop "$dev" "$MNT/few2"
is "nothing is mapped any more" "$(du_bytes "$MNT/few") $(du_bytes "$MNT/few2")" "0 0"

# The longest of writes of 4 KiB to FILE, in ms, while COMMAND runs, and how long that took.
cat >"$dir/writes.py" <<'END2'
import mmap, os, random, subprocess, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
piece = mmap.mmap(-1, 4096)
longest, begun = 0, time.perf_counter()
command = subprocess.Popen(sys.argv[2:])
while command.poll() is None:
    begin = time.perf_counter()
    os.pwritev(fd, [piece], random.randrange(4096) * 4096)
    longest = max(longest, time.perf_counter() - begin)
if command.returncode:
    sys.exit(1)
print(int(longest * 1000), int((time.perf_counter() - begun) * 1000))
END2
read -r stall ms < <(python3 -B "$dir/writes.py" "$MNT/other" fallocate -p -o 0 -l 1T "$MNT/scattered")
[ "${stall:-9999}" -le $stall_ms ] &&
	ok "while 131072 scattered mappings go in $ms ms, no write to another volume takes longer than $stall ms" ||
	not_ok "while 131072 scattered mappings go, a write to another volume takes ${stall:-?} ms, more than $stall_ms"
is "nothing is mapped any more" "$(du_bytes "$MNT/scattered")" 0
only_the_rest() {
	[ "$(status .data.used)" -le $((20 << 20)) ]
}
expect "the space is back" eventually only_the_rest
expect "it unmounts, and the audit is clean" sh -c "'$THINFS' umount '$MNT' && '$THINFS' check '$big/meta.img'"
