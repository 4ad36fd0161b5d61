#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Bad input: each is answered by one line that names the file, the reason and what to do, and nothing
# is written.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 xz

dir=$(mktmp)
mkdir "$dir/good" "$dir/mnt"
on_exit _end_mount "$dir/mnt"
data=$dir/data.img
meta=$dir/meta.img

# A pool with all that there is: trees with internal nodes, both space maps.
tar -xJf "$top_srcdir/tests/data/fixtures/snapshots/images.tar.xz" -C "$dir/good"
chmod u+w "$dir/good"/*

damage() {
	python3 -B "$top_srcdir/tests/tools/damage.py" "$@"
}

fresh() {
	cp --sparse=always "$dir/good/data.img" "$dir/good/meta.img" "$dir/"
}

sums() {
	(cd "$dir" && sha256sum data.img meta.img 2>&1)
}

# refused STATUS CLAIM PATTERN COMMAND...: one line that matches, that status, no image changed.
refused() {
	local wanted=$1 claim=$2 pattern=$3 out status before
	shift 3
	before=$(sums)
	out=$("$@" 2>&1)
	status=$?
	if [ $status -eq "$wanted" ] && [ "$(wc -l <<<"$out")" -eq 1 ] && grep -Eq -- "$pattern" <<<"$out" &&
		[ "$(sums)" = "$before" ] && ! _is_mounted "$dir/mnt"; then
		ok "$claim"
		return
	fi
	not_ok "$claim"
	diag "status $status, wanted $wanted and one line that says: $pattern"
	diag "$out"
	[ "$(sums)" = "$before" ] || diag "an image has changed"
	! _is_mounted "$dir/mnt" || thinfs umount "$dir/mnt"
}

mount_it() {
	timeout 30 "$THINFS" mount "$@" "$data" "$meta" "$dir/mnt"
}

# As nobody, in a mount namespace where /dev/fuse is root's alone. The program's own folder may be closed
# to others, so that there is a copy.
as_nobody() {
	chmod a+rx "$THINFS_TEST_STATE" "$dir" && cp "$THINFS" "$dir/thinfs" && chmod a+rw "$data" "$meta" &&
		unshare -m sh -c 'mknod -m 600 "$0" c 10 229 && mount --bind "$0" /dev/fuse &&
			rm "$0" && exec setpriv --reuid 65534 --clear-groups unshare -rm "$@"' "$dir/fuse" "$@"
}

cases() {
	# --- the superblock ---
	fresh
	damage flip "$meta" 32
	refused 1 "wrong magic" "$meta: not the metadata of a thin pool.*right order" mount_it
	fresh
	damage field "$meta" 32 8 4711
	refused 1 "wrong magic, right checksum" "$meta: not the metadata of a thin pool" mount_it
	fresh
	damage flip "$meta" 320
	refused 1 "wrong checksum of the superblock" "$meta: metadata block 0 .superblock. is damaged: wrong checksum.*'thinfs check'" mount_it
	refused 1 "also read-only" "$meta: metadata block 0 .superblock. is damaged: wrong checksum" mount_it -o ro
	refused 1 "also when listed" "$meta: metadata block 0 .superblock. is damaged: wrong checksum" thinfs list "$data" "$meta"
	fresh
	damage field "$meta" 40 4 3
	refused 1 "another version" "$meta: metadata version 3" mount_it
	fresh
	damage field "$meta" 360 4 1
	refused 1 "incompatible features" "$meta: uses features that thinfs does not know" mount_it -o ro
	fresh
	damage field "$meta" 356 4 1
	refused 1 "features that make it read-only" "$meta: uses features that thinfs does not know.*-o ro" mount_it
	fresh
	for sectors in 0 100 127 129 4194304 4294967295; do
		fresh
		damage field "$meta" 336 4 $sectors
		refused 1 "data blocks of $sectors sectors" "$meta: data blocks of $sectors sectors are impossible" mount_it
	done
	# One that is possible, but not this pool's: its blocks do not fit in the image.
	fresh
	damage field "$meta" 336 4 256
	refused 1 "another block size" "$data: (cut off|too small|.*blocks of 131072 bytes)" mount_it
	for root in 320 328 80 208 88 216; do
		for value in 0xFFFFFFFFFFFFFFF 511; do
			fresh
			damage field "$meta" $root 8 $value
			refused 1 "the superblock's field at $root points to block $value" "$meta: .*'thinfs check'" mount_it
		done
	done
	for field in 64 192; do
		fresh
		damage field "$meta" $field 8 0xFFFFFFFFFFFFFF
		refused 1 "a space map of endless size at $field" "$data|$meta: " mount_it
	done

	# --- sizes of the images ---
	fresh
	truncate -s 100 "$meta"
	refused 1 "metadata of 100 bytes" "$meta: .*(smaller than a block|cut off|too small)" mount_it
	fresh
	: >"$meta"
	refused 1 "metadata of no bytes" "$meta: .*(smaller than a block|empty|too small)" mount_it
	fresh
	truncate -s 1M "$meta"
	refused 1 "metadata cut off" "$meta: cut off" mount_it
	fresh
	truncate -s 8M "$data"
	refused 1 "data cut off" "$data: cut off.*the pool has 256 data blocks" mount_it
	fresh
	: >"$data"
	refused 1 "data of no bytes" "$data: (cut off|empty)" mount_it

	# --- which images ---
	fresh
	refused 1 "swapped images" "$data: not the metadata of a thin pool.*right order" \
		timeout 30 "$THINFS" mount "$meta" "$data" "$dir/mnt"
	truncate -s 0 "$data"
	truncate -s 16M "$data"
	refused 1 "swapped images, data of zeros" "$meta holds a pool's metadata and $data is empty: give the data image first" \
		timeout 30 "$THINFS" mount "$meta" "$data" "$dir/mnt"
	fresh
	refused 1 "one image for both" "$meta.*: data and metadata must be two images" timeout 30 "$THINFS" mount "$meta" "$meta" "$dir/mnt"
	truncate -s 2M "$dir/zero.img"
	refused 1 "an unformatted pool, read-only" "$dir/zero.img: not formatted yet.*thinfs format" \
		timeout 30 "$THINFS" mount -o ro "$data" "$dir/zero.img" "$dir/mnt"
	refused 1 "no data image" "$dir/absent: No such file|$dir/absent: .*: No such file" \
		timeout 30 "$THINFS" mount "$dir/absent" "$meta" "$dir/mnt"
	refused 1 "no metadata image" "$dir/absent: No such file|$dir/absent: .*: No such file" \
		timeout 30 "$THINFS" mount "$data" "$dir/absent" "$dir/mnt"
	refused 1 "a directory for an image" "$dir/good.*directory" timeout 30 "$THINFS" mount "$dir/good" "$meta" "$dir/mnt"
	refused 1 "a character device for an image" "/dev/null.*character device" timeout 30 "$THINFS" mount "$data" /dev/null "$dir/mnt"
	refused 1 "no such directory" "$dir/nowhere: no such directory; make it" timeout 30 "$THINFS" mount "$data" "$meta" "$dir/nowhere"
	refused 1 "a file for the directory" "$dir/zero.img: not a directory" timeout 30 "$THINFS" mount "$data" "$meta" "$dir/zero.img"

	# --- formatting ---
	refused 1 "formatting over something" "$data: holds something already; --force" thinfs format "$data" "$meta"
	refused 1 "formatting one image" "$meta.*: data and metadata must be two images" thinfs format --force "$meta" "$meta"
	refused 1 "formatting without a size" "$dir/absent: there is no such file; give the size" thinfs format "$dir/absent" "$dir/absent2"
	refused 1 "formatting too little data" "$dir/absent: 1000 bytes are less than one block" \
		thinfs format --data-size 1000 "$dir/absent" "$dir/absent2"
	refused 1 "formatting too little metadata" "$dir/absent2: " \
		thinfs format --data-size 1M --metadata-size 4096 "$dir/absent" "$dir/absent2"
	is "nothing is left of images that could not be made" "$(ls "$dir"/absent* 2>/dev/null)" ""
	for size in 1000 100K 65537 2G; do
		refused 1 "formatting with blocks of $size" "block size" \
			thinfs format --block-size $size --data-size 16G "$dir/absent" "$dir/absent2"
	done

	# --- sizes and options that are none ---
	for size in "" abc -5 1X 10GG 1e3 0x10 1.5.5 99999999999999999999 1000000000000T "1 G"; do
		refused 2 "--data-size '$size'" "format: --data-size $size: .*see 'thinfs format --help'" \
			thinfs format --data-size "$size" "$dir/absent" "$dir/absent2"
	done
	refused 2 "--block-size 0" "block-size 0" thinfs format --block-size 0 --data-size 1G "$dir/absent" "$dir/absent2"
	refused 2 "create --size" "--size many: not a size" thinfs create --size many "$dir/mnt/v"
	for option in metadata_cache=lots metadata_cache=1K commit=soon commit=-1 commit=99999 threads=0 threads=many \
		no_space_timeout=x; do
		refused 2 "-o $option" "mount: ${option%%=*}[= ]${option#*=}.*see 'thinfs mount --help'" mount_it -o $option
	done
	for option in frobnicate frobnicate=1 ro=1 size=3 grow grow=0 grow=x% max=1G low_water=101% transport=x; do
		refused 2 "-o $option" "mount: .*'?${option%%=*}.*see 'thinfs mount --help'" mount_it -o $option
	done
	refused 2 "--frobnicate" "mount: option '--frobnicate' is unknown" mount_it --frobnicate
	refused 2 "-o without a value" "mount: " thinfs mount "$data" "$meta" "$dir/mnt" -o
	refused 2 "an argument too few" "mount: needs DATA, META" thinfs mount "$data" "$meta"
	refused 2 "an argument too many" "mount: needs DATA, META" thinfs mount "$data" "$meta" "$dir/mnt" "$dir/mnt"
	refused 1 "no pool is mounted" "$dir/mnt: .*not in a mounted pool.*thinfs mount" thinfs list "$dir/mnt"
	refused 1 "unmounting what is not mounted" "$dir/mnt: no pool is mounted there" thinfs umount "$dir/mnt"

	# --- FUSE ---
	if [ "$(id -u)" -eq 0 ] && unshare -m true 2>/dev/null; then
		refused 1 "no /dev/fuse" "/dev/fuse: No such file or directory; load" unshare -m sh -c \
			"mount -t tmpfs none /dev && exec '$THINFS' mount '$data' '$meta' '$dir/mnt'"
		refused 1 "a file in its place" "/dev/fuse|cannot mount" unshare -m sh -c \
			"mount --bind '$dir/zero.img' /dev/fuse && exec '$THINFS' mount '$data' '$meta' '$dir/mnt'"
		if as_nobody test -x "$dir/thinfs" 2>/dev/null; then
			refused 1 "/dev/fuse may not be opened" "/dev/fuse: Permission denied" \
				as_nobody "$dir/thinfs" mount "$data" "$meta" "$dir/mnt"
		else
			skip 1 "nobody may not come here, or have a namespace"
		fi
	else
		skip 3 "no private mount namespace"
	fi

	# --- images in use ---
	fresh
	mount_it || bail_out "cannot mount"
	pid=$(daemon_of "$dir/mnt")
	busy "mounting twice" "$data: in use by process $pid \(thinfs\); unmount it first with 'thinfs umount'" \
		timeout 30 "$THINFS" mount "$data" "$meta" "$dir/good"
	busy "mounting on a mount" "$dir/mnt: a pool is mounted there already" \
		timeout 30 "$THINFS" mount "$data" "$meta" "$dir/mnt"
	busy "one image in use" "$meta: in use by process $pid" \
		timeout 30 "$THINFS" mount "$dir/good/data.img" "$meta" "$dir/good"
	busy "formatting images in use" "$data: in use by process $pid" thinfs format --force "$data" "$meta"

	# --- names ---
	long=$(printf '%0256d' 0)
	busy "a name of 256 bytes" "name" thinfs create "$dir/mnt/$long"
	busy "no name" "." thinfs create ""
	busy "the name '.'" "does not end in the name" thinfs create "$dir/mnt/."
	busy "the name '..'" "does not end in the name" thinfs create "$dir/mnt/.."
	busy "the name .snapshots" "exists already" thinfs create "$dir/mnt/.snapshots"
	busy "a volume in .snapshots" "top directory only" thinfs create "$dir/mnt/.snapshots/v"
	busy "a volume in a directory that is none" "cannot open|not in a mounted pool" thinfs create "$dir/mnt/no/v"
	for name in "" . .. a/b "$long"; do
		busy2 "the snapshot '${name:0:9}'" "not a name for a snapshot" thinfs snapshot "$dir/mnt" "$name"
	done
	for name in @ x@ @x nosuch@tag; do
		busy "the snapshot '$name'" "cannot make the snapshot $name" thinfs snapshot "$dir/mnt" $name
	done
	busy "a snapshot of no such volume" "no such volume" thinfs snapshot "$dir/mnt" x nosuch
	busy "a file in .snapshots" "Operation not permitted" touch "$dir/mnt/.snapshots/file"
	busy "a directory beside the volumes" "Operation not permitted" mkdir "$dir/mnt/directory"
	busy "removing .snapshots" "neither a volume nor a snapshot" thinfs remove "$dir/mnt/.snapshots"
	busy "removing what is not there" "No such file" thinfs remove "$dir/mnt/nosuch"
	for name in "a b" $'new\nline' $'\xff\xfe' "*" "-rf" "snapshot@tag"; do
		expect "a strange name that is one: $(printf %q "$name")" strange "$name"
	done
	expect "unmounts" thinfs umount "$dir/mnt"
	expect "the audit is clean" audit_pool "$meta"

	# --- damage in any block ---
	fresh
	for block in $(damage blocks "$meta"); do
		[ "$block" -ne 0 ] || continue
		expect "wrong checksum of block $block" damaged_block "$block"
	done
}

# As refused, for when the pool is mounted.
busy() {
	local wanted=1
	[ "$1" != -2 ] || {
		wanted=2
		shift
	}
	local claim=$1 pattern=$2 out status
	shift 2
	out=$("$@" 2>&1)
	status=$?
	if [ $status -eq $wanted ] && [ "$(wc -l <<<"$out")" -eq 1 ] && grep -Eq -- "$pattern" <<<"$out"; then
		ok "$claim"
	else
		not_ok "$claim"
		diag "status $status, wanted $wanted and one line that says: $pattern"
		diag "$out"
	fi
}

busy2() {
	busy -2 "$@"
}

# A volume of that name is like any other.
strange() {
	local path="$dir/mnt/$1"
	thinfs create --size 1M "$path" && [ -f "$path" ] && echo x >"$path" && thinfs list "$dir/mnt" >/dev/null &&
		thinfs list --json "$dir/mnt" | python3 -c 'import json, sys; json.load(sys.stdin)' &&
		mkdir "$dir/mnt/.snapshots/x" && rm -- "$path" && [ ! -e "$path" ] && rmdir "$dir/mnt/.snapshots/x"
}

# The pool is refused, with one line, or what does not need the block works and the rest is an error. What is
# only read does not change; and all is well again when the block is.
damaged_block() {
	local out
	fresh
	damage flip "$meta" $(($1 * 4096 + 2000))
	for options in ro rw; do
		before=$(sums)
		if out=$(mount_it -o $options 2>&1); then
			timeout 30 cat "$dir"/mnt/thin-* >/dev/null 2>"$dir/errors"
			if grep -v "Structure needs cleaning\|Input/output error" "$dir/errors"; then
				echo "reading fails otherwise ($options)"
				return 1
			fi
			thinfs list "$dir/mnt" >/dev/null 2>&1
			thinfs umount "$dir/mnt" || return 1
		elif [ "$(wc -l <<<"$out")" -ne 1 ] || ! grep -q "$meta: .*\(damaged\|thinfs check\)" <<<"$out"; then
			echo "mount -o $options: $out"
			return 1
		fi
		if [ "$(sums)" != "$before" ]; then
			echo "-o $options: an image has changed"
			return 1
		fi
	done
}

# The plan comes at the end, as there are many loops.
audit_at_exit "$dir/good/meta.img"
cases | tee "$dir/tap"
plan "$(grep -cE '^(not )?ok' "$dir/tap")"
