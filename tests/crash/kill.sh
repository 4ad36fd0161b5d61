#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The daemon is killed with -9 at any moment of a heavy load, again and again on one pool: after each, the
# metadata are consistent, and all that was said to be durable is there (tests/crash/load.c).
#
# THINFS_KILLS: how many (5; 300 in 'make check-crash'). THINFS_TEST_SEED: of the load, and of the moments.
# THINFS_KILL_DAEMON: another program to be killed.
TEST_TIMEOUT=7200
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3
load=$top_builddir/tests/crash/load
mutant=$top_builddir/tests/crash/thinfs-mutant

kills=${THINFS_KILLS:-${THINFS_CRASH_ALL:+300}}
kills=${kills:-5}
seed=${THINFS_TEST_SEED:-$((RANDOM << 15 | RANDOM))}
echo "# THINFS_TEST_SEED=$seed"
RANDOM=$seed

# What the pool is mounted with, in turn.
options=(
	commit=1
	transport=classic,commit=0.05
	page_cache
	writeback_cache,commit=0.1
	threads=2,commit=0.02
	transport=classic,writeback_cache,commit=0.1
	no_discard_passdown,commit=0.3
)
# Where faults can be made, the disk is also slow, so that kills come in the middle of commits.
slow=data:flush:delay=4ms,meta:flush:delay=4ms,meta:write:delay=300us,data:write:delay=100us

always=

# new_pool DIR: on a data image that is full of what others wrote.
new_pool() {
	mkdir -p "$1/mnt"
	truncate -s 4G "$1/data.img"
	thinfs format --metadata-size 16M "$1/data.img" "$1/meta.img" || bail_out "cannot format"
	(tr '\0' '\345' </dev/zero | dd of="$1/data.img" bs=1M count=250 iflag=fullblock conv=notrunc) 2>/dev/null
}

start_load() {
	coproc LOAD { exec "$load" "$1" 2>&1; }
	load_pid=$LOAD_PID
}

# ask COMMAND: whether the answer is "done"; what else it says goes to our output.
ask() {
	local line
	echo "$1" >&"${LOAD[1]}"
	while read -r -t 300 line <&"${LOAD[0]}"; do
		case $line in
		done) return 0 ;;
		bad) return 1 ;;
		*) echo "$line" ;;
		esac
	done
	echo "# the load has ended, or hangs"
	return 1
}

# End the load; its last words.
end_load() {
	local in=${LOAD[1]}
	exec {in}>&-
	cat <&"${LOAD[0]}"
	wait "$load_pid"
}

# Sleep that many milliseconds, then kill.
kill_later() {
	sleep "$(printf '%d.%03d' $(($2 / 1000)) $(($2 % 1000)))"
	kill -KILL "$1"
}

mount_it() {
	THINFS_FAULT=$fault "$daemon" mount "${with_transport[@]}" -o "$2" "$1/data.img" "$1/meta.img" "$1/mnt" ||
		return 1
	pid=$(daemon_of "$1/mnt")
	[ -n "$pid" ]
}

# Of one that has ended there may be a zombie; it has nothing open once its last thread has gone.
has_threads() {
	grep -hqs '^State:.[^ZX]' "/proc/$1"/task/*/status
}

# one_kill DIR OPTIONS SEED MS: run the load on the pool until it is killed; look at all that is left.
one_kill() {
	local dir=$1 bad=0 killer
	mount_it "$dir" "$2" || return 1
	kill_later "$pid" "$4" &
	killer=$!
	ask "run $3 $((n % 2))" || bad=1
	wait $killer
	# The images are free when the process has gone.
	thinfs umount "$dir/mnt" 2>/dev/null || umount -l "$dir/mnt"
	while has_threads "$pid"; do
		sleep 0.02
	done
	audit_pool "$dir/meta.img" || bad=1
	fault=
	mount_it "$dir" commit=1 || return 1
	ask check || bad=1
	thinfs umount "$dir/mnt" || bad=1
	return $bad
}

# campaign DIR KILLS: whether there was no failure; stops at the first.
campaign() {
	local dir=$1 nr=$2 mount_with ms
	new_pool "$dir"
	on_exit _end_mount "$dir/mnt"
	start_load "$dir/mnt"
	for ((n = 1; n <= nr; n++)); do
		mount_with=${3:-${options[n % ${#options[@]}]}}
		fault=$always
		[ $((n % 3)) -ne 0 ] || fault=${always:-$slow}
		ms=$((RANDOM % 1200 + 30))
		if ! one_kill "$dir" "$mount_with" $((seed + n)) $ms; then
			echo "# kill $n, after $ms ms, mounted with $mount_with"
			end_load
			return 1
		fi
	done
	end_load
}

# Pools that are wrong: killing them must be seen.
mutants=(fsync zeros)
[ -z "${THINFS_CRASH_ALL-}" ] || mutants+=(reuse freeze)
plan $((2 + ${#mutants[@]}))
daemon=$THINFS
dir=$(mktmp)
started=$SECONDS
if campaign "$dir" "$kills"; then
	ok "$kills kills lose nothing that was durable, and show nothing that was not written"
else
	not_ok "$kills kills lose nothing that was durable, and show nothing that was not written"
fi
echo "# $kills kills in $((SECONDS - started)) s"
is "at the end the audit is clean" "$(audit_pool "$dir/meta.img" 2>&1)" ""
rm -r "$dir/data.img"

# Whether faults can be made, which takes a build with --enable-debug.
has_faults() {
	local dir
	dir=$(mktmp)
	mkdir "$dir/mnt"
	thinfs format --data-size 16M "$dir/data.img" "$dir/meta.img"
	THINFS_FAULT=nonsense thinfs mount "$dir/data.img" "$dir/meta.img" "$dir/mnt" 2>/dev/null || return 0
	thinfs umount "$dir/mnt"
	return 1
}

daemon=$mutant
for name in "${mutants[@]}"; do
	always=
	mount_options=
	case $name in
	zeros) mount_options=skip_block_zeroing ;;
	freeze) always=data:write:delay=20ms ;; # so that writes are under way long enough
	esac
	if [ -n "$always" ] && ! has_faults; then
		skip 1 "$name: needs a build with --enable-debug"
		continue
	fi
	dir=$(mktmp)
	if ! THINFS_MUTANT=$name campaign "$dir" 30 $mount_options >"$dir/out" 2>&1 &&
		grep -q '^# kill [0-9]' "$dir/out"; then
		ok "$name: is noticed"
	else
		not_ok "$name: is noticed"
	fi
	sed 's/^#*/#  /' "$dir/out" | head -n 4
	_end_mount "$dir/mnt"
	rm "$dir/data.img"
done
