#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Check the order of a daemon's writes and flushes in a trace by strace -f -y.

    check-order.py [--concurrent] DATA META TRACE     fail unless every commit keeps the order
    check-order.py --mappings OLD DATA META TRACE     the same, of a concurrent load, by its mappings
    check-order.py --flushes SIZE DATA META TRACE     print how many flushes came after each data write of SIZE bytes
                                                      and before the next one: the least, and the most
    check-order.py mutate KIND DATA META TRACE        print the trace with one commit changed
    check-order.py mutate KIND --mappings OLD DATA META TRACE
                                                      the same, with one punch changed

A commit ends with a write of the superblock. Every one of them must be:

    data flush         returned 0; began after the last data write of the transaction had returned
    metadata writes    of anything but block 0; before the data flush, after it or meanwhile
    metadata flush     returned 0; began after all of these writes had returned
    superblock         one write of 4096 bytes at 0; began after both flushes had returned
    metadata flush     returned 0; no other write of metadata began before it had

Before anything else is written, opening a pool may write the superblock back as it is, and flush it.

Transactions are not in the trace. Without an option the load is one that writes nothing while a
commit is under way, so every data write since the last superblock belongs to the commit. With
--concurrent a data write may belong to the next transaction, and only the rest is checked.

With --mappings the trace has what was written to the metadata (strace -e write=FD), and OLD is a copy
of the metadata image from before. From these come the mappings of each commit: the data flush must
have begun after the last write to any block that is mapped now and was not before. The load
must write to no block twice that is not shared in between.

