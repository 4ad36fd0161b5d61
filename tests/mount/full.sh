#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Pools that fill up: writers that wait, for a larger image or for something to be removed, or that get an error;
# what stays possible meanwhile, and that nothing is lost that was synced.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_loop
requires_program mkfs.ext4 e2fsck
grep -qw ext4 /proc/filesystems || modprobe -q ext4 2>/dev/null || skip_all "the kernel has no ext4"
plan 55

# wait_for_mode MODE: for a while, until the pool is in it.
wait_for_mode() {
	local tries
	for ((tries = 0; tries < 200; tries++)); do
		[ "$(mode)" != "$1" ] || return 0
		sleep 0.1
	done
	echo "the mode is $(mode)"
	return 1
}

# make_pool DATA_SIZE METADATA_SIZE MOUNT_OPTIONS: in a new directory $dir.
make_pool() {
	dir=$(mktmp)
	thinfs format --data-size "$1" --metadata-size "$2" "$dir/data.img" "$dir/meta.img" &&
		mount_pool "$dir" -o "$3" || bail_out "no pool"
}

# make_fs LOSETUP_OPTION: ext4 on a volume larger than the pool, mounted on $dir/fs.
make_fs() {
	thinfs create --size 300M "$MNT/vol"
	dev=$(attach_loop "$MNT/vol" "$1") || bail_out "cannot attach"
	mkfs.ext4 -q -E nodiscard "$dev" || bail_out "mkfs"
	mkdir -p "$dir/fs"
	mount_fs
}

mount_fs() {
	mount -t ext4 "$dev" "$dir/fs" && on_exit sh -c "! mountpoint -q '$dir/fs' || umount '$dir/fs'"
}

# In place, where a volume is mapped: this must work whatever the mode.
overwrite() {
	dd if=/dev/urandom of="$MNT/mapped" bs=64K count=4 conv=notrunc,fsync status=none
}

make_mapped() {
	dd if=/dev/urandom of="$MNT/mapped" bs=64K count=4 conv=fsync status=none
}

sum() {
	sha256sum <"$1"
}

end_pool() {
	expect "$name: unmounts" thinfs umount "$MNT"
	expect "$name: the audit is clean" audit_pool "$dir/meta.img"
	rm -rf "$dir"
}

# --- waiting, and a larger image ------------------------------------------------------------------

head -c 70000000 /dev/urandom >"$THINFS_TEST_STATE/source"
for dio in on off; do
	name="waiting, direct-io=$dio"
	make_pool 64M 4M no_space_timeout=0
	make_mapped
	make_fs --direct-io=$dio
	dd if="$THINFS_TEST_STATE/source" of="$dir/fs/file" bs=1M conv=fsync status=none &
	writer=$!
	expect "$name: the pool is out of data space" wait_for_mode out_of_data_space
	sleep 1
	expect "$name: the writer waits" kill -0 $writer
	expect "$name: what is mapped can be overwritten" overwrite
	truncate -s 256M "$dir/data.img"
	wait $writer
	is "$name: when the image has grown it goes on, without an error" $? 0
	is "$name: in write mode" "$(mode)" rw
	umount "$dir/fs"
	expect "$name: fsck" e2fsck -f -n "$dev"
	mount_fs
	is "$name: all is there" "$(sum "$dir/fs/file")" "$(sum "$THINFS_TEST_STATE/source")"
	umount "$dir/fs"
	detach_loop "$dev" "$MNT/vol"
	end_pool
done

# --- waiting, and something is removed --------------------------------------------------------------

name="waiting for a removal"
make_pool 64M 4M no_space_timeout=0
dd if=/dev/urandom of="$MNT/ballast" bs=1M count=30 conv=fsync status=none
thinfs snapshot "$MNT" keeps >/dev/null
rm "$MNT/ballast"
head -c 50000000 "$THINFS_TEST_STATE/source" >"$dir/source"
dd if="$dir/source" of="$MNT/vol" bs=1M conv=fsync status=none &
writer=$!
expect "$name: the pool is out of data space" wait_for_mode out_of_data_space
expect "$name: the writer waits" kill -0 $writer
expect "$name: a snapshot is removed" rmdir "$MNT/.snapshots/keeps"
wait $writer
is "$name: then it goes on" $? 0
is "$name: all is there" "$(sum "$MNT/vol")" "$(sum "$dir/source")"
end_pool

# --- an error ---------------------------------------------------------------------------------------

name="error_if_no_space"
make_pool 64M 4M error_if_no_space
make_mapped
make_fs --direct-io=on
mkdir "$dir/fs/synced" "$dir/sums"
status=0
for ((i = 0; i < 200; i++)); do
	head -c 1000000 /dev/urandom >"$dir/one"
	dd if="$dir/one" of="$dir/fs/synced/$i" bs=64K conv=fsync status=none 2>"$dir/error" || {
		status=1
		break
	}
	# Its name, too.
	sync "$dir/fs/synced" 2>/dev/null || break
	(cd "$dir" && sha256sum <one >"sums/$i")
