#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What fallocate(2) promises: a write to the range does not fail for lack of data space, whatever fills the pool or the
# filesystem below meanwhile, and until it is written the range reads as zeros.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program jq
plan $((7 + 5 + 6 + 4 + 8))

block=65536

available() {
	thinfs status --json "$MNT" | jq .data.available
}

# fill NAME: the pool, to the last block.
fill() {
	dd if=/dev/urandom of="$MNT/$1" bs=1M count=200 status=none 2>/dev/null
	thinfs sync "$MNT"
	dd if=/dev/urandom of="$MNT/$1-rest" bs=$block count=500 status=none 2>/dev/null
	thinfs sync "$MNT"
	[ "$(available)" -eq 0 ]
}

# overwrite NAME OFFSET LENGTH SIZE: in pieces of SIZE bytes, with bytes that are kept in $dir/written.
overwrite() {
	head -c "$3" /dev/urandom >"$dir/written"
	dd if="$dir/written" of="$MNT/$1" bs="$4" conv=notrunc,fsync oflag=seek_bytes seek="$2" status=none &&
		cmp "$dir/written" <(dd if="$MNT/$1" bs=64K iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none)
}

# remove_others BYTES: what filled the pool. Its space comes back in the background: wait for so much.
remove_others() {
	local tries
	rm "$MNT"/other*
	for ((tries = 0; tries < 300; tries++)); do
		thinfs sync "$MNT"
		[ "$(available)" -lt "$1" ] || return 0
		sleep 0.1
	done
	bail_out "space does not come back"
}

all_zeros() {
	[ "$(tr -d '\0' <"$1" | wc -c)" -eq 0 ]
}

dir=$(mktmp)
thinfs format --data-size 64M --metadata-size 8M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir" -o error_if_no_space

# --- the pool is filled from elsewhere ---

truncate -s 20M "$MNT/promised"
head -c 100000 /dev/urandom | dd of="$MNT/promised" bs=100000 oflag=seek_bytes seek=1000000 conv=notrunc status=none
before=$(sha256sum <"$MNT/promised")
expect "fallocate of a volume, with a hole before and after what it holds" fallocate -l 20M "$MNT/promised"
is "maps all of it" "$(du_bytes "$MNT/promised")" $((20 << 20))
is "and changes no byte" "$(sha256sum <"$MNT/promised")" "$before"
touch "$MNT/beyond"
expect "and past its end" fallocate --keep-size -o 1000 -l 5M "$MNT/beyond"
expect "the rest of the pool is filled" fill other
expect "each write there succeeds" overwrite promised 0 $((20 << 20)) 4096
expect "and those that move the end" overwrite beyond 1000 $((5 << 20)) 100000

# --- when the daemon ends, or is killed ---

remove_others $((10 << 20))
truncate -s 10M "$MNT/kept"
fallocate -l 10M "$MNT/kept"
thinfs umount "$MNT"
mount_pool "$dir" -o error_if_no_space
expect "after a remount the pool is filled" fill other
expect "each write succeeds" overwrite kept 0 $((10 << 20)) 100000
remove_others $((12 << 20))
truncate -s 12M "$MNT/killed"
fallocate -l 12M "$MNT/killed"
sync "$MNT/killed"
kill_daemon "$MNT"
umount -l "$MNT"
mount_pool "$dir" -o error_if_no_space
expect "after a kill it is filled" fill other
expect "each write succeeds" overwrite killed 0 $((12 << 20)) 100000
expect "also to what had not been synced before it" overwrite kept 0 $((10 << 20)) 4096

# --- snapshots ---

rm "$MNT"/other* "$MNT/kept" "$MNT/beyond"
thinfs sync "$MNT"
mkdir "$MNT/.snapshots/s"
expect "a snapshot is taken, and the pool filled" fill other
expect_failure "what the snapshot shares is no longer promised" "No space left" overwrite killed 0 1000000 $block
remove_others $((12 << 20))
expect "fallocate promises it again" fallocate -l 12M "$MNT/killed"
expect "the pool is filled" fill other
expect "each write succeeds" overwrite killed 0 $((12 << 20)) 100000
rmdir "$MNT/.snapshots/s"
fill more # what the snapshot had
expect "and to the other one, when the snapshot has gone" overwrite promised 0 $((20 << 20)) 100000
thinfs umount "$MNT"

