#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage metadata images, and list what could be damaged.

    damage.py flip IMAGE OFFSET                 invert a byte
    damage.py field IMAGE OFFSET SIZE VALUE     set a field of the superblock, with a right checksum
    damage.py blocks IMAGE                      print the numbers of the blocks that are in use
"""

import struct
import sys

BLOCK = 4096
SUPERBLOCK_XOR = 160774


def crc32c_raw(data, crc=0xFFFFFFFF):
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def flip(image, offset):
    with open(image, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 0xFF]))


def field(image, offset, size, value):
    with open(image, "r+b") as f:
        block = bytearray(f.read(BLOCK))
        block[offset:offset + size] = value.to_bytes(size, "little")
        struct.pack_into("<I", block, 0, crc32c_raw(block[4:]) ^ SUPERBLOCK_XOR)
        f.seek(0)
        f.write(block)


def used_blocks(image):
    """Those with a count above 0, of a metadata space map with one bitmap."""
    with open(image, "rb") as f:
        superblock = f.read(BLOCK)
        nr_blocks, _, index = struct.unpack_from("<QQQ", superblock, 192)
        f.seek(index * BLOCK)
        bitmap, = struct.unpack_from("<Q", f.read(BLOCK), 16)
        f.seek(bitmap * BLOCK)
        counts = f.read(BLOCK)[16:]
    return [n for n in range(min(nr_blocks, 16320)) if counts[n // 4] >> n % 4 * 2 & 3]


def main():
    command, image, *numbers = sys.argv[1:]
    numbers = [int(n, 0) for n in numbers]
    if command == "flip":
        flip(image, *numbers)
    elif command == "field":
        field(image, *numbers)
    elif command == "blocks":
        print(*used_blocks(image))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
