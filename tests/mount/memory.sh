#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Little memory: the daemon in a control group of its own, and what writes to a loop device on a volume in another
# one, with far more dirty pages than that. Nobody waits for ever, nobody is killed, and the data are right.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_loop
requires_program python3 jq

limit=$((80 << 20))
written=128 # MiB

# What is found of a control group's memory, in the two versions of them.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
	grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || skip_all "no control groups for memory here"
	root=/sys/fs/cgroup version=2
elif [ -d /sys/fs/cgroup/memory ] && [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
	root=/sys/fs/cgroup/memory version=1
else
	skip_all "no control groups for memory here"
fi

# new_group NAME BYTES
new_group() {
	group=$root/thinfs-test.$$.$1
	mkdir "$group" 2>/dev/null || skip_all "control groups cannot be made here"
	on_exit rmdir "$group"
	if [ $version = 2 ]; then
		echo "$2" >"$group/memory.max" && echo 0 >"$group/memory.swap.max"
	else
		echo "$2" >"$group/memory.limit_in_bytes"
	fi || skip_all "control groups' memory cannot be limited here"
}

nr_killed() {
	if [ $version = 2 ]; then
		sed -n 's/^oom_kill //p' "$1/memory.events"
	else
		sed -n 's/^oom_kill //p' "$1/memory.oom_control"
	fi
}

most_used() {
	cat "$1/memory.peak" "$1/memory.max_usage_in_bytes" 2>/dev/null | head -n 1
}

# in_group GROUP COMMAND...
in_group() {
	bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$@"
}

# A sanitizer's memory is not ours to measure.
[[ $(thinfs --version 2>&1; nm -D "$THINFS" 2>/dev/null) == *__asan* ]] && limit=$((400 << 20))
new_group daemon $limit
daemon_group=$group
new_group load $((48 << 20))
load_group=$group

plan 16

dir=$(mktmp)
thinfs format --data-size 2G "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mkdir "$dir/mnt"
on_exit _end_mount "$dir/mnt"
audit_at_exit "$dir/meta.img"
expect "a pool is mounted with little memory" in_group "$daemon_group" \
	"$THINFS" mount "${with_transport[@]}" -o metadata_cache=16M "$dir/data.img" "$dir/meta.img" "$dir/mnt"
mnt=$dir/mnt
pid=$(daemon_of "$mnt")
grep -qx "$pid" "$daemon_group/cgroup.procs" && ok "by a daemon in the group" || not_ok "by a daemon in the group"

# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, of linux/sched.h, are what PR_SET_IO_FLUSHER is for.
flagged=0 threads=0
for task in "/proc/$pid/task"/*; do
	flags=$(sed 's/.*) //' "$task/stat" | cut -d' ' -f7)
	threads=$((threads + 1))
	flagged=$((flagged + ((flags & 0x00080000) != 0 && (flags & 0x00100000) != 0)))
done
if python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl(57, 1, 0, 0, 0) != 0)'; then
	is "all its threads are marked as those that free memory" "$flagged" "$threads"
else
	skip 1 "PR_SET_IO_FLUSHER is not permitted here"
fi

# pages write|check FILE SEED: every page of FILE says which one it is.
pages() {
	timeout 120 python3 - "$@" "$written" <<-'END'
	import os, struct, sys
	action, path, seed, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) << 20
	step = 1 << 20
	fd = os.open(path, os.O_RDWR if action == "write" else os.O_RDONLY)
	for at in range(0, size, step):
	    want = b"".join(struct.pack("<QQ", seed, at + i) * 256 for i in range(0, step, 4096))
	    if action == "write":
	        os.pwrite(fd, want, at)
	    elif os.pread(fd, step, at) != want:
	        sys.exit(f"{path}: differs in the MiB from {at} on")
	END
}
export -f pages
export written

seed=0
for how in "loop off" "loop on" "file off"; do
	thinfs create --size ${written}M "$mnt/v$seed"
	target=$mnt/v$seed
	if [ "${how% *}" = loop ] && ! target=$(attach_loop "$mnt/v$seed" --direct-io="${how#* }" 2>/dev/null); then
		skip 4 "$how: the loop device cannot do that here"
		seed=$((seed + 1))
		continue
	fi
	expect "$how: $written MiB are written" in_group "$load_group" bash -c "pages write $target $seed"
	expect "$how: and again, over a snapshot" bash -c \
		"mkdir '$mnt/.snapshots/s$seed' && echo \$\$ >'$load_group/cgroup.procs' && pages write $target $((seed + 100))"
	expect "$how: and synced" timeout 120 sync "$target"
	[ "${how% *}" = file ] || detach_loop "$target" "$mnt/v$seed"
	echo 3 >/proc/sys/vm/drop_caches
	pages check "$mnt/v$seed" $((seed + 100)) && pages check "$mnt/.snapshots/s$seed/v$seed" "$seed" &&
		ok "$how: all are as they were written" || not_ok "$how: all are as they were written"
	seed=$((seed + 1))
done
is "nobody was killed for lack of memory" "$(nr_killed "$daemon_group") $(nr_killed "$load_group")" "0 0"
echo "# the daemon's group used $(($(most_used "$daemon_group") >> 20)) MiB at most, of $((limit >> 20)); the load's" \
	"$(($(most_used "$load_group") >> 20)) MiB"
