#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# 'thinfs check' of pools that the kernel made: what it says of each, that it agrees with the audit about
# damaged ones, and that it mends those that can be mended, so that they read as before.
# THINFS_CHECK_COPIES: how many damaged copies of each image; THINFS_TEST_SEED.
. "${srcdir:-.}/tests/lib.sh" || exit 99
. "$top_srcdir/tests/interop/fixtures.inc" || exit 99
requires_program python3 gzip xz thin_check thin_dump
images=("$top_srcdir"/tests/data/dm-thin-images/k*.img.gz)
plan $((${#images[@]} + ${#FIXTURES[@]} + 12 + 4))
seed=${THINFS_TEST_SEED:-20240611}
copies=${THINFS_CHECK_COPIES:-12}
diag "seed $seed, $copies damaged copies of an image"
dir=$(mktmp)
meta=$dir/meta.img

unpack_image() {
	gzip -dc "$top_srcdir/tests/data/dm-thin-images/$1.img.gz" >"$meta"
}

# What the check says of META, as a python expression.
of_check() {
	thinfs check --json "$meta" | python3 -c 'import json, sys; c = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}

SUMMARY='c["clean"], len(c["errors"]), c["leaks"]["metadata"], c["leaks"]["data"], len(c["warnings"]), c["needs_check"]'

# All that volumes read as, told by other people's program.
mappings() {
	thin_dump "$1" | grep -v '<superblock'
}

# --- what is said of each ---

for image in "${images[@]}"; do
	name=$(basename "$image" .img.gz)
	unpack_image "$name"
	case $name in
	k16*) wanted="(False, 0, 0, 1, 0, False)" ;;
	k17*) wanted="(True, 0, 0, 0, 0, True)" ;;
	# thin_restore 0.9.0 has written nr_free and nr_allocated wrong.
	k18*) wanted="(True, 0, 0, 0, 3, False)" ;;
	# Its clock has run over: the same block is mapped twice, for another one.
	k19*) wanted="(False, 4, 0, 3, 3, False)" ;;
	*) wanted="(True, 0, 0, 0, 0, False)" ;;
	esac
	is "$name: $wanted" "$(of_check "$SUMMARY")" "$wanted"
done

for case in "${FIXTURES[@]}"; do
	unpack_fixture "$case"
	out=$(thinfs check "$DIR/meta.img" 2>&1)
	status=$?
	is "$case: clean" "$status $(grep -c "meta.img: clean, [0-9]* devices with [0-9]* mapped blocks" <<<"$out")" "0 1"
	rm -rf "$DIR"
done

# --- mending ---

# mended IMAGE SAYS: after a repair both checkers are content with META, all numbers are exact, and volumes
# read as those of DIR/old.
mended() {
	local out
	cp "$meta" "$dir/old"
	out=$(thinfs check --repair "$meta") || {
		echo "$out"
		return 1
	}
	if ! grep -Eq "$1" <<<"$out" || [ "$(of_check "$SUMMARY")" != "(True, 0, 0, 0, 0, False)" ]; then
		echo "$out"
		of_check "$SUMMARY"
		return 1
	fi
	[ "$(mappings "$meta")" = "$(mappings "$dir/old")" ] || {
		echo "volumes read differently"
		return 1
	}
	audit_pool "$meta"
}

refused() {
	local out before
	before=$(sha256sum <"$meta")
	out=$(thinfs check --repair "$meta")
	if [ $? -ne 1 ] || ! grep -Eq "$1" <<<"$out" || [ "$(sha256sum <"$meta")" != "$before" ]; then
		echo "$out"
		return 1
	fi
}

unpack_image k16-leak
expect "k16: the leaked block is reclaimed" mended "1 leaked data block$"
unpack_image k17-needs-check
cp "$meta" "$dir/first"
expect "k17: needs_check is cleared" mended "mended: needs_check was cleared$"
is "k17: only the superblock has changed" \
	"$(cmp -l "$meta" "$dir/first" | awk '$1 > 4096' | wc -l)" 0
before=$(stat -c %y "$meta")
out=$(thinfs check --repair "$meta")
is "k17: a second time there is nothing to do, and nothing is written" "$? $(stat -c %y "$meta")" "0 $before"
grep -q "nothing to mend" <<<"$out" && ok "and it says so" || not_ok "and it says so"
unpack_image k18-nrfree-after-restore-and-grow
expect "k18: the numbers that lose space are set right" mended "all reference counts were made anew"
unpack_image k19-timewrap
expect "k19: is not mended, since that would be guessing" refused "thin_repair -i .*nothing was changed"

damage() {
	python3 -B "$top_srcdir/tests/tools/damage.py" "$@" || bail_out "cannot damage it"
}

where() {
	python3 -B "$top_srcdir/tests/tools/damage.py" where "$meta" "$@"
}

# Each part of the space maps destroyed, at once: it is all made anew.
unpack_image k05-held-root-diverged
for name in index metadata_bitmap metadata_counts data_index data_bitmap data_counts; do
	# Their places are found by what is destroyed next.
	places+=" $(where $name)"
done
for place in $places; do
	damage flip "$meta" $((place * 4096 + 100))
done
is "k05: both space maps destroyed are found" "$(of_check 'len(c["errors"])')" 4
expect "k05: both are made anew" mended "all reference counts were made anew"
unpack_image k05-held-root-diverged
damage count "$meta" metadata 0 0
damage count "$meta" metadata 1000 1
damage count "$meta" data 0 3
damage count "$meta" data 1000 1
expect "k05: counts that are too low, too high, leaked and of the wrong kind" mended "errors, 1 leaked metadata block, 1 leaked data block"
for name in mappings details; do
	unpack_image k03-sharing-broken
	damage flip "$meta" $(($(where $name) * 4096 + 100))
	damage count "$meta" data 1000 1
	expect "k03: a damaged tree of $name is not mended, nor anything else" refused "thin_repair -i .*nothing was changed"
done

# --- and many that are damaged at random ---

for name in k02-snapshot k03-sharing-broken k05-held-root-diverged k07-discarded; do
	unpack_image $name
	expect "$name: agrees with the audit about $copies damaged copies, and mends them" \
		python3 -B "$top_srcdir/tests/tools/check-agrees.py" "$THINFS" "$meta" "$copies" "$seed" --repair
done
