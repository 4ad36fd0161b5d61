#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# criterion-tap.sh PROGRAM [ARGUMENT...]: run a Criterion program so that it prints TAP.
#
# The program's exit status is 1 when cases failed. Their "not ok" lines say that already, and
# the driver would count the status as one more failure; any other status is passed on.
#
# What sanitizers find goes to files: Criterion takes no notice of what happens after a case has
# ended, and that is when leaks are found.

limit=${THINFS_TEST_TIMEOUT:-300}

case ${1-} in
*/*) ;;
*) set -- "./$@" ;;
esac

dir=$(mktemp -d "${TMPDIR:-/tmp}/thinfs-unit.XXXXXX") || exit 99
trap 'rm -rf "$dir"' EXIT
trap 'exit 99' HUP INT TERM

ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$dir/sanitizer"
UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}print_stacktrace=1:log_path=$dir/sanitizer"
export ASAN_OPTIONS UBSAN_OPTIONS

# --quiet would silence the tests too, and with them the seeds they print.
timeout -k 10 "$limit" "$@" --tap="$dir/tap" --color=never >"$dir/output" 2>&1
status=$?
cat "$dir/output" "$dir"/sanitizer* 2>/dev/null | sed 's/^/# /'
cat "$dir/tap"
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
	echo "Bail out! $1 did not end within $limit s"
elif grep -q '^not ok' "$dir/tap"; then
	[ "$status" -ne 1 ] || status=0
elif [ "$status" -eq 0 ] && ls "$dir"/sanitizer* >/dev/null 2>&1; then
	status=1
fi
exit "$status"
