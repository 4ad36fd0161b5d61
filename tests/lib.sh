# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the shell tests share. A test is a bash script that begins with
#
#	. "${srcdir:-.}/tests/lib.sh" || exit 99
#	requires_fuse			# or it is skipped, with the reason
#	plan 2
#
# and prints TAP by ok, not_ok, expect and the like.
#
# Sourcing this runs the script a second time, as a child under a time limit, while the first
# process waits and afterwards, however the child ended, undoes what it left behind: it runs the
# cleanups registered with on_exit in reverse, unmounts, ends processes, audits the pools and removes
# the files. Nothing of that is in the hands of a script that hangs or was killed. So:
#
# - A test leaves nothing behind, and may run beside others: all its files are under mktmp.
# - A cleanup runs in another shell: give it values, no variables or functions of the script.
# - on_exit, mktmp, attach_loop, ok and so on may be used in $(...) and in subshells.
#
# Set before sourcing: TEST_TIMEOUT, seconds (300; the environment's THINFS_TEST_TIMEOUT wins).

set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

top_srcdir=${top_srcdir:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
top_builddir=${top_builddir:-$PWD}
THINFS=${THINFS:-$top_builddir/thinfs}
export top_srcdir top_builddir THINFS PATH

# --- TAP ----------------------------------------------------------------------------------------

plan() {
	echo "1..$1"
}

ok() {
	echo "ok - $*"
}

not_ok() {
	echo "not ok - $*"
	touch "$THINFS_TEST_STATE/not_ok"
}

# Lines for whoever reads the log.
diag() {
	printf '%s\n' "$*" | sed 's/^/# /'
}

# skip COUNT REASON: that many cases.
skip() {
	local i
	for ((i = 0; i < $1; i++)); do
		echo "ok - # SKIP $2"
	done
}

# In place of plan.
skip_all() {
	echo "1..0 # SKIP $*"
	exit 0
}

bail_out() {
	echo "Bail out! $*"
	exit 1
}

# expect CLAIM COMMAND [ARGUMENT...]: the command succeeds. Its output is shown when it does not.
expect() {
	local claim=$1 out status
	shift
	out=$("$@" 2>&1)
	status=$?
	if [ $status -eq 0 ]; then
		ok "$claim"
	else
		not_ok "$claim"
		diag "$(printf '%q ' "$@"): status $status"
		diag "$out"
	fi
	return $status
}

# expect_failure CLAIM PATTERN COMMAND...: it fails, not by a signal, and its output matches PATTERN
# (an extended regular expression).
expect_failure() {
	local claim=$1 pattern=$2 out status
	shift 2
	out=$("$@" 2>&1)
	status=$?
	if [ $status -gt 0 ] && [ $status -lt 126 ] && grep -Eq -- "$pattern" <<<"$out"; then
		ok "$claim"
		return 0
	fi
	not_ok "$claim"
	diag "$(printf '%q ' "$@"): status $status, wanted a failure that says: $pattern"
	diag "$out"
	return 1
}

# is CLAIM GOT WANTED
is() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		not_ok "$1"
		diag "     got: $2"
		diag "expected: $3"
		return 1
	fi
}

# --- What is needed -----------------------------------------------------------------------------

requires_program() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip_all "no program '$program'"
	done
}

requires_root() {
	[ "$(id -u)" -eq 0 ] || skip_all "needs root"
}

# Whether this process has CAP_SYS_ADMIN, without which root cannot mount (in a container).
_can_mount() {
	local caps
	caps=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
	(((0x$caps >> 21) & 1))
}

requires_fuse() {
	[ -e /dev/fuse ] || skip_all "no /dev/fuse"
	(exec 3<>/dev/fuse) 2>/dev/null || skip_all "/dev/fuse cannot be opened"
	_can_mount || [ -u "$(command -v fusermount3 || echo /)" ] ||
		skip_all "mounting is not permitted here, and fusermount3 is not set-uid root"
}

requires_loop() {
	local file dev
	requires_root
	requires_program losetup
	file=$(mktmp)/probe
	truncate -s 1M "$file"
	if dev=$(losetup -f --show "$file" 2>&1); then
		losetup -d "$dev"
	else
		skip_all "no loop devices: $dev"
	fi
}

# --- What is undone at the end ------------------------------------------------------------------

# on_exit COMMAND [ARGUMENT...]: run it when the test has ended, the last one first.
on_exit() {
	printf '%q ' "$@" >>"$THINFS_TEST_STATE/cleanups"
	echo >>"$THINFS_TEST_STATE/cleanups"
}

# Make a directory and print its name.
mktmp() {
	mktemp -d "$THINFS_TEST_STATE/tmp.XXXXXX"
}

# THINFS_TRANSPORT of the environment is how requests are to come, in all tests but those of transport.sh: classic, io_uring.
with_transport=()
[ -z "${THINFS_TRANSPORT:-}" ] || with_transport=(-o "transport=$THINFS_TRANSPORT")

