#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The command line: help, version, usage errors.
. "${srcdir:-.}/tests/lib.sh" || exit 99
plan 7

help=$(thinfs --help)
is "--help succeeds" $? 0
[ "$(wc -l <<<"$help")" -le 40 ] && [ "$(wc -L <<<"$help")" -le 100 ] &&
	ok "--help fits a screen" || not_ok "--help fits a screen"
expect "--version succeeds" thinfs --version

thinfs >/dev/null 2>&1
is "no command is a usage error" $? 2
thinfs frobnicate 2>/dev/null
is "an unknown command is a usage error" $? 2
expect_failure "an unknown command is named" "frobnicate: no such command" thinfs frobnicate
is "help goes to standard output, nothing to standard error" "$(thinfs --help 2>&1 >/dev/null)" ""
