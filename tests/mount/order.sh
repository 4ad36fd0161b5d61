#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The order of writes and flushes at each commit, seen from outside (tests/tools/check-order.py says
# what it has to be), and that the check would notice another order.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program strace python3
strace -f -o /dev/null true 2>/dev/null || skip_all "processes may not be traced here"

kinds=(
	data-flush-after-superblock
	data-flush-before-data
	data-flush-failed
	data-flush-too-long
	data-write-during-commit
	metadata-after-flush
	metadata-after-superblock
	metadata-flush-failed
	no-data-flush
	no-last-flush
	no-metadata-flush
	superblock-before-flush
	superblock-merged
	superblock-short
)
punch_kinds=(
	no-punch
	punch-after-reuse
	punch-before-commit
	punch-by-writer
)
plan $((23 + ${#kinds[@]} + ${#punch_kinds[@]}))

check_order() {
	python3 -B "$top_srcdir/tests/tools/check-order.py" "$@"
}

# traced DIR SIZE OPTIONS [STRACE_OPTION...]: a new pool, mounted, its daemon traced.
# What io_uring does is not to be seen, so that the check accepts none; how requests come is nothing to the order.
traced() {
	local dir=$1 size=$2
	mkdir "$dir/mnt"
	thinfs format --data-size "$size" --metadata-size 8M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
	cp "$dir/meta.img" "$dir/old.img"
	on_exit _end_mount "$dir/mnt"
	audit_at_exit "$dir/meta.img"
	shift 2
	mount_traced "$dir" "$@"
}

# mount_traced DIR OPTIONS [STRACE_OPTION...]
mount_traced() {
	local dir=$1 options=$2 tries
	shift 2
	# LeakSanitizer cannot work in a traced process.
	ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" strace -f -y -s 4 -o "$dir/trace" \
		-e trace=desc,io_uring_setup,io_uring_enter,msync,mmap "$@" \
		"$THINFS" mount -f -o "transport=classic,$options" "$dir/data.img" "$dir/meta.img" "$dir/mnt" 2>"$dir/messages" &
	strace_pid=$!
	for ((tries = 0; tries < 300; tries++)); do
		! _is_mounted "$dir/mnt" || [ ! -d "$dir/mnt/.snapshots" ] || return 0
		sleep 0.1
	done
	diag "$(cat "$dir/messages")"
	bail_out "cannot mount under strace"
}

end_traced() {
	expect "$2: unmounts" thinfs umount "$1/mnt"
	wait $strace_pid
	is "$2: the audit is clean" "$(audit_pool "$1/meta.img" 2>&1)" ""
}

# --- one step after the other, each ended by fsync: the exact order ---

dir=$(mktmp)
traced "$dir" 256M commit=3600,threads=2
mnt=$dir/mnt
put() {
	dd if=/dev/urandom of="$mnt/$1" bs="$2" count=1 seek="$3" conv=notrunc,fsync status=none
}
steps() {
	set -e
	truncate -s 32M "$mnt/a"
	put a 4K 0
	put a 4K 3
	put a 64K 5
	put a 1M 2
	thinfs create --size 8M "$mnt/b"
	thinfs sync "$mnt"
	put b 3000 7
	mkdir "$mnt/.snapshots/one"
	put a 4K 0
	put a 64K 5
	put b 4K 40
	mkdir "$mnt/.snapshots/b@two"
	put b 4K 41
	fallocate -p -n -o 1M -l 1M "$mnt/a"
	thinfs sync "$mnt"
	fallocate -z -n -o 1000 -l 100000 "$mnt/a"
	thinfs sync "$mnt"
	mv "$mnt/.snapshots/b@two/b" "$mnt/c"
	put c 64K 3
	rmdir "$mnt/.snapshots/one"
	thinfs sync "$mnt"
	put a 64K 100
	truncate -s 5M "$mnt/a"
	thinfs sync "$mnt"
	rm "$mnt/c"
	thinfs sync "$mnt"
	sleep 1
	for i in 1 2 3 4 5; do
		put b 4K $((100 + i * 16))
	done
}
expect "steps, each synced" steps
end_traced "$dir" "steps"
out=$(check_order "$dir/data.img" "$dir/meta.img" "$dir/trace")
is "steps: every commit keeps the order" "$?" 0
diag "$out"
[ "${out%% *}" -ge 15 ] 2>/dev/null && ok "steps: there are that many commits" || not_ok "steps: there are that many commits: $out"

for kind in "${kinds[@]}"; do
	if ! check_order mutate "$kind" "$dir/data.img" "$dir/meta.img" "$dir/trace" >"$dir/changed"; then
		not_ok "$kind: cannot be made: $(cat "$dir/changed")"
	elif out=$(check_order "$dir/data.img" "$dir/meta.img" "$dir/changed"); then
		not_ok "$kind: is noticed"
	else
		ok "$kind: is noticed"
		diag "$out"
	fi
done

# --- how many flushes an fsync takes, and the order on a disk whose flush takes a while ---

# synced BEGIN: 4 KiB written and synced twenty times, each to the next block from that one on.
synced() {
	local n
	for ((n = $1; n < $1 + 20; n++)); do
		dd if=/dev/urandom of="$mnt/a" bs=4K count=1 seek=$((n * 16)) conv=notrunc,fsync status=none || return 1
	done
}

# flushes CLAIM PATTERN DIR: of the writes of 4 KiB in the trace.
flushes() {
	local out
	out=$(check_order --flushes 4096 "$3/data.img" "$3/meta.img" "$3/trace")
	[[ $out =~ ^$2\ flushes\ after\ each\ of\ 19\ writes$ ]] && ok "$1" || not_ok "$1: $out"
}

dir=$(mktmp)
traced "$dir" 256M commit=3600 -e inject=fdatasync:delay_enter=3000
mnt=$dir/mnt
truncate -s 64M "$mnt/a"
expect "slow: writing to new blocks, each synced" synced 0
end_traced "$dir" "slow"
out=$(check_order "$dir/data.img" "$dir/meta.img" "$dir/trace")
is "slow: every commit keeps the order" "$?" 0
diag "$out"
flushes "slow: each took three flushes at most" "[123] to [123]" "$dir"
beside=$(sed -n 's/.*, \([0-9]*\) times metadata.*/\1/p' <<<"$out")
[ "${beside:-0}" -ge 15 ] && ok "slow: metadata are written while the data are flushed" ||
	not_ok "slow: metadata are written while the data are flushed: ${beside:-0} times"

mount_traced "$dir" commit=3600
expect "again: the same blocks, each synced" synced 0
thinfs umount "$mnt"
wait $strace_pid
flushes "again: each took one flush" "1 to 1" "$dir"

# --- many at once, with a quick timer: what always holds ---

dir=$(mktmp)
traced "$dir" 256M commit=0.05
mnt=$dir/mnt
load() {
	local jobs=() i
	for i in 1 2 3; do
		truncate -s 64M "$mnt/v$i"
		(
			for ((n = 0; n < 60; n++)); do
				dd if=/dev/urandom of="$mnt/v$i" bs=16K count=3 seek=$((RANDOM % 4000)) conv=notrunc status=none
				((n % 7)) || thinfs sync "$mnt"
				((n % 10)) || fallocate -p -n -o $((RANDOM * 1000)) -l 500000 "$mnt/v$i"
			done
		) &
		jobs+=($!)
	done
	for ((i = 0; i < 10; i++)); do
		mkdir "$mnt/.snapshots/s$i" || return 1
		((i % 3)) || rmdir "$mnt/.snapshots/s$i" || return 1
	done
	wait "${jobs[@]}"
}
load
end_traced "$dir" "load"
out=$(check_order --concurrent "$dir/data.img" "$dir/meta.img" "$dir/trace")
is "load: every commit keeps the order" "$?" 0
diag "$out"

# --- the same, to be compared with the mappings of each commit ---

# The number that the metadata image has in the daemon is always the same.
dir=$(mktmp)
traced "$dir" 256M commit=1
pid=$(daemon_of "$dir/mnt")
fd=
for link in "/proc/$pid/fd"/*; do
	[ "$(readlink "$link")" != "$dir/meta.img" ] || fd=${link##*/}
done
thinfs umount "$dir/mnt"
wait $strace_pid

dir=$(mktmp)
# So small that freed blocks are needed again; and punching takes a while, in which nobody may have them.
traced "$dir" 22M commit=0.03 -e write="$fd" -e inject=fallocate:delay_enter=30000
mnt=$dir/mnt
once_each() {
	local jobs i round
	for i in 1 2 3; do
		truncate -s 8M "$mnt/v$i"
	done
	for round in 1 2 3 4 5; do
		jobs=()
		for i in 1 2 3; do
			# Whole blocks, and a part of one, of which the rest is copied or zeroed; none twice.
			(
				for n in $(shuf -i 0-29); do
					dd if=/dev/urandom of="$mnt/v$i" bs=64K count=1 seek="$n" conv=notrunc status=none || exit 1
				done
				for n in $(shuf -i 40-49); do
					dd if=/dev/urandom of="$mnt/v$i" bs=4K count=1 seek=$((n * 16 + 3)) conv=notrunc status=none || exit 1
				done
			) &
			jobs+=($!)
		done
		wait "${jobs[@]}" || return 1
		mkdir "$mnt/.snapshots/$round" || return 1
		((round == 1)) || rmdir "$mnt/.snapshots/$((round - 1))" || return 1
	done
}
expect "mappings: the load" once_each
# Some commits with nothing else going on, of which one can be changed.
for n in $(seq 111 125); do
	dd if=/dev/urandom of="$mnt/v1" bs=64K count=1 seek="$n" conv=notrunc,fsync status=none
done
end_traced "$dir" "mappings"
out=$(check_order --mappings "$dir/old.img" "$dir/data.img" "$dir/meta.img" "$dir/trace")
is "mappings: no block is mapped before what was written to it is flushed" "$?" 0
diag "$out"
if ! check_order mutate data-flush-before-data "$dir/data.img" "$dir/meta.img" "$dir/trace" >"$dir/changed"; then
	not_ok "mappings: another order cannot be made: $(cat "$dir/changed")"
else
	expect_failure "mappings: another order is noticed" "is the first to map" \
		check_order --mappings "$dir/old.img" "$dir/data.img" "$dir/meta.img" "$dir/changed"
fi

# --- and what was given back ---

read -r nr blocks again < <(sed -n 's/^\([0-9]*\) punches gave back \([0-9]*\) blocks; \([0-9]*\) .*/\1 \2 \3/p' <<<"$out")
[ "${again:-0}" -ge 100 ] && ok "punches: freed blocks were written again" ||
	not_ok "punches: only ${again:-0} freed blocks were written again"
[ "${blocks:-0}" -ge $((5 * ${nr:-1})) ] && ok "punches: they are merged" || not_ok "punches: they are merged: ${nr:-?} for ${blocks:-?} blocks"
for kind in "${punch_kinds[@]}"; do
	if ! check_order mutate "$kind" --mappings "$dir/old.img" "$dir/data.img" "$dir/meta.img" "$dir/trace" >"$dir/changed"; then
		not_ok "$kind: cannot be made: $(cat "$dir/changed")"
	else
		expect_failure "$kind: is noticed" "punch" \
			check_order --mappings "$dir/old.img" "$dir/data.img" "$dir/meta.img" "$dir/changed"
	fi
done
