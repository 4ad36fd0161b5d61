#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""copy_range.py FROM OFFSET TO OFFSET LENGTH: all of it by copy_file_range(2)."""

import os
import sys


def main():
    source, src, target, dst, left = sys.argv[1:]
    src, dst, left = int(src), int(dst), int(left)
    from_fd = os.open(source, os.O_RDONLY)
    to_fd = os.open(target, os.O_WRONLY | os.O_CREAT, 0o644)
    while left:
        n = os.copy_file_range(from_fd, to_fd, left, src, dst)
        if n <= 0:
            return f"nothing was copied at {src}, {left} bytes are left"
        src, dst, left = src + n, dst + n, left - n
    return 0


sys.exit(main())