# For a mount by another program or in the background, give it "${with_transport[@]}".
thinfs() {
	if [ "${1:-}" = mount ]; then
		shift
		"$THINFS" mount "${with_transport[@]}" "$@"
	else
		"$THINFS" "$@"
	fi
}

# mount_pool DIR [MOUNT_OPTION...]: mount DIR/data.img and DIR/meta.img on DIR/mnt, and set MNT. The
# pool is unmounted at the end, and audited then.
mount_pool() {
	local dir=$1
	shift
	MNT=$dir/mnt
	mkdir -p "$MNT"
	on_exit _end_mount "$MNT"
	audit_at_exit "$dir/meta.img"
	thinfs mount "$@" "$dir/data.img" "$dir/meta.img" "$MNT" || bail_out "cannot mount $dir"
}

# umount_pool [DIR]: now; DIR is $MNT if not given.
umount_pool() {
	"$THINFS" umount "${1:-$MNT}"
}

# The process that serves the pool mounted on DIR.
daemon_of() {
	thinfs status "$1" | sed -n 's/^served by *process //p'
}

# kill_daemon DIR: and wait until it has ended, and the process beside it; as long as they may have images and mount in use.
kill_daemon() {
	local pid beside tries
	pid=$(daemon_of "$1")
	beside=$(cat "/proc/$pid"/task/*/children 2>/dev/null)
	kill -KILL "$pid"
	for ((tries = 0; tries < 300; tries++)); do
		# shellcheck disable=SC2086
		[ -n "$(ls -d /proc/$pid ${beside:+$(printf '/proc/%s ' $beside)} 2>/dev/null)" ] || return 0
		sleep 0.1
	done
	bail_out "the daemon that was killed does not end"
}

# status FILTER: what jq takes out of the status of the pool on $MNT.
status() {
	thinfs status --json "$MNT" | jq "$1"
}

# The mode of the pool on $MNT.
mode() {
	thinfs status --json "$MNT" | sed -n 's/^ *"mode": "\(.*\)",\{0,1\}$/\1/p'
}

# eventually COMMAND...: it succeeds within half a minute, in which the pool on $MNT commits again and again:
# space comes back behind a commit.
eventually() {
	local tries
	for ((tries = 0; tries < 300; tries++)); do
		"$@" && return 0
		thinfs sync "$MNT"
		sleep 0.1
	done
	return 1
}

# attach_loop FILE [LOSETUP_OPTION...]: print the name of a loop device on FILE, detached at the end.
attach_loop() {
	local file=$1 dev
	shift
	dev=$(losetup -f --show "$@" "$file") || return 1
	on_exit detach_loop "$dev" "$file"
	echo "$dev"
}

# detach_loop DEV FILE: and wait until it has let go of the file. Nothing, if DEV is no more, or is
# another test's by now.
detach_loop() {
	local tries
	_is_loop_on "$1" "$2" || return 0
	losetup -d "$1" || return 1
	for ((tries = 0; tries < 50; tries++)); do
		_is_loop_on "$1" "$2" || return 0
		sleep 0.1
	done
	echo "$1 is still attached to $2"
	return 1
}

_is_loop_on() {
	local file
	file=$(cat "/sys/block/${1##*/}/loop/backing_file" 2>/dev/null) && [ "$file" = "$(readlink -m "$2")" ]
}

# Space that a file takes, in bytes.
du_bytes() {
	echo $(($(stat -c %b "$1") * 512))
}

# What the filesystem mounted on DIR uses, with all that it needs for itself, in bytes.
fs_used() {
	local size blocks free
	read -r size blocks free < <(stat -f -c '%S %b %f' "$1")
	echo $(((blocks - free) * size))
}

# audit_pool META: whether 'thinfs check', thin_check and our own audit find nothing wrong; what they find
# is shown.
audit_pool() {
	local meta=$1 out status=0
	out=$("$THINFS" check "$meta" 2>&1) || {
		diag "thinfs check:" "$(printf '%s' "$out" | tail -c 4000)"
		status=1
	}
	if command -v thin_check >/dev/null; then
		out=$(thin_check "$meta" 2>&1) || {
			diag "thin_check $meta: $out"
			status=1
		}
	fi
	if command -v python3 >/dev/null; then
		out=$(python3 "$top_srcdir/tests/tools/dm-thin-audit.py" --no-mappings --compact "$meta" 2>&1) || {
			diag "dm-thin-audit.py $meta:" "$(printf '%s' "$out" | tail -c 4000)"
			status=1
		}
	fi
	return $status
}

# Audit META at the end of the test, if it is still there.
audit_at_exit() {
	echo "$1" >>"$THINFS_TEST_STATE/pools"
}

# This test damages META on purpose.
expect_damage() {
	echo "$1" >>"$THINFS_TEST_STATE/damaged"
}

# --- The process that waits ---------------------------------------------------------------------

_is_mounted() {
	grep -qF " $1 " /proc/self/mountinfo
}

