#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A pool has one user. Everybody else is refused, with one line that names who it is and what to do, and
# changes nothing; however the images are called, and whoever it is that has them.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3

dir=$(mktmp)
mkdir "$dir/mnt" "$dir/mnt2" "$dir/other" "$dir/links"
on_exit _end_mount "$dir/mnt"
on_exit _end_mount "$dir/mnt2"
data=$dir/data.img
meta=$dir/meta.img
thinfs format --data-size 4M --metadata-size 2M "$data" "$meta"
thinfs format --data-size 4M --metadata-size 2M "$dir/other/data.img" "$dir/other/meta.img"
audit_at_exit "$meta"
audit_at_exit "$dir/other/meta.img"

sums() {
	sha256sum "$data" "$meta" "$dir/other/data.img" "$dir/other/meta.img"
}

# refused CLAIM PATTERN COMMAND...: status 1, one line that matches, no image changed, nothing mounted.
refused() {
	local claim=$1 pattern=$2 out status before
	shift 2
	before=$(sums)
	out=$(timeout 60 "$@" 2>&1)
	status=$?
	if [ $status -eq 1 ] && [ "$(wc -l <<<"$out")" -eq 1 ] && grep -Eq -- "$pattern" <<<"$out" &&
		[ "$(sums)" = "$before" ] && ! _is_mounted "$dir/mnt2"; then
		ok "$claim"
		return
	fi
	not_ok "$claim"
	diag "status $status, wanted 1 and one line that says: $pattern"
	diag "$out"
	[ "$(sums)" = "$before" ] || diag "an image has changed"
	! _is_mounted "$dir/mnt2" || "$THINFS" umount "$dir/mnt2"
}

mounting() {
	refused "$1" "$2" "$THINFS" mount "${@:3}" "$dir/mnt2"
}

# gone PID: it has ended, though perhaps nobody has asked how.
gone() {
	local tries
	for ((tries = 0; tries < 300; tries++)); do
		grep -q '^State:.[ZX]' "/proc/$1/status" 2>/dev/null || [ ! -e "/proc/$1" ] && return 0
		sleep 0.1
	done
	return 1
}

cases() {
	local in_use by pid name

	# --- by thinfs ---
	thinfs mount "$data" "$meta" "$dir/mnt" || bail_out "cannot mount"
	head -c 1M /dev/urandom >"$dir/mnt/v"
	mkdir "$dir/mnt/.snapshots/s"
	thinfs sync "$dir/mnt"
	pid=$(daemon_of "$dir/mnt")
	by="in use by process $pid \(thinfs\); unmount it first with 'thinfs umount'"
	in_use="$data: $by"
	ln "$data" "$dir/links/data"
	ln "$meta" "$dir/links/meta"
	ln -s ../data.img "$dir/links/data.sym"
	ln -s ../meta.img "$dir/links/meta.sym"
	mounting "mounted twice" "$in_use" "$data" "$meta"
	mounting "by hard links" "links/data: $by" "$dir/links/data" "$dir/links/meta"
	mounting "by symbolic links" "links/data.sym: $by" "$dir/links/data.sym" "$dir/links/meta.sym"
	cd "$dir/links" || exit
	mounting "by relative names" "data.img: $by" ../data.img ../meta.img
	cd / || exit
	if unshare -m true 2>/dev/null; then
		refused "by a bind mount" "bound/data.img: $by" unshare -m sh -c \
			"mkdir '$dir/bound' && mount --bind '$dir' '$dir/bound' && exec '$THINFS' mount '$dir/bound/data.img' '$dir/bound/meta.img' '$dir/mnt2'"
	else
		skip 1 "no private mount namespace"
	fi
	mounting "its data with other metadata" "$in_use" "$data" "$dir/other/meta.img"
	mounting "other data with its metadata" "$meta: $by" "$dir/other/data.img" "$meta"
	mounting "its metadata for data" "$meta: $by" "$meta" "$dir/other/meta.img"
	mounting "swapped" "$meta: $by" "$meta" "$data"
	mounting "read-only beside it" "$in_use" -o ro "$data" "$meta"
	refused "formatting" "$in_use" "$THINFS" format --force "$data" "$meta"
	refused "formatting over one of the two" "$meta: $by" "$THINFS" format --force "$dir/other/data.img" "$meta"
	refused "listing past the mount" "$in_use" "$THINFS" list "$data" "$meta"
	refused "status past the mount" "$in_use" "$THINFS" status "$data" "$meta"
	if unshare -p -f --mount-proc true 2>/dev/null; then
		refused "by one that cannot be seen" "$data: in use by a process of another user, container or machine; unmount it there" \
			unshare -p -f --mount-proc "$THINFS" mount "$data" "$meta" "$dir/mnt2"
	else
		skip 1 "no private process namespace"
	fi

	# --- umount(8) returns before the daemon has let go ---
	kill -STOP "$pid"
	python3 -c 'import ctypes, sys
sys.exit(ctypes.CDLL(None, use_errno=True).umount2(sys.argv[1].encode(), 8))' "$dir/mnt" || thinfs umount "$dir/mnt"
	if ! _is_mounted "$dir/mnt"; then
		mounting "unmounted, but the daemon has not ended" "$in_use" "$data" "$meta"
	else
		skip 1 "cannot unmount by a system call"
	fi
	kill -CONT "$pid"
	_is_mounted "$dir/mnt" && thinfs umount "$dir/mnt"
	expect "the daemon ends" gone "$pid"
	expect "then the images are free" thinfs mount "$data" "$meta" "$dir/mnt"

	# --- killed ---
	pid=$(daemon_of "$dir/mnt")
	kill -KILL "$pid"
	gone "$pid"
	expect "killed: the images are free at once" thinfs mount "$data" "$meta" "$dir/mnt2"
	thinfs umount "$dir/mnt2"
	thinfs umount "$dir/mnt" 2>/dev/null

	# --- readers ---
	expect "read-only" thinfs mount -o ro "$data" "$meta" "$dir/mnt"
	expect "and again, beside it" thinfs mount -o ro "$data" "$meta" "$dir/mnt2"
	is "both show the same" "$(sha256sum <"$dir/mnt/v")" "$(sha256sum <"$dir/mnt2/v")"
	expect "and it can be listed past them" thinfs list "$data" "$meta"
	thinfs umount "$dir/mnt2"
	mounting "but not to be written" "$data: in use by process $(daemon_of "$dir/mnt") \(thinfs\)" "$data" "$meta"
	refused "nor formatted" "$data: in use by process" "$THINFS" format --force "$data" "$meta"
	thinfs umount "$dir/mnt"

	# --- by other programs ---
	for name in "open file description" "process"; do
		for image in "$data" "$meta"; do
			held "$name" "$image" || not_ok "cannot lock"
			mounting "another program's lock of the $name on ${image##*/}" "$image: in use by process $holder \(python3[^)]*\); end it first" "$data" "$meta"
			refused "formatting under it" "$image: in use by process $holder" "$THINFS" format --force "$data" "$meta"
			release
		done
	done
	if command -v qemu-io >/dev/null; then
		exec {pipe}> >(exec qemu-io -f raw "$data" >/dev/null 2>&1)
		holder=$!
		wait_locked "$data"
		mounting "a virtual machine's disk" "$data: in use by process $holder \(qemu-io\); end it first" "$data" "$meta"
		exec {pipe}>&-
		gone $holder
	else
		skip 1 "no program 'qemu-io'"
	fi
	expect "nothing of it stays" thinfs mount "$data" "$meta" "$dir/mnt"
	thinfs umount "$dir/mnt"
	on_loop
}

