#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# External origins: what is not written reads as another file; and what becomes of that when volumes are written,
# copied, cut and discarded, and when the file is not what it was.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program jq python3
plan $((9 + 9 + 8 + 10 + 6 + 15 + 8 + 4))

dir=$(mktmp)
block=65536
# An end that is no whole block, nor sector, and a stretch that is a hole.
head -c 3000001 /dev/urandom >"$dir/base.img"
fallocate -p -o $((20 * block)) -l $((4 * block)) "$dir/base.img"
thinfs format --data-size 64M --metadata-size 4M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir"

sum() {
	sha256sum <"$1" | cut -d' ' -f1
}

of() {
	thinfs list --json "$MNT" | jq -r --arg path "$1" ".devices[] | select(.path == \$path) | .$2"
}

# both COMMAND FILE...: on the volume v and on a plain file that must stay like it.
both() {
	"$@" "$MNT/v" && "$@" "$dir/v"
}

put() { # OFFSET LENGTH FILE
	python3 -c 'import random, sys
random.seed(int(sys.argv[1]))
with open(sys.argv[3], "r+b", buffering=0) as f:
	f.seek(int(sys.argv[1])); f.write(random.randbytes(int(sys.argv[2])))' "$@"
}

# --- making and reading ---

expect "thinfs create --origin" thinfs create --origin "$dir/base.img" "$MNT/v"
cp --sparse=never "$dir/base.img" "$dir/v"
is "it is as large as the origin" "$(stat -c %s "$MNT/v")" 3000001
expect "reads as the origin" cmp "$MNT/v" "$dir/v"
is "and takes no space" "$(stat -c %b "$MNT/v") $(of v mapped)" "0 0"
is "list tells" "$(of v origin) $(of v origin_size)" "$(readlink -f "$dir")/base.img 3000001"
is "an attribute, too" "$(python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], "user.thinfs.origin").decode())' "$MNT/v")" \
	"$(readlink -f "$dir")/base.img"
expect "a larger one" thinfs create --size 5M --origin "$dir/base.img" "$MNT/large"
is "has zeros behind the origin" "$(sum "$MNT/large")" "$( (cat "$dir/base.img"; head -c $((5 * 1048576 - 3000001)) /dev/zero) | sha256sum | cut -d' ' -f1)"
thinfs create --size 100000 --origin "$dir/base.img" "$MNT/small"
truncate -s 1M "$MNT/small"
is "a smaller one has no more of it when it grows" "$(sum "$MNT/small")" \
	"$( (head -c 100000 "$dir/base.img"; head -c 948576 /dev/zero) | sha256sum | cut -d' ' -f1)"

# --- writing ---

expect "a small write copies the block first" both put 200000 1000
expect "a write across blocks" both put $((9 * block - 100)) 70000
expect "a whole block" both put $((12 * block)) $block
expect "into the block with the origin's end" both put 2999000 500
expect "and they are all there" cmp "$MNT/v" "$dir/v"
is "only what was written takes space" "$(of v mapped)" $((6 * block))
both truncate -s 3200000
expect "a larger volume" cmp "$MNT/v" "$dir/v"
expect "fallocate changes no byte" fallocate -o $((14 * block)) -l $((3 * block)) "$MNT/v"
is "and provides" "$(cmp "$MNT/v" "$dir/v") $(of v mapped)" " $((9 * block))"

# --- snapshots and copies ---

mkdir "$MNT/.snapshots/one"
one=$(sum "$MNT/v")
both put 400000 300000
is "a snapshot inherits the origin" "$(sum "$MNT/.snapshots/one/v")" "$one"
thinfs clone "$MNT/.snapshots/one/v" "$MNT/clone"
put 1000000 10 "$MNT/clone"
is "a clone, too" "$(of clone origin)" "$(of v origin)"
expect "and is not one with it" cmp "$MNT/v" "$dir/v"
copy() {
	python3 -B "$top_srcdir/tests/tools/copy_range.py" "$@"
}
truncate -s 4M "$MNT/plain"
put 0 4194304 "$MNT/plain"
expect "copying into a volume without one" copy "$MNT/v" 0 "$MNT/plain" 0 3200000
expect "copies what is not written" cmp -n 3200000 "$MNT/plain" "$dir/v"
truncate -s 2M "$MNT/holes"
copy "$MNT/holes" 0 "$MNT/large" 131072 2097152
is "holes over an origin are zeros" "$(head -c 2228224 "$MNT/large" | tail -c 2097152 | tr -d '\0' | wc -c)" 0
before=$(sum "$MNT/v")
safety=$(thinfs revert "$MNT/v" "$MNT/.snapshots/one/v")
is "revert" "$(sum "$MNT/v")" "$one"
thinfs revert "$MNT/v" "$safety" >/dev/null
is "and back" "$(sum "$MNT/v")" "$before"

