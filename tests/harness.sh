#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# tests/lib.sh itself: whatever a test script does, what it made goes away.
. "${srcdir:-.}/tests/lib.sh" || exit 99
plan 8

dir=$(mktmp)

# run_script SECONDS: standard input is a test, run as 'make check' would; sets out and status.
run_script() {
	cat >"$dir/script.sh"
	out=$(env -u THINFS_TEST_STATE THINFS_TEST_TIMEOUT="$1" TMPDIR="$dir" DIR="$dir" \
		bash "$dir/script.sh" 2>&1)
	status=$?
}

run_script 20 <<-'END'
	. "$top_srcdir/tests/lib.sh"
	plan 1
	on_exit sh -c "echo one >>'$DIR/order'"
	on_exit sh -c "echo two >>'$DIR/order'"
	file=$(mktmp)/file
	touch "$file"
	ok "fine"
END
is "a good script succeeds" "$status" 0
is "cleanups run last one first" "$(cat "$dir/order")" "two
one"
is "nothing is left of its files" "$(ls -d "$dir"/thinfs-test.* 2>/dev/null)" ""

run_script 1 <<-'END'
	. "$top_srcdir/tests/lib.sh"
	plan 1
	on_exit touch "$DIR/cleaned"
	trap '' TERM
	(trap '' TERM; exec sleep 1000) &
	echo $! >"$DIR/pid"
	sleep 1000
END
grep -q "^Bail out!" <<<"$out" && ok "a script that hangs is ended" || not_ok "a script that hangs is ended"
[ -e "$dir/cleaned" ] && ok "its cleanups run" || not_ok "its cleanups run"
# A zombie has no /proc/PID/exe; whether somebody reaps it is not our business.
is "its processes are ended" "$(readlink "/proc/$(cat "$dir/pid")/exe")" ""

run_script 20 <<-'END'
	. "$top_srcdir/tests/lib.sh"
	plan 1
	skip_all "a reason"
END
grep -q "^1..0 # SKIP a reason" <<<"$out" && ok "skipping gives the reason" || not_ok "skipping gives the reason"

run_script 20 <<-'END'
	. "$top_srcdir/tests/lib.sh"
	plan 1
	echo "ERROR: AddressSanitizer" >"${ASAN_OPTIONS##*log_path=}.1"
	ok "fine"
END
is "a report of a sanitizer fails the test" "$status" 1
