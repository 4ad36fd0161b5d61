#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# place.sh RESULT: the jobs with all images under TMPDIR. As a test, so that nothing is left behind, whatever happens.
TEST_TIMEOUT=36000
. "$top_srcdir/tests/lib.sh" || exit 99
requires_fuse
requires_program fio python3
plan 1
if python3 -B "$top_srcdir/tests/bench/bench.py" "$(mktmp)" "$1"; then
	ok "measured in $TMPDIR"
else
	not_ok "measured in $TMPDIR"
fi
