#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A daemon that is told to end while a filesystem is mounted on a loop device on a volume: it goes on until the last
# close, and the filesystem loses nothing. Told twice, it ends at once, and what was synced is there.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_loop
requires_program jq

cases=()
for kind in "ext4 on" "ext4 off" "xfs on"; do
	type=${kind% *}
	# Both tools and kernel.
	if command -v "mkfs.$type" >/dev/null && { grep -qw "$type" /proc/filesystems || modprobe -q "$type" 2>/dev/null; }; then
		cases+=("$kind")
	else
		diag "no $type: no mkfs.$type, or the kernel has none"
	fi
done
per_case=8
plan $((per_case * ${#cases[@]} + 3 * 6 + 2))

# Whether the process has ended; the images are free then.
wait_end() {
	local tries
	for ((tries = 0; tries < 600; tries++)); do
		grep -hqs '^State:.[^ZX]' "/proc/$1"/task/*/status || return 0
		sleep 0.1
	done
	echo "process $1 goes on"
	return 1
}

is_serving() {
	grep -hqs '^State:.[^ZX]' "/proc/$1"/task/*/status
}

new_pool() {
	dir=$(mktmp)
	thinfs format --data-size 1G "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
	mount_pool "$dir"
	pid=$(daemon_of "$MNT")
	[ -n "$pid" ] || bail_out "who serves the mount?"
}

# new_filesystem KIND DIRECT: on a volume of a new pool, mounted on $fs.
new_filesystem() {
	local size=256M
	[ "$1" = xfs ] && size=512M
	new_pool
	thinfs create --size $size "$MNT/v" || bail_out "cannot create"
	loop=$(attach_loop "$MNT/v" --direct-io="$2" 2>/dev/null) || return 1
	fs=$dir/fs
	mkdir "$fs"
	"mkfs.$1" -q "$loop" || bail_out "mkfs.$1"
	on_exit sh -c "! mountpoint -q '$fs' || umount '$fs'"
	mount -t "$1" "$loop" "$fs" || bail_out "mount -t $1"
}

check_filesystem() {
	case $1 in
	ext4) e2fsck -fn "$2" ;;
	xfs) xfs_repair -n "$2" ;;
	esac
}

# Write files named by the sum of what is in them until told to stop.
load() {
	local n
	for ((n = 0; n < 2000; n++)); do
		[ ! -e "$dir/stop" ] || break
		head -c $((RANDOM * 8 + 1)) /dev/urandom >"$dir/bytes.$1"
		cp "$dir/bytes.$1" "$fs/$1.$n" || { echo "cp failed" >"$dir/failed"; return; }
		((n % 9)) || sync "$fs/$1.$n"
		echo "$(md5sum <"$dir/bytes.$1") $1.$n" >>"$dir/sums.$1"
	done
}

sums_hold() {
	local sum name
	while read -r sum _ name; do
		[ "$(md5sum <"$fs/$name")" = "$sum  -" ] || { echo "$name differs"; return 1; }
	done < <(cat "$dir"/sums.*)
	[ "$(cat "$dir"/sums.* | wc -l)" -gt 10 ] || echo "hardly anything was written"
}

# The daemon is told; everything goes on until it is no longer needed.
for case in "${cases[@]}"; do
	read -r kind direct <<<"$case"
	what="$kind, direct-io=$direct"
	if ! new_filesystem "$kind" "$direct"; then
		skip $per_case "$what: the loop device cannot do that here"
		continue
	fi
	load 1 &
	jobs=($!)
	load 2 &
	jobs+=($!)
	sleep 0.7
	kill -TERM "$pid"
	sleep 1
	is_serving "$pid" && ok "$what: the daemon goes on" || not_ok "$what: the daemon goes on"
	expect_failure "$what: and keeps the images locked" "in use|mounted|locked" \
		thinfs mount "$dir/data.img" "$dir/meta.img" "$dir/fs"
	touch "$dir/stop"
	wait "${jobs[@]}"
	[ ! -e "$dir/failed" ] && ok "$what: no write fails" || not_ok "$what: no write fails"
	umount "$fs"
	detach_loop "$loop" "$MNT/v"
	expect "$what: it ends at the last close" wait_end "$pid"
	! _is_mounted "$MNT" && ok "$what: and unmounts" || not_ok "$what: and unmounts"
	thinfs mount "$dir/data.img" "$dir/meta.img" "$MNT" || bail_out "cannot mount again"
	is "$what: mounted again, the pool is sound" "$(thinfs status --json "$MNT" | jq -r '"\(.mode) \(.needs_check)"')" "rw false"
	loop=$(attach_loop "$MNT/v" --direct-io="$direct")
	expect "$what: the filesystem is clean" check_filesystem "$kind" "$loop"
	mount -t "$kind" "$loop" "$fs"
	expect "$what: and all files are as they were written" sums_hold
	umount "$fs"
	detach_loop "$loop" "$MNT/v"
	thinfs umount "$MNT"
done

# --- at once ---

# libfuse keeps the name of a directory when its connection has not ended: it is still open by others.
export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0

end_twice() {
	kill -TERM "$pid"
	sleep 0.3
	kill -TERM "$pid"
}

end_forced() {
	thinfs umount --force "$MNT"
}

end_both() {
	kill -TERM "$pid"
	sleep 0.3
	thinfs umount --force "$MNT"
}

for how in end_twice end_forced end_both; do
	new_pool
	truncate -s 64M "$MNT/v"
	# Held open, and written to all the time.
	(exec 5<>"$MNT/v"; while dd if=/dev/urandom bs=64K count=1 conv=notrunc status=none >&5; do :; done) 2>/dev/null &
	writer=$!
	dd if=/dev/urandom of="$dir/want" bs=1M count=4 status=none
	dd if="$dir/want" of="$MNT/w" bs=1M conv=fsync status=none
	$how
	expect "$how: the daemon ends, though files are open" wait_end "$pid"
	wait $writer
	! _is_mounted "$MNT" && ok "$how: and unmounts" || not_ok "$how: and unmounts"
	is "$how: the pool is consistent" "$(audit_pool "$dir/meta.img" 2>&1)" ""
	expect "$how: it can be mounted again" thinfs mount "$dir/data.img" "$dir/meta.img" "$MNT"
	expect "$how: what was synced is there" cmp "$dir/want" "$MNT/w"
	is "$how: the pool is writable" "$(thinfs status --json "$MNT" | jq -r '"\(.mode) \(.needs_check)"')" "rw false"
	thinfs umount "$MNT"
done

# --- in use ---

new_pool
truncate -s 1M "$MNT/v"
exec 6<"$MNT/v"
expect_failure "umount of a pool that is in use is refused" "in use|busy" umount "$MNT"
exec 6<&-
expect "and goes on being served" dd if=/dev/zero of="$MNT/v" bs=64K count=1 conv=notrunc,fsync status=none
