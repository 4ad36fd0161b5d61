#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Images that grow while the pool is in use: by hand, under load, and by themselves ahead of those who write.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3
plan 17

# total DIR KEY: bytes that the pool on DIR has of that kind
total() {
	thinfs status --json "$1" | python3 -c "import json,sys; print(json.load(sys.stdin)['$2']['total'])"
}

df_total() {
	echo $(($(stat -f -c '%b * %S' "$1")))
}

# --- by hand, under load
pool=$(mktmp)
thinfs format --data-size 16M --metadata-size 2M "$pool/data.img" "$pool/meta.img"
mount_pool "$pool"
truncate -s 1G "$MNT/v"
# Writers that find the pool full wait for the space that comes.
dd if=/dev/urandom of="$pool/random" bs=1M count=40 status=none
dd if="$pool/random" of="$MNT/v" bs=256K conv=notrunc status=none &
writer=$!
sleep 0.3
expect "an image is made larger while it is written" thinfs resize "$MNT" --data 64M --metadata 8M
wait $writer
is "who waited for space goes on" $? 0
is "status tells the new size at once" "$(total "$MNT" data) $(total "$MNT" metadata)" "67108864 8388608"
is "so does df" "$(df_total "$MNT")" 67108864
is "and so do the images" "$(stat -c %s "$pool/data.img" "$pool/meta.img" | tr '\n' ' ')" "67108864 8388608 "
expect "what was written meanwhile is there" cmp -n 41943040 "$pool/random" "$MNT/v"
expect_failure "a smaller size is refused, and the command for it named" "thinfs shrink --data SIZE" \
	thinfs resize "$MNT" --data 32M
expect_failure "the metadata image does not shrink" "never" thinfs resize "$MNT" --metadata 4M
expect_failure "nor is more than a pool can have" "16320" thinfs resize "$MNT" --metadata 16G
truncate -s 80M "$pool/data.img"
expect "what was added from outside is taken in" thinfs resize "$MNT"
is "all of it" "$(total "$MNT" data)" 83886080
umount_pool
mount_pool "$pool"
is "it is all there after a remount" "$(total "$MNT" data) $(total "$MNT" metadata)" "83886080 8388608"
umount_pool

# --- by itself
pool=$(mktmp)
thinfs format --data-size 8M --metadata-size 1M "$pool/data.img" "$pool/meta.img"
mount_pool "$pool" -o grow=50%,max=100M,error_if_no_space
truncate -s 1G "$MNT/v"
expect "an image grows ahead of one that writes far more than it had" \
	dd if=/dev/urandom of="$MNT/v" bs=1M count=80 conv=notrunc,fsync status=none
expect_failure "but not beyond its limit, where writes fail as chosen" "No space" \
	dd if=/dev/zero of="$MNT/v" bs=1M count=30 seek=80 conv=notrunc status=none
is "the limit has been reached" "$(total "$MNT" data)" $((100 << 20))
umount_pool
expect_failure "a limit of nothing is refused" "grow=" \
	thinfs mount -o max=1G "$pool/data.img" "$pool/meta.img" "$pool/mnt"
expect_failure "so is growing by nothing" "grow=" \
	thinfs mount -o grow=0% "$pool/data.img" "$pool/meta.img" "$pool/mnt"
