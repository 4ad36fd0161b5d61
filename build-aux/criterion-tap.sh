#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# criterion-tap.sh PROGRAM [ARGUMENT...]: run a Criterion program so that it prints TAP.
#
# The program's exit status is 1 when cases failed. Their "not ok" lines say that already, and
# the driver would count the status as one more failure; any other status is passed on.

limit=${THINFS_TEST_TIMEOUT:-300}

case ${1-} in
*/*) ;;
*) set -- "./$@" ;;
esac

out=$(mktemp "${TMPDIR:-/tmp}/thinfs-tap.XXXXXX") || exit 99
trap 'rm -f "$out"' EXIT
trap 'exit 99' HUP INT TERM

# TAP goes to a file of its own: what the tests print must not mix with it.
timeout -k 10 "$limit" "$@" --tap="$out" --quiet
status=$?
cat "$out"
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
	echo "Bail out! $1 did not end within $limit s"
fi
if [ "$status" -eq 1 ] && grep -q '^not ok' "$out"; then
	exit 0
fi
exit "$status"
