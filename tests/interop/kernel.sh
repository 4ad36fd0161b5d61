#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The real dm-thin, in a virtual machine (tests/kernelvm): it activates a pool that thinfs made and
# wrote, reads the same from every device, goes on writing to it; thinfs mounts the result, and so to
# and fro. Run by 'make check-kernel'.
TEST_TIMEOUT=600
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 qemu-system-x86_64 busybox dmsetup thin_check thin_dump apt-get dpkg-deb

vm=$top_srcdir/tests/kernelvm
dir=$(mktmp)
mkdir "$dir/mnt"
mnt=$dir/mnt
seed=${THINFS_TEST_SEED:-$RANDOM}
diag "seed $seed"

devices() {
	python3 -B "$top_srcdir/tests/tools/devices.py" "$@"
}

# in_kernel ARGUMENT...: run the script on standard input in the virtual machine, with the images.
in_kernel() {
	cat >"$dir/guest.sh"
	"$vm/kernelvm" --timeout 250 --disk "$dir/meta.img" --disk "$dir/data.img" --file "$vm/dmthin.sh" \
		--file "$dir/sums" "$dir/guest.sh" "$@"
}

: >"$dir/sums"
: >"$dir/data.img"
truncate -s 1M "$dir/data.img" "$dir/meta.img"
out=$(in_kernel 2>&1 <<<"true")
case $? in
0) ;;
125) skip_all "$(grep -m1 kernelvm: <<<"$out")" ;;
*) bail_out "kernelvm: $out" ;;
esac
rm "$dir"/*.img
plan 23

# --- thinfs makes a pool ---

mount_here() {
	audit_at_exit "$dir/meta.img"
	on_exit _end_mount "$mnt"
	thinfs mount "$@" "$dir/data.img" "$dir/meta.img" "$mnt"
}

make_pool() {
	set -e
	thinfs format --data-size 1G --metadata-size 8M "$dir/data.img" "$dir/meta.img"
	mount_here
	# Most lies behind this, and moves to its place when the image becomes smaller.
	fallocate -l 300M "$mnt/filler"
	truncate -s 64M "$mnt/large"
	truncate -s 20M "$mnt/small"
	truncate -s $((7777 * 512)) "$mnt/odd size"
	: >"$mnt/empty"
	# thousands of mappings, whatever the seed
	fallocate -l 64M "$mnt/large"
	devices change "$mnt" "$seed" 60000000 large
	devices change "$mnt" $((seed + 1)) 9000000 small "odd size"
	rm "$mnt/filler"
	mkdir "$mnt/.snapshots/first"
	devices change "$mnt" $((seed + 2)) 16000000 large
	devices change "$mnt" $((seed + 3)) 1000000 small
	mkdir "$mnt/.snapshots/second"
	devices change "$mnt" $((seed + 4)) 16000000 large
	mkdir "$mnt/.snapshots/large@third"
	mv "$mnt/.snapshots/first/small" "$mnt/clone"
	devices change "$mnt" $((seed + 5)) 3000000 large clone
	rm "$mnt/.snapshots/second/odd size"
	rm "$mnt/empty"
	# Blocks that copies share, some of which are then written at either end
	thinfs clone "$mnt/.snapshots/first/large" "$mnt/cloned"
	python3 -B "$top_srcdir/tests/tools/copy_range.py" "$mnt/large" 0 "$mnt/shared" 0 67108864
	python3 -B "$top_srcdir/tests/tools/copy_range.py" "$mnt/small" 131072 "$mnt/shared" 6553600 8000000
	devices change "$mnt" $((seed + 6)) 5000000 large shared
	devices change "$mnt" $((seed + 7)) 3000000 cloned
	thinfs revert "$mnt/clone" "$mnt/.snapshots/first/odd size"
}
expect "thinfs makes a pool" make_pool
smaller() {
	for ((i = 0; i < 50; i++)); do
		thinfs shrink "$mnt" --data 300M && break
		sleep 0.1
	done
	thinfs resize "$mnt" --data 700M --metadata 9M &&
		thinfs shrink "$mnt" --data 500M && [ "$(stat -c %s "$dir/data.img")" = $((500 << 20)) ]
}
expect "makes it smaller, and larger, and smaller" smaller
expect "its devices are read" sh -c "python3 -B '$top_srcdir/tests/tools/devices.py' sums '$THINFS' '$mnt' >'$dir/sums'"
diag "$(wc -l <"$dir/sums") devices, $(thinfs status "$mnt" | sed -n 's/^as dm-thin *//p')"
thinfs list --json "$mnt" >"$dir/list"
id_of() {
	python3 -c 'import json, sys
print(next(d["id"] for d in json.load(open(sys.argv[1]))["devices"] if d["path"] == sys.argv[2]))' "$dir/list" "$1"
}
large=$(id_of large) small=$(id_of small) gone=$(id_of ".snapshots/second/large")
expect "thinfs unmounts" thinfs umount "$mnt"
expect "the audit is clean" audit_pool "$dir/meta.img"
mapped=$(thin_dump "$dir/meta.img" | sed -n 's/.*mapped_blocks="\([0-9]*\)".*/\1/p' | awk '{ n += $1 } END { print n }')
[ "$mapped" -gt 2000 ] && ok "there are thousands of mappings" || not_ok "only $mapped mappings"

# --- the kernel reads all of it, and writes ---

