#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# How requests come: by io_uring where that can be had, else over /dev/fuse. What only io_uring can get wrong: requests
# that wait and hold their entries, those that are interrupted, and the end.
. "${srcdir:-.}/tests/lib.sh" || exit 99
with_transport=()
requires_fuse
requires_program taskset
plan 38

transport() {
	timeout 30 "$THINFS" status --json "$MNT" | sed -n 's/^ *"transport": "\(.*\)",\{0,1\}$/\1/p'
}

# make_pool MOUNT_OPTIONS: in a new directory $dir.
make_pool() {
	dir=$(mktmp)
	thinfs format --data-size 64M --metadata-size 4M "$dir/data.img" "$dir/meta.img" &&
		mount_pool "$dir" -o "$1" || bail_out "no pool"
}

end_pool() {
	expect "$1: unmounts" timeout 60 "$THINFS" umount "$MNT"
	expect "$1: the audit is clean" audit_pool "$dir/meta.img"
	rm -rf "$dir"
}

# gone PID...: whether they end within a while.
gone() {
	local tries pid
	for ((tries = 0; tries < 150; tries++)); do
		for pid; do
			! kill -0 "$pid" 2>/dev/null || break
		done
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.1
	done
	return 1
}

expect_failure "an unknown one is refused" "transport=fast: not auto, classic or io_uring" \
	thinfs mount -o transport=fast a b c

make_pool transport=classic
is "the classic one can be had" "$(transport)" classic
end_pool classic

dir=$(mktmp)
thinfs format --data-size 64M --metadata-size 4M "$dir/data.img" "$dir/meta.img"
mkdir "$dir/mnt"
MNT=$dir/mnt
if thinfs mount -o transport=io_uring "$dir/data.img" "$dir/meta.img" "$MNT" 2>"$dir/messages"; then
	on_exit _end_mount "$MNT"
	thinfs umount "$MNT"
	have=io_uring
else
	have=classic
fi
mount_pool "$dir"
is "the best that can be had is chosen" "$(transport)" $have
thinfs umount "$MNT"
if [ $have = classic ]; then
	expect "there is a reason that it cannot be had" grep -q "with transport=io_uring: ." "$dir/messages"
	skip 32 "$(head -n 1 "$dir/messages")"
	exit 0
fi
ok "io_uring can be had"

# --- where it cannot be set up ----------------------------------------------------------------------

few_files() {
	(
		ulimit -n 16
		exec "$THINFS" mount -o "$1" "$dir/data.img" "$dir/meta.img" "$MNT"
	)
}

forbidden() {
	python3 "$top_srcdir/tests/tools/without.py" io_uring \
		"$THINFS" mount -o "$1" "$dir/data.img" "$dir/meta.img" "$MNT"
}

# Too late: by then the kernel has been told that there will be io_uring. The size is that of an entry's memory.
no_memory() {
	python3 "$top_srcdir/tests/tools/without.py" mmap:$((4096 + (1 << 20))) \
		"$THINFS" mount -o "$1" "$dir/data.img" "$dir/meta.img" "$MNT"
}

# In a mount namespace where /sys is empty, so that nobody knows of processors that are not online.
no_sys() {
	unshare --mount sh -e -c '
		mount -t tmpfs none /sys
		"$0" mount "$1/data.img" "$1/meta.img" "$2"
		"$0" status --json "$2" | grep transport
		timeout 20 cp "$0" "$2/v"
		"$0" umount "$2"' "$THINFS" "$dir" "$MNT"
}

# without HOW WHY: when mounted by HOW, io_uring cannot be had because of WHY.
without() {
	local out
	expect_failure "$1, asked for by name: it fails" "transport=io_uring: .*$2" "$1" transport=io_uring
	is "$1: nothing is mounted" "$(grep -cF " $MNT " /proc/self/mountinfo)" 0
	out=$("$1" transport=auto 2>&1)
	is "$1, else it is done without, and without a word" "$?$out" 0
	is "$1: over /dev/fuse" "$(transport)" classic
	expect "$1: which works" timeout 20 cp "$THINFS" "$MNT/v"
	thinfs umount "$MNT"
}
without few_files "Too many open files"
if command -v python3 >/dev/null; then
	without forbidden "io_uring is forbidden here"
	without no_memory "the kernel refused it: Cannot allocate memory"
