#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# All that a mount can be asked at the same time, for some seconds: nothing fails, hangs or is found by a
# sanitizer; with the thread sanitizer's build, that no data race is on the way of any request.
#
# THINFS_TEST_SECONDS: for how long; 4 unless told.
TEST_TIMEOUT=280
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3

dir=$(mktmp)
seconds=${THINFS_TEST_SECONDS:-4}
thinfs format --data-size 256M "$dir/data.img" "$dir/meta.img"
plan 12

# Each is a loop of its own until the file 'stop' is there; what fails goes to the file 'wrong'.
each() {
	local name=$1
	shift
	(
		while [ ! -e "$dir/stop" ]; do
			"$@" >"$dir/log.$name" 2>&1 || {
				echo "$name: $(tr '\n' ' ' <"$dir/log.$name")" >>"$dir/wrong"
				break
			}
		done
	) &
}

snapshots() {
	mkdir "$MNT/.snapshots/all" && mkdir "$MNT/.snapshots/w1@one" && ls -lR "$MNT/.snapshots/all" &&
		cmp "$MNT/.snapshots/all/w1" "$MNT/.snapshots/all/w1" && rmdir "$MNT/.snapshots/w1@one" &&
		thinfs remove "$MNT/.snapshots/all"
}

clones() {
	mkdir "$MNT/.snapshots/w2@clone" && mv "$MNT/.snapshots/w2@clone/w2" "$MNT/clone" &&
		rmdir "$MNT/.snapshots/w2@clone" && echo x >>"$MNT/clone" && rm "$MNT/clone"
}

names() {
	thinfs create --size 3M "$MNT/a" && echo some >>"$MNT/a" && mv "$MNT/a" "$MNT/b" && chmod 600 "$MNT/b" &&
		touch "$MNT/b" && truncate -s 1M "$MNT/b" && rm "$MNT/b"
}

# What find(1) has seen may have gone when it looks closer.
reports() {
	thinfs list "$MNT" && thinfs status --json "$MNT" && stat -f "$MNT" &&
		! find "$MNT" -ls 2>&1 | grep '^find:' | grep -v 'No such file'
}

syncs() {
	thinfs sync "$MNT" && sync "$MNT/w1"
}

# Two processes write the same file; what is in it afterwards is of one of them, sector by sector.
writes() {
	python3 -c '
import ctypes, os, random, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
r = random.Random(os.getpid())
size = 8 << 20
for i in range(150):
    at, n = r.randrange(size) & ~511, r.randrange(1, 300) * 512
    kind = r.randrange(20)
    if kind == 0:
        assert libc.fallocate(f, 3, at, n) == 0, "punch"
    elif kind == 1:
        assert libc.fallocate(f, 1, at, n) == 0, "fallocate"
    elif kind == 2:
        assert libc.fallocate(f, 0x11, at, n) == 0, "zero range"
    elif kind == 3:
        os.fdatasync(f)
    elif kind == 4:
        os.ftruncate(f, size - n)
    elif kind == 5:
        for where in os.SEEK_DATA, os.SEEK_HOLE:
            try:
                os.lseek(f, at, where)
            except OSError as e:
                assert e.errno == 6, e
    elif kind < 12:
        b = os.pread(f, n, at)
        for s in range(0, len(b) - 511, 512):
            assert len(set(b[s:s + 512])) == 1, "a torn sector"
    else:
        os.pwrite(f, bytes([r.randrange(1, 256)]) * n, at)
os.close(f)
' "$MNT/$1"
}

under_load() {
	local options=$1 jobs
	rm -f "$dir/stop" "$dir/wrong"
	mount_pool "$dir" -o "threads=8,commit=0.05${options:+,$options}"
	rm -rf "$MNT/.snapshots/"* "$MNT"/*
	touch "$MNT/w1" "$MNT/w2"
	each snapshots snapshots
	each clones clones
	each names names
	each reports reports
	each syncs syncs
	each writes1 writes w1
	each writes1b writes w1
	each writes2 writes w2
	if command -v fio >/dev/null; then
		fio --name=fio --filename="$MNT/fio" --size=16M --rw=randrw --bs=4k-64k --ioengine=psync --numjobs=2 \
			--group_reporting --time_based --runtime="$seconds" --fsync=20 >"$dir/log.fio" 2>&1 ||
			echo "fio: $(tail -n 5 "$dir/log.fio")" >>"$dir/wrong"
	else
		sleep "$seconds"
	fi
	touch "$dir/stop"
	jobs=$(jobs -p)
	# shellcheck disable=SC2086
	wait $jobs
	is "${options:-no options}: nothing fails" "$(cat "$dir/wrong" 2>/dev/null)" ""
	before=$(cd "$MNT" && sha256sum w1 w2)
	expect "${options:-no options}: unmounts" umount_pool
	expect "${options:-no options}: the metadata are clean" audit_pool "$dir/meta.img"
	mount_pool "$dir" -o ro
	is "${options:-no options}: what was there is there again" "$(cd "$MNT" && sha256sum w1 w2)" "$before"
	umount_pool
}

under_load ""
under_load writeback_cache
under_load page_cache,no_discard_passdown
