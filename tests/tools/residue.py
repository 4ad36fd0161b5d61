#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether files of a pool show bytes that were never written to them.

    residue.py fill MNT              write a file over all free space, and remove it
    residue.py work MNT SEED NR      NR operations on few volumes, each checked against a model
    residue.py look MNT              after a crash: no file has bytes but zero and its own

Each volume writes one value, which no other volume of the pool ever had, and which is in its name. What fill
writes is 255. Exit status 0: nothing was found.
"""
import ctypes
import os
import random
import sys
import time

FILL = 255
SIZE = 3 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
KEEP, PUNCH, ZERO = 1, 3, 0x10


def fill(mnt):
    name = os.path.join(mnt, 'fill')
    with open(name, 'wb', buffering=0) as f:
        try:
            while True:
                f.write(bytes([FILL]) * (1 << 20))
        except OSError:
            pass
        os.fsync(f.fileno())
    os.unlink(name)
    for _ in range(600):
        directory = os.open(mnt, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        st = os.statvfs(mnt)
        if st.f_bfree > st.f_blocks * 9 // 10:
            return 0
        time.sleep(0.1)
    print('the space does not come back')
    return 1


class Volume:
    def __init__(self, mnt, value):
        self.value = value
        self.path = os.path.join(mnt, 'v%d' % value)
        self.bytes = bytearray()
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def extend(self, end):
        if end > len(self.bytes):
            self.bytes += bytes(end - len(self.bytes))

    def step(self, rng):
        at = rng.randrange(SIZE)
        n = rng.choice((1, 100, 511, 4096, 70000, 200000))
        kind = rng.randrange(9)
        f = os.open(self.path, os.O_RDWR)
        try:
            if kind < 4:
                os.pwrite(f, bytes([self.value]) * n, at)
                self.extend(at + n)
                self.bytes[at:at + n] = bytes([self.value]) * n
            elif kind == 4:
                os.ftruncate(f, at)
                self.extend(at)
                del self.bytes[at:]
            elif kind == 5:
                self.fallocate(f, 0, at, n)
                self.extend(at + n)
            elif kind == 6:
                self.fallocate(f, KEEP, at, n)
            elif kind == 7:
                self.fallocate(f, PUNCH, at, n)
                self.zero(at, n)
            else:
                self.fallocate(f, ZERO, at, n)
                self.extend(at + n)
                self.zero(at, n)
        finally:
            os.close(f)

    def zero(self, at, n):
        end = min(at + n, len(self.bytes))
        if at < end:
            self.bytes[at:end] = bytes(end - at)

    @staticmethod
    def fallocate(f, mode, at, n):
        if LIBC.fallocate(f, mode, at, n):
            raise OSError(ctypes.get_errno(), 'fallocate mode %#x' % mode)

    def wrong(self, path=None):
        with open(path or self.path, 'rb') as f:
            got = f.read()
        if got == self.bytes:
            return 0
        first = next((i for i, (a, b) in enumerate(zip(got, self.bytes)) if a != b), -1)
        print('%s: %d bytes for %d; at %d: %s' % (path or self.path, len(got), len(self.bytes), first,
                                                 got[first] if first >= 0 else ''))
        return 1


def work(mnt, seed, nr):
    rng = random.Random(seed)
    values = iter(range(1 + max([0] + values_in(mnt)), FILL))
    volumes = [Volume(mnt, next(values)) for _ in range(3)]
    bad = 0
    for i in range(nr):
        v = rng.choice(volumes)
        v.step(rng)
        if rng.randrange(4) == 0:
            bad += v.wrong()
        if rng.randrange(25) == 0:
            # The first write to a shared block copies it; the snapshot stays as it was.
            snapshot = os.path.join(mnt, '.snapshots', 's%d' % i)
            os.mkdir(snapshot)
            frozen = [(w, bytes(w.bytes)) for w in volumes]
            for w in volumes:
                w.step(rng)
            for w, old in frozen:
                new, w.bytes = w.bytes, bytearray(old)
                bad += w.wrong(os.path.join(snapshot, os.path.basename(w.path)))
                w.bytes = new
            os.rmdir(snapshot)
        if rng.randrange(40) == 0:
            gone = volumes.pop(rng.randrange(len(volumes)))
            os.unlink(gone.path)
            volumes.append(Volume(mnt, next(values)))
        if rng.randrange(30) == 0:
            f = os.open(v.path, os.O_RDONLY)
            os.fsync(f)  # what was freed can be used again
            os.close(f)
    bad += sum(v.wrong() for v in volumes)
    return bad


def values_in(mnt):
    return [int(n[1:]) for n in os.listdir(mnt) if n[:1] == 'v']


def look(mnt):
    bad = 0
    for directory, _, names in os.walk(mnt):
        for name in names:
            with open(os.path.join(directory, name), 'rb') as f:
                others = set(f.read()) - {0, int(name[1:]) if name[:1] == 'v' else FILL}
            if others:
                print('%s/%s shows %s' % (directory, name, sorted(others)))
                bad += 1
    return bad


def main():
    what, mnt = sys.argv[1:3]
    if what == 'fill':
        return fill(mnt)
    if what == 'look':
        return min(1, look(mnt))
    return min(1, work(mnt, int(sys.argv[3]), int(sys.argv[4])))


sys.exit(main())
