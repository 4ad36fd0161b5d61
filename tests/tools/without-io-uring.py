#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""without-io-uring.py COMMAND...: run it where io_uring is forbidden (EPERM), as containers do."""
import ctypes
import errno
import os
import sys

SETUP = 425  # io_uring_setup(2), on nearly all architectures
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2


class Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(Step))]


def prctl(*args):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*(a if not isinstance(a, int) else ctypes.c_ulong(a) for a in args)):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


steps = (Step * 4)(
    Step(0x20, 0, 0, 0),  # load the number of the call
    Step(0x15, 0, 1, SETUP),  # is it this one?
    Step(0x06, 0, 0, 0x00050000 | errno.EPERM),
    Step(0x06, 0, 0, 0x7FFF0000),  # allow
)
prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(Program(len(steps), steps)), 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
