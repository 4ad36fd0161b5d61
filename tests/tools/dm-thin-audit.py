#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-only parser and auditor for dm-thin (v2) metadata images.

Written only from doc/dm-thin-format.md; the "S n" marks in the comments
are section numbers of that sheet.  Standard library only.

  dmthin.py IMAGE [--no-mappings] [--snap] [--xml] [--compact]

Prints one JSON object: superblock fields, both space maps, devices with
their mappings as ranges [virt_begin, data_begin, length, time], and an
audit (checksums, node invariants, reference counts of metadata and data).
--snap lists the devices of the metadata snapshot (held root) instead;
--xml prints the devices as the XML of S 14 instead of JSON.
Exit status: 0 clean, 1 problems found (see "audit"), 2 unreadable.
"""
import json
import struct
import sys
from array import array

BLOCK = 4096                                     # S 1
MAGIC = 27022010                                 # S 3
XOR_SB, XOR_NODE, XOR_BITMAP, XOR_INDEX = 160774, 121107, 240779, 160478  # S 2
INTERNAL, LEAF = 1, 2                            # S 4
ENTRIES_PER_BITMAP = (BLOCK - 16) * 4            # S 6: 16320
MAX_BITMAPS = 255
TIME_BITS = 24                                   # S 5


def _table():
    t = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        t.append(n)
    return t


_T = _table()


def crc32c_raw(buf, crc=0xFFFFFFFF):
    """Castagnoli CRC, initial value all ones, NO final inversion (S 2)."""
    t = _T
    for b in buf:
        crc = t[(crc ^ b) & 0xFF] ^ (crc >> 8)
    return crc


class Damage(Exception):
    pass


class Image:
    def __init__(self, path):
        self.f = open(path, "rb")
        self.f.seek(0, 2)
        self.nr = self.f.tell() // BLOCK
        self.problems = []
        self.hints = []           # accounting that nothing checks (S 6.5)
        self.verified = {}        # block -> xor constant it verified with
        self.kinds = {}

    def problem(self, text):
        if len(self.problems) < 1000:
            self.problems.append(text)

    def hint(self, text):
        if len(self.hints) < 1000:
            self.hints.append(text)

    def raw(self, b):
        if b >= self.nr:
            raise Damage("block %d is outside the image (%d blocks)" % (b, self.nr))
        self.f.seek(b * BLOCK)
        d = self.f.read(BLOCK)
        if len(d) != BLOCK:
            raise Damage("short read at block %d" % b)
        return d

    def block(self, b, xor, kind):
        """Read a block, check checksum and the self-describing block number."""
        d = self.raw(b)
        if b in self.verified:
            if self.verified[b] != xor:
                self.problem("block %d used as %s but verified as another type" % (b, kind))
            return d
        csum, = struct.unpack_from("<I", d, 0)
        nr, = struct.unpack_from("<Q", d, 8)
        want = crc32c_raw(memoryview(d)[4:]) ^ xor
        if csum != want:
            self.problem("bad checksum in %s block %d" % (kind, b))
            raise Damage("bad checksum in %s block %d" % (kind, b))
        if nr != b:
            self.problem("%s block %d says it is block %d" % (kind, b, nr))
        self.verified[b] = xor
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return d


# --- superblock (S 3) -------------------------------------------------------

SB_FIELDS = [
    ("csum", "I", 0), ("flags", "I", 4), ("blocknr", "Q", 8),
    ("magic", "Q", 32), ("version", "I", 40), ("time", "I", 44),
    ("trans_id", "Q", 48), ("held_root", "Q", 56),
    ("data_mapping_root", "Q", 320), ("device_details_root", "Q", 328),
    ("data_block_size", "I", 336), ("metadata_block_size", "I", 340),
    ("metadata_nr_blocks", "Q", 344), ("compat_flags", "I", 352),
    ("compat_ro_flags", "I", 356), ("incompat_flags", "I", 360),
]


def parse_superblock(d):
    sb = {n: struct.unpack_from("<" + c, d, o)[0] for n, c, o in SB_FIELDS}
    sb["uuid"] = d[16:32].hex()
    for name, off in (("data_sm_root", 64), ("metadata_sm_root", 192)):
        nb, na, br, rr = struct.unpack_from("<4Q", d, off)
        sb[name] = {"nr_blocks": nb, "nr_allocated": na,
                    "bitmap_root": br, "ref_count_root": rr}
    return sb


# --- btree (S 4) ------------------------------------------------------------

def max_entries(value_size):
    return (BLOCK - 32) // (8 + value_size) // 3 * 3


class Tree:
    """Walks one btree; counts each distinct node's references once (S 8)."""

    def __init__(self, img, name, value_size, refs, seen):
        self.img, self.name, self.vsize = img, name, value_size
        self.refs, self.seen = refs, seen
        self.leaves = self.internals = self.depth = 0

    def node(self, b, is_root):
        img = self.img
        d = img.block(b, XOR_NODE, "btree")
        flags, _nr, n, mx, vs = struct.unpack_from("<IQIII", d, 4)
        where = "%s node %d" % (self.name, b)
        if flags not in (INTERNAL, LEAF):
            raise Damage("%s: bad flags %d" % (where, flags))
        want = 8 if flags == INTERNAL else self.vsize
        if vs != want:
            raise Damage("%s: value size %d, wanted %d" % (where, vs, want))
        if 32 + (8 + vs) * mx > BLOCK:
            raise Damage("%s: max_entries %d too big" % (where, mx))
        if mx != max_entries(vs):
            img.problem("%s: max_entries %d, wanted %d" % (where, mx, max_entries(vs)))
        if mx % 3:
            img.problem("%s: max_entries %d not a multiple of 3" % (where, mx))
        if n > mx:
            raise Damage("%s: nr_entries %d > max %d" % (where, n, mx))
        if not is_root and n < mx // 3:
            img.problem("%s: underfull, %d of %d" % (where, n, mx))
        if flags == INTERNAL and n == 0:
            raise Damage("%s: empty internal node" % where)
        keys = struct.unpack_from("<%dQ" % n, d, 32)
        for i in range(1, n):
            if keys[i] <= keys[i - 1]:
                raise Damage("%s: keys out of order at %d" % (where, i))
        return flags, keys, d, 32 + 8 * mx, vs

    def ref(self, b):
        self.refs[b] = self.refs.get(b, 0) + 1

    def walk(self, root, leaf_fn, all_paths=False):
        """leaf_fn(block, keys, data, value_offset, first_visit)"""
        self._walk(root, True, 0, 1 << 64, leaf_fn, all_paths, 1)

    def _walk(self, b, is_root, lo, hi, leaf_fn, all_paths, depth):
        first = b not in self.seen
        if not first and not all_paths:
            return
        self.seen.add(b)
        try:
            flags, keys, d, voff, _vs = self.node(b, is_root)
        except Damage as e:
            self.img.problem(str(e))
            return
        if keys and not (lo <= keys[0] and keys[-1] < hi):
            self.img.problem("%s node %d: keys %d..%d outside parent range [%d,%d)"
                             % (self.name, b, keys[0], keys[-1], lo, hi))
        if flags == LEAF:
            self.leaves += first
            if self.depth and self.depth != depth and not all_paths:
                self.img.problem("%s: leaf %d at depth %d, others at %d"
                                 % (self.name, b, depth, self.depth))
            self.depth = depth
            leaf_fn(b, keys, d, voff, first)
            return
        self.internals += first
        kids = struct.unpack_from("<%dQ" % len(keys), d, voff)
        if first:
            for k in kids:
                self.ref(k)
        for i, k in enumerate(kids):
            nhi = keys[i + 1] if i + 1 < len(keys) else hi
            self._walk(k, False, keys[i], nhi, leaf_fn, all_paths, depth + 1)


