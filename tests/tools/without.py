#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
without.py WHAT COMMAND...: run it where the kernel refuses WHAT:
  io_uring     all of it (EPERM), as in containers
  mmap:BYTES   anonymous mappings of this size (ENOMEM)
"""
import ctypes
import errno
import os
import platform
import sys

SETUP = 425  # io_uring_setup(2), on nearly all architectures
MMAP = {"x86_64": 9, "aarch64": 222}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, LENGTH, FD = 0, 24, 48  # where they are in what a filter sees
FAIL, ALLOW = 0x00050000, 0x7FFF0000


class Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(Step))]


def prctl(*args):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*(a if not isinstance(a, int) else ctypes.c_ulong(a) for a in args)):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


def steps(what):
    name, _, size = what.partition(":")
    if name == "io_uring":
        return [Step(LOAD, 0, 0, NUMBER), Step(JUMP_EQUAL, 0, 1, SETUP), Step(RETURN, 0, 0, FAIL | errno.EPERM)]
    return [
        Step(LOAD, 0, 0, NUMBER),
        Step(JUMP_EQUAL, 0, 5, MMAP[platform.machine()]),
        Step(LOAD, 0, 0, LENGTH),
        Step(JUMP_EQUAL, 0, 3, int(size)),
        Step(LOAD, 0, 0, FD),
        Step(JUMP_EQUAL, 0, 1, 0xFFFFFFFF),
        Step(RETURN, 0, 0, FAIL | errno.ENOMEM),
    ]


program = steps(sys.argv[1]) + [Step(RETURN, 0, 0, ALLOW)]
program = (Step * len(program))(*program)
prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(Program(len(program), program)), 0, 0)
os.execvp(sys.argv[2], sys.argv[2:])