# Orderly if possible. A pool that cannot be unmounted fails the test.
_end_mount() {
	_is_mounted "$1" || return 0
	timeout -k 5 60 "$THINFS" umount "$1" && return 0
	echo "# $1: 'thinfs umount' failed at the end of the test"
	touch "$THINFS_TEST_STATE/failed"
}

# Cut a mount off from its daemon, so that no process can wait for it, and take it away.
_kill_mounts() {
	local line dir device
	while read -r line; do
		read -r _ _ device _ dir _ <<<"$line"
		[ -w "/sys/fs/fuse/connections/${device#*:}/abort" ] &&
			echo 1 >"/sys/fs/fuse/connections/${device#*:}/abort"
		umount -l "$dir" 2>/dev/null || fusermount3 -uz "$dir"
		echo "# $dir was still mounted"
	done < <(grep -F " $THINFS_TEST_STATE/" /proc/self/mountinfo | tac)
}

# Processes this test has started, by the variable that they inherited; daemons too.
_processes() {
	local dir
	for dir in /proc/[0-9]*; do
		[ "${dir#/proc/}" != $BASHPID ] && [ "${dir#/proc/}" != $$ ] &&
			grep -qzxF "THINFS_TEST_STATE=$THINFS_TEST_STATE" "$dir/environ" 2>/dev/null &&
			echo "${dir#/proc/}"
	done
}

# All but the daemons, which are asked politely.
_kill_clients() {
	local pid
	for pid in $(_processes); do
		[ "$(readlink "/proc/$pid/exe")" = "$(readlink -f "$THINFS")" ] || kill -KILL "$pid" 2>/dev/null
	done
}

_kill_daemons() {
	local pid tries
	# After an unmount the daemon still commits.
	for ((tries = 0; tries < 30; tries++)); do
		[ -n "$(_processes)" ] || return 0
		sleep 0.3
	done
	for pid in $(_processes); do
		echo "# process $pid ($(cat "/proc/$pid/comm" 2>/dev/null)) was still running"
		touch "$THINFS_TEST_STATE/failed"
		kill -KILL "$pid" 2>/dev/null
	done
}

_run_cleanups() {
	local line
	[ -e "$THINFS_TEST_STATE/cleanups" ] || return 0
	while read -r line; do
		timeout -k 5 90 bash -c ". '$top_srcdir/tests/lib.sh'; $line" 2>&1 | sed 's/^/# cleanup: /'
	done < <(tac "$THINFS_TEST_STATE/cleanups")
}

_audit_all() {
	local meta
	[ -e "$THINFS_TEST_STATE/pools" ] || return 0
	while read -r meta; do
		[ -e "$meta" ] || continue
		grep -qxF "$meta" "$THINFS_TEST_STATE/damaged" 2>/dev/null && continue
		audit_pool "$meta" || touch "$THINFS_TEST_STATE/failed"
	done < <(sort -u "$THINFS_TEST_STATE/pools")
}

# Daemons write what a sanitizer finds to a file, or nobody would see it.
_report_sanitizers() {
	local report
	for report in "$THINFS_TEST_STATE"/sanitizer.*; do
		[ -s "$report" ] || continue
		head -n 200 "$report" | sed 's/^/# /'
		touch "$THINFS_TEST_STATE/failed"
	done
}

_end_test() {
	local status=$1
	_kill_clients
	_run_cleanups
	_kill_mounts
	_kill_daemons
	_audit_all
	_report_sanitizers
	# A script whose last check failed ends with status 1; that failure has been told.
	[ "$status" -ne 1 ] || [ ! -e "$THINFS_TEST_STATE/not_ok" ] || status=0
	[ ! -e "$THINFS_TEST_STATE/failed" ] || [ "$status" -ne 0 ] || status=1
	rm -rf --one-file-system "$THINFS_TEST_STATE"
	exit "$status"
}

_supervise() {
	local limit=${THINFS_TEST_TIMEOUT:-${TEST_TIMEOUT:-300}} log child status

	THINFS_TEST_STATE=$(mktemp -d "${TMPDIR:-/tmp}/thinfs-test.XXXXXX") || exit 99
	export THINFS_TEST_STATE
	# handle_abort: where a failed assertion was, too.
	log=handle_abort=1:log_path=$THINFS_TEST_STATE/sanitizer
	export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}$log"
	export TSAN_OPTIONS="${TSAN_OPTIONS:+$TSAN_OPTIONS:}$log"
	export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}print_stacktrace=1:$log"

	timeout -k 5 "$limit" bash "$0" "$@" &
	child=$!
	trap 'kill -TERM $child 2>/dev/null; wait $child; _end_test 99' HUP INT TERM
	wait $child
	status=$?
	# Interrupting the end would leave behind what it is there to remove.
	trap '' HUP INT TERM
	if [ $status -eq 124 ] || [ $status -eq 137 ]; then
		echo "Bail out! did not end within $limit s"
	fi
	_end_test $status
}

[ -n "${THINFS_TEST_STATE-}" ] || _supervise "$@"
