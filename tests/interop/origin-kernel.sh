#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# External origins, compared with the real dm-thin in a virtual machine (tests/kernelvm): the same writes, snapshots
# and discards done by the kernel and by thinfs lead to the same content, whatever the sizes; what thinfs made reads the
# same in the kernel, which goes on with it. Run by 'make check-kernel'.
TEST_TIMEOUT=600
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 jq qemu-system-x86_64 busybox dmsetup thin_check apt-get dpkg-deb

vm=$top_srcdir/tests/kernelvm
dir=$(mktmp)
mnt=$dir/mnt
mkdir "$mnt"
seed=${THINFS_TEST_SEED:-$RANDOM}
diag "seed $seed"

# in_kernel: run the script on standard input in the virtual machine, with the images.
in_kernel() {
	cat >"$dir/guest.sh"
	"$vm/kernelvm" --timeout 250 --disk "$dir/meta.img" --disk "$dir/data.img" --disk "$dir/base.img:ro" \
		--file "$vm/dmthin.sh" --file "$dir/ops" --file "$dir/sums" --file "$dir/bytes" --file "$dir/apply.sh" \
		"$dir/guest.sh"
}

sectors=5161 # of the origin: no whole block
head -c $((sectors * 512)) /dev/urandom >"$dir/base.img"
fallocate -p -o 1048576 -l 300000 "$dir/base.img"
head -c 1048576 /dev/urandom >"$dir/bytes"
: >"$dir/sums"

# Devices 1 to 3: larger, as large, smaller and with an end inside a block. The same operations for both.
python3 -B - "$seed" >"$dir/ops" <<'END'
import random, sys
rng = random.Random(int(sys.argv[1]))
sizes = {1: 8192, 2: 5161, 3: 3001}
for dev, size in sizes.items():
    for step in range(40):
        kind = rng.choice("wwwwdd" if step != 15 else "s")
        if kind == "w":
            count = rng.choice([1, 7, 8, 128, 200, 500])
            at = rng.randrange(max(1, size - count))
            if rng.random() < .4:
                at -= at % 128
            if rng.random() < .1:  # over the origin's end
                at = max(0, min(size, 5161) - count // 2)
            count = min(count, size - at)
            print("w", dev, at, count, rng.randrange(2048 - 500))
        elif kind == "d":
            first = rng.randrange(size // 128)
            print("d", dev, first * 128, min(rng.choice([1, 1, 3, 9]), size // 128 - first) * 128, 0)
        else:
            print("s", dev, 0, 0, 0)
END
# write DEV AT COUNT FROM, discard DEV FIRST COUNT and snapshot DEV are functions of who sources it.
cat >"$dir/apply.sh" <<'END'
while read -r op dev at count from; do
	case $op in
	w) write "$dev" "$at" "$count" "$from" ;;
	d) discard "$dev" "$at" "$count" ;;
	s) snapshot "$dev" ;;
	esac || exit 1
done <ops
END

: >"$dir/data.img"
truncate -s 64M "$dir/data.img"
truncate -s 4M "$dir/meta.img"
kernel_makes='
. ./dmthin.sh
set -e
pool_on 128
size_of() { case $1 in 1) echo 8192 ;; 2) echo 5161 ;; 3) echo 3001 ;; esac; }
for dev in 1 2 3; do
	thin_create $dev
	thin_on $dev "$(size_of $dev)" /dev/vdc
done
write() { dd if=bytes of="/dev/mapper/thin$1" bs=512 seek="$2" count="$3" skip="$4" conv=notrunc,fsync 2>/dev/null; }
discard() { sync; blkdiscard -o $(($2 * 512)) -l $(($3 * 512)) "/dev/mapper/thin$1"; }
snapshot() { sync; thin_snap $(($1 + 10)) "$1"; thin_on $(($1 + 10)) "$(size_of "$1")" /dev/vdc; }
. ./apply.sh
sync
for dev in 1 2 3 11 12 13; do
	set -- $(sha256sum <"/dev/mapper/thin$dev")
	echo "SUM $dev $1"
	thin_off $dev
done
pool_off
'
out=$(in_kernel 2>&1 <<<"$kernel_makes")
case $? in
0) ;;
125) skip_all "$(grep -m1 kernelvm: <<<"$out")" ;;
*) bail_out "kernelvm: $out" ;;
esac
plan 14
kernel_sums=$(sed -n 's/^SUM //p' <<<"$out")
is "the kernel makes devices over an origin" "$(wc -l <<<"$kernel_sums")" 6

sum() { # FILE SECTORS
	head -c $(($2 * 512)) "$1" | sha256sum | cut -d' ' -f1
}
size_of() {
	case $1 in 1 | 11) echo 8192 ;; 2 | 12) echo 5161 ;; 3 | 13) echo 3001 ;; esac
}

# --- thinfs reads what the kernel made ---

