#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""sync_rate.py [overwrite] SECONDS FILE...: how often in a second the files are written and synced, all of them together.

One process for each file: it writes 4096 bytes and calls fsync, again and again; each time to the next 64 KiB of
what the file has beyond its end so far, or with `overwrite` always to the first ones."""

import multiprocessing
import os
import sys
import time

BLOCK = 64 << 10


def work(path, overwrite, ready, until, count):
    fd = os.open(path, os.O_RDWR)
    block = 0 if overwrite else os.fstat(fd).st_size // BLOCK
    ready.wait()
    until = time.monotonic() + until
    while time.monotonic() < until:
        os.pwrite(fd, b"s" * 4096, block * BLOCK)
        os.fsync(fd)
        block += not overwrite
        with count.get_lock():
            count.value += 1


def main():
    args = sys.argv[1:]
    overwrite = args[:1] == ["overwrite"]
    seconds, *paths = args[overwrite:]
    ready, count = multiprocessing.Barrier(len(paths)), multiprocessing.Value("L", 0)
    workers = [multiprocessing.Process(target=work, args=(p, overwrite, ready, float(seconds), count)) for p in paths]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit(1)
    print(round(count.value / float(seconds)))


main()