# --- space maps (S 6) -------------------------------------------------------

class SpaceMap:
    def __init__(self, img, name, root, refs, seen):
        self.img, self.name, self.root = img, name, root
        self.nr = root["nr_blocks"]
        self.counts = array("I", bytes(4 * self.nr))
        self.index = {}
        refs_, nb = refs, -(-self.nr // ENTRIES_PER_BITMAP)
        overflow = {}

        def rc_leaf(_b, keys, d, voff, _first):
            for i, k in enumerate(keys):
                overflow[k], = struct.unpack_from("<I", d, voff + 4 * i)

        t = Tree(img, name + " ref-count tree", 4, refs_, seen)
        t.ref(root["ref_count_root"])
        t.walk(root["ref_count_root"], rc_leaf)
        self.overflow = overflow
        self.rc_tree = t

        if name == "metadata":
            b = root["bitmap_root"]
            d = img.block(b, XOR_INDEX, "index")
            refs_[b] = refs_.get(b, 0) + 1
            for i in range(nb):
                self.index[i] = struct.unpack_from("<QII", d, 16 + 16 * i)
            if any(d[16 + 16 * nb:16 + 16 * MAX_BITMAPS]):
                img.hint("metadata index: entries past the end are not zero")
        else:
            def ie_leaf(_b, keys, d, voff, _first):
                for i, k in enumerate(keys):
                    self.index[k] = struct.unpack_from("<QII", d, voff + 16 * i)
            t = Tree(img, name + " bitmap tree", 16, refs_, seen)
            t.ref(root["bitmap_root"])
            t.walk(root["bitmap_root"], ie_leaf)
            self.ie_tree = t
        if sorted(self.index) != list(range(nb)):
            img.problem("%s: index entries %s, wanted 0..%d" % (name, sorted(self.index)[:5], nb - 1))

        allocated = 0
        conv = {"kernel": 0, "truncated": 0, "other": 0}
        used_overflow = set()
        for i in range(nb):
            if i not in self.index:
                continue
            blk, nr_free, none_before = self.index[i]
            refs_[blk] = refs_.get(blk, 0) + 1
            try:
                d = img.block(blk, XOR_BITMAP, "bitmap")
            except Damage as e:
                img.problem(str(e))
                continue
            words = struct.unpack_from("<%dQ" % ((BLOCK - 16) // 8), d, 16)
            base = i * ENTRIES_PER_BITMAP
            n_here = min(ENTRIES_PER_BITMAP, self.nr - base)
            used, first_free = 0, None
            for e in range(ENTRIES_PER_BITMAP):
                two = (words[e >> 5] >> ((e & 31) * 2)) & 3
                v = ((two & 1) << 1) | (two >> 1)          # S 6: bits swapped
                if e >= n_here:
                    if v:
                        img.problem("%s bitmap %d: bits set past the end" % (name, i))
                        break
                    continue
                if v == 0:
                    if first_free is None:
                        first_free = e
                    continue
                used += 1
                if v == 3:
                    if base + e not in overflow:
                        img.problem("%s: block %d overflows but is not in the tree" % (name, base + e))
                    else:
                        used_overflow.add(base + e)
                        v = overflow[base + e]
                        if v < 3:
                            img.problem("%s: tree count %d for block %d" % (name, v, base + e))
                self.counts[base + e] = v
            allocated += used
            if first_free is not None and first_free < none_before:
                img.hint("%s bitmap %d: free entry %d before none_free_before %d"
                            % (name, i, first_free, none_before))
            full, trunc = ENTRIES_PER_BITMAP - used, n_here - used
            kind = "kernel" if nr_free == full else "truncated" if nr_free == trunc else "other"
            conv[kind] += 1
            if kind == "other":
                img.hint("%s bitmap %d: nr_free %d, wanted %d" % (name, i, nr_free, full))
        for k in overflow:
            if k not in used_overflow:
                img.problem("%s: block %d in the tree but its bitmap is not 3" % (name, k))
        if allocated != root["nr_allocated"]:
            img.hint("%s: nr_allocated %d, bitmaps say %d" % (name, root["nr_allocated"], allocated))
        self.conv = conv

    def summary(self):
        hist = {}
        for c in self.counts:
            if c:
                hist[c] = hist.get(c, 0) + 1
        return {"root": self.root, "bitmaps": len(self.index),
                "count_histogram": {str(k): hist[k] for k in sorted(hist)},
                "overflow_entries": len(self.overflow),
                "overflow_tree_depth": self.rc_tree.depth,
                "nr_free_convention": {k: v for k, v in self.conv.items() if v}}

    def audit(self, expected):
        bad, leaks = [], 0
        for b in range(self.nr):
            want, got = expected.get(b, 0), self.counts[b]
            if want != got:
                if want == 0 and got == 1:
                    leaks += 1
                bad.append([b, want, got])
        beyond = [b for b in expected if b >= self.nr]
        for b in beyond[:10]:
            self.img.problem("%s: block %d is referenced but outside the space map" % (self.name, b))
        if bad:
            self.img.problem("%s: %d reference counts differ (%d leaks)" % (self.name, len(bad), leaks))
        return {"blocks": self.nr, "mismatches": len(bad), "leaks": leaks,
                "first_mismatches": [{"block": b, "expected": w, "on_disk": g} for b, w, g in bad[:10]]}


# --- mappings and details (S 5) ---------------------------------------------

def read_devices(img, sb, refs, data_refs, seen, want_mappings):
    details, roots = {}, {}

    def det_leaf(_b, keys, d, voff, _first):
        for i, k in enumerate(keys):
            m, t, c, s = struct.unpack_from("<QQII", d, voff + 24 * i)
            details[k] = {"dev_id": k, "mapped_blocks": m, "transaction_id": t,
                          "creation_time": c, "snapshotted_time": s}

    def top_leaf(_b, keys, d, voff, first):
        vals = struct.unpack_from("<%dQ" % len(keys), d, voff)
        for k, v in zip(keys, vals):
            roots[k] = v
            if first:
                refs[v] = refs.get(v, 0) + 1

    t = Tree(img, "details", 24, refs, seen)
    t.ref(sb["device_details_root"])
    t.walk(sb["device_details_root"], det_leaf, all_paths=True)
    t = Tree(img, "top-level mapping", 8, refs, seen)
    t.ref(sb["data_mapping_root"])
    t.walk(sb["data_mapping_root"], top_leaf, all_paths=True)

    if set(details) != set(roots):
        img.problem("device ids differ: details %s, mappings %s"
                    % (sorted(set(details) - set(roots)), sorted(set(roots) - set(details))))
    shared_roots = {}
    for k in sorted(roots):
        ranges, total = [], 0
        leaves_of = []

        def map_leaf(b, keys, d, voff, first):
            nonlocal total
            vals = struct.unpack_from("<%dQ" % len(keys), d, voff)
            total += len(keys)
            leaves_of.append(b)
            for key, val in zip(keys, vals):
                blk, tm = val >> TIME_BITS, val & ((1 << TIME_BITS) - 1)
                if first:
                    data_refs[blk] = data_refs.get(blk, 0) + 1
                if want_mappings:
                    r = ranges[-1] if ranges else None
                    if r and r[0] + r[2] == key and r[1] + r[2] == blk and r[3] == tm:
                        r[2] += 1
                    else:
                        ranges.append([key, blk, 1, tm])

        tr = Tree(img, "mappings of %d" % k, 8, refs, seen)
        tr.walk(roots[k], map_leaf, all_paths=True)
        d = details.setdefault(k, {"dev_id": k, "mapped_blocks": None})
        d["mapping_root"] = roots[k]
        d["counted_blocks"] = total
        d["leaves"] = len(leaves_of)
        d["depth"] = tr.depth
        shared_roots.setdefault(roots[k], []).append(k)
        if d["mapped_blocks"] != total:
            img.problem("device %d: details say %s mapped blocks, tree has %d"
                        % (k, d["mapped_blocks"], total))
        if want_mappings:
            d["mappings"] = ranges
    return [details[k] for k in sorted(details)], \
        [v for v in shared_roots.values() if len(v) > 1]


def analyse(path, want_mappings=True, snap=False):
    img = Image(path)
    d = img.block(0, XOR_SB, "superblock")
    sb = parse_superblock(d)
    if sb["magic"] != MAGIC:
        raise Damage("bad magic %d" % sb["magic"])
    if sb["version"] != 2:
        img.problem("version %d" % sb["version"])
    if sb["metadata_block_size"] != 8:
        img.problem("metadata_block_size %d" % sb["metadata_block_size"])
    if sb["incompat_flags"] or sb["compat_ro_flags"]:
        img.problem("unknown feature flags")

    refs, data_refs, seen = {0: 1}, {}, set()
    devs, shared = read_devices(img, sb, refs, data_refs, seen, want_mappings)
    held = None
    if sb["held_root"]:
        h = sb["held_root"]
        refs[h] = refs.get(h, 0) + 1
        hsb = parse_superblock(img.block(h, XOR_SB, "superblock"))
        hdevs, hshared = read_devices(img, hsb, refs, data_refs, seen, want_mappings)
        held = {"superblock": hsb, "devices": hdevs, "shared_roots": hshared}
    msm = SpaceMap(img, "metadata", sb["metadata_sm_root"], refs, seen)
    dsm = SpaceMap(img, "data", sb["data_sm_root"], refs, seen)
    out = {
        "superblock": sb,
        "needs_check": bool(sb["flags"] & 1),
        "metadata_space_map": msm.summary(),
        "data_space_map": dsm.summary(),
        "devices": devs, "devices_sharing_a_root": shared,
        "audit": {"blocks_verified": dict(img.kinds),
                  "metadata": msm.audit(refs), "data": dsm.audit(data_refs)},
    }
    if held:
        out["metadata_snapshot"] = held
        if snap:
            out["devices"] = held["devices"]
    out["audit"]["problems"] = img.problems
    out["audit"]["clean"] = not img.problems
    out["audit"]["hints"] = img.hints
    out["audit"]["exact"] = not img.problems and not img.hints
    return out


def to_xml(r, sb):
    o = ['<superblock uuid="" time="%d" transaction="%d" flags="%d" version="%d" '
         'data_block_size="%d" nr_data_blocks="%d">'
         % (sb["time"], sb["trans_id"], sb["flags"], sb["version"],
            sb["data_block_size"], r["data_space_map"]["root"]["nr_blocks"])]
    for d in r["devices"]:
        o.append('  <device dev_id="%d" mapped_blocks="%d" transaction="%d" '
                 'creation_time="%d" snap_time="%d">'
                 % (d["dev_id"], d["mapped_blocks"], d["transaction_id"],
                    d["creation_time"], d["snapshotted_time"]))
        for v, b, n, t in d["mappings"]:
            if n == 1:
                o.append('    <single_mapping origin_block="%d" data_block="%d" time="%d"/>' % (v, b, t))
            else:
                o.append('    <range_mapping origin_begin="%d" data_begin="%d" length="%d" time="%d"/>'
                         % (v, b, n, t))
        o.append('  </device>')
    o.append('</superblock>')
    return "\n".join(o)


def main(argv):
    args = [a for a in argv if not a.startswith("--")]
    opts = {a for a in argv if a.startswith("--")}
    if len(args) != 1 or opts - {"--no-mappings", "--snap", "--xml", "--compact"}:
        sys.stderr.write(__doc__)
        return 2
    sys.setrecursionlimit(10000)
    try:
        r = analyse(args[0], "--no-mappings" not in opts, "--snap" in opts)
    except (Damage, OSError, struct.error) as e:
        print(json.dumps({"error": str(e)}))
        return 2
    if "--xml" in opts:
        sb = r["metadata_snapshot"]["superblock"] if "--snap" in opts else r["superblock"]
        print(to_xml(r, sb))
    else:
        print(json.dumps(r, indent=None if "--compact" in opts else 1))
    return 0 if r["audit"]["clean"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
