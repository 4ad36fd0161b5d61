#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copies that share: cp and copy_file_range(2), thinfs clone, thinfs revert; and that all of them are as
# good as copies.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program jq python3
plan $((12 + 8 + 8 + 15))

dir=$(mktmp)
thinfs format --data-size 300M --metadata-size 16M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_pool "$dir"

sum() {
	sha256sum <"$1" | cut -d' ' -f1
}

# Bytes of the data image in use.
used() {
	thinfs status --json "$MNT" | jq .data.used
}

# of PATH KEY: what list says of it.
of() {
	thinfs list --json "$MNT" | jq -r --arg path "$1" ".devices[] | select(.path == \$path) | .$2"
}

random() {
	head -c "$2" /dev/urandom | dd of="$1" bs=1M conv=notrunc oflag=seek_bytes seek="${3:-0}" iflag=fullblock status=none
}

copy_range() {
	python3 -B "$top_srcdir/tests/tools/copy_range.py" "$@"
}

block=65536

# free_of_charge CLAIM: nothing is used but what the catalog of names may need since BEFORE.
free_of_charge() {
	local more=$(($(used) - before))
	[ $more -le $((3 * block)) ] && ok "$1" || not_ok "$1: $more bytes"
}

# --- a whole volume ---

truncate -s 100M "$MNT/vm1"
random "$MNT/vm1" $((50 * 1048576))
random "$MNT/vm1" 3000000 70000001
before=$(used)
whole=$(sum "$MNT/vm1")
# Not by cp: that of coreutils 9.1 reads and writes what has holes.
expect "copy_file_range of all" copy_range "$MNT/vm1" 0 "$MNT/vm2" 0 104857600
free_of_charge "takes no data space"
is "has the same bytes" "$(sum "$MNT/vm2")" "$whole"
is "and holes" "$(of vm2 mapped)" "$(of vm1 mapped)"
is "nothing of it is exclusive" "$(of vm2 exclusive) $(of vm1 exclusive)" "0 0"
random "$MNT/vm1" 100000 1000000
is "a write to the source stays there" "$(sum "$MNT/vm2")" "$whole"
changed=$(sum "$MNT/vm1")
random "$MNT/vm2" 100000 5000000
is "a write to the copy as well" "$(sum "$MNT/vm1")" "$changed"
# Two blocks of each write are new, those of the other write are the other one's alone.
is "each has its own blocks then" "$(of vm1 exclusive) $(of vm2 exclusive)" "$((4 * block)) $((4 * block))"
expect "the copy can go" rm "$MNT/vm2"
truncate -s 8M "$MNT/full"
random "$MNT/full" 8388608
before=$(used)
expect "cp of one without holes, without options" cp "$MNT/full" "$MNT/full2"
free_of_charge "takes no data space either"
is "and has the same bytes" "$(sum "$MNT/full2")" "$(sum "$MNT/full")"

# --- the ways in which ranges can lie ---

# copied CLAIM FROM OFFSET TO OFFSET LENGTH
copied() {
	local claim=$1 from=$2 src=$3 to=$4 dst=$5 len=$6
	cp --sparse=always "$MNT/$to" "$dir/expected" 2>/dev/null || : >"$dir/expected"
	dd if="$MNT/$from" of="$dir/expected" bs=64K iflag=skip_bytes,count_bytes oflag=seek_bytes skip="$src" seek="$dst" \
		count="$len" conv=notrunc status=none
	expect "$claim" eval 'copy_range "$MNT/$from" $src "$MNT/$to" $dst $len && cmp "$MNT/$to" "$dir/expected"'
}

truncate -s 10M "$MNT/target"
random "$MNT/target" 10485760
copied "whole blocks" vm1 $((10 * block)) target $((20 * block)) $((30 * block))
copied "within one volume" target 0 target $((100 * block)) $((40 * block))
copied "alike in their blocks, from the middle of one to that of another" vm1 $((3 * block + 1000)) target $((7 * block + 1000)) 3000000
copied "not alike" vm1 1 target 70000 500000
copied "a hole over data" vm1 $((60 * 1048576)) target 0 $((20 * block))
copied "past the end" vm1 0 target $((160 * block)) 5000000
copied "to a new file" vm1 0 new 0 1234567
copied "an end that is no whole block, over a longer file" new 0 target 0 1234567

# --- clone ---

mkdir "$MNT/.snapshots/monday"
monday=$(sum "$MNT/vm1")
before=$(used)
expect "thinfs clone of a snapshot's file" thinfs clone "$MNT/.snapshots/monday/vm1" "$MNT/test"
free_of_charge "takes no data space"
is "it is a writable volume like it" "$(sum "$MNT/test") $(stat -c '%a %s' "$MNT/test") $(of test parent)" \
	"$monday 644 $(stat -c %s "$MNT/vm1") $(of .snapshots/monday/vm1 id)"
random "$MNT/test" 1000000
is "a write to it is not one to the snapshot" "$(sum "$MNT/.snapshots/monday/vm1")" "$monday"
expect "thinfs clone of a volume" thinfs clone "$MNT/vm1" "$MNT/test2"
is "has the same bytes" "$(sum "$MNT/test2")" "$(sum "$MNT/vm1")"
expect_failure "not over another one" "there is a volume .*test2 already" thinfs clone "$MNT/vm1" "$MNT/test2"
expect_failure "not into a snapshot" "top directory of the same pool" thinfs clone "$MNT/vm1" "$MNT/.snapshots/monday/x"

# --- revert ---

random "$MNT/vm1" 2000000 300000
truncate -s 60M "$MNT/vm1"
sunday=$(sum "$MNT/vm1")
id=$(of vm1 id)
exec 5<"$MNT/vm1"
expect_failure "a volume in use is not reverted" "vm1: it is in use" thinfs revert "$MNT/vm1" "$MNT/.snapshots/monday/vm1"
exec 5<&-
is "and nothing has changed" "$(sum "$MNT/vm1") $(ls "$MNT/.snapshots")" "$sunday monday"
safety=$(thinfs revert "$MNT/vm1" "$MNT/.snapshots/monday/vm1")
is "thinfs revert" "$?" 0
is "the volume is as it was" "$(sum "$MNT/vm1") $(stat -c %s "$MNT/vm1")" "$monday 104857600"
is "it is still the same device" "$(of vm1 id)" "$id"
is "what it was is in a snapshot" "$(sum "$safety") $(stat -c %s "$safety")" "$sunday 62914560"
[[ $safety = "$MNT/.snapshots/vm1@before-revert-"*/vm1 ]] && ok "with a name that says so" || not_ok "with a name that says so: $safety"
random "$MNT/vm1" 4000000
is "a write to it is not one to the snapshot" "$(sum "$MNT/.snapshots/monday/vm1")" "$monday"
is "nor to the safe one" "$(sum "$safety")" "$sunday"
expect "and back" eval 'other=$(thinfs revert "$MNT/vm1" "$safety") && [ "$other" != "$safety" ]'
is "as it was before" "$(sum "$MNT/vm1")" "$sunday"
expect_failure "not to what is no snapshot" "the other a file of a snapshot" thinfs revert "$MNT/vm1" "$MNT/test"
expect "moving a snapshot's file to the top makes it a volume" mv "$safety" "$MNT/moved"
is "of the same bytes" "$(sum "$MNT/moved")" "$sunday"
all=$(cd "$MNT" && find . -type f -exec sha256sum {} + | sort)
thinfs umount "$MNT"
mount_pool "$dir"
is "all of it is there after a remount" "$(cd "$MNT" && find . -type f -exec sha256sum {} + | sort)" "$all"