Giving back freed blocks (FALLOC_FL_PUNCH_HOLE) is no data write: it may come at any time after the
commit that freed them. With --mappings that is checked, too: a punch must have begun after the last
flush of that commit, and returned before the next write to any of the blocks; a block that a commit
has freed must have been punched before it is written again; and it must be done by a thread that
writes and flushes nothing. The load must have no need of punching for any other reason.
"""

import re
import struct
import sys

BLOCK = 4096
WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "writev")
FLUSHES = ("fsync", "fdatasync")
# Ways of changing an image that this does not understand: the trace would prove nothing.
STRANGE = ("io_uring_setup", "io_uring_enter", "sendfile", "copy_file_range", "splice", "io_submit")

CALL = re.compile(r"^(\d+)\s+(?:\d+:\d+:\d+\.\d+\s+|\d+\.\d+\s+)?(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+)\s+(?:\d+\.\d+\s+)?<\.\.\. (\w+) resumed>(.*)$")
DUMP = re.compile(r"^ \| [0-9a-f]+  ((?:[0-9a-f]{2}  ?){1,16})")
RESULT = re.compile(r"\)\s+= (-?\d+)(?: |$)")
FD = re.compile(r"^\d+<([^>]*)>")


class Event:
    def __init__(self, image, kind, offset, length, begin):
        self.image, self.kind, self.offset, self.length = image, kind, offset, length
        self.begin, self.end, self.result = begin, None, None
        self.thread = None
        self.dump = bytearray()

    def __str__(self):
        where = f" of {self.length} at {self.offset}" if self.kind != "flush" else ""
        return f"line {self.begin + 1}: {self.kind} of {self.image}{where} = {self.result}"


class Bad(Exception):
    pass


def numbers_of(name, rest):
    """Offset and length of a write, from its arguments after the descriptor."""
    args = rest.split(" <unfinished")[0]
    args = re.sub(r"\)\s+= -?\d+.*$", "", args)
    if name == "pwrite64":
        found = re.search(r', (\d+), (\d+)$', args)
        if found:
            return int(found[2]), int(found[1])
    if name in ("pwritev", "pwritev2"):
        found = re.search(r"\], \d+, (\d+)(?:, [\w|]+)?$", args)
        lengths = re.findall(r"iov_len=(\d+)\}", args)
        if found and lengths and "...]" not in args:
            return int(found[1]), sum(map(int, lengths))
    raise Bad(f"cannot understand {name}({rest}")


def punches(rest):
    found = re.search(r"(FALLOC_FL\w+(?:\|FALLOC_FL\w+)*|\d+), (\d+), (\d+)", rest)
    if not found or "PUNCH_HOLE" not in found[1]:
        return None
    return int(found[2]), int(found[3])


def event_of(name, rest, images, line):
    """The event that a call is the begin of, or None."""
    fd = FD.match(rest)
    image = images.get(fd[1]) if fd else None
    if name in STRANGE:
        raise Bad(f"line {line + 1}: {name}: this check does not know what that does")
    if image is None:
        return None
    if name in WRITES:
        offset, length = numbers_of(name, rest)
        return Event(image, "write", offset, length, line)
    if name in FLUSHES:
        return Event(image, "flush", 0, 0, line)
    if name == "fallocate":
        hole = punches(rest)
        if hole:
            return Event(image, "punch", *hole, line)
        return Event(image, "write", 0, 0, line)  # zeroing, or allocating
    if name in ("ftruncate", "sync_file_range", "msync", "mmap"):
        raise Bad(f"line {line + 1}: {name} of an image")
    return None


def parse(lines, images):
    events, open_calls, event = [], {}, None
    for n, line in enumerate(lines):
        if line.startswith(" |"):
            if event and event.kind == "write":
                event.dump += bytes.fromhex(DUMP.match(line)[1])
            continue
        resumed = RESUMED.match(line)
        if resumed:
            pid, name = resumed[1], resumed[2]
            before, event = open_calls.pop(pid, (None, None))
            if before != name:
                raise Bad(f"line {n + 1}: {name} goes on that had not begun")
        else:
            call = CALL.match(line)
            if not call:
                continue
            pid, name = call[1], call[2]
            event = event_of(name, call[3], images, n)
            if event:
                event.thread = pid
                events.append(event)
            if "<unfinished ...>" in line:
                open_calls[pid] = (name, event)
                event = None
                continue
        if event:
            result = RESULT.search(line)
            if not result:
                raise Bad(f"line {n + 1}: no result: {line}")
            event.end, event.result = n, int(result[1])
    for event in events:
        if event.end is None:
            event.end = len(lines)
    return events


# --- the order ----------------------------------------------------------------------------------


def good_flush(events, image, after, before):
    """A flush that began after a line, and returned 0 before another: the last one."""
    for event in reversed(events):
        if event.image == image and event.kind == "flush" and event.result == 0 \
                and event.begin > after and event.end < before:
            return event
    return None


def check_superblock(events, superblock, following):
    """The write of it, and what comes after. FOLLOWING: the next one, or None."""
    if superblock.offset != 0 or superblock.length != BLOCK:
        raise Bad(f"{superblock}: the superblock is not written alone")
    if superblock.result != BLOCK:
        raise Bad(f"{superblock}: not all of the superblock was written")
    end = following.begin if following else 1 << 60
    next_metadata = min((e.begin for e in events if e.image == "metadata" and e.kind != "flush"
                         and e.begin > superblock.begin), default=end)
    if not good_flush(events, "metadata", superblock.end, min(end, next_metadata)):
        raise Bad(f"{superblock}: the metadata was not flushed after it, before anything else was written")


def check_commit(events, superblock, previous, concurrent):
    """What comes before SUPERBLOCK, which ends the commit; PREVIOUS: the superblock before. Whether metadata were written
    before the data flush had returned."""
    start = previous.end if previous else -1
    metadata = [e for e in events if e.image == "metadata" and e.kind != "flush"
                and start < e.begin < superblock.begin]
    last_metadata = max((e.end for e in metadata), default=start)
    for event in metadata:
        if event.kind == "write" and event.result != event.length:
            raise Bad(f"{event}: failed, and the commit went on")
    flush = good_flush(events, "metadata", last_metadata, superblock.begin)
    if not flush:
        raise Bad(f"{superblock}: the metadata was not flushed after {last_metadata + 1} and before it")
    failed = [e for e in events if e.kind == "flush" and e.result != 0
              and start < e.begin < superblock.begin]
    if failed:
        raise Bad(f"{failed[0]}: a flush failed, and the commit went on")

    data_flush = good_flush(events, "data", start, superblock.begin)
    if not data_flush:
        raise Bad(f"{superblock}: the data was not flushed before it")
    if not concurrent:
        for event in events:
            if event.image == "data" and event.kind == "write" \
                    and event.begin < superblock.begin and event.end > data_flush.begin:
                raise Bad(f"{event}: not before the data flush of its commit, {data_flush}")
    return any(e.begin < data_flush.end for e in metadata)


def check(lines, images, concurrent):
    events = parse(lines, images)
    superblocks = [e for e in events if e.image == "metadata" and e.kind == "write"
                   and e.offset < BLOCK]
    if not superblocks:
        raise Bad("there is no commit in the trace")
    beside = 0
    for n, superblock in enumerate(superblocks):
        check_superblock(events, superblock, superblocks[n + 1] if superblock is not superblocks[-1] else None)
        if any(e.kind != "flush" and e.begin < superblock.begin for e in events):
            beside += check_commit(events, superblock, superblocks[n - 1] if n else None, concurrent)
    last = superblocks[-1].end
    for event in events:
        if event.image == "metadata" and event.kind != "flush" and event.begin > last:
            raise Bad(f"{event}: written, and no commit follows")
    return len(superblocks), sum(e.image == "data" and e.kind == "write" for e in events), beside


# --- the order of a concurrent load, by its mappings ---------------------------------------------


class Metadata:
    """An image of which blocks get written."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.bytes = bytearray(f.read())

    def write(self, event):
        if len(event.dump) != event.length:
            raise Bad(f"{event}: what was written is not in the trace")
        self.bytes[event.offset:event.offset + event.length] = event.dump

    def node(self, block):
        at = block * BLOCK
        flags, = struct.unpack_from("<I", self.bytes, at + 4)
        nr, most, size = struct.unpack_from("<III", self.bytes, at + 16)
        assert size == 8 and nr <= most <= 252
        return flags == 1, struct.unpack_from(f"<{nr}Q", self.bytes, at + 32 + 8 * most)

    def leaves(self, root):
        internal, values = self.node(root)
        if not internal:
            return set(values)
        return set().union(*(self.leaves(child) for child in values))

    def mapped(self):
        """All data blocks that a device maps."""
        root, = struct.unpack_from("<Q", self.bytes, 320)
        return {value >> 24 for tree in self.leaves(root) for value in self.leaves(tree)}

    def data_block_size(self):
        return struct.unpack_from("<I", self.bytes, 336)[0] * 512


