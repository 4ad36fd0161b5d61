#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a snapshot holds.

    snapshots.py holds POOL FILE VOLUME METHOD ROUNDS SIZE
        Write to FILE (the volume itself, or a loop device on it), make a snapshot, and see whether it
        holds every write that returned before, and so on. METHOD: write, direct, mmap. Only the
        first SIZE bytes are used, so that others can load the rest.
    snapshots.py instant POOL ROUNDS FLAG...
        Write increasing counters to two volumes alternately while snapshots are taken: none may have
        the later write without the earlier, or lack one that returned before it. FLAG: direct, sync
"""

import mmap
import os
import random
import struct
import sys
import threading
import time
from pathlib import Path

PAGE = 4096


def fail(text):
    print(text)
    sys.exit(1)


class Writer:
    def __init__(self, path, method, size):
        flags = os.O_RDWR | (os.O_DIRECT if method == "direct" else 0)
        self.fd = os.open(path, flags)
        self.map = None
        if method == "mmap":
            try:
                self.map = mmap.mmap(self.fd, size, mmap.MAP_SHARED)
            except OSError as error:
                print(f"no shared mapping here: {error}")
                sys.exit(77)
        self.page = mmap.mmap(-1, PAGE)  # aligned, as direct I/O needs it

    def write(self, at, data):
        if self.map:
            self.map[at:at + PAGE] = data
            self.map.flush(at, PAGE)
        else:
            self.page[:] = data
            if os.pwrite(self.fd, self.page, at) != PAGE:
                fail("short write")


def holds(pool, file, volume, method, rounds, size):
    rng = random.Random()
    writer = Writer(file, method, size)
    model = bytearray(size)
    for at in range(0, size, PAGE):  # unknown before
        writer.write(at, bytes(PAGE))
    for n in range(rounds):
        for _ in range(rng.randrange(1, 60)):
            at = rng.randrange(size // PAGE) * PAGE
            data = rng.randbytes(PAGE)
            writer.write(at, data)
            model[at:at + PAGE] = data
        taken = Path(pool) / ".snapshots" / f"{os.getpid()}-{n}"
        taken.mkdir()
        with open(taken / volume, "rb") as f:
            found = f.read(size)
        if found != model:
            first = next(i for i in range(0, size, PAGE) if found[i:i + PAGE] != model[i:i + PAGE])
            fail(f"snapshot {n}: lacks a write at {first} that returned before it")
        if n % 2:
            taken.rmdir()


def instant(pool, rounds, *flags):
    paths = [Path(pool) / name for name in ("first", "second")]
    opened = os.O_RDWR | (os.O_DIRECT if "direct" in flags else 0)
    fds = []
    for path in paths:
        path.touch()
        os.truncate(path, 0)  # no counters of an earlier run
        os.truncate(path, 16 << 20)
        fds.append(os.open(path, opened))
    page = mmap.mmap(-1, PAGE)
    returned = [0, 0]
    stop = threading.Event()

    def count():
        n = 0
        while not stop.is_set():
            n += 1
            struct.pack_into("<Q", page, 0, n)
            # Another block each time, too, so that blocks are provisioned and shared ones broken.
            for i, fd in enumerate(fds):
                os.pwrite(fd, page, (n % 200) * 65536 + PAGE)
                os.pwrite(fd, page, 0)
                if "sync" in flags:
                    os.fdatasync(fd)
                returned[i] = n

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for n in range(int(rounds)):
            time.sleep(random.random() / 50)
            before = list(returned)
            taken = Path(pool) / ".snapshots" / f"{os.getpid()}-{n}"
            taken.mkdir()
            found = []
            for path in paths:
                fd = os.open(taken / path.name, os.O_RDONLY)
                found.append(struct.unpack("<Q", os.pread(fd, 8, 0))[0])
                os.close(fd)
            if found[0] < found[1]:
                fail(f"snapshot {n}: has {found[1]} in the second volume, but only {found[0]} in the first")
            if found[0] < before[0] or found[1] < before[1]:
                fail(f"snapshot {n}: has {found}, although {before} had returned before")
            if found[0] > found[1] + 1:
                fail(f"snapshot {n}: has {found}: not of one instant")
            if n % 3:
                taken.rmdir()
    finally:
        stop.set()
        thread.join()
    print(f"{returned[1]} writes to each, {rounds} snapshots")


def main():
    command, *args = sys.argv[1:]
    if command == "holds":
        holds(*args[:4], int(args[4]), int(args[5]))
    elif command == "instant":
        instant(*args)
    else:
        sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