# --- discarding and cutting: zeros, not the origin ---

expect "a hole within" both fallocate -p -o $((6 * block)) -l $((10 * block))
expect "reads as zeros" cmp "$MNT/v" "$dir/v"
expect "a hole with ends that are no blocks" both fallocate -p -o 150001 -l 160000
expect "reads as zeros, and the rest stays" cmp "$MNT/v" "$dir/v"
used=$(thinfs status --json "$MNT" | jq .data.used)
both fallocate -z -n -o $((26 * block)) -l $((10 * block))
more=$(($(thinfs status --json "$MNT" | jq .data.used) - used))
expect "zeroed blocks" cmp "$MNT/v" "$dir/v"
[ $more -le $block ] && ok "take no data space" || not_ok "take no data space, but $more"
both truncate -s $((18 * block + 77)) && both truncate -s 3000000
expect "what was cut off does not come back" cmp "$MNT/v" "$dir/v"
is "less of the origin is shown" "$(of v origin_size)" $((18 * block + 77))
is "the snapshot still shows all of it" "$(sum "$MNT/.snapshots/one/v")" "$one"
fallocate -p -o 0 -l 5M "$MNT/large"
is "all of a volume is discarded for nothing" "$(of large mapped) $(of large origin_size) $(tr -d '\0' <"$MNT/large" | wc -c)" "0 0 0"

# --- a new mount, and discarding as the kernel does ---

thinfs umount "$MNT"
mount_pool "$dir" -o discard_to_origin
expect "all is there after a remount" cmp "$MNT/v" "$dir/v"
fallocate -p -o 0 -l $((4 * block)) "$MNT/v"
expect "discard_to_origin shows the origin again" cmp -n $((4 * block)) "$MNT/v" "$dir/base.img"
fallocate -p -o 1000 -l $((2 * block)) "$MNT/clone"
expect "what is no whole block stays" cmp -n 1000000 "$MNT/clone" "$MNT/.snapshots/one/v"
fallocate -z -n -o 0 -l $((4 * block)) "$MNT/v"
is "zeroing does not" "$(head -c $((4 * block)) "$MNT/v" | tr -d '\0' | wc -c)" 0
truncate -s 2000000 "$MNT/clone"
fallocate -p -o $((24 * block)) -l $((20 * block)) "$MNT/clone"
truncate -s 3000000 "$MNT/clone"
is "nor does what was cut off" "$(tail -c 1000000 "$MNT/clone" | tr -d '\0' | wc -c)" 0
thinfs umount "$MNT"
expect "the audit is clean" audit_pool "$dir/meta.img"
mount_pool "$dir"

# --- missing, changed, and what may not be one ---

mount_and_hear() { # in the foreground
	"$THINFS" mount "${with_transport[@]}" -f "$dir/data.img" "$dir/meta.img" "$MNT" 2>"$dir/log" &
	for _ in $(seq 100); do
		mountpoint -q "$MNT" && break
		sleep 0.1
	done
}
thinfs umount "$MNT"
mv "$dir/base.img" "$dir/moved.img"
mount_and_hear
expect_failure "missing: what is not written cannot be read" "Input/output error" cat "$MNT/.snapshots/one/v"
grep -q "one/v: its external origin .*/base.img: No such file.*origin=[0-9]*:FILE" "$dir/log" && ok "a message names volume, file and way out" || {
	not_ok "a message names volume, file and way out"
	diag "$(cat "$dir/log")"
}
expect "what is written can" dd if="$MNT/.snapshots/one/v" of=/dev/null bs=64K skip=12 count=1
expect "whole blocks can be written" dd if=/dev/urandom of="$MNT/clone" bs=64K seek=1 count=1 conv=notrunc
expect_failure "parts of them cannot" "Input/output error" dd if=/dev/urandom of="$MNT/clone" bs=4K seek=400 count=1 conv=notrunc
expect "discarding works" fallocate -p -o $((2 * block)) -l $((3 * block)) "$MNT/clone"
mv "$dir/moved.img" "$dir/base.img"
sleep 1.1
is "it is back: so is the volume" "$(sum "$MNT/.snapshots/one/v")" "$one"
dd if="$dir/base.img" of="$dir/byte" bs=1 skip=1000 count=1 status=none
tr '\0-\377' '\1-\377\0' <"$dir/byte" | dd of="$dir/base.img" bs=1 seek=1000 conv=notrunc status=none
sleep 1.1
expect_failure "changed while it is in use" "Input/output error" cat "$MNT/.snapshots/one/v"
grep -q "is not what it was: it was written to, or replaced" "$dir/log" && ok "says so" || not_ok "says so: $(cat "$dir/log")"
thinfs umount "$MNT"
wait
mount_pool "$dir"
expect_failure "changed content is refused" "Input/output error" cat "$MNT/.snapshots/one/v"
dd if="$dir/byte" of="$dir/base.img" bs=1 seek=1000 conv=notrunc status=none
$(grep -o 'touch -d @[0-9.]*' "$dir/log" | head -n 1) "$dir/base.img"
sleep 1.1
is "as the message says, its old time makes it good" "$(sum "$MNT/.snapshots/one/v")" "$one"
expect_failure "not over a file of the pool" "in the same pool" thinfs create --origin "$MNT/v" "$MNT/x"
ln -s "$MNT/v" "$dir/link"
expect_failure "nor by a symbolic link" "in the same pool" thinfs create --origin "$dir/link" "$MNT/x"
expect_failure "not over one of its images" "own images" thinfs create --origin "$dir/data.img" "$MNT/x"
expect_failure "not over a directory" "no regular file" thinfs create --origin "$dir" "$MNT/x"
thinfs umount "$MNT"

