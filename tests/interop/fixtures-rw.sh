#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Pools that the kernel made, mounted read-write: every device reads as the kernel reads it, and further
# writes, discards, snapshots and deletes do what they should and leave a clean pool.
. "${srcdir:-.}/tests/lib.sh" || exit 99
. "$top_srcdir/tests/interop/fixtures.inc" || exit 99
requires_fuse
requires_program python3 xz thin_dump
seed=${THINFS_TEST_SEED:-$RANDOM}
diag "seed $seed"

plain=()
for case in "${FIXTURES[@]}"; do
	case $case in
	# Those that cannot just be written to are below.
	full | many-devices | needs-check) ;;
	*) plain+=("$case") ;;
	esac
done
plan $((10 * ${#plain[@]} + 1 + 14 + 11 + 4 + 2 + 3))

# What every case ends with.
end_fixture() {
	expect "$1: unmounts" thinfs umount "$DIR/mnt"
	expect "$1: the audit is clean" audit_pool "$DIR/meta.img"
}

held_root() {
	thin_dump --metadata-snap "$DIR/meta.img" | sha256sum
}

for case in "${plain[@]}"; do
	unpack_fixture "$case"
	[ "$case" != metadata-snapshot ] || before=$(held_root)
	if ! expect "$case: mounts" mount_fixture; then
		skip 9 "$case is not mounted"
		continue
	fi
	expect "$case: reads as the kernel reads it" fixture sums "$MANIFEST" "$DIR/mnt"
	thinfs umount "$DIR/mnt"
	expect "$case: that has changed no byte of the images" fixture images "$MANIFEST" "$DIR"
	# There is little space in most of them. A data image that has grown is adopted.
	truncate -s +128M "$DIR/data.img"
	expect "$case: mounts with a larger data image" mount_fixture -o error_if_no_space
	expect "$case: writes, discards, snapshots and deletes" fixture exercise "$MANIFEST" "$DIR/mnt" "$seed"
	end_fixture "$case"
	if expect "$case: mounts again" mount_fixture; then
		expect "$case: all is there as it was" fixture recheck "$MANIFEST" "$DIR/mnt"
		expect "$case: unmounts again" thinfs umount "$DIR/mnt"
	else
		skip 2 "$case is not mounted"
	fi
	[ "$case" != metadata-snapshot ] ||
		is "$case: the metadata snapshot is what it was" "$(held_root)" "$before"
	rm -rf "$DIR"
done

# --- many-devices: the highest id is taken by a device that is no catalog ---

unpack_fixture many-devices
expect "many-devices: mounts" mount_fixture || bail_out many-devices
expect "many-devices: reads as the kernel reads it" fixture sums "$MANIFEST" "$DIR/mnt"
names_refused='Operation not supported'
expect_failure "many-devices: no new volume" "$names_refused" touch "$DIR/mnt/new"
expect_failure "many-devices: no snapshot" "$names_refused" mkdir "$DIR/mnt/.snapshots/x"
expect_failure "many-devices: no other name" "$names_refused" mv -T "$DIR/mnt/thin-0" "$DIR/mnt/new"
set -- "$DIR"/mnt/thin-*
size=$(stat -c %s "$1")
head -c "$size" /dev/urandom >"$DIR/random"
expect "many-devices: writing within the size" dd if="$DIR/random" of="$1" bs=64K conv=notrunc,fsync
expect "many-devices: reads back" cmp "$DIR/random" "$1"
written=$1
expect "many-devices: removing" rm "$2" "$3" "$4"
expect "many-devices: removing the device that has the catalog's id" rm "$DIR/mnt/thin-16777215"
end_fixture many-devices
expect "many-devices: mounts again" mount_fixture
expect "many-devices: what was written is there" cmp "$DIR/random" "$written"
is "many-devices: what was removed is not" "$(ls "$2" "$3" "$4" 2>/dev/null)" ""
thinfs umount "$DIR/mnt"
rm -rf "$DIR"

# --- full: no free block ---

unpack_fixture full
expect "full: mounts" mount_fixture -o error_if_no_space || bail_out full
expect "full: reads as the kernel reads it" fixture sums "$MANIFEST" "$DIR/mnt"
expect "full: overwriting works" dd if=/dev/zero of="$DIR/mnt/thin-1" bs=64K count=2 conv=notrunc,fsync
SECONDS=0
truncate -s 4M "$DIR/mnt/thin-1" 2>/dev/null
expect_failure "full: writing to a new block is refused" "No space left on device" \
	dd if=/dev/zero of="$DIR/mnt/thin-1" bs=4K count=1 seek=1000 conv=notrunc
[ $SECONDS -le 5 ] && ok "full: at once" || not_ok "full: at once"
expect "full: discarding works" fallocate -p -n -o 0 -l 1M "$DIR/mnt/thin-1"
expect "full: sync" thinfs sync "$DIR/mnt"
expect "full: afterwards there is space" \
	dd if=/dev/zero of="$DIR/mnt/thin-1" bs=4K count=1 seek=1000 conv=notrunc,fsync
expect "full: deleting works" rm "$DIR/mnt/thin-1"
end_fixture full
rm -rf "$DIR"

# --- needs-check: read-only, with a warning ---

unpack_fixture needs-check
out=$(mount_fixture 2>&1)
grep -q needs_check <<<"$out" && ok "needs-check: mounting warns" || {
	not_ok "needs-check: mounting warns"
	diag "$out"
}
expect "needs-check: reads as the kernel reads it" fixture sums "$MANIFEST" "$DIR/mnt"
expect_failure "needs-check: is read-only" "Read-only file system" touch "$DIR/mnt/new"
thinfs umount "$DIR/mnt"
expect "needs-check: no byte of the images has changed" fixture images "$MANIFEST" "$DIR"

# --- ext4: the files in it ---

unpack_fixture ext4
if [ "$(id -u)" -ne 0 ] || ! mount_fixture; then
	skip 2 "needs root to mount file systems"
else
	for id in 1 2; do
		mkdir "$DIR/ext4"
		if dev=$(attach_loop "$DIR/mnt/thin-$id") && mount -t ext4 "$dev" "$DIR/ext4"; then
			wanted=$(python3 -c 'import json, sys
for note in json.load(open(sys.argv[1]))["notes"]:
    if note.startswith(f"thin {sys.argv[2]}: "): print(note.split(": ", 1)[1])' "$MANIFEST" $id)
			is "ext4: the files of thin-$id" "$(cd "$DIR/ext4" && find . -type f | sort | xargs sha256sum)" "$wanted"
			umount "$DIR/ext4"
		else
			skip 1 "no loop device, or no ext4 in this kernel"
		fi
		[ -z "$dev" ] || detach_loop "$dev" "$DIR/mnt/thin-$id"
		rmdir "$DIR/ext4"
	done
fi

# --- the size of a device that has no record is that of its mappings, until those change ---

unpack_fixture ext4
expect "size: mounts" mount_fixture || bail_out size
size=$(stat -c %s "$DIR/mnt/thin-2")
fallocate -p -o $((size - 65536)) -l 65536 "$DIR/mnt/thin-2"
thinfs umount "$DIR/mnt"
expect "size: mounts again" mount_fixture || bail_out size
is "size: is kept when the last block is discarded" "$(stat -c %s "$DIR/mnt/thin-2")" "$size"
