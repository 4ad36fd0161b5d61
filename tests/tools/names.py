# SPDX-License-Identifier: GPL-2.0-or-later
"""names.py CHECK DIR N: a directory in which the names thin-1 ... thin-N stay, read while others come and go.

stream      each is there once, and the first ones come long before the last ones
changes     the same, while names are made and removed beside them
places      telldir and seekdir lead back to the same name, in any order
"""
import ctypes
import os
import random
import sys
import threading
import time


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16),
                ("type", ctypes.c_uint8), ("name", ctypes.c_char * 256)]


libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.opendir.argtypes = [ctypes.c_char_p]
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.readdir.argtypes = libc.closedir.argtypes = libc.telldir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


def staying(nr):
    return {f"thin-{i}" for i in range(1, nr + 1)}


def listed(folder):
    """All names, in their order, and after how many seconds the first and the last came."""
    begin = time.monotonic()
    names = []
    first = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            first = first or time.monotonic() - begin
            names.append(entry.name)
    return names, first, time.monotonic() - begin


def check_once(names, nr):
    if len(set(names)) != len(names):
        sys.exit(f"{len(names) - len(set(names))} names are there twice")
    missing = staying(nr) - set(names)
    if missing:
        sys.exit(f"{len(missing)} names are missing, as {missing.pop()}")


def stream(folder, nr):
    taken = [listed(folder) for _ in range(3)]
    for names, _, _ in taken:
        check_once(names, nr)
        if set(names) - staying(nr) != {".snapshots"}:
            sys.exit("there are others")
    first, last = min(t[1] for t in taken), min(t[2] for t in taken)
    print(f"# the first after {first * 1000:.1f} ms, all after {last * 1000:.0f} ms")
    if first > last / 5:
        sys.exit("the first names do not come before the rest")


def changes(folder, nr):
    done = threading.Event()
    made = 0

    def change():
        nonlocal made
        while not done.is_set():
            name = f"{folder}/new-{made}"
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            if made % 3:
                os.unlink(name)
            made += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(5):
            check_once(listed(folder)[0], nr)
    finally:
        done.set()
        thread.join()
    print(f"# {made} names were made meanwhile")
    if made < 10:
        sys.exit("hardly any names were made meanwhile")


def places(folder, nr):
    rng = random.Random(1)
    handle = libc.opendir(folder.encode())
    found = []
    while True:
        at = libc.telldir(handle)
        entry = libc.readdir(handle)
        if not entry:
            break
        found.append((at, entry.contents.name))
    if len(found) < nr or len({at for at, _ in found}) != len(found):
        sys.exit("several names have one place")
    for at, name in rng.sample(found, 500):
        libc.seekdir(handle, at)
        entry = libc.readdir(handle)
        if not entry or entry.contents.name != name or libc.telldir(handle) == at:
            sys.exit(f"place {at} does not lead to {name}")
    libc.closedir(handle)


{"stream": stream, "changes": changes, "places": places}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