guest_reads='
. ./dmthin.sh
pool_on 128
status=0
while read -r id sectors sum; do
	# An empty device cannot be activated.
	[ "$sectors" -gt 0 ] || continue
	thin_on "$id" "$sectors"
	found=$(sha256sum <"/dev/mapper/thin$id")
	[ "${found%% *}" = "$sum" ] || { echo "device $id reads otherwise"; status=1; }
	thin_off "$id"
done <sums
# The catalog is one more thin device.
thin_on 16777215 67108864
dd if=/dev/mapper/thin16777215 of=/dev/null bs=1M count=1 2>&1 || status=1
thin_off 16777215
'
out=$(in_kernel "$large" "$small" "$gone" <<END
$guest_reads
echo "READ \$status"
END
)
status=$?
is "the kernel activates it, and reads the same from every device" "$status $out" \
	"0 $(grep -v READ <<<"$out")
READ 0"
expect "reading has left it clean" audit_pool "$dir/meta.img"

out=$(in_kernel "$large" "$small" "$gone" <<'END'
. ./dmthin.sh
large=$1 small=$2 gone=$3
set -e
sectors() {
	while read -r id sectors sum; do
		[ "$id" != "$1" ] || echo "$sectors"
	done <sums
}
fill() { # DEVICE COUNT: sectors' worth of random writes
	size=$(blockdev --getsz "$1")
	n=0
	while [ $n -lt "$2" ]; do
		n=$((n + 1))
		at=$(($(od -An -N4 -tu4 /dev/urandom) % (size / 8 - 20)))
		dd if=/dev/urandom of="$1" bs=4096 count=$((1 + n % 20)) seek=$at conv=notrunc 2>/dev/null || die "writing to $1"
	done
	sync
}
pool_on 128
thin_on "$large" "$(sectors "$large")"
thin_on "$small" "$(sectors "$small")"
fill "/dev/mapper/thin$large" 300
fill "/dev/mapper/thin$small" 60
thin_snap 5000001 "$large"
fill "/dev/mapper/thin$large" 100
blkdiscard -o $((1 << 20)) -l $((9 << 20)) "/dev/mapper/thin$large"
blkdiscard -o $((5 << 20)) -l $((2 << 20)) "/dev/mapper/thin$small"
thin_create 5000002
thin_on 5000002 50000
fill /dev/mapper/thin5000002 50
thin_on 5000001 "$(sectors "$large")"
fill /dev/mapper/thin5000001 20
thin_off 5000001
thin_snap 5000003 5000001
thin_off 5000002; thin_off "$large"; thin_off "$small"
thin_delete "$gone"
dmsetup status pool | sed 's/^/STATUS /'
{ cat sums; echo "5000001 $(sectors "$large") -"; echo 5000002 50000 -; echo "5000003 $(sectors "$large") -"; } |
while read -r id sectors sum; do
	[ "$id" != "$gone" ] || continue
	[ "$sectors" -gt 0 ] || { echo "SUM $id $sectors $sum"; continue; }
	thin_on "$id" "$sectors"
	set -- $(sha256sum <"/dev/mapper/thin$id")
	echo "SUM $id $sectors $1"
	thin_off "$id"
done
pool_off
END
)
status=$?
is "the kernel writes, snapshots, discards and deletes in it" "$status" 0
[ $status -eq 0 ] || diag "$out"
diag "$(sed -n 's/^STATUS //p' <<<"$out")"
sed -n 's/^SUM //p' <<<"$out" >"$dir/sums"
expect "the kernel has left it clean" audit_pool "$dir/meta.img"

# --- thinfs mounts what the kernel left ---

before=$(sha256sum "$dir/meta.img" "$dir/data.img")
expect "thinfs mounts it read-only" mount_here -o ro
expect "and reads the same as the kernel from every device" devices compare "$THINFS" "$mnt" "$dir/sums"
is "what the kernel made has no name" "$(cd "$mnt" && echo thin-*)" "thin-5000001 thin-5000002 thin-5000003"
thinfs umount "$mnt"
is "no byte has changed" "$(sha256sum "$dir/meta.img" "$dir/data.img")" "$before"

go_on() {
	set -e
	devices change "$mnt" $((seed + 6)) 8000000 large thin-5000001
	devices change "$mnt" $((seed + 7)) 2000000 small clone thin-5000002
	mkdir "$mnt/.snapshots/fourth"
	devices change "$mnt" $((seed + 8)) 8000000 large thin-5000003
	mv "$mnt/thin-5000003" "$mnt/named"
	rm "$mnt/thin-5000001"
	rmdir "$mnt/.snapshots/second"
	# a size that is at the end of a sector
	truncate -s $((50001 * 512)) "$mnt/thin-5000002"
}
expect "thinfs mounts it" mount_here
expect "and reads the same as the kernel from every device again" devices compare "$THINFS" "$mnt" "$dir/sums"
expect "thinfs goes on writing" go_on
expect "its devices are read again" sh -c "python3 -B '$top_srcdir/tests/tools/devices.py' sums '$THINFS' '$mnt' >'$dir/sums'"
expect "thinfs unmounts again" thinfs umount "$mnt"
expect "the audit is clean again" audit_pool "$dir/meta.img"

# --- and back ---

out=$(in_kernel <<END
$guest_reads
pool_message create_thin 16000000
pool_off
thin_check /dev/vda || status=1
exit \$status
END
)
is "the kernel agrees again" "$?" 0
diag "$out"
expect "the kernel has left it clean again" audit_pool "$dir/meta.img"
expect "thinfs mounts it once more" mount_here
thinfs umount "$mnt"
