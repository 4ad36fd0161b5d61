#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Work with the pools in tests/data/fixtures. Prints what is wrong, one line each; nothing if all is well.

    fixture.py images MANIFEST DIR              the images in DIR are those of the manifest
    fixture.py sums MANIFEST DIR [PATTERN]      the devices read as the manifest says. PATTERN
                                                makes a file's name of {id}; default thin-{id}
    fixture.py exercise MANIFEST DIR SEED       write to, snapshot and discard a mounted pool, and
                                                compare with a model of plain files
    fixture.py replay MANIFEST THINFS DIR       make the pool anew in DIR by the operations of the
                                                manifest, and leave it mounted on DIR/mnt. What
                                                has external origins needs them in DIR
"""

import errno
import fcntl
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

SECTOR = 512
MIB = 1 << 20
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16

problems = 0


def wrong(text):
    global problems
    problems += 1
    print(text)


# --- reading ------------------------------------------------------------------------------------


def file_sum(path, size):
    """The sha256 of SIZE bytes of a file, padded with zeros."""
    digest, left = hashlib.sha256(), size
    with open(path, "rb", buffering=0) as f:
        while left:
            piece = f.read(min(left, MIB))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
    zeros = bytes(MIB)
    while left:
        digest.update(zeros[:left])
        left -= min(left, MIB)
    return digest.hexdigest()


def check_images(manifest, directory):
    for name, image in manifest["images"].items():
        path = directory / name
        if path.stat().st_size != image["bytes"]:
            wrong(f"{name}: {path.stat().st_size} bytes, not {image['bytes']}")
        elif file_sum(path, image["bytes"]) != image["sha256"]:
            wrong(f"{name}: has changed")


def check_sums(manifest, directory, pattern="thin-{id}"):
    for thin in manifest["thins"]:
        path = directory / pattern.format(id=thin["id"])
        size = thin["sectors"] * SECTOR
        try:
            if file_sum(path, size) != thin["sha256"]:
                wrong(f"{path.name}: reads otherwise than the kernel reads it")
        except OSError as error:
            wrong(f"{path.name}: {error}")


# --- writing and comparing ----------------------------------------------------------------------


def fallocate(fd, mode, offset, length):
    # os.posix_fallocate has no modes.
    done = subprocess.run(
        ["fallocate", {PUNCH_HOLE: "-p", ZERO_RANGE: "-z"}[mode], "-n", "-o", str(offset),
         "-l", str(length), f"/proc/self/fd/{fd}"], pass_fds=[fd])
    if done.returncode:
        raise OSError(errno.EIO, "fallocate failed")


class Device:
    """A volume, and a plain file that gets the same operations."""

    def __init__(self, path, model, size):
        self.size = size
        self.fd = os.open(path, os.O_RDWR)
        self.model = os.open(model, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.unlink(model)
        self.path = path
        self.pull()

    def pull(self):
        """Fill the model from the volume."""
        os.ftruncate(self.model, self.size)
        zeros = bytes(MIB)
        for at in range(0, self.size, MIB):
            piece = os.pread(self.fd, min(MIB, self.size - at), at)
            if piece != zeros[:len(piece)]:
                os.pwrite(self.model, piece, at)

    def random_range(self, rng, longest):
        unit = rng.choice([1, SECTOR, 4096, 65536])
        at = rng.randrange(self.size) // unit * unit
        length = min(self.size - at, max(1, rng.randrange(longest) // unit * unit))
        return at, length

    def random_step(self, rng):
        at, length = self.random_range(rng, 300000)
        how = rng.randrange(10)
        if how < 7:
            data = rng.randbytes(length)
            for fd in (self.fd, self.model):
                if os.pwrite(fd, data, at) != length:
                    wrong(f"{self.path}: short write")
        elif how < 9:
            fallocate(self.fd, PUNCH_HOLE, at, length)
            fallocate(self.model, PUNCH_HOLE, at, length)
        else:
            fallocate(self.fd, ZERO_RANGE, at, length)
            fallocate(self.model, ZERO_RANGE, at, length)

    def compare(self, when):
        for at in range(0, self.size, MIB):
            if os.pread(self.fd, MIB, at) != os.pread(self.model, MIB, at):
                wrong(f"{self.path}: {when}: differs from what was written, in the MiB at {at}")
                return

    def sum(self):
        return file_sum(f"/proc/self/fd/{self.model}", self.size)

    def close(self):
        os.close(self.fd)
        os.close(self.model)


def exercise(manifest, directory, seed):
    rng = random.Random(seed)
    print(f"seed {seed}", file=sys.stderr)
    thins = manifest["thins"]
    by_size = sorted(thins, key=lambda t: t["sectors"])
    chosen = [t for t in by_size if t["sectors"] * SECTOR <= 64 * MIB][:3] or by_size[:1]
    scratch = directory.parent
    for thin in chosen:
        os.truncate(directory / f"thin-{thin['id']}", thin["sectors"] * SECTOR)
    devices = [Device(directory / f"thin-{t['id']}", scratch / f"model-{t['id']}",
                      t["sectors"] * SECTOR) for t in chosen]
    (directory / "made-here").touch()
    os.truncate(directory / "made-here", 3 * MIB + 5 * SECTOR)
    devices.append(Device(directory / "made-here", scratch / "model-new", 3 * MIB + 5 * SECTOR))

    (directory / ".snapshots/before").mkdir()
    taken = []
    for generation in range(3):
        for device in devices:
            for _ in range(12):
                device.random_step(rng)
        for device in devices:
            device.compare(f"after generation {generation}")
        name = f"generation{generation}"
        (directory / ".snapshots" / name).mkdir()
        taken.append((name, [(d.path.name, d.size, d.sum()) for d in devices]))
    for device in devices:
        for _ in range(12):
            device.random_step(rng)
    # One of every kind of removal.
    (directory / ".snapshots/generation1").rmdir()
    if chosen:
        os.unlink(directory / ".snapshots/generation2" / devices[0].path.name)
        os.fsync(devices[0].fd)
        taken[2] = (taken[2][0], taken[2][1][1:])

    check_sums(manifest, directory / ".snapshots/before")
    for name, files in (taken[0], taken[2]):
        for file, size, digest in files:
            path = directory / ".snapshots" / name / file
            if path.stat().st_size != size or file_sum(path, size) != digest:
                wrong(f"{path}: is not what was there when it was taken")
    for device in devices:
        device.compare("at the end")
    with open(scratch / "expected.json", "w", encoding="utf-8") as out:
        json.dump({d.path.name: [d.size, d.sum()] for d in devices}, out)
    for device in devices:
        device.close()
    if chosen:
        os.unlink(devices[0].path)


def recheck(directory):
    """What exercise left, after a new mount."""
    expected = json.loads((directory.parent / "expected.json").read_text())
    for n, (name, (size, digest)) in enumerate(expected.items()):
        path = directory / name
        if n == 0 and len(expected) > 1:
            if path.exists():
                wrong(f"{name}: was removed, and is there again")
        elif path.stat().st_size != size or file_sum(path, size) != digest:
            wrong(f"{name}: reads otherwise after a new mount")


# --- replaying ----------------------------------------------------------------------------------


def pattern(tag, first, count):
    return b"".join(b"%-15.15s %015d\n" % (tag.encode(), n) * 16
                    for n in range(first, first + count))


class Replay:
    def __init__(self, manifest, thinfs, directory):
        self.case = manifest["case"]
        self.features = manifest["features"]
        self.block = manifest["block_sectors"]
        self.bytes = {n: i["bytes"] for n, i in manifest["images"].items()}
        self.thinfs, self.directory = thinfs, directory
        self.over = {t["id"]: (t["external_origin"], t["sectors"]) for t in manifest["thins"]
                     if t["external_origin"]}
        self.mnt = directory / "mnt"
        self.mounted = False
        self.formatted = False
        self.grown = self.case != "grown"
        self.cut = False

    def run(self, *command):
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}: {done.stdout}")
        return done.stdout

    def volume(self, thin):
        return self.mnt / f"dev-{thin}"

    def do(self, name, *args):
        getattr(self, f"do_{name}")(*args)

    def mount(self, *options):
        images = self.directory / "data.img", self.directory / "meta.img"
        if not self.formatted:
            # before it grew
            sizes = (self.bytes["data.img"], self.bytes["meta.img"]) if self.grown \
                else (8192 * SECTOR, 4096 * SECTOR)
            if self.case == "full":  # of ours some blocks are the catalog's
                sizes = (sizes[0] + 16 * self.block * SECTOR, sizes[1])
            self.run(self.thinfs, "format", "--data-size", sizes[0], "--metadata-size", sizes[1],
                     "--block-size", self.block * SECTOR, *images)
            self.formatted = True
        if self.case == "power-cut":
            options = (*options, "commit=0")  # no timer
        if self.over:
            options = (*options, "discard_to_origin")
        self.run(self.thinfs, "mount", *(("-o", ",".join(options)) if options else ()), *images,
                 self.mnt)
        self.mounted = True

    def do_pool(self, _block, *features):
        self.mount(*features)

    def do_pool_off(self):
        if self.mounted:
            self.run(self.thinfs, "umount", self.mnt)
        self.mounted = False

    def do_create(self, thin):
        if thin in self.over:
            origin, sectors = self.over[thin]
            self.run(self.thinfs, "create", "--origin", self.directory / origin,
                     "--size", sectors * SECTOR, self.volume(thin))
        else:
            self.volume(thin).touch(exist_ok=False)

    def do_on(self, thin, sectors, _origin=None):
        os.truncate(self.volume(thin), sectors * SECTOR)

    def do_off(self, _thin):
        pass

    def do_message(self, *_words):
        pass  # transaction ids and metadata snapshots are dm-thin's own

    def do_snap(self, new, origin):
        file = f"dev-{origin}"
        taken = self.mnt / ".snapshots" / f"{file}@for-{new}"
        taken.mkdir()
        (taken / file).rename(self.volume(new))
        if taken.exists():
            taken.rmdir()
        self.volume(new).chmod(0o644)

    def do_delete(self, thin):
        self.volume(thin).unlink()

    def do_write(self, thin, tag, first, count, step=None):
        if self.case == "power-cut" and tag == "unflushed":
            self.cut = True
        step = step or count
        with open(self.volume(thin), "r+b", buffering=0) as f:
            for at in range(first, first + count, step):
                n = min(step, first + count - at)
                if os.pwrite(f.fileno(), pattern(tag, at, n), at * SECTOR) != n * SECTOR:
                    sys.exit("short write")

    def do_write_each(self, thin, tag, count, firsts):
        with open(self.volume(thin), "r+b", buffering=0) as f:
            for at in firsts:
                os.pwrite(f.fileno(), pattern(tag, at, count), at * SECTOR)

    def do_write_every(self, thin, tag, count, first, step, times):
        self.do_write_each(thin, tag, count, range(first, first + times * step, step))

    def do_discard(self, thin, first, count):
        # dm-thin ignores what is not a whole block, PUNCH_HOLE would zero it
        begin = -(-first // self.block) * self.block
        end = (first + count) // self.block * self.block
        if begin < end:
            with open(self.volume(thin), "r+b", buffering=0) as f:
                fallocate(f.fileno(), PUNCH_HOLE, begin * SECTOR, (end - begin) * SECTOR)

    def do_sh(self, text):
        if "pattern" in text and "flush" in text:
            thin = text.split()[1]
            with open(self.volume(thin), "r+b", buffering=0) as f:
                os.fsync(f.fileno())
        elif self.case == "full":
            self.do_create("filler")
            try:
                self.do_write("filler", "fill", 0, 64 * self.block, self.block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            try:
                self.do_write(1, "none", 8000, 8)
                wrong("wrote to a full pool")
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    wrong(f"writing to a full pool: {error}")
        elif self.case == "grown" and self.formatted:
            self.do_pool_off()
            for name, size in self.bytes.items():
                os.truncate(self.directory / name, size)
            self.mount()
        elif "powercut" in text:
            self.powercut()
        elif self.case not in ("grown", "needs-check"):
            sys.exit(f"do not know how to replay: {text}")

    def powercut(self):
        """The daemon is killed: the writes since the last commit are gone."""
        status = self.run(self.thinfs, "status", self.mnt)
        pid = next(int(line.split()[-1]) for line in status.splitlines()
                   if line.startswith("served by"))
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            try:
                # Waits neither for the process's memory nor for a parent to reap it: for its locks.
                with open(self.directory / "meta.img", "r+b") as f:
                    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.1)
        self.run("umount", self.mnt)
        self.mounted = False


def replay(manifest, thinfs, directory):
    state = Replay(manifest, thinfs, directory)
    state.mnt.mkdir(exist_ok=True)
    for operation in manifest["ops"]:
        state.do(*operation)
    state.do_pool_off()
    state.mount("ro")


def main():
    command, manifest, *args = sys.argv[1:]
    with open(manifest, encoding="utf-8") as f:
        manifest = json.load(f)
    if command == "images":
        check_images(manifest, Path(args[0]))
    elif command == "sums":
        check_sums(manifest, Path(args[0]), *args[1:])
    elif command == "exercise":
        exercise(manifest, Path(args[0]), int(args[1]))
    elif command == "recheck":
        recheck(Path(args[0]))
    elif command == "replay":
        replay(manifest, args[0], Path(args[1]))
        check_sums(manifest, Path(args[1]) / "mnt", "dev-{id}")
    else:
        sys.exit(__doc__)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
