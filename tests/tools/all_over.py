# SPDX-License-Identifier: GPL-2.0-or-later
"""all_over.py FILE MAPPED SNAPSHOT COPY: reads, overwrites, first writes and discards everywhere in a volume of which
the first MAPPED blocks are mapped to zeros, and the same number after them is not; SNAPSHOT is made in the midst of it, and
has the volume as COPY. All is read back. Seed: THINFS_TEST_SEED."""
import ctypes
import os
import random
import struct
import sys

BLOCK = 65536
KEEP_SIZE, PUNCH_HOLE = 1, 2
path, mapped, snapshot, copy = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
seed = int(os.environ.get("THINFS_TEST_SEED", "0")) or int.from_bytes(os.urandom(4), "little")
print(f"# THINFS_TEST_SEED={seed}")
rng = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(path, os.O_RDWR)
content = {}  # block -> what its first page begins with, 0: zeros


def page(tag):
    return struct.pack("<QQ", tag, tag) * 256


def write(block):
    content[block] = rng.randrange(1, 1 << 62)
    os.pwrite(fd, page(content[block]), block * BLOCK)


def discard(block):
    content[block] = 0
    if libc.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, ctypes.c_long(block * BLOCK), ctypes.c_long(BLOCK)):
        sys.exit(f"punching a hole: {os.strerror(ctypes.get_errno())}")


def check(where, expected, block):
    if os.pread(where, 4096, block * BLOCK) != page(expected.get(block, 0)):
        sys.exit(f"block {block} is not what was written to it")


def turn(nr):
    for _ in range(nr):
        write(rng.randrange(mapped))
        write(rng.randrange(mapped, 2 * mapped))
        discard(rng.randrange(2 * mapped))
        for _ in range(4):
            check(fd, content, rng.randrange(2 * mapped))


turn(2000)
os.mkdir(snapshot)
then = dict(content)
turn(2000)
os.fsync(fd)
for block in content:
    check(fd, content, block)
old = os.open(copy, os.O_RDONLY)
for block in set(content) | set(then):
    check(old, then, block)