expect "thinfs mounts it with the origin" thinfs mount -o "ro,origin=$dir/base.img" "$dir/data.img" "$dir/meta.img" "$mnt"
on_exit _end_mount "$mnt"
# A device that ends before the origin does is not known to: what is wanted of it is its beginning. One that is larger
# than origin and mappings ends with zeros.
found=$(for dev in 1 2 3 11 12 13; do
	echo "$dev $( (cat "$mnt/thin-$dev"; head -c 5M /dev/zero) | head -c $(($(size_of $dev) * 512)) | sha256sum | cut -d' ' -f1)"
done)
is "and reads the same from every device" "$found" "$kernel_sums"
thinfs umount "$mnt"

# --- thinfs does the same, with the origin as a block device where there are loop devices ---

rm "$dir/data.img" "$dir/meta.img"
thinfs format --data-size 64M --metadata-size 4M "$dir/data.img" "$dir/meta.img"
audit_at_exit "$dir/meta.img"
origin=$dir/base.img
if [ "$(id -u)" -eq 0 ] && dev=$(attach_loop "$dir/base.img" --read-only); then
	origin=$dev
fi
diag "the origin is $origin"
expect "thinfs mounts a pool of its own" thinfs mount -o discard_to_origin "$dir/data.img" "$dir/meta.img" "$mnt"
for dev in 1 2 3; do
	thinfs create --origin "$origin" --size $(($(size_of $dev) * 512)) "$mnt/dev$dev" || bail_out "create"
done
(
	cd "$dir" || exit 1
	write() { dd if=bytes of="$mnt/dev$1" bs=512 seek="$2" count="$3" skip="$4" conv=notrunc,fsync 2>/dev/null; }
	discard() { fallocate -p -o $(($2 * 512)) -l $(($3 * 512)) "$mnt/dev$1"; }
	snapshot() { mkdir "$mnt/.snapshots/dev$1@s"; }
	. ./apply.sh
) && ok "does the same" || not_ok "does the same"
files=("" "$mnt/dev1" "$mnt/dev2" "$mnt/dev3")
found=$(for dev in 1 2 3; do echo "$dev $(sum "${files[dev]}" "$(size_of $dev)")"; done
	for dev in 1 2 3; do echo "$((dev + 10)) $(sum "$mnt/.snapshots/dev$dev@s/dev$dev" "$(size_of $dev)")"; done)
is "and has the same content" "$found" "$kernel_sums"

# Zeros where the origin would show again, for the kernel to read, too.
fallocate -z -n -o 262144 -l 524288 "$mnt/dev1"
fallocate -z -n -o 70000 -l 200000 "$mnt/dev2"
mkdir "$mnt/.snapshots/zeros"
printf hello | dd of="$mnt/dev1" bs=1 seek=300000 conv=notrunc status=none
thinfs list --json "$mnt" >"$dir/list"
jq -r '.devices[] | "\(.id) \(.size / 512) \(.path)"' "$dir/list" | while read -r id size path; do
	echo "$id $size $(sum "$mnt/$path" "$size")"
done >"$dir/sums"
is "there are zeros that are shared" "$(jq '[.devices[] | select(.path == "dev1") | .shared][0] > 0' "$dir/list")" true
expect "thinfs unmounts" thinfs umount "$mnt"
expect "the audit is clean" audit_pool "$dir/meta.img"

out=$(in_kernel 2>&1 <<'END'
. ./dmthin.sh
pool_on 128
status=0
while read -r id sectors sum; do
	thin_on "$id" "$sectors" /dev/vdc
	found=$(sha256sum <"/dev/mapper/thin$id")
	[ "${found%% *}" = "$sum" ] || { echo "device $id reads otherwise"; status=1; }
done <sums
# Writes to blocks of shared zeros, and to others; then discards of both
id=$(head -n 1 sums); id=${id%% *}
for at in 520 530 700 1100; do
	dd if=bytes of="/dev/mapper/thin$id" bs=512 seek=$at count=5 conv=notrunc,fsync 2>/dev/null || status=1
done
blkdiscard -o $((896 * 512)) -l $((256 * 512)) "/dev/mapper/thin$id" || status=1
sync
while read -r id sectors sum; do
	set -- $(sha256sum <"/dev/mapper/thin$id")
	echo "SUM $id $sectors $1"
	thin_off "$id"
done <sums
pool_off
exit $status
END
)
is "the kernel reads the same from every device, and goes on" "$?" 0
grep -v SUM <<<"$out" | sed 's/^/# /'
sed -n 's/^SUM //p' <<<"$out" >"$dir/after"
is "with all of them" "$(wc -l <"$dir/after")" "$(wc -l <"$dir/sums")"
expect "the kernel has left it clean" audit_pool "$dir/meta.img"
expect "thinfs mounts it again" thinfs mount "$dir/data.img" "$dir/meta.img" "$mnt"
found=$(jq -r '.devices[] | "\(.id) \(.size / 512) \(.path)"' "$dir/list" | while read -r id size path; do
	echo "$id $size $(sum "$mnt/$path" "$size")"
done)
is "and reads the same as the kernel" "$found" "$(cat "$dir/after")"
thinfs umount "$mnt"