done
[ $status -eq 1 ] && [ "$(ls "$dir/sums" | wc -l)" -gt 20 ] && ok "$name: a file that does not fit fails" ||
	not_ok "$name: $(ls "$dir/sums" | wc -l) files, status $status: $(cat "$dir/error")"
is "$name: the pool is out of data space" "$(mode)" out_of_data_space
expect_failure "$name: a new block is refused" "No space left on device" \
	dd if=/dev/zero of="$MNT/mapped" bs=64K seek=100 count=1 conv=notrunc status=none
expect "$name: what is mapped can be overwritten, and synced" overwrite
umount "$dir/fs" 2>"$dir/error"
# Not what the loop device or the filesystem still has in memory.
detach_loop "$dev" "$MNT/vol"
truncate -s 256M "$dir/data.img"
expect "$name: a larger image ends it" wait_for_mode rw
dev=$(attach_loop "$MNT/vol" --direct-io=on) || bail_out "cannot attach"
e2fsck -f -y "$dev" >"$dir/fsck" 2>&1
[ $? -le 1 ] && ok "$name: fsck mends the filesystem" || not_ok "$name: $(cat "$dir/fsck")"
expect "$name: it mounts" mount_fs
bad=0
for i in "$dir"/sums/*; do
	[ "$(sum "$dir/fs/synced/${i##*/}")" = "$(cat "$i")" ] || bad=$((bad + 1))
done
is "$name: every file that was synced is whole" $bad 0
umount "$dir/fs"
detach_loop "$dev" "$MNT/vol"
end_pool

# --- a timeout --------------------------------------------------------------------------------------

name="no_space_timeout"
fill_up() {
	dd if="$THINFS_TEST_STATE/source" of="$MNT/vol" bs=1M oflag=direct status=none
}
policy() {
	thinfs status "$MNT" | grep -o '[a-z]*_if_no_space'
}
make_pool 32M 4M no_space_timeout=2
make_mapped
dd if=/dev/zero of="$MNT/ballast" bs=1M count=10 conv=fsync status=none
SECONDS=0
expect_failure "$name: a writer that has waited gets an error" "No space left on device" fill_up
[ $SECONDS -ge 2 ] && ok "$name: after that time" || not_ok "$name: after $SECONDS s"
is "$name: the policy is that of errors now" "$(policy)" error_if_no_space
before=$(date +%s%N)
expect_failure "$name: the next gets it at once" "No space left on device" \
	dd if=/dev/zero of="$MNT/mapped" bs=64K seek=100 count=1 conv=notrunc oflag=direct status=none
[ $((($(date +%s%N) - before) / 1000000)) -lt 1900 ] && ok "$name: without waiting" ||
	not_ok "$name: after $((($(date +%s%N) - before) / 1000000)) ms"
expect "$name: what is mapped can be overwritten" overwrite
rm "$MNT/ballast"
expect "$name: removing a volume ends it" wait_for_mode rw
is "$name: and the policy is the old one" "$(policy)" queue_if_no_space
end_pool

# --- metadata ---------------------------------------------------------------------------------------

name="metadata"
make_pool 64M 512K no_space_timeout=0
make_mapped
thinfs create --size 10G "$MNT/wide"
# A block here and there of a volume in snapshots copies nodes each time.
scatter() {
	local i
	for ((i = 0; i < 3000 && ! $(cat "$dir/enough"); i++)); do
		((i % 30)) || mkdir "$MNT/.snapshots/s$i" 2>/dev/null
		dd if=/dev/zero of="$MNT/wide" bs=64K count=1 seek=$((i * 7919 % 160000)) conv=notrunc status=none || return 1
	done
}
echo 0 >"$dir/enough"
scatter &
writer=$!
expect "$name: the pool is out of metadata space" wait_for_mode out_of_metadata_space
expect "$name: the writer waits" kill -0 $writer
expect_failure "$name: no new volume" "No space left on device" touch "$MNT/new"
expect "$name: what is mapped can be overwritten" overwrite
expect "$name: a volume can be discarded from" sh -c "fallocate -p -o 0 -l 128K '$MNT/mapped' && sync '$MNT/mapped'"
echo 1 >"$dir/enough"
truncate -s 4M "$dir/meta.img"
wait $writer
is "$name: the writer goes on when the image has grown" $? 0
expect "$name: in write mode" wait_for_mode rw
expect "$name: everything can be removed" sh -c "rmdir '$MNT'/.snapshots/* && rm '$MNT'/*"
end_pool