# --- what was there before ---

dir=$(mktmp)
thinfs format --data-size 64M --metadata-size 8M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
for options in no_discard_passdown no_discard_passdown,skip_block_zeroing; do
	mount_pool "$dir" -o "$options"
	# Both in blocks by themselves and in long runs.
	for i in {1..40}; do
		head -c 1000000 /dev/zero | tr '\0' x >"$MNT/old$i"
	done
	thinfs sync "$MNT"
	rm "$MNT"/old*[02468]
	thinfs sync "$MNT"
	truncate -s 15M "$MNT/new"
	fallocate -l 15M "$MNT/new"
	expect "$options: in blocks that held something fallocate provides zeros" all_zeros "$MNT/new"
	rm "$MNT"/old*
	truncate -s 30M "$MNT/new2"
	thinfs sync "$MNT"
	fallocate -l 30M "$MNT/new2"
	expect "$options: and in long runs" all_zeros "$MNT/new2"
	rm "$MNT"/new*
	thinfs umount "$MNT"
done

# --- the filesystem below is filled ---

if [ "$(id -u)" -eq 0 ] && mkdir "$dir/host" && mount -t tmpfs -o size=48M tmpfs "$dir/host"; then
	on_exit sh -c "! mountpoint -q '$dir/host' || umount '$dir/host'"
	thinfs format --data-size 1G --metadata-size 2M "$dir/host/data.img" "$dir/host/meta.img" || bail_out "cannot format"
	MNT=$dir/mnt2
	mkdir "$MNT"
	on_exit _end_mount "$MNT"
	thinfs mount -o error_if_no_space "$dir/host/data.img" "$dir/host/meta.img" "$MNT" || bail_out "cannot mount"
	truncate -s 20M "$MNT/promised"
	head -c 1000 /dev/urandom | dd of="$MNT/promised" bs=1000 conv=notrunc,fsync status=none
	expect "fallocate in a sparse image" fallocate -l 20M "$MNT/promised"
	expect_failure "more than there is below is not promised" "No space left" \
		sh -c "truncate -s 500M '$MNT/much' && fallocate -l 500M '$MNT/much'"
	rm "$MNT/much"
	thinfs sync "$MNT"
	sleep 1
	: >"$MNT/tail"
	fallocate --keep-size -l 8M "$MNT/tail"
	thinfs umount "$MNT"
	thinfs mount -o error_if_no_space "$dir/host/data.img" "$dir/host/meta.img" "$MNT"
	# What is mapped behind the end is zeroed when the end passes over it.
	truncate -s 6M "$MNT/tail"
	echo end | dd of="$MNT/tail" oflag=seek_bytes seek=$((8 << 20)) conv=notrunc,fsync status=none
	cat /dev/zero >"$dir/host/ballast" 2>/dev/null
	expect "the filesystem below is filled: each write succeeds" overwrite promised 0 $((20 << 20)) 4096
	expect "and those to what was behind the end" overwrite tail 0 $((8 << 20)) 4096
	rm "$dir/host/ballast" "$MNT/promised" "$MNT/tail"
	thinfs sync "$MNT"
	sleep 1
	# Behind what is promised now there will be nothing.
	dd if=/dev/urandom of="$MNT/before" bs=1M count=16 status=none
	fallocate -l 10M "$MNT/moved" || bail_out "cannot provide for what is to be moved"
	rm "$MNT/before"
	thinfs sync "$MNT"
	sleep 1
	expect "a pool is made smaller than where its promises lie" thinfs shrink "$MNT" --data 14M
	cat /dev/zero >"$dir/host/ballast" 2>/dev/null
	expect "which still hold" overwrite moved 0 $((10 << 20)) 4096
	rm "$dir/host/ballast"
	expect "it unmounts" thinfs umount "$MNT"
	expect "the audit is clean" audit_pool "$dir/host/meta.img"
else
	skip 8 "no tmpfs of its own"
fi
