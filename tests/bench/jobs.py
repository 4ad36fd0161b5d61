# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of jobs: what is measured, one job a line.

A job is a load for fio, or a timed operation, and the cases that are compared by it, the first of which is what
the others are given as a ratio to. A case is PROGRAM, PROGRAM:STATE or PROGRAM:STATE:OPTION[+OPTION...]; without a
STATE it is that of the job.

Programs   floor    floor.c, over a file as large as the volume
           thinfs
           qcow2    the FUSE export of qemu-storage-daemon
States     mapped   all of the volume has been written
           fresh    mapped, made again for each round
           empty    a new sparse volume, made again for each round
           snap     mapped, then a snapshot; made again for each round
           deep     mapped, then ten snapshots, with a tenth of the volume written after each
Options    of the mount, of floor.c, or of the image file of qcow2; and
           loop, loopbuf    through a loop device on the file, with direct I/O or without it
           buffered         without O_DIRECT
           slow             each flush of a disk takes 5 ms longer
           beside-X         while X is done to another volume: targets.py, Beside
"""
import os
from dataclasses import dataclass

# thinfs as it chooses to be served by itself, and by name where the kernel offers both.
OURS = "floor", "thinfs", "thinfs::transport=classic", "thinfs::transport=io_uring"
USUAL = *OURS, "qcow2", "qcow2::aio=io_uring"
WRITEBACK = "floor::buffered+writeback", "thinfs::buffered+writeback_cache"
ONCE = -1


def of(option):
    """The three programs with an option of all."""
    return f"floor::{option}", f"thinfs::{option}", f"qcow2::{option}"


def is_way(option):
    """Whether it is a way of serving that not every machine has."""
    return option.startswith(("transport=", "aio="))


@dataclass
class Job:
    """A load: what fio is to do."""
    name: str
    title: str
    rw: str
    bs: str
    depth: int = 1
    jobs: int = 1
    state: str = "mapped"
    cases: tuple = USUAL
    fsync: int = 0
    count: int = 0        # requests, on volumes of 1 GiB; 0: as many as the time allows; ONCE: of all of the volume
    align: str = ""       # of the offsets; the block size
    apart: bool = False   # each job has a volume of its own
    unit: str = "kIOPS"   # or MiB/s, or what is measured of the latency: p99.9 us, max us


@dataclass
class Timed:
    """An operation that is timed, or else measured, in pools with so many mappings: measure.py, Mappings."""
    name: str
    title: str
    operation: str
    cases: tuple
    unit: str = "ms"


# Ten millions take a minute to make and to check: only when asked for.
MAPPINGS = ("0", "100000", "1000000", *os.environ.get("BENCH_MAPPINGS", "").split())
COPIES = "floor:snap:copy=65536", *USUAL[1:]
BESIDE = "thinfs:mapped:beside-overwrite", "thinfs:mapped:beside-provision"

JOBS = [
    # The mapped path.
    Job("read-4k-q1", "4K random read, depth 1", "randread", "4k"),
    Job("read-4k-q32", "4K random read, depth 32", "randread", "4k", depth=32),
    Job("read-4k-j4", "4K random read, 4 jobs", "randread", "4k", jobs=4),
    Job("write-4k-q1", "4K random overwrite, depth 1", "randwrite", "4k"),
    Job("write-4k-q32", "4K random overwrite, depth 32", "randwrite", "4k", depth=32),
    Job("write-4k-j4", "4K random overwrite, 4 jobs", "randwrite", "4k", jobs=4),
    Job("write-4k-fsync", "4K overwrite, fsync each", "randwrite", "4k", fsync=1),
    Job("read-1m", "sequential read 1M", "read", "1m", depth=4, unit="MiB/s"),
    Job("write-1m", "sequential overwrite 1M", "write", "1m", depth=4, unit="MiB/s"),
    Job("mixed-4k-q32", "4K random, 70 % read, depth 32", "randrw", "4k", depth=32),

    # First writes.
    Job("first-1m", "first write, sequential 1M", "write", "1m", depth=4, state="empty", count=2048, unit="MiB/s"),
    Job("first-64k-q32", "first write, random 64K, depth 32", "randwrite", "64k", depth=32, state="empty", count=16384),
    Job("first-4k-q32", "first write, random 4K, depth 32", "randwrite", "4k", depth=32, state="empty", count=40000),
    Job("first-4k-q1", "first write, random 4K, depth 1", "randwrite", "4k", state="empty", count=20000),
    Job("first-fsync-1", "first write 4K, fsync each, 1 writer", "randwrite", "4k", state="empty", fsync=1),
    Job("first-fsync-8", "first write 4K, fsync each, 8 writers", "randwrite", "4k", state="empty", fsync=1, jobs=8,
        apart=True, cases=OURS),
    Job("slow-fsync-1", "first write 4K, fsync each, flush 5 ms, 1 writer", "randwrite", "4k", state="empty", fsync=1,
        cases=("floor::slow", "thinfs::slow")),
    Job("slow-fsync-8", "first write 4K, fsync each, flush 5 ms, 8 writers", "randwrite", "4k", state="empty", fsync=1,
        jobs=8, apart=True, cases=("floor::slow", "thinfs::slow")),

    # Snapshots.
    Job("snap-4k-q32", "4K overwrite after a snapshot, depth 32", "randwrite", "4k", depth=32, state="snap", count=8000,
        align="64k", cases=COPIES),
    Job("snap-4k-q1", "4K overwrite after a snapshot, depth 1", "randwrite", "4k", state="snap", count=8000,
        align="64k", cases=COPIES),
    Job("snap-1m", "1M overwrite after a snapshot", "write", "1m", depth=4, state="snap", count=1024, unit="MiB/s",
        cases=("floor:empty", "thinfs", "qcow2")),
    Job("deep-4k-q32", "4K random read, ten snapshots deep, depth 32", "randread", "4k", depth=32,
        cases=("thinfs:mapped", "thinfs:deep")),
    Job("deep-4k-q1", "4K random read, ten snapshots deep, depth 1", "randread", "4k",
        cases=("thinfs:mapped", "thinfs:deep")),

    # Other ways to it.
    Job("discard", "discard 64K, random", "randtrim", "64k", state="fresh", count=8000,
        cases=("floor", "thinfs", "thinfs:snap", "qcow2")),
    Job("loop-read", "4K random read through losetup, direct, depth 32", "randread", "4k", depth=32, cases=of("loop")),
    Job("loop-write", "4K random overwrite through losetup, direct, depth 32", "randwrite", "4k", depth=32,
        cases=of("loop")),
    Job("loopbuf-read", "4K random read through losetup, depth 32", "randread", "4k", depth=32, cases=of("loopbuf")),
    Job("loopbuf-write", "4K random overwrite through losetup, depth 32", "randwrite", "4k", depth=32,
        cases=of("loopbuf")),
    Job("buffered-read", "buffered sequential read 1M", "read", "1m", count=ONCE, unit="MiB/s", cases=of("buffered")),
    Job("buffered-write", "buffered sequential write 1M and fsync", "write", "1m", count=ONCE, unit="MiB/s",
        cases=of("buffered")),
    Job("buffered-4k", "buffered 4K random write", "randwrite", "4k", cases=of("buffered")),
    Job("writeback-read", "sequential read 1M, write-back cache", "read", "1m", count=ONCE, unit="MiB/s",
        cases=WRITEBACK),
    Job("writeback-write", "sequential write 1M and fsync, write-back cache", "write", "1m", count=ONCE, unit="MiB/s",
        cases=WRITEBACK),
    Job("writeback-4k", "4K random write, write-back cache", "randwrite", "4k", cases=WRITEBACK),

    # What others notice: latency of reads on one volume, while something is done to another.
    Job("commit-p999", "4K read while another volume gets mappings, p99.9", "randread", "4k", unit="p99.9 us",
        cases=BESIDE),
    Job("commit-max", "4K read while another volume gets mappings, longest", "randread", "4k", unit="max us",
        cases=BESIDE),
    Job("snapshots-p999", "4K write while snapshots are taken of another volume, p99.9", "randwrite", "4k", unit="p99.9 us",
        cases=("thinfs:mapped", "thinfs:mapped:beside-snapshots")),
    Job("delete-p999", "4K read while a volume is deleted, p99.9", "randread", "4k", unit="p99.9 us",
        cases=("thinfs:mapped", "thinfs:mapped:beside-delete")),

    # What does not depend on what is mapped.
    Timed("mount", "mount", "mount", MAPPINGS),
    Timed("snapshot", "snapshot of a volume", "snapshot", MAPPINGS),
    Timed("snapshot-100", "snapshot of 100 volumes", "snapshot100", MAPPINGS),
    Timed("clone", "clone", "clone", MAPPINGS),
    Timed("delete", "delete a volume (until rm returns)", "delete", MAPPINGS),
    Timed("memory", "memory of the daemon after 50,000 reads all over", "memory", MAPPINGS, unit="MiB"),
]