else
	skip 10 "no program 'python3'"
fi
if why=$(unshare --mount true 2>&1); then
	is "without /sys: over /dev/fuse, which works" "$(no_sys 2>&1 | tr -d ' \t,')" '"transport":"classic"'
else
	skip 1 "no mount namespace: $why"
fi
expect "without the means: the audit is clean" audit_pool "$dir/meta.img"
rm -rf "$dir"

# --- requests that wait, more of them than there are threads ------------------------------------------

start_writers() {
	local i
	writers=()
	for ((i = 0; i < 30; i++)); do
		taskset -c "$((i % 2 ? last_cpu : first_cpu))" \
			dd if="$dir/source" of="$MNT/w$i" bs=1M seek=1 count=1 conv=notrunc status=none &
		writers+=($!)
	done
}
cpus=$(taskset -pc $$ | sed 's/.*: //; s/[,-]/ /g')
first_cpu=${cpus%% *}
last_cpu=${cpus##* }

fill_pool() {
	make_pool transport=io_uring,no_space_timeout=0
	head -c 1M /dev/urandom >"$dir/source"
	cp "$dir/source" "$MNT/mapped"
	for ((i = 0; i < 30; i++)); do
		: >"$MNT/w$i"
	done
	dd if=/dev/zero of="$MNT/fill" bs=64K conv=notrunc status=none 2>/dev/null &
	filler=$!
	for ((i = 0; i < 200; i++)); do
		thinfs status "$MNT" | grep -q "^mode .*out of data space" && break
		sleep 0.1
	done
}

# use_others: what needs no space works, on every processor.
use_others() {
	local cpu i
	for cpu in $first_cpu $last_cpu; do
		for ((i = 0; i < 10; i++)); do
			timeout 20 taskset -c "$cpu" cmp "$MNT/mapped" "$dir/source" || return 1
			timeout 20 taskset -c "$cpu" dd if="$dir/source" of="$MNT/mapped" bs=64K count=1 \
				conv=notrunc,fsync oflag=direct status=none || return 1
		done
	done
}

fill_pool
start_writers
sleep 1.5
waiting=0
for pid in "${writers[@]}"; do
	kill -0 "$pid" 2>/dev/null && waiting=$((waiting + 1))
done
is "all writers wait" $waiting 30
expect "others are served meanwhile" use_others
kill -KILL "$filler" "${writers[0]}" "${writers[1]}"
expect "writers that are killed end" gone "$filler" "${writers[0]}" "${writers[1]}"
truncate -s 256M "$dir/data.img"
failed=0
for pid in "${writers[@]:2}"; do
	wait "$pid" || failed=$((failed + 1))
done
is "when there is space, the writers go on" $failed 0
failed=0
for ((i = 2; i < 30; i++)); do
	cmp -s <(tail -c 1M "$MNT/w$i") "$dir/source" || failed=$((failed + 1))
done
is "and what they wrote is there" $failed 0
expect "others are served afterwards" use_others
end_pool "writers that waited"

# libfuse does not free the directory's name when the mount is still in use at the end.
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0"
fill_pool
start_writers
sleep 1
kill -TERM "$(thinfs status "$MNT" | sed -n 's/^served by *process //p')"
sleep 0.5
expect "a forced end ends the wait" timeout 60 "$THINFS" umount --force "$MNT"
expect "and all writers" gone "$filler" "${writers[@]}"
expect "a forced end: the audit is clean" audit_pool "$dir/meta.img"

fill_pool
start_writers
sleep 1
daemon=$(thinfs status "$MNT" | sed -n 's/^served by *process //p')
kill -KILL "$daemon"
expect "writers of a daemon that was killed end" gone "$daemon" "$filler" "${writers[@]}"
timeout 60 "$THINFS" umount "$MNT" >/dev/null 2>&1
mount_pool "$dir" -o transport=io_uring
expect "the pool can be mounted again" cmp -n 1048576 "$MNT/mapped" "$dir/source"
end_pool "a daemon that was killed"
