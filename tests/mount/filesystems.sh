#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# ext4 and XFS on volumes, and on writable clones of snapshots of them taken while they were mounted and
# written to, through loop devices.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_loop
requires_program mkfs.ext4 e2fsck fstrim

filesystems=()
for type in ext4 xfs; do
	# Both tools and kernel.
	if command -v "mkfs.$type" >/dev/null && { grep -qw $type /proc/filesystems || modprobe -q $type 2>/dev/null; }; then
		filesystems+=("$type")
	else
		diag "no $type: no mkfs.$type, or the kernel has none"
	fi
done
[ ${#filesystems[@]} -gt 0 ] || skip_all "the kernel has neither ext4 nor XFS"
plan $((2 * (17 * ${#filesystems[@]} + 2)))

# The audit runs when the mounts have gone.
mount_fs() {
	local options=rw
	[ "$1" != xfs ] || options=nouuid
	mkdir -p "$3"
	mount -t "$1" -o "$options" "$2" "$3" && on_exit sh -c "! mountpoint -q '$3' || umount '$3'"
}

check_fs() {
	case $1 in
	ext4) e2fsck -f -n "$2" ;;
	xfs) xfs_repair -n "$2" ;;
	esac
}

make_fs() {
	case $1 in
	ext4) mkfs.ext4 -q "$2" ;;
	xfs) mkfs.xfs -q "$2" ;;
	esac
}

# fill DIRECTORY NUMBER: files, with their sums beside them.
fill() {
	mkdir -p "$1/tree$2/sub" &&
		for i in 1 2 3 4 5 6 7 8; do
			head -c $((RANDOM * 60)) /dev/urandom >"$1/tree$2/file$i" &&
				seq $((RANDOM * 3)) >"$1/tree$2/sub/text$i" || return 1
		done &&
		(cd "$1/tree$2" && find . -type f ! -name sums -exec sha256sum {} + >"$dir/sums" && mv "$dir/sums" sums) &&
		sync -f "$1"
}

check_files() {
	(cd "$1/tree$2" && sha256sum --quiet -c sums)
}

for options in commit=1 writeback_cache; do
	dir=$(mktmp)
	thinfs format --data-size 2G "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
	mount_pool "$dir" -o "$options"
	for type in "${filesystems[@]}"; do
		name="$options, $type"
		thinfs create --size 512M "$MNT/$type"
		dev=$(attach_loop "$MNT/$type" --direct-io=on) || bail_out "cannot attach"
		expect "$name: mkfs" make_fs "$type" "$dev"
		[ "$(du_bytes "$MNT/$type")" -lt 100000000 ] && ok "$name: the volume stays thin" ||
			not_ok "$name: takes $(du_bytes "$MNT/$type") bytes"
		expect "$name: mounts" mount_fs "$type" "$dev" "$dir/$type" || bail_out "$type"
		expect "$name: files are written" fill "$dir/$type" 1

		# Somebody goes on writing while the snapshot is taken.
		touch "$dir/go-on"
		(while [ -e "$dir/go-on" ]; do
			cp -r "$dir/$type/tree1" "$dir/$type/busy"
			rm -r "$dir/$type/busy"
		done) &
		busy=$!
		expect "$name: a snapshot" mkdir "$MNT/.snapshots/$type@1"
		rm "$dir/go-on"
		wait $busy

		expect "$name: more files" fill "$dir/$type" 2
		rm -r "$dir/$type/tree1"
		sync -f "$dir/$type"
		before=$(du_bytes "$MNT/$type")
		expect "$name: fstrim" fstrim "$dir/$type"
		thinfs sync "$MNT"
		# What was deleted took some MiB, which only the snapshot has now.
		[ "$(du_bytes "$MNT/$type")" -lt "$before" ] && ok "$name: which unmaps blocks" || not_ok "$name: which unmaps blocks"

		# The snapshot becomes a volume: its journal replays.
		expect "$name: a writable clone" mv "$MNT/.snapshots/$type@1/$type" "$MNT/$type-clone"
		chmod u+w "$MNT/$type-clone"
		clone=$(attach_loop "$MNT/$type-clone" --direct-io=on) || bail_out "cannot attach"
		expect "$name: the clone mounts beside it" mount_fs "$type" "$clone" "$dir/$type-clone" || bail_out "$type"
		expect "$name: it has what was synced before the snapshot" check_files "$dir/$type-clone" 1
		expect "$name: it can be written to" fill "$dir/$type-clone" 3
		expect "$name: the volume has its own" check_files "$dir/$type" 2
		expect "$name: the clone has its own" check_files "$dir/$type-clone" 3
		umount "$dir/$type" "$dir/$type-clone"
		expect "$name: fsck of the volume" check_fs "$type" "$dev"
		expect "$name: fsck of the clone" check_fs "$type" "$clone"
		detach_loop "$dev" "$MNT/$type"
		detach_loop "$clone" "$MNT/$type-clone"
		expect "$name: removing" rm "$MNT/$type" "$MNT/$type-clone"
	done
	expect "$options: unmounts" thinfs umount "$MNT"
	expect "$options: the audit is clean" audit_pool "$dir/meta.img"
	rm -rf "$dir"
done
