#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage metadata at random, and compare what 'thinfs check' and dm-thin-audit.py say.

    check-agrees.py THINFS IMAGE NUMBER SEED [--repair]

NUMBER damaged copies of IMAGE are made, most of them with checksums set right. For each, the check must find
an error where the audit does, and none where the audit finds none, but for the few kinds that the
audit does not look for. What the audit calls a hint must be a warning.
With --repair each copy is repaired then: what is left must satisfy both and read as before, or must not have been changed.
Prints a line for each difference, and a summary. Exit status 1 when there was one.
"""

import functools
import importlib.util
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

spec = importlib.util.spec_from_file_location(
    "audit", os.path.join(os.path.dirname(os.path.abspath(__file__)), "dm-thin-audit.py"))
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)
_crc = functools.lru_cache(maxsize=100000)(audit.crc32c_raw)
audit.crc32c_raw = lambda data: _crc(bytes(data))
sys.setrecursionlimit(10000)

BLOCK = 4096

# What only the check looks for.
MORE = re.compile(r"time|clock|numbers end at|different depths|unknown flags|sectors are impossible|too deep"
                  r"|more than can be counted|also used as|points back to it|metadata snapshot: wrong magic"
                  r"|past its end|bitmaps up to|is cut off")


def audited(path):
    """(errors, hints, the result or None)"""
    try:
        r = audit.analyse(path)
    except (audit.Damage, OSError, struct.error, MemoryError, OverflowError) as e:
        return [str(e)], [], None
    return r["audit"]["problems"], r["audit"]["hints"], r


def live_blocks(path):
    seen = {}
    real = audit.Image

    class Image(real):
        def __init__(self, p):
            real.__init__(self, p)
            self.verified = seen

    audit.Image = Image
    audited(path)
    audit.Image = real
    return seen


def seal(block, xor):
    struct.pack_into("<I", block, 0, audit.crc32c_raw(block[4:]) ^ xor)


def other_number(rng, old, live):
    """A number that might be there instead."""
    return rng.choice([old + 1, old - 1, old ^ 1 << rng.randrange(12), 0, rng.choice(live), rng.randrange(1 << 14),
                       1 << rng.randrange(64), rng.randrange(1 << 64)]) & (1 << 64) - 1


def damage_node(rng, b, live):
    nr, mx, vs = struct.unpack_from("<III", b, 16)
    what = rng.randrange(9)
    if what == 0:
        struct.pack_into("<I", b, 16, rng.choice([0, 1, nr + 1, max(nr - 1, 0), mx, mx + 1, nr // 2]))
    elif what == 1:
        struct.pack_into("<I", b, rng.choice([4, 20, 24]), rng.choice([0, 1, 2, 3, 4, 8, 16, 24, 84, 252, 255]))
    elif what == 2:
        struct.pack_into("<Q", b, 8, other_number(rng, struct.unpack_from("<Q", b, 8)[0], live))
    elif nr and what < 5:
        i = 32 + 8 * rng.randrange(nr)
        struct.pack_into("<Q", b, i, other_number(rng, struct.unpack_from("<Q", b, i)[0], live))
    elif nr:
        i = 32 + 8 * mx + vs * rng.randrange(nr)
        if vs == 8 and rng.random() < .5:       # a mapping: block and time apart
            value = struct.unpack_from("<Q", b, i)[0]
            dblock, time = value >> 24, value & (1 << 24) - 1
            if rng.random() < .7:
                dblock = other_number(rng, dblock, live) & (1 << 40) - 1
            else:
                time = other_number(rng, time, live) & (1 << 24) - 1
            struct.pack_into("<Q", b, i, dblock << 24 | time)
        elif vs == 4:
            struct.pack_into("<I", b, i, other_number(rng, struct.unpack_from("<I", b, i)[0], live) & 0xFFFFFFFF)
        else:
            i += 8 * rng.randrange(vs // 8)
            struct.pack_into("<Q", b, i, other_number(rng, struct.unpack_from("<Q", b, i)[0], live))


def damage_entry(rng, b, live, where):
    """An index entry: block, nr_free, none_free_before."""
    what = rng.randrange(3)
    if what == 0:
        struct.pack_into("<Q", b, where, other_number(rng, struct.unpack_from("<Q", b, where)[0], live))
    else:
        at = where + 4 + 4 * what
        struct.pack_into("<I", b, at, other_number(rng, struct.unpack_from("<I", b, at)[0], live) & 0xFFFFFFFF)


def damage_bitmap(rng, b):
    for _ in range(rng.choice([1, 1, 2, 20])):
        entry = rng.choice([rng.randrange(16), rng.randrange(256), rng.randrange(16320)])
        at, shift = 16 + entry // 4, entry % 4 * 2
        b[at] = b[at] & ~(3 << shift) | rng.randrange(4) << shift


SB_FIELDS = [(4, 4), (8, 8), (32, 8), (40, 4), (44, 4), (56, 8), (64, 8), (72, 8), (80, 8), (88, 8), (192, 8),
             (200, 8), (208, 8), (216, 8), (320, 8), (328, 8), (336, 4), (340, 4), (352, 4), (356, 4), (360, 4)]


def damage_superblock(rng, b, live):
    at, size = rng.choice(SB_FIELDS)
    old = int.from_bytes(b[at:at + size], "little")
    new = other_number(rng, old, live)
    if at in (64, 192):                         # sizes: none that would make the audit run for hours
        new &= (1 << 18) - 1
    b[at:at + size] = (new & (1 << 8 * size) - 1).to_bytes(size, "little")


def damage(rng, image, live):
    nr = rng.choice(sorted(live))
    xor = live[nr]
    b = bytearray(image[nr * BLOCK:(nr + 1) * BLOCK])
    numbers = sorted(live)
    if rng.random() < .06:                      # a bit, and the checksum as it was
        b[rng.randrange(BLOCK)] ^= 1 << rng.randrange(8)
        return nr, b
    if rng.random() < .06:                      # bytes anywhere
        for _ in range(rng.choice([1, 2, 8])):
            b[rng.randrange(4, rng.choice([64, BLOCK]))] = rng.randrange(256)
    elif xor == audit.XOR_NODE:
        damage_node(rng, b, numbers)
    elif xor == audit.XOR_BITMAP:
        damage_bitmap(rng, b)
    elif xor == audit.XOR_INDEX:
        damage_entry(rng, b, numbers, 16 + 16 * rng.choice([0, 0, 0, 1, 200]))
    else:
        damage_superblock(rng, b, numbers)
    seal(b, xor)
    return nr, b


def run(thinfs, *args):
    p = subprocess.run([thinfs, "check", "--json", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=300)
    try:
        return p.returncode, json.loads(p.stdout), p.stderr.decode()
    except ValueError:
        return p.returncode, None, p.stdout.decode() + p.stderr.decode()


def compare(path, status, found, text):
    """What the two disagree in; None: nothing."""
    problems, hints, _ = audited(path)
    if found is None or status not in (0, 1):
        return "thinfs check, status %d: %s" % (status, text)
    told = [e["what"] for e in found["errors"]]
    leaks = found["leaks"]["metadata"] + found["leaks"]["data"]
    if found["clean"] != (status == 0) or found["clean"] != (not told and not leaks):
        return "status %d, but %s" % (status, json.dumps(found)[:500])
    if problems and status == 0:
        return "the check finds nothing, the audit: %s" % problems[:3]
    if not problems and status == 1:
        rest = [t for t in told if not MORE.search(t)]
        if rest or not told:
            return "the audit finds nothing, the check: %s" % (rest[:3] or "leaks")
    if not problems and status == 0 and hints and not found["warnings"]:
        return "no warning, the audit: %s" % hints[:3]
    return None


def content(result):
    """What volumes read as."""
    return [(d["dev_id"], d.get("mappings")) for d in result["devices"]]


def check_repaired(thinfs, path, before, tally):
    """Repair; what is wrong with the outcome, or None."""
    with open(path, "rb") as f:
        old = f.read()
    _, _, was = audited(path)
    status, found, text = run(thinfs, "--repair", path)
    with open(path, "rb") as f:
        new = f.read()
    if found is None:
        return "repair, status %d: %s" % (status, text)
    if not found["repaired"]:
        tally["refused" if status else "clean"] += 1
        if old != new:
            return "changed, though not repaired: %s" % found["repair"]
        if status == 0 and found["repair"] != "nothing to mend":
            return "status 0: %s" % found["repair"]
        if status == 1 and all(e["mendable"] for e in before["errors"]) and found["repair"] == "cannot be mended":
            return "could have been mended"
        return None
    tally["repaired"] += 1
    problems, hints, now = audited(path)
    if status or problems or hints or now["needs_check"]:
        return "repaired, but: status %d, %s" % (status, (problems + hints)[:3])
    if was and content(was) != content(now):
        return "repaired, but the volumes read differently"
    if run(thinfs, path)[0] != 0 or subprocess.run(["thin_check", "-q", path]).returncode:
        return "repaired, but a check is not content"
    return None


def main():
    repair = "--repair" in sys.argv
    thinfs, original, number, seed = [a for a in sys.argv[1:] if a != "--repair"]
    with open(original, "rb") as f:
        image = f.read()
    live = live_blocks(original)
    bad = 0
    tally = {"damaged": 0, "repaired": 0, "refused": 0, "clean": 0}
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "meta.img")
        with open(path, "wb") as f:
            f.write(image)
        for i in range(int(number)):
            rng = random.Random("%s %d" % (seed, i))
            nr, block = damage(rng, image, live)
            with open(path, "r+b") as f:
                f.seek(nr * BLOCK)
                f.write(block)
            status, found, text = run(thinfs, path)
            tally["damaged"] += status == 1
            wrong = compare(path, status, found, text)
            if not wrong and repair:
                wrong = check_repaired(thinfs, path, found, tally)
                with open(path, "wb") as f:
                    f.write(image)
            with open(path, "r+b") as f:
                f.seek(nr * BLOCK)
                f.write(image[nr * BLOCK:(nr + 1) * BLOCK])
            if wrong:
                bad += 1
                print("seed %s, copy %d, block %d: %s" % (seed, i, nr, wrong))
    print("%s: %s copies, %d differences, %s" % (os.path.basename(original), number, bad, tally))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
