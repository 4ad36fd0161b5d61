#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""holes.py FILE...: where SEEK_DATA and SEEK_HOLE find data, as BEGIN-END in bytes, one line for each file."""

import errno
import os
import sys


def data_of(fd):
    end = 0
    while True:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield f"{begin}-{end}"


for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    print(*data_of(fd))
    os.close(fd)
