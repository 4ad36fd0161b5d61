#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A little of 'make bench', so that it works when it is wanted: what it measures is of no interest here.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program fio jq python3
plan 8

dir=$(mktmp)
export BENCH_ROUNDS=1 BENCH_SECONDS=0.2 BENCH_SIZE_MIB=16 BENCH_CASES="floor thinfs thinfs::transport=classic thinfs::transport=io_uring"
jobs=(read-4k-q1 first-4k-q1 snap-4k-q1 snapshot)
BENCH_JOBS=$(IFS='|' && echo "^(${jobs[*]})\$")
export BENCH_JOBS
bench() {
	python3 -B "$top_srcdir/tests/bench/bench.py" "$@"
}
report() {
	python3 -B "$top_srcdir/tests/bench/report.py" "$@"
}

expect "jobs are measured" bench "$(mktmp)" "$dir/result.json"
got=$(jq -r '.places[].jobs[] | select([.samples[][].value] | min > 0) | .name' "$dir/result.json" | sort | tr '\n' ' ')
is "each has a figure" "$got" "$(printf '%s\n' "${jobs[@]}" | sort | tr '\n' ' ')"
# What a read costs the daemon and how much memory it takes are measured where the daemon runs.
is "thinfs took memory and time" "$(jq '.places[0].jobs[0].samples.thinfs[0] | .memory_kib > 1000 and .p99_us > 0' "$dir/result.json")" true
# io_uring is left out where the kernel does not offer it, and nothing else is.
is "by the transports that there are" "$(jq -r '.places[0].jobs[0].samples | keys | join(" ")' "$dir/result.json" |
	sed 's/ thinfs::transport=io_uring$//')" "floor thinfs thinfs::transport=classic"
expect "the table and the chart are made" report "$dir/result.json" "$dir/chart.svg"
# A write that is far from its goal: the verdict follows the figures, whatever they are.
jq '(.places[0].jobs[] | select(.name == "read-4k-q1") | .samples.thinfs[0].value) |= . / 1000' "$dir/result.json" >"$dir/slow.json"
report "$dir/slow.json" >"$dir/slow.txt"
is "a goal that is missed is told" "$(jq '.places[0].goals[] | select(.what == "read-4k-q1: thinfs / floor") | .reached' "$dir/slow.json")" false
expect "each goal is of a job that there is" env PYTHONPATH="$top_srcdir/tests/bench" python3 -B -c '
import goals, jobs
cases = {(j.name, c) for j in jobs.JOBS for c in (*j.cases, goals.MANY)}
missing = [str(g) for g in goals.GOALS if not {(g.job, g.case), (g.base_job or g.job, g.base or g.case)} <= cases]
assert not missing, missing'
expect "the chart is well-formed" python3 -c 'import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])' "$dir/chart.svg"
