# SPDX-License-Identifier: GPL-2.0-or-later
"""What thinfs is to reach: the table of goals, and whether they are, by what bench.py measured.

A goal is a limit for a figure of a case, or for its ratio to that of another case in the same round. Nothing is claimed of
what was not measured. Missing a goal is no failure of 'make bench': on a busy machine single runs do.
"""
import statistics
from dataclasses import dataclass

FOUR_K = "read-4k-q1", "read-4k-q32", "read-4k-j4", "write-4k-q1", "write-4k-q32", "write-4k-j4"
SEQUENTIAL = "read-1m", "write-1m"
FIRST = "first-1m", "first-64k-q32", "first-4k-q32", "first-4k-q1", "first-fsync-1", "first-fsync-8"
MAPPED = *FOUR_K, *SEQUENTIAL, "write-4k-fsync", "mixed-4k-q32"
OPERATIONS = "mount", "snapshot", "snapshot-100", "clone"
MANY = "10000000"
FIELDS = {"value": "", "cpu_us_per_request": " CPU", "max_us": " longest"}
CLASSIC, URING = "thinfs::transport=classic", "thinfs::transport=io_uring"


@dataclass
class Goal:
    point: str                # what it is about
    job: str
    case: str
    limit: float
    base: str = ""            # the case that it is a ratio to; "": the figure itself
    base_job: str = ""        # of that case, if it is another one
    field: str = "value"      # of the samples
    most: bool = False        # the limit is an upper one
    place: str = ""           # measured there only

    def __str__(self):
        base = " / " + " ".join(filter(None, (self.base_job, self.base))) if self.base else ""
        return f"{self.job}{FIELDS[self.field]}: {self.case}{base}"


GOALS = [
    *(Goal("mapped", j, "thinfs", 0.95, "floor") for j in (*FOUR_K, *SEQUENTIAL)),
    *(Goal("mapped", j, "thinfs", 2.0, q) for j in FOUR_K for q in ("qcow2", "qcow2::aio=io_uring")),
    Goal("fsync", "write-4k-fsync", "thinfs", 0.95, "floor"),
    Goal("fsync", "slow-fsync-8", "thinfs::slow", 4, "thinfs::slow", "slow-fsync-1"),
    Goal("first writes", "first-1m", "thinfs", 0.85, "floor"),
    *(Goal("first writes", j, "thinfs", 0.5, "floor") for j in ("first-4k-q1", "first-4k-q32")),
    *(Goal("copies", j, "thinfs", 0.8, "floor:snap:copy=65536") for j in ("snap-4k-q1", "snap-4k-q32")),
    *(Goal("ten deep", j, "thinfs:deep", 0.97, "thinfs:mapped") for j in ("deep-4k-q1", "deep-4k-q32")),
    Goal("stalls", "commit-p999", "thinfs:mapped:beside-provision", 1.5, "thinfs:mapped:beside-overwrite", most=True),
    *(Goal("stalls", j, c, 50000, field="max_us", most=True, place="tmpfs") for j, c in (
        ("commit-max", "thinfs:mapped:beside-provision"), ("snapshots-p999", "thinfs:mapped:beside-snapshots"),
        ("delete-p999", "thinfs:mapped:beside-delete"))),
    *(Goal("size", j, n, 2, most=True, place="tmpfs") for j in OPERATIONS for n in ("0", MANY)),
    *(Goal("size", j, MANY, 1.5, "0", most=True) for j in OPERATIONS),
    *(Goal("io_uring", j, URING, least, "floor") for j, least in zip(FOUR_K, (1.2, 1.0, 1.7) * 2)),
    *(Goal("io_uring", j, URING, 0.6, CLASSIC, field="cpu_us_per_request", most=True) for j in FOUR_K),
    *(Goal("io_uring", j, "thinfs", 0.95, CLASSIC) for j in (*MAPPED, *FIRST)),
    *(Goal("processor", j, "thinfs", 1.15, "floor", field="cpu_us_per_request", most=True) for j in FOUR_K),
    Goal("memory", "memory", MANY, 200, most=True),
]


def measure(goal, place):
    """The figures of all rounds; none, if it was not measured in this place."""
    samples = {job["name"]: job["samples"] for job in place["jobs"]}
    of = samples.get(goal.job, {}).get(goal.case)
    to = samples.get(goal.base_job or goal.job, {}).get(goal.base) if goal.base else None
    if goal.place not in ("", place["place"]) or not of or (goal.base and not to):
        return []
    if not goal.base:
        return [s[goal.field] for s in of]
    return [s[goal.field] / b[goal.field] for s, b in zip(of, to) if b[goal.field]]


def verdict(goal, figures):
    """By the median; what single rounds say is told, too."""
    def is_reached(x):
        return x <= goal.limit if goal.most else x >= goal.limit

    rounds = sum(map(is_reached, figures))
    reached = is_reached(statistics.median(figures))
    return reached, f"{'yes' if reached else 'no'}, {rounds} of {len(figures)} rounds"


def judge(place):
    """What became of each goal that was measured in a place, as it goes into the results."""
    out = []
    for goal in GOALS:
        figures = measure(goal, place)
        if figures:
            reached, words = verdict(goal, figures)
            out.append({"point": goal.point, "what": str(goal), "limit": ("<= " if goal.most else ">= ") + f"{goal.limit:g}",
                        "median": statistics.median(figures), "lowest": min(figures), "highest": max(figures),
                        "reached": reached, "verdict": words})
    return out
