#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A snapshot holds every write that returned before its mkdir, however it was written, and all its
# volumes are of one instant.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3

# Mount options, one set a line.
modes=(
	"commit=1"
	"page_cache"
	"writeback_cache"
)
plan $((${#modes[@]} * (3 + 2 + 2 + 2)))
size=$((4 << 20))

snapshots() {
	timeout 60 python3 -B "$top_srcdir/tests/tools/snapshots.py" "$@"
}

# claim TEXT COMMAND...: status 77 skips it.
claim() {
	local text=$1 out status
	shift
	out=$("$@" 2>&1)
	status=$?
	case $status in
	0) ok "$text" ;;
	77) skip 1 "$text: $out" ;;
	*) not_ok "$text" ;;
	esac
	diag "$out"
}

have_loop() {
	[ "$(id -u)" -eq 0 ] && command -v losetup >/dev/null
}

for mode in "${modes[@]}"; do
	dir=$(mktmp)
	thinfs format --data-size 6G "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
	mount_pool "$dir" -o "$mode"
	mnt=$MNT
	thinfs create --size 64M "$mnt/v"
	thinfs create --size 64M "$mnt/other"

	# Something else goes on all the time.
	(while dd if=/dev/urandom of="$mnt/other" bs=100000 count=20 seek=$((RANDOM % 600)) conv=notrunc status=none; do
		sleep 0.01
	done) 2>/dev/null &
	load=$!
	for method in write direct mmap; do
		claim "$mode: holds what was written by $method" \
			snapshots holds "$mnt" "$mnt/v" v $method 20 $size
	done

	# A loop device, buffered and not, that fio loads beyond the part that is looked at.
	for direct in off on; do
		if ! have_loop || ! command -v fio >/dev/null || ! dev=$(attach_loop "$mnt/v" --direct-io=$direct 2>/dev/null); then
			skip 1 "$mode: no loop device, or no fio"
			continue
		fi
		fio --name=load --filename="$dev" --offset=$size --size=48m --rw=randwrite --bs=4k-64k --direct=1 \
			--ioengine=libaio --iodepth=8 --time_based --runtime=60 --output="$dir/fio" &
		fio=$!
		claim "$mode: holds what was written to a loop device with --direct-io=$direct under fio" \
			snapshots holds "$mnt" "$dev" v direct 15 $size
		kill $fio 2>/dev/null
		wait $fio 2>/dev/null
		detach_loop "$dev" "$mnt/v"
	done
	for taken in "$mnt"/.snapshots/*; do
		rmdir "$taken"
	done
	kill $load 2>/dev/null
	wait $load 2>/dev/null

	# Without O_DIRECT or fdatasync the write-back cache gives no order between two files, as in any
	# file system.
	[ "$mode" = writeback_cache ] && flag=direct || flag=
	claim "$mode: two volumes are of one instant" snapshots instant "$mnt" 60 $flag
	claim "$mode: two volumes are of one instant, each write synced" snapshots instant "$mnt" 20 sync

	expect "$mode: unmounts" thinfs umount "$mnt"
	expect "$mode: the audit is clean" audit_pool "$dir/meta.img"
	rm -rf "$dir"
done
