#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of a mounted pool and what is in them.

    devices.py sums THINFS DIR              print ID SECTORS SHA256, one device a line
    devices.py compare THINFS DIR FILE      fail unless the devices are those in FILE and read so; a
                                            device that is smaller reads as zeros behind its end
    devices.py change DIR SEED BYTES NAME...  write all over these volumes, discard some of them
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fixture import PUNCH_HOLE, SECTOR, fallocate, file_sum  # noqa: E402


def devices(thinfs, directory):
    done = subprocess.run([thinfs, "list", "--json", directory], check=True, stdout=subprocess.PIPE)
    return {d["id"]: d for d in json.loads(done.stdout)["devices"]}


def print_sums(thinfs, directory):
    for number, device in sorted(devices(thinfs, directory).items()):
        size = device["size"]
        if size % SECTOR:
            sys.exit(f"{device['path']}: a size of {size} bytes, which the kernel cannot have")
        print(number, size // SECTOR, file_sum(Path(directory) / device["path"], size))


def compare(thinfs, directory, expected):
    found, bad = devices(thinfs, directory), 0
    for line in Path(expected).read_text().splitlines():
        number, sectors, digest = line.split()
        device = found.pop(int(number), None)
        if not device:
            print(f"device {number} is not there")
            bad = 1
        elif device["size"] > int(sectors) * SECTOR:
            print(f"{device['path']}: {device['size']} bytes, more than {sectors} sectors")
            bad = 1
        elif file_sum(Path(directory) / device["path"], int(sectors) * SECTOR) != digest:
            print(f"{device['path']} (device {number}) reads otherwise")
            bad = 1
    for device in found.values():
        print(f"{device['path']} (device {device['id']}) should not be there")
        bad = 1
    return bad


def change(directory, seed, total, names):
    rng = random.Random(seed)
    for name in names:
        fd = os.open(Path(directory) / name, os.O_RDWR)
        size, left = os.fstat(fd).st_size, total
        while left > 0:
            length = rng.choice([512, 4096, 4096, 4096, 20000, 65536, 300000])
            at = rng.randrange(size // 512) * 512
            length = min(length, size - at)
            os.pwrite(fd, rng.randbytes(length), at)
            left -= max(length, 65536)
        for _ in range(6):
            at = rng.randrange(size)
            fallocate(fd, PUNCH_HOLE, at, min(size - at, rng.randrange(1, size // 10)))
        os.close(fd)


def main():
    command, *args = sys.argv[1:]
    if command == "sums":
        print_sums(*args)
    elif command == "compare":
        return compare(*args)
    elif command == "change":
        change(args[0], int(args[1]), int(args[2]), args[3:])
    else:
        sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