# What TAP of loop devices and block devices there is: 13 cases.
on_loop() {
	local loop loop2 by pid
	if [ "$(id -u)" -ne 0 ] || ! loop=$(attach_loop "$data" 2>&1); then
		skip 13 "no loop devices: ${loop-needs root}"
		return
	fi
	mounting "a loop device on the image" "$data: in use by the loop device $loop; detach it first with 'losetup -d $loop'" "$data" "$meta"
	refused "formatting under it" "$data: in use by the loop device $loop" "$THINFS" format --force "$data" "$meta"
	mounting "also read-only, as it may change" "$data: in use by the loop device $loop" -o ro "$data" "$meta"
	detach_loop "$loop" "$data"
	loop=$(attach_loop "$data" --read-only)
	mounting "a read-only one" "$data: in use by the loop device $loop" "$data" "$meta"
	expect "is no harm to a read-only mount" thinfs mount -o ro "$data" "$meta" "$dir/mnt"
	thinfs umount "$dir/mnt"
	detach_loop "$loop" "$data"

	loop=$(attach_loop "$data")
	loop2=$(attach_loop "$meta")
	expect "a pool on block devices" thinfs mount "$loop" "$loop2" "$dir/mnt"
	pid=$(daemon_of "$dir/mnt")
	by="in use by process $pid \(thinfs\); unmount it first"
	mounting "a second time" "$loop: $by" "$loop" "$loop2"
	mounting "read-only beside it" "$loop: $by" -o ro "$loop" "$loop2"
	mknod "$dir/node" b "$((0x$(stat -c %t "$loop")))" "$((0x$(stat -c %T "$loop")))"
	mounting "by another node of the device" "node: $by" "$dir/node" "$loop2"
	refused "formatting" "$loop: $by" "$THINFS" format --force "$loop" "$loop2"
	mounting "the file below" "$data: in use by the loop device $loop" "$data" "$meta"
	thinfs umount "$dir/mnt"
	detach_loop "$loop2" "$meta"
	detach_loop "$loop" "$data"

	truncate -s 32M "$dir/fs.img"
	if mkfs.ext4 -q "$dir/fs.img" && loop=$(attach_loop "$dir/fs.img") && mount "$loop" "$dir/mnt"; then
		on_exit sh -c "! mountpoint -q $dir/mnt || umount $dir/mnt"
		mounting "a device with a mounted filesystem" "$loop: mounted on $dir/mnt; unmount it first" "$loop" "$meta"
		umount "$dir/mnt"
	else
		skip 1 "no ext4 here"
	fi
	if command -v dmsetup >/dev/null && echo "0 2048 linear $loop 0" | dmsetup create "thinfs-test-$$" 2>/dev/null; then
		on_exit dmsetup remove --retry "thinfs-test-$$"
		mounting "a device under the device mapper" "$loop: in use by the device /dev/dm-[0-9]*; remove that first" "$loop" "$meta"
	else
		skip 1 "no device mapper here"
	fi
}

# held HOW IMAGE: by python3, whose number is $holder.
held() {
	exec {pipe}> >(exec python3 -c '
import fcntl, struct, sys
f = open(sys.argv[2], "r+b")
if sys.argv[1] == "process":
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
else:
    fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
sys.stdin.read()' "$1" "$2")
	holder=$!
	wait_locked "$2"
}

wait_locked() {
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		grep -q ":$(stat -c %i "$1") " /proc/locks && return 0
		sleep 0.1
	done
	return 1
}

release() {
	exec {pipe}>&-
	gone "$holder"
}

cases | tee "$dir/tap"
plan "$(grep -cE '^(not )?ok' "$dir/tap")"
