#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# fio writes with mixed block sizes from several jobs and verifies all of it, on a volume and through
# a loop device on one, with snapshots, and again after a new mount.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program fio

modes=(
	"commit=1"
	"commit=0.1,threads=3"
	"writeback_cache"
)
plan $((${#modes[@]} * 8))

# fio_on FILE ARGUMENT...: three jobs, each on its own part of the file.
fio_on() {
	local file=$1
	shift
	fio --filename="$file" --name=job --numjobs=3 --size=24m --offset_increment=24m --rw=randrw --rwmixread=30 \
		--bsrange=512-256k --blockalign=512 --bs_unaligned=0 --ioengine=libaio --iodepth=8 --verify=crc32c \
		--verify_fatal=1 --randseed="$seed" --fallocate=none --group_reporting --output-format=terse "$@" >"$dir/fio.out" 2>&1 || {
		grep -v ';' "$dir/fio.out" | tail -n 20
		return 1
	}
}

seed=${THINFS_TEST_SEED:-$RANDOM}
diag "seed $seed"
for mode in "${modes[@]}"; do
	dir=$(mktmp)
	thinfs format --data-size 4G "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
	mount_pool "$dir" -o "$mode"
	thinfs create --size 80M "$MNT/v"
	thinfs create --size 80M "$MNT/w"

	expect "$mode: direct" fio_on "$MNT/v" --direct=1 --fsync=50
	expect "$mode: through the page cache" fio_on "$MNT/v" --direct=0 --ioengine=psync --fsync=200

	# Snapshots meanwhile, so that sharing is broken all the time.
	(for ((i = 0; i < 30; i++)); do
		mkdir "$MNT/.snapshots/s$i" || exit 1
		sleep 0.1
		((i % 3 == 0)) || rmdir "$MNT/.snapshots/s$i" || exit 1
	done) &
	snapshots=$!
	expect "$mode: while snapshots are taken" fio_on "$MNT/w" --direct=1
	wait $snapshots
	is "$mode: the snapshots are taken" $? 0

	if [ "$(id -u)" -eq 0 ] && dev=$(attach_loop "$MNT/v" --direct-io=on 2>/dev/null); then
		expect "$mode: through a loop device" fio_on "$dev" --direct=1 --fsync=100
		detach_loop "$dev" "$MNT/v"
	else
		skip 1 "$mode: no loop devices"
	fi

	expect "$mode: writing, to verify later" fio_on "$MNT/v" --direct=1 --rw=randwrite --do_verify=0
	thinfs umount "$MNT" && thinfs mount "$dir/data.img" "$dir/meta.img" "$MNT"
	expect "$mode: verifying after a new mount" fio_on "$MNT/v" --direct=1 --rw=randwrite --verify_only
	thinfs umount "$MNT"
	expect "$mode: the audit is clean" audit_pool "$dir/meta.img"
	rm -rf "$dir"
done