# --- an origin that has moved, and the options ---

head -c 1000000 /dev/urandom >"$dir/second.img"
mount_pool "$dir"
thinfs create --origin "$dir/second.img" "$MNT/w"
id=$(of w id)
thinfs umount "$MNT"
cp -p "$dir/second.img" "$dir/elsewhere.img"
rm "$dir/second.img"
mount_pool "$dir" -o "origin=$id:$dir/elsewhere.img"
expect "origin=ID:FILE says where it is now" cmp "$MNT/w" "$dir/elsewhere.img"
thinfs umount "$MNT"
mount_pool "$dir"
expect "which is remembered" cmp "$MNT/w" "$dir/elsewhere.img"
thinfs umount "$MNT"
head -c 1000000 /dev/urandom >"$dir/other.img"
mount_pool "$dir" -o "origin=$id:$dir/other.img"
expect "but not of another file" cmp "$MNT/w" "$dir/elsewhere.img"
thinfs umount "$MNT"
expect_failure "a file that is not there is refused" "nix: cannot be an external origin: .*No such file" \
	thinfs mount -o "origin=$dir/nix" "$dir/data.img" "$dir/meta.img" "$MNT"
expect_failure "so is a number that is none" "number is 0 to 16777215" \
	thinfs mount -o "origin=99999999:$dir/other.img" "$dir/data.img" "$dir/meta.img" "$MNT"
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
	# Others are let in, and have the program; the build's own folder may be closed to them.
	chmod a+x "$THINFS_TEST_STATE" "$dir"
	cp "$THINFS" "$dir/thinfs"
	echo secret >"$dir/secret"
	chmod 600 "$dir/secret"
	mount_pool "$dir" -o allow_other
	expect_failure "others may not make the daemon open files" "x over .*/secret: only who mounted the pool, and root, may" \
		setpriv --reuid 65534 --regid 65534 --clear-groups "$dir/thinfs" create --origin "$dir/secret" "$MNT/x"
else
	mount_pool "$dir"
	skip 1 "needs root to be somebody else"
fi
is "and no volume is left" "$(ls "$MNT" | grep -c x)" 0
chmod 600 "$dir/other.img"
thinfs create --origin "$dir/other.img" "$MNT/private"
is "what others may not read they may not read in the volume" "$(stat -c %a "$MNT/private")" 600

# --- a filesystem on it ---

if [ "$(id -u)" -ne 0 ] || ! command -v mkfs.ext4 >/dev/null || ! command -v fstrim >/dev/null; then
	skip 4 "needs root, mkfs.ext4 and fstrim"
	exit 0
fi
truncate -s 24M "$dir/fs.img"
mkfs.ext4 -q -b 4096 -E lazy_itable_init=1 "$dir/fs.img"
thinfs create --size 24M --origin "$dir/fs.img" "$MNT/fs"
mkdir "$dir/ext4"
if dev=$(attach_loop "$MNT/fs") && mount -t ext4 "$dev" "$dir/ext4"; then
	cp -r "$top_srcdir/src" "$dir/ext4/" && rm -rf "$dir/ext4/src/pool" && sync "$dir/ext4"
	expect "fstrim of ext4 over an origin" fstrim "$dir/ext4"
	expect "its files are there" diff -r "$top_srcdir/src/io" "$dir/ext4/src/io"
	umount "$dir/ext4"
	expect "e2fsck finds nothing wrong" e2fsck -fn "$dev"
	# mkfs over the old one: nothing of it may come through
	mkfs.ext4 -q "$dev" && mkdir -p "$dir/ext4"
	expect "nor after mkfs on it" e2fsck -fn "$dev"
	detach_loop "$dev" "$MNT/fs"
else
	skip 4 "no loop device, or no ext4 in this kernel"
fi
