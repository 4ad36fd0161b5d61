#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""bench.py DIR RESULT: measure the jobs with all files in DIR, and add the results to the JSON file RESULT.

Cases of a job are measured in turn, round by round, in changing order, so that what else the machine does meets all of
them; ratios are taken within a round. Programs stay mounted between rounds unless the state of the volume has to be
made again.
"""
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time

import jobs
import measure
import targets

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
CASES = os.environ.get("BENCH_CASES", "").split()
WANTED = re.compile(os.environ.get("BENCH_JOBS", ""))
MADE_AGAIN = "empty", "fresh", "snap"  # states that measuring uses up


class Bench:
    def __init__(self, folder):
        self.folder = folder
        self.kept = {}  # case -> Target, mounted
        self.missing = {}  # (program, way of serving) -> why it cannot be measured, or None
        self.count = 0

    def new_folder(self):
        self.count += 1
        return f"{self.folder}/{self.count}"

    def make(self, program, state, options):
        return targets.PROGRAMS[program](self.new_folder(), state, options)

    def sample_load(self, job, case, seed):
        program, state, options = case
        if state in MADE_AGAIN:
            target = self.make(program, state, options)
            try:
                return measure.sample_load(job, target, SECONDS, seed)
            finally:
                target.close()
        # What is done beside is no matter of the mount.
        key = (program, state, tuple(o for o in options if not o.startswith("beside-")))
        if key not in self.kept:
            self.kept[key] = self.make(program, state, key[2])
        self.kept[key].beside = next((o[len("beside-"):] for o in options if o.startswith("beside-")), None)
        return measure.sample_load(job, self.kept[key], SECONDS, seed)

    def sample(self, job, case, seed):
        if isinstance(job, jobs.Job):
            return self.sample_load(job, parse_case(case, job), seed)
        if case not in self.kept:
            self.kept[case] = measure.Mappings(self.new_folder(), int(case))
        return {"value": self.kept[case].take(job.operation)}

    def close_kept(self, wanted):
        for key in [k for k in self.kept if wanted(k)]:
            self.kept.pop(key).close()

    def is_possible(self, job, case):
        if not isinstance(job, jobs.Job):
            return True
        program, _, options = parse_case(case, job)
        way = tuple(o for o in options if jobs.is_way(o))
        key = program, way
        if key not in self.missing:
            self.missing[key] = targets.why_not(self.new_folder(), program, way)
            if self.missing[key]:
                print(f"# without {':'.join((program, *way))}: {self.missing[key]}", file=sys.stderr, flush=True)
        return not self.missing[key]

    def run(self, job):
        """All rounds of a job: case -> its samples."""
        cases = [c for c in (isinstance(job, jobs.Job) and CASES) or job.cases if self.is_possible(job, c)]
        samples = {c: [] for c in cases}
        for n in range(ROUNDS):
            turn = n % len(cases)
            for case in cases[turn:] + cases[:turn]:
                samples[case].append(self.sample(job, case, n + 1))
        # Memory is for the images: what only this job needs goes.
        self.close_kept(lambda key: isinstance(key, str) or key[1] != "mapped" or not all(map(jobs.is_way, key[2])))
        return samples


def parse_case(case, job):
    program, state, options = (case.split(":") + ["", ""])[:3]
    return program, state or job.state, tuple(options.split("+")) if options else ()


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        models = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    fuse = subprocess.run(["pkg-config", "--modversion", "fuse3"], stdout=subprocess.PIPE, text=True, check=False)
    return {"processor": models[0] if models else platform.machine(), "processors": os.cpu_count(),
            "kernel": platform.release(), "libfuse": fuse.stdout.strip(), "date": time.strftime("%Y-%m-%d"),
            "rounds": ROUNDS, "seconds": SECONDS, "size_mib": targets.MAPPED_SIZE >> 20}


def filesystem_of(folder):
    return targets.run("stat", "-f", "-c", "%T", folder).strip()


def warm_up(folder):
    """The first touch of memory costs a virtual machine more than what is measured."""
    path = folder + "/warm-up"
    try:
        with open(path, "wb") as f:
            for _ in range(4 * (targets.MAPPED_SIZE >> 20)):
                f.write(b"x" * targets.MIB)
    finally:
        os.unlink(path)


def main(folder, result):
    bench = Bench(folder)
    out = {"place": filesystem_of(folder), "jobs": []}
    if filesystem_of(folder) == "tmpfs" and SECONDS >= 1:
        warm_up(folder)
    try:
        for job in jobs.JOBS:
            if not WANTED.search(job.name):
                continue
            print(f"# {out['place']}: {job.title}", file=sys.stderr, flush=True)
            out["jobs"].append({"name": job.name, "title": job.title, "unit": job.unit,
                                "samples": bench.run(job)})
    finally:
        bench.close_kept(lambda key: True)
    results = {"machine": machine(), "places": []}
    if os.path.exists(result):
        with open(result, encoding="utf-8") as f:
            results = json.load(f)
    results["places"].append(out)
    with open(result, "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
    if not out["jobs"]:
        sys.exit(f"no job's name matches BENCH_JOBS={WANTED.pattern}")


if __name__ == "__main__":
    main(os.path.realpath(sys.argv[1]), sys.argv[2])
