#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Images that grow while the pool is in use: by hand, under load, and by themselves ahead of those who write.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3
plan 33

# total DIR KEY: bytes that the pool on DIR has of that kind
total() {
	thinfs status --json "$1" | python3 -c "import json,sys; print(json.load(sys.stdin)['$2']['total'])"
}

df_total() {
	echo $(($(stat -f -c '%b * %S' "$1")))
}

# --- by hand, under load
pool=$(mktmp)
thinfs format --data-size 16M --metadata-size 2M "$pool/data.img" "$pool/meta.img"
mount_pool "$pool"
truncate -s 1G "$MNT/v"
# Writers that find the pool full wait for the space that comes.
dd if=/dev/urandom of="$pool/random" bs=1M count=40 status=none
dd if="$pool/random" of="$MNT/v" bs=256K conv=notrunc status=none &
writer=$!
sleep 0.3
expect "an image is made larger while it is written" thinfs resize "$MNT" --data 64M --metadata 8M
wait $writer
is "who waited for space goes on" $? 0
is "status tells the new size at once" "$(total "$MNT" data) $(total "$MNT" metadata)" "67108864 8388608"
is "so does df" "$(df_total "$MNT")" 67108864
is "and so do the images" "$(stat -c %s "$pool/data.img" "$pool/meta.img" | tr '\n' ' ')" "67108864 8388608 "
expect "what was written meanwhile is there" cmp -n 41943040 "$pool/random" "$MNT/v"
expect_failure "a smaller size is refused, and the command for it named" "thinfs shrink --data SIZE" \
	thinfs resize "$MNT" --data 32M
expect_failure "the metadata image does not shrink" "never" thinfs resize "$MNT" --metadata 4M
expect_failure "nor is more than a pool can have" "16320" thinfs resize "$MNT" --metadata 16G
truncate -s 80M "$pool/data.img"
expect "what was added from outside is taken in" thinfs resize "$MNT"
is "all of it" "$(total "$MNT" data)" 83886080
umount_pool
mount_pool "$pool"
is "it is all there after a remount" "$(total "$MNT" data) $(total "$MNT" metadata)" "83886080 8388608"
umount_pool

# --- by itself
pool=$(mktmp)
thinfs format --data-size 8M --metadata-size 1M "$pool/data.img" "$pool/meta.img"
mount_pool "$pool" -o grow=50%,max=100M,error_if_no_space
truncate -s 1G "$MNT/v"
expect "an image grows ahead of one that writes far more than it had" \
	dd if=/dev/urandom of="$MNT/v" bs=1M count=80 conv=notrunc,fsync status=none
expect_failure "but not beyond its limit, where writes fail as chosen" "No space" \
	dd if=/dev/zero of="$MNT/v" bs=1M count=30 seek=80 conv=notrunc status=none
is "the limit has been reached" "$(total "$MNT" data)" $((100 << 20))
umount_pool
expect_failure "a limit of nothing is refused" "grow=" \
	thinfs mount -o max=1G "$pool/data.img" "$pool/meta.img" "$pool/mnt"
expect_failure "so is growing by nothing" "grow=" \
	thinfs mount -o grow=0% "$pool/data.img" "$pool/meta.img" "$pool/mnt"

