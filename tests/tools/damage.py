#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage metadata images, and list what could be damaged.

    damage.py flip IMAGE OFFSET                 invert a byte
    damage.py field IMAGE OFFSET SIZE VALUE     set a field of the superblock, with a right checksum
    damage.py blocks IMAGE                      print the numbers of the blocks that are in use
    damage.py count IMAGE MAP BLOCK COUNT       let the space map MAP, data or metadata, count a block COUNT times
                                                (0 to 3; of a map with one bitmap), with a right checksum
    damage.py where IMAGE NAME                  print the number of a block: index, metadata_bitmap, metadata_counts,
                                                data_index, data_bitmap, data_counts, mappings, details, or
                                                device N: the root of its mappings (of a tree of one leaf)
"""

import struct
import sys

BLOCK = 4096
SUPERBLOCK_XOR = 160774
BITMAP_XOR = 240779


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


def read_block(image, number):
    with open(image, "rb") as f:
        f.seek(number * BLOCK)
        return bytearray(f.read(BLOCK))


def leaf(image, number):
    """Keys and offsets of values of a tree that is one leaf."""
    node = read_block(image, number)
    nr, room, size = struct.unpack_from("<III", node, 16)
    return node, {struct.unpack_from("<Q", node, 32 + 8 * i)[0]: 32 + 8 * room + size * i for i in range(nr)}


def where(image, name, device=None):
    superblock = read_block(image, 0)

    def at(offset):
        return struct.unpack_from("<Q", superblock, offset)[0]

    roots = {"data_index": 80, "data_counts": 88, "index": 208, "metadata_counts": 216, "mappings": 320, "details": 328}
    if name in roots:
        return at(roots[name])
    if name == "metadata_bitmap":
        return struct.unpack_from("<Q", read_block(image, at(208)), 16)[0]
    node, values = leaf(image, at(80 if name == "data_bitmap" else 320))
    return struct.unpack_from("<Q", node, values[int(device or 0)])[0]


def count(image, which, block, value):
    number = where(image, which + "_bitmap")
    bitmap = read_block(image, number)
    offset, shift = 16 + block // 4, block % 4 * 2
    raw = (value & 1) << 1 | value >> 1
    bitmap[offset] = bitmap[offset] & ~(3 << shift) | raw << shift
    struct.pack_into("<I", bitmap, 0, crc32c_raw(bitmap[4:]) ^ BITMAP_XOR)
    with open(image, "r+b") as f:
        f.seek(number * BLOCK)
        f.write(bitmap)


def main():
    command, image, *numbers = sys.argv[1:]
    if command == "where":
        print(where(image, *numbers))
        return
    if command == "count":
        count(image, numbers[0], *[int(n, 0) for n in numbers[1:]])
        return
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
