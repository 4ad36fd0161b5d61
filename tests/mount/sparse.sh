#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Programs that look for holes, or make them: they find exactly those there are, and a volume that they write has
# blocks only where there are data.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program jq python3
plan $((4 + 10 + 2 + 3 * 2 + 4))

dir=$(mktmp)
thinfs format --data-size 1G --metadata-size 16M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir"
block=65536

holes() {
	python3 -B "$top_srcdir/tests/tools/holes.py" "$@"
}

# put FILE FIRST LENGTH: random bytes.
put() {
	head -c "$3" /dev/urandom | dd of="$MNT/$1" bs=64K oflag=seek_bytes seek="$2" conv=notrunc iflag=fullblock status=none
}

# Runs of blocks: single ones, long ones, one that ends where a block of zeros begins, one that is written in part; and
# a last block that is a part of one.
truncate -s $((40 * 1048576 + 12345)) "$MNT/volume"
put volume 0 $block
put volume $((3 * block)) $((3 * block))
put volume $((10 * block + 4096)) 4096
put volume $((100 * block)) $((50 * block))
fallocate -o $((150 * block)) -l $((4 * block)) "$MNT/volume"
put volume $((400 * block)) $block
put volume $((640 * block)) 12345
ranges() {
	local range out=()
	for range; do
		out+=("$((${range%-*} * block))-$((${range#*-} * block))")
	done
	echo "${out[*]} $((640 * block))-$((640 * block + 12345))"
}
mapped=$(ranges 0-1 3-6 10-11 100-154 400-401)
nonzero=$(ranges 0-1 3-6 10-11 100-150 400-401)
# The same, ending in a hole.
cp --sparse=always "$MNT/volume" "$MNT/tail"
truncate -s 50M "$MNT/tail"
tail_data=${nonzero% *}" $((640 * block))-$((641 * block))"

is "SEEK_DATA and SEEK_HOLE find what is mapped, in blocks" "$(holes "$MNT/volume")" "$mapped"
is "and a hole at the end" "$(holes "$MNT/tail")" "$tail_data"
mkdir "$MNT/.snapshots/s"
is "in a snapshot too" "$(holes "$MNT/.snapshots/s/volume")" "$mapped"
fallocate -p -o $((4 * block - 1)) -l $((block + 2)) "$MNT/tail"
is "a hole that is made is there, without the blocks at its edges" "$(holes "$MNT/tail")" \
	"${tail_data/$((3 * block))-$((6 * block))/$((3 * block))-$((4 * block)) $((5 * block))-$((6 * block))}"

# --- into volumes, and out of them ---

# lands CLAIM VOLUME RANGES: it has the bytes of 'volume', in these blocks only.
lands() {
	is "$1" "$(holes "$MNT/$2") $(cmp "$MNT/volume" "$MNT/$2" 2>&1)" "$3 "
}

# What a program that looks for holes copies may lose blocks of zeros on the way.
lands_or_thinner() {
	local wanted=$mapped
	[ "$(holes "$MNT/$2")" = "$mapped" ] || wanted=$nonzero
	lands "$1" "$2" "$wanted"
}

# leaves CLAIM FILE: the same bytes, in no more space, give or take the blocks of the disk.
leaves() {
	is "$1" "$(cmp "$MNT/volume" "$2" 2>&1) $(($(du_bytes "$2") <= $(du_bytes "$MNT/volume") + 65536))" " 1"
}

cp --sparse=auto "$MNT/volume" "$dir/cp"
leaves "cp out of the pool" "$dir/cp"
cp --sparse=auto "$MNT/volume" "$MNT/cp"
lands_or_thinner "cp within it" cp
cp --reflink=auto "$MNT/.snapshots/s/volume" "$MNT/reflink"
lands_or_thinner "cp --reflink=auto out of a snapshot" reflink
# All of it is data there.
cat "$MNT/volume" >"$dir/dense"
cp --sparse=always "$dir/dense" "$MNT/always"
lands "cp --sparse=always of a file without holes" always "$nonzero"
cp --sparse=always "$MNT/volume" "$MNT/always2"
lands "cp --sparse=always within the pool" always2 "$nonzero"
tar -C "$MNT" -cSf "$dir/tar" volume
is "tar -S stores what is mapped" "$(($(stat -c %s "$dir/tar") <= $(du_bytes "$MNT/volume") + 20480))" 1
mkdir "$dir/untar"
tar -C "$dir/untar" -xSf "$dir/tar"
leaves "and unpacks it with its holes" "$dir/untar/volume"
# A volume lies in the top directory only.
tar -C "$MNT" --transform 's/volume/untar/' -xSf "$dir/tar"
lands_or_thinner "into the pool too" untar
mv "$MNT/.snapshots/s/tail" "$MNT/moved"
is "a file that is moved out of a snapshot has its holes" "$(holes "$MNT/moved")" "$tail_data"
thinfs clone "$MNT/volume" "$MNT/clone"
lands "a clone too" clone "$mapped"

if command -v rsync >/dev/null; then
	rsync --sparse "$MNT/volume" "$dir/rsync"
	leaves "rsync --sparse out of it" "$dir/rsync"
	# What is there already, and should be zeros, becomes a hole.
	put rsync $((30 * block)) $((5 * block))
	truncate -s 41M "$MNT/rsync"
	rsync --sparse --inplace --no-whole-file "$MNT/volume" "$MNT/rsync"
	# It gives back what it finds in its own pieces, which begin anywhere: edges may stay.
	is "rsync --sparse --inplace over what was there" \
		"$(cmp "$MNT/volume" "$MNT/rsync" 2>&1) $(($(du_bytes "$MNT/rsync") <= $(du_bytes "$MNT/always") + 7 * block))" " 1"
else
	skip 2 "no rsync"
fi

if command -v qemu-img >/dev/null; then
	for name in volume tail .snapshots/s/volume; do
		is "qemu-img map of $name: its data" "$(qemu-img map --output=json -f raw "$MNT/$name" |
			jq -r '[.[] | select(.data) | "\(.start)-\(.start + .length)"] | join(" ")')" \
			"$(holes "$MNT/$name")"
		is "qemu-img map of $name: zeros are everything else" "$(qemu-img map --output=json -f raw "$MNT/$name" |
			jq 'map(select(.data == .zero)) | length')" 0
	done
	qemu-img convert -f raw -O raw "$MNT/volume" "$dir/converted"
	truncate -s $((40 * 1048576 + 12345)) "$dir/converted"
	leaves "qemu-img convert out of it" "$dir/converted"
	qemu-img convert -f raw -O raw "$dir/dense" "$MNT/converted"
	truncate -s $((40 * 1048576 + 12345)) "$MNT/converted"
	lands "qemu-img convert into it" converted "$nonzero"
	truncate -s $((40 * 1048576 + 12345)) "$MNT/target"
	put target $((30 * block)) $((5 * block))
	put target $((600 * block)) $((10 * block + 1000))
	qemu-img convert -n -f raw -O raw "$MNT/volume" "$MNT/target"
	truncate -s $((40 * 1048576 + 12345)) "$MNT/target" # it wrote whole sectors
	lands "qemu-img convert -n over what was there" target "$nonzero"
	qemu-img convert -f raw -O qcow2 "$MNT/volume" "$dir/qcow2"
	qemu-img convert -f qcow2 -O raw "$dir/qcow2" "$MNT/back"
	truncate -s $((40 * 1048576 + 12345)) "$MNT/back"
	lands "from an image that has holes of its own" back "$nonzero"
else
	skip 10 "no qemu-img"
fi