class Commit:
    """What it maps, and what it freed; its superblock, and the line from which on it is durable."""

    def __init__(self, superblock, durable, mapped, before):
        self.superblock, self.durable, self.mapped = superblock, durable, mapped
        self.new, self.freed = mapped - before, before - mapped


def commits_of(events, old):
    metadata = Metadata(old)
    before, commits = metadata.mapped(), []
    for event in events:
        if event.image != "metadata" or event.kind != "write":
            continue
        metadata.write(event)
        if event.offset == 0:
            durable = next(e.end for e in events if e.image == "metadata" and e.kind == "flush"
                           and e.result == 0 and e.begin > event.end)
            commits.append(Commit(event, durable, metadata.mapped(), before))
            before = commits[-1].mapped
    return commits, metadata.data_block_size()


def blocks_of(event, size):
    return set(range(event.offset // size, (event.offset + event.length - 1) // size + 1)) if event.length else set()


def check_mappings(events, commits, size):
    start, fresh = -1, 0
    for commit in commits:
        superblock = commit.superblock
        flush = good_flush(events, "data", start, superblock.begin)
        for event in events:
            if event.image != "data" or event.kind == "flush" or event.begin > superblock.begin \
                    or (flush and event.end < flush.begin):
                continue
            early = blocks_of(event, size) & commit.new
            if early:
                raise Bad(f"{event}: to block {min(early)}, which the commit of {superblock} is "
                          f"the first to map, not before the flush of the data: {flush}")
        fresh += len(commit.new)
        start = superblock.end
    return fresh


# --- giving back ---------------------------------------------------------------------------------


def check_punch(punch, commits, size):
    """Whether nothing that is durable, or may be so while it is under way, has these blocks."""
    durable = [c for c in commits if c.durable < punch.begin]
    later = [c for c in commits if punch.begin <= c.durable and c.superblock.begin < punch.end]
    for commit in durable[-1:] + later:
        hit = blocks_of(punch, size) & commit.mapped
        if hit:
            raise Bad(f"{punch}: the commit of {commit.superblock} has block {min(hit)}")


def first_write(writes, block, after):
    return next((w for w in writes.get(block, ()) if w.begin > after), None)


def check_punches(events, commits, size):
    """How many there are, of how many blocks, and how many of those were written again."""
    punches = [e for e in events if e.image == "data" and e.kind == "punch"]
    busy = {e.thread for e in events if e.kind != "punch"}
    writes, punched, again = {}, {}, 0
    for event in events:
        for block in blocks_of(event, size) if event.image == "data" else ():
            (punched if event.kind == "punch" else writes).setdefault(block, []).append(event)
    for punch in punches:
        if punch.thread in busy:
            raise Bad(f"{punch}: by a thread that writes or flushes, too")
        check_punch(punch, commits, size)
    for commit in commits:
        for block in commit.freed:
            write = first_write(writes, block, commit.superblock.begin)
            if not write:
                continue
            again += 1
            if not any(commit.durable < p.begin and p.end < write.begin for p in punched.get(block, ())):
                raise Bad(f"{write}: to block {block}, which was freed by the commit of {commit.superblock}, "
                          "and not punched since")
    return len(punches), sum(map(len, punched.values())), again


def find_punch(events, commits, size):
    """A punch of blocks that one commit freed and some of which are written again later: with that commit, and
    the first of those writes."""
    for punch in events:
        if punch.kind != "punch":
            continue
        for commit in reversed(commits):
            blocks = blocks_of(punch, size) & commit.freed
            if commit.durable > punch.begin or not blocks:
                continue
            for write in events:
                if write.image == "data" and write.kind == "write" and write.begin > punch.end \
                        and blocks_of(write, size) & blocks:
                    return punch, commit, write
            break
    raise Bad("no punch in the trace can be changed")


def mutate_punch(kind, lines, images, old):
    events = parse(lines, images)
    commits, size = commits_of(events, old)
    punch, commit, write = find_punch(events, commits, size)
    out = list(lines)
    text = out[punch.begin].replace(" <unfinished ...>", ") = 0")
    out[punch.begin] = out[punch.end] = ""
    if kind == "punch-before-commit":
        out[commit.superblock.begin] = text + out[commit.superblock.begin]
    elif kind == "punch-after-reuse":
        out[write.end] += text
    elif kind == "punch-by-writer":
        out[punch.end] = text.replace(punch.thread, write.thread, 1)
    elif kind != "no-punch":
        sys.exit(f"no such change: {kind}")
    return out


# --- changing a trace ---------------------------------------------------------------------------


def find_commit(lines, images):
    """The lines of a commit that the trace has in one piece: its last data write, the data flush, the
    metadata writes, a flush, the superblock, a flush."""
    events = parse(lines, images)
    whole = [e for e in events if e.begin == e.end and e.kind != "punch"]
    wanted = [("data", "write"), ("data", "flush"), ("metadata", "write"), ("metadata", "flush"),
              ("metadata", "write"), ("metadata", "flush")]
    for i in range(len(whole) // 2, len(whole) - len(wanted)):
        if [(e.image, e.kind) for e in whole[i:i + len(wanted)]] == wanted \
                and whole[i + 4].offset == 0:
            return [e.begin for e in whole[i:i + len(wanted)]]
    raise Bad("no commit in the trace can be changed")


def straightened(lines, images):
    """With each flush that went on while something else was done in one piece, where it began."""
    out = list(lines)
    for event in parse(lines, images):
        if event.kind == "flush" and event.begin < event.end < len(lines):
            result = lines[event.end].rpartition(")")[2]
            out[event.begin] = lines[event.begin].replace(" <unfinished ...>\n", f"){result}")
            out[event.end] = ""
    return [line for line in out if line]


def mutate(kind, lines, images):
    lines = straightened(lines, images)
    write, data_flush, metadata, flush, superblock, last = find_commit(lines, images)
    out = list(lines)

    def move(line, after):
        text = out.pop(line)
        out.insert(after if after > line else after + 1, text)

    def change(line, old, new):
        assert re.search(old, out[line]), out[line]
        out[line] = re.sub(old, new, out[line])

    if kind == "data-flush-after-superblock":
        move(data_flush, superblock)
    elif kind == "data-flush-too-long":
        # begun in time, returned after the superblock was written
        text = out[data_flush].rstrip("\n")
        pid, rest = text.split(None, 1)
        out[data_flush] = f"999999 {rest[:rest.rindex(')')]} <unfinished ...>\n"
        out.insert(superblock + 1, f"999999 <... {rest.split('(')[0]} resumed>) = {text.split('= ')[-1]}\n")
    elif kind == "data-flush-before-data":
        move(write, data_flush)
    elif kind == "no-data-flush":
        del out[data_flush]
    elif kind == "no-metadata-flush":
        del out[flush]
    elif kind == "superblock-before-flush":
        move(flush, superblock)
    elif kind == "metadata-after-flush":
        move(metadata, flush)
    elif kind == "metadata-after-superblock":
        move(metadata, superblock)
    elif kind == "no-last-flush":
        del out[last]
    elif kind == "superblock-merged":
        change(superblock, r"4096\b", "36864")
        del out[metadata]
    elif kind == "superblock-short":
        change(superblock, r"= 4096$", "= 512")
    elif kind == "data-flush-failed":
        change(data_flush, r"= 0$", "= -1 EIO (Input/output error)")
    elif kind == "metadata-flush-failed":
        change(flush, r"= 0$", "= -1 EIO (Input/output error)")
    elif kind == "data-write-during-commit":
        # begun before the flush, returned after it
        text = out[write].rstrip("\n")
        pid, rest = text.split(None, 1)
        out[write] = f"{pid} {rest[:rest.rindex(')')]} <unfinished ...>\n"
        out.insert(data_flush + 1, f"{pid} <... {rest.split('(')[0]} resumed>) = {text.split('= ')[-1]}\n")
        # the thread that flushes must be another one
        out[data_flush] = out[data_flush].replace(pid, "999999", 1)
    else:
        sys.exit(f"no such change: {kind}")
    return out


def count_flushes(events, size):
    writes = [e for e in events if e.image == "data" and e.kind == "write" and e.length == size]
    flushes = [e for e in events if e.kind == "flush"]
    nr = [sum(a.end < e.begin < b.begin for e in flushes) for a, b in zip(writes, writes[1:])]
    return min(nr, default=0), max(nr, default=0), len(nr)


def main():
    args = sys.argv[1:]
    kind = size = None
    if args[:1] == ["--flushes"]:
        size = int(args[1])
        args = args[2:]
    if args[:1] == ["mutate"]:
        kind = args[1]
        args = args[2:]
    concurrent = args[:1] == ["--concurrent"]
    old = None
    if args[:1] == ["--mappings"]:
        old, args = args[1], args[2:]
    data, meta, trace = args[concurrent:]
    images = {data: "data", meta: "metadata"}
    with open(trace, encoding="latin-1") as f:
        lines = f.readlines()
    try:
        if size:
            least, most, nr = count_flushes(parse(lines, images), size)
            print(f"{least} to {most} flushes after each of {nr} writes")
            return 0
        if kind:
            sys.stdout.writelines(mutate_punch(kind, lines, images, old) if old else mutate(kind, lines, images))
            return 0
        commits, writes, beside = check(lines, images, concurrent or old is not None)
        print(f"{commits} commits, {writes} data writes, {beside} times metadata before the data were flushed")
        if old:
            events = parse(lines, images)
            mappings = commits_of(events, old)
            print(f"{check_mappings(events, *mappings)} blocks were mapped")
            nr, blocks, again = check_punches(events, *mappings)
            print(f"{nr} punches gave back {blocks} blocks; {again} were written again")
    except Bad as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
