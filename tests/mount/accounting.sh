#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the pool says of its space: status, df, du and list agree; remove --dry-run says what removing gives; and
# the log warns once for each mark that is passed.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program jq
plan 17

dir=$(mktmp)
thinfs format --data-size 100M --metadata-size 4M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
# mount_logged OPTIONS: the log is in $dir/log. No commit but when asked for, or the log would have what was used
# at some other moment.
mount_logged() {
	local i
	MNT=$dir/mnt
	mkdir "$MNT"
	on_exit _end_mount "$MNT"
	audit_at_exit "$dir/meta.img"
	"$THINFS" mount "${with_transport[@]}" -f -o "commit=3600$1" "$dir/data.img" "$dir/meta.img" "$MNT" 2>"$dir/log" &
	for ((i = 0; i < 100; i++)); do
		thinfs status "$MNT" >/dev/null 2>&1 && return
		sleep 0.1
	done
	bail_out "cannot mount: $(cat "$dir/log")"
}

mount_logged ,low_water=15%

# fill NAME MIB
fill() {
	head -c "$2M" /dev/urandom >"$MNT/$1" && thinfs sync "$MNT"
}

# How many lines of the log match.
told() {
	grep -Ec -- "$1" "$dir/log"
}

fill a 40
fill b 20
is "df has what status has" "$(df -B1 --output=size,used,avail "$MNT" | tail -n 1 | xargs)" \
	"$(status '"\(.data.total) \(.data.used) \(.data.available)"' | tr -d '"')"
is "du has what list has" "$(du -B1 "$MNT/a" | cut -f1)" "$(thinfs list --json "$MNT" | jq '.devices[] | select(.name == "a").mapped')"
is "the volumes and two blocks of the catalog are all" "$(status .data.used)" $(($(du -cB1 "$MNT/a" "$MNT/b" | tail -n 1 | cut -f1) + 2 * 65536))

thinfs clone "$MNT/a" "$MNT/c"
mkdir "$MNT/.snapshots/s"
fill b 10
freed() {
	thinfs remove --dry-run --json "$@" | jq .freed
}
is "nothing comes back of what others share" "$(freed "$MNT/a")" 0
is "all of it comes back of all who share it" "$(freed "$MNT/a" "$MNT/c" "$MNT/.snapshots/s" "$MNT/a")" $((60 << 20))
is "in words, too" "$(thinfs remove -n "$MNT/b" | tail -n 1)" "would free 10M"
before=$(status .data.used)
thinfs remove "$MNT/a" "$MNT/c" "$MNT/.snapshots/s"
thinfs sync "$MNT"
is "and it does" "$((before - $(status .data.used)))" $((60 << 20))

# Blocks with two owners, each in a leaf of its own.
fill x 10
thinfs clone "$MNT/x" "$MNT/y"
dd if=/dev/urandom of="$MNT/y" bs=64K count=1 conv=notrunc,fsync status=none
is "of two copies, what was written since is one's own" "$(freed "$MNT/x") $(freed "$MNT/y")" "65536 65536"
is "and what they share comes back with both" "$(freed "$MNT/x" "$MNT/y")" $(((10 << 20) + 65536))
thinfs remove "$MNT/x" "$MNT/y"
thinfs sync "$MNT"

exec 5<"$MNT/b"
rm "$MNT/b"
is "what is open is still to come back" "$(status .reclaim | jq -c .)" "{\"volumes\":1,\"open\":1,\"bytes\":$((10 << 20))}"
exec 5<&-
thinfs sync "$MNT"

is "no warning until then" "$(told warning)" 0
fill d 84
is "80 % is told once" "$(told '8[34]\.[0-9] % of the data space is used') $(told 'low water')" "1 0"
fill f 5
is "low water is told once" "$(told 'low water: 1[01].*low_water is 15M')" 1
rm "$MNT/f"
thinfs sync "$MNT"
fill e 5
is "a pool that hovers about a mark is not told of again" "$(told '% of the data space is used') $(told 'low water')" "1 1"
rm "$MNT/d" "$MNT/e"
thinfs sync "$MNT"
fill d 88
is "but one that passes it again is" "$(told '% of the data space is used') $(told 'low water')" "2 2"
thinfs umount "$MNT"
wait

# --- metadata ---

dir=$(mktmp)
thinfs format --data-size 100M --metadata-size 1M "$dir/data.img" "$dir/meta.img" || bail_out "cannot format"
mount_logged ,error_if_no_space

# Volumes of one block take a block of metadata each.
for ((n = 0; n < 300; n++)); do
	echo x >"$MNT/v$n" || break
	((n % 5)) || thinfs sync "$MNT"
done 2>/dev/null
is "before metadata run out, 80 and 90 % are told once" \
	"$(told '8[0-9]\.[0-9] % of the metadata space is used') $(told '9[0-4]\.[0-9] % of the metadata space is used')" "1 1"
rm "$MNT"/v*
is "and removing goes on" "$(ls "$MNT")" ""
thinfs umount "$MNT"
wait