# --- a filesystem that is filled far beyond what the pool began with
loop_tests() {
	local dev disk fs before data file
	pool=$(mktmp)
	thinfs format --data-size 16M --metadata-size 1M "$pool/data.img" "$pool/meta.img"
	mount_pool "$pool" -o grow=16M
	truncate -s 256M "$MNT/disk"
	disk=$(attach_loop "$MNT/disk" --direct-io=on) || bail_out "losetup failed"
	before=$(dmesg 2>/dev/null | grep -c "I/O error.*${disk##*/}")
	fs=$pool/fs
	mkdir "$fs"
	on_exit umount -q "$fs"
	mkfs.ext4 -q "$disk" && mount "$disk" "$fs" || bail_out "no ext4"
	expect "a filesystem that fills a pool which grows sees no error" \
		dd if=/dev/urandom of="$fs/file" bs=1M count=120 conv=fsync status=none
	# Not more than before: messages of others push old ones out.
	expect "nor does the kernel" test "$(dmesg 2>/dev/null | grep -c "I/O error.*${disk##*/}")" -le "$before"
	if [ "$(total "$MNT" data)" -ge $((120 << 20)) ] && [ "$(total "$MNT" data)" -le $((180 << 20)) ]; then
		ok "the pool has grown as far as needed"
	else
		not_ok "the pool has $(total "$MNT" data) bytes"
	fi
	sum=$(sha256sum <"$fs/file")

	# --- a volume that becomes larger under a loop device
	truncate -s 400M "$MNT/disk"
	losetup -c "$disk"
	is "a loop device sees what a volume has been given" "$(blockdev --getsize64 "$disk")" $((400 << 20))
	umount "$fs"
	e2fsck -fp "$disk" >/dev/null
	expect "and its filesystem can use it" resize2fs "$disk"
	expect "it is sound" e2fsck -fn "$disk"
	mount "$disk" "$fs"
	is "and has what was written" "$(sha256sum <"$fs/file")" "$sum"
	umount "$fs"
	detach_loop "$disk" "$MNT/disk"
	umount_pool

	# --- images on devices
	pool=$(mktmp)
	truncate -s 32M "$pool/data"
	truncate -s 4M "$pool/meta.img"
	data=$(attach_loop "$pool/data")
	mkdir "$pool/mnt"
	on_exit umount -q "$pool/mnt"
	audit_at_exit "$pool/meta.img"
	MNT=$pool/mnt
	thinfs mount -o grow=10% "$data" "$pool/meta.img" "$MNT" || bail_out "cannot mount"
	dd if=/dev/urandom of="$MNT/v" bs=1M count=20 status=none
	expect_failure "a device does not become larger by us" "make the device larger first" \
		thinfs resize "$MNT" --data 64M
	truncate -s 64M "$pool/data"
	losetup -c "$data"
	thinfs resize "$MNT"
	is "but once it is, that is taken in" "$(total "$MNT" data)" $((64 << 20))
	thinfs shrink "$MNT" --data 24M
	is "a pool on a device becomes smaller" "$(total "$MNT" data)" $((24 << 20))
	umount_pool

	# --- growing when the filesystem of the images is full
	pool=$(mktmp)
	on_exit umount -q "$pool"
	mount -t tmpfs -o size=40M none "$pool" || bail_out "no tmpfs"
	thinfs format --data-size 8M --metadata-size 1M "$pool/data.img" "$pool/meta.img"
	mount_pool "$pool" -o grow=100%,error_if_no_space
	expect_failure "metadata that there is no space for below are refused" "filesystem of the image" \
		thinfs resize "$MNT" --metadata 100M
	expect_failure "and a size that would take more metadata" "too little metadata" thinfs resize "$MNT" --data 100T
	is "the images are as they were" "$(stat -c %s "$pool/data.img" "$pool/meta.img")" \
		"$((8 << 20))"$'\n'"$((1 << 20))"
	thinfs create --size 8M "$MNT/first"
	dd if=/dev/urandom of="$MNT/first" bs=1M count=8 conv=notrunc,fsync status=none
	sum=$(sha256sum <"$MNT/first")
	expect_failure "where the filesystem below is full, growing does not help, and writes fail as without" \
		"No space" dd if=/dev/zero of="$MNT/second" bs=1M count=60 conv=fsync status=none
	is "what was there is there" "$(sha256sum <"$MNT/first")" "$sum"
	rm "$MNT/second"
	for ((i = 0; i < 50; i++)); do
		dd if=/dev/zero of="$MNT/third" bs=1M count=8 conv=fsync status=none 2>/dev/null && break
		sleep 0.1
	done
	is "and when there is space again, it can be used" "$(stat -c %s "$MNT/third")" $((8 << 20))
	umount_pool
	audit_pool "$pool/meta.img" || not_ok "the pool is sound"
	umount "$pool"
}

missing=
for program in losetup mkfs.ext4 resize2fs e2fsck; do
	command -v $program >/dev/null || missing=$program
done
if [ "$(id -u)" -ne 0 ]; then
	skip 16 "loop devices need root"
elif [ "$missing" ]; then
	skip 16 "no program '$missing'"
elif ! losetup -f >/dev/null 2>&1; then
	skip 16 "no loop devices"
else
	loop_tests
fi
