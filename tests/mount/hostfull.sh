#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Sparse images on a filesystem that becomes full, though the pool has free blocks: that is a lack of space,
# to be waited for or told, and never a reason for the pool to fail.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_root
requires_program mkfs.ext4
plan 34

sum() {
	sha256sum <"$1"
}

# host TYPE: a filesystem of 64 MiB on $dir/host, or the test goes without it.
host() {
	dir=$(mktmp)
	mkdir "$dir/host"
	case $1 in
	tmpfs) mount -t tmpfs -o size=64M tmpfs "$dir/host" ;;
	ext4)
		requires_loop
		truncate -s 72M "$dir/fs.img" && mkfs.ext4 -q -m 0 "$dir/fs.img" &&
			mount -t ext4 -o loop "$dir/fs.img" "$dir/host"
		;;
	esac || bail_out "cannot mount a $1"
	on_exit sh -c "! mountpoint -q '$dir/host' || umount '$dir/host'"
}

# The pool lies in $dir/host; its mount does not.
mount_here() {
	MNT=$dir/mnt
	mkdir -p "$MNT"
	on_exit _end_mount "$MNT"
	"$THINFS" mount "${with_transport[@]}" -o "$1" "$dir/host/data.img" "$dir/host/meta.img" "$MNT"
}

for type in tmpfs ext4; do
	host $type
	thinfs format --data-size 1G --metadata-size 2M "$dir/host/data.img" "$dir/host/meta.img" || bail_out "cannot format"
	[ "$(du_bytes "$dir/host/meta.img")" -ge $((2 << 20)) ] && ok "$type: the metadata have their space from the start" ||
		not_ok "$type: the metadata image takes $(du_bytes "$dir/host/meta.img") bytes"

	# An error.
	mount_here error_if_no_space || bail_out "cannot mount"
	head -c 20000000 /dev/urandom >"$dir/one"
	dd if="$dir/one" of="$MNT/one" bs=1M conv=fsync status=none
	mkdir "$MNT/.snapshots/first"
	expect "$type: a snapshot is durable" thinfs sync "$MNT"
	expect_failure "$type: a write that the filesystem refuses fails" "No space left on device" \
		dd if=/dev/urandom of="$MNT/two" bs=1M count=100 conv=fsync status=none
	is "$type: the pool goes on" "$(mode)" rw
	expect "$type: what has its space can be overwritten" \
		sh -c "head -c 1000000 '$dir/one' | dd of='$MNT/two' bs=64K conv=notrunc,fsync status=none"
	# Names and sizes need a block of their own: they are durable, or it is said that they are not.
	: >"$dir/names"
	cat /dev/zero >"$dir/host/ballast" 2>/dev/null # to the last byte
	for ((i = 0; i < 30; i++)); do
		cat /dev/zero >>"$dir/host/ballast" 2>/dev/null
		touch "$MNT/n$i" 2>/dev/null && sync "$MNT/n$i" 2>/dev/null && echo "n$i" >>"$dir/names"
	done
	is "$type: and still goes on" "$(mode)" rw
	touch "$MNT/last" 2>/dev/null
	rm "$dir/host/ballast"
	expect "$type: all names are durable when there is space again" \
		sh -c "touch '$MNT/last' && '$THINFS' sync '$MNT' && echo last >>'$dir/names'"
	is "$type: what was synced is there" "$(sum "$MNT/one")" "$(sum "$dir/one")"
	# As a crash would leave it.
	kill_daemon "$MNT"
	umount -l "$MNT"
	mount_here error_if_no_space || bail_out "cannot mount again"
	is "$type: also after a crash" "$(sum "$MNT/one")" "$(sum "$dir/one")"
	is "$type: and in the snapshot" "$(sum "$MNT/.snapshots/first/one")" "$(sum "$dir/one")"
	is "$type: and all names that were" "$(while read -r n; do [ -e "$MNT/$n" ] || echo "no $n"; done <"$dir/names")" ""
	rm -f "$MNT"/n* "$MNT/two" "$MNT/last"
	thinfs umount "$MNT"

	# Waiting.
	mount_here no_space_timeout=0 || bail_out "cannot mount to wait"
	fallocate -l "$(($(df --output=avail -B1 "$dir/host" | tail -n 1) - 8000000))" "$dir/host/ballast"
	dd if="$dir/one" of="$MNT/three" bs=1M conv=fsync status=none &
	writer=$!
	sleep 3
	expect "$type: a writer waits" kill -0 $writer
	is "$type: the pool is in write mode" "$(mode)" rw
	rm "$dir/host/ballast"
	wait $writer
	is "$type: and goes on when there is space again" $? 0
	is "$type: all is there" "$(sum "$MNT/three")" "$(sum "$dir/one")"
	expect "$type: unmounts" thinfs umount "$MNT"
	expect "$type: the audit is clean" audit_pool "$dir/host/meta.img"
	umount "$dir/host"
done
