#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Space comes back: discards through a loop device, removing volumes, also open ones, also when the daemon is killed;
# and what is zero costs nothing.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program jq python3
plan $((3 + 5 + 3 + 4))

dir=$(mktmp)
thinfs format --data-size 1G --metadata-size 16M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir"

used() {
	thinfs status --json "$MNT" | jq .data.used
}

at_most() {
	[ "$1" -le "$2" ]
}

# The data image takes at most that many bytes of its disk.
image_within() {
	at_most "$(du_bytes "$dir/data.img")" "$1"
}

# --- fill, delete, fstrim ---

round() {
	local i
	for ((i = 0; i < 10; i++)); do
		head -c 5M /dev/urandom >"$dir/fs/file$i" || return 1
	done
	sync -f "$dir/fs"
	rm "$dir"/fs/file* && sync -f "$dir/fs" && fstrim "$dir/fs" || return 1
	eventually image_within $(($(fs_used "$dir/fs") * 102 / 100)) && return 0
	echo "round $1: the image takes $(du_bytes "$dir/data.img") bytes, the filesystem uses $(fs_used "$dir/fs")"
	return 1
}

rounds() {
	local i
	for i in {1..20}; do
		round "$i" || return 1
	done
}

truncate -s 400M "$MNT/vm1"
if [ "$(id -u)" -eq 0 ] && command -v fstrim mkfs.ext4 >/dev/null && dev=$(attach_loop "$MNT/vm1" --direct-io=on 2>/dev/null); then
	mkdir "$dir/fs"
	mkfs.ext4 -q -J size=4 "$dev"
	on_exit umount "$dir/fs"
	mount -o minixdf "$dev" "$dir/fs" || bail_out "cannot mount ext4"
	head -c 100M /dev/urandom >"$dir/fs/stays"
	kept=$(sha256sum <"$dir/fs/stays")
	expect "20 times filled, deleted and trimmed, the image takes 2 % more than the filesystem at most" rounds
	is "what stays is as it was" "$(sha256sum <"$dir/fs/stays")" "$kept"
	umount "$dir/fs"
	detach_loop "$dev" "$MNT/vm1"
	expect "a clean filesystem" e2fsck -fn "$MNT/vm1"
else
	skip 3 "no loop devices, or no fstrim"
fi

# --- removing ---

rm "$MNT/vm1"
expect "after rm nothing but the catalog is left" eventually image_within 262144
is "status says so, too" "$(($(used) <= 262144))" 1
truncate -s 600M "$MNT/big"
fallocate -l 600M "$MNT/big"
head -c 300M /dev/zero | tr '\0' 'x' | dd of="$MNT/big" bs=1M conv=notrunc iflag=fullblock status=none
exec 5<"$MNT/big"
rm "$MNT/big"
sleep 1.2
is "a volume that is open keeps its space" "$(($(used) >= 600 << 20))" 1
is "and its bytes" "$(head -c 1000 <&5 | tr -d x | wc -c)" 0
exec 5<&-
expect "and gives it back when it is closed" eventually image_within 262144

# --- open and removed, and the daemon is killed ---

truncate -s 200M "$MNT/big"
head -c 200M /dev/zero | tr '\0' 'x' | dd of="$MNT/big" bs=1M conv=notrunc iflag=fullblock status=none
exec 5<"$MNT/big"
rm "$MNT/big"
thinfs sync "$MNT"
is "a removed volume that is open is still there" "$(thinfs status --json "$MNT" | jq -c .reclaim)" \
	"{\"volumes\":1,\"open\":1,\"bytes\":$((200 << 20))}"
kill_daemon "$MNT"
exec 5<&-
umount -l "$MNT"
mount_pool "$dir"
expect "the daemon is killed: the space comes back with the next mount" eventually image_within 262144
is "nothing is left to come back" "$(thinfs status --json "$MNT" | jq -c .reclaim.volumes) $(ls "$MNT")" "0 "

# --- what is zero ---

block=65536
truncate -s 64M "$MNT/sparse"
thinfs sync "$MNT"
before=$(du_bytes "$dir/data.img")
python3 - "$MNT/sparse" <<-'END'
	import os, sys
	f = os.open(sys.argv[1], os.O_RDWR)
	for i in range(100):
	    os.pwrite(f, b"x" * 4096, i * 65536 + 8192)
	os.fsync(f)
END
more=$(($(du_bytes "$dir/data.img") - before))
if [ "$(stat -f -c %S "$dir")" -le 4096 ]; then
	# A commit's share of the catalog comes to it.
	at_most $more $((100 * 4096 + 2 * block)) && ok "a small write to a new block takes no more of the disk than that" ||
		not_ok "a small write to a new block takes no more of the disk than that: $more bytes for 100"
else
	skip 1 "the disk has larger blocks"
fi
is "around it are zeros" "$(tr -d 'x\0' <"$MNT/sparse" | wc -c) $(tr -d '\0' <"$MNT/sparse" | wc -c)" "0 409600"
before=$(used)
expect "fallocate --zero-range" fallocate -z -o 0 -l $((50 * block)) "$MNT/sparse"
thinfs sync "$MNT"
is "gives whole blocks back" "$((before - $(used) >= 48 * block)) $(tr -d '\0' <"$MNT/sparse" | wc -c)" "1 204800"
