#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# 'thinfs check' as people meet it: beside a mount, after a failed commit, with damaged metadata, with wrong
# arguments.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3
plan 43

dir=$(mktmp)
data=$dir/data.img meta=$dir/meta.img

damage() {
	python3 -B "$top_srcdir/tests/tools/damage.py" "$@" || bail_out "cannot damage it"
}

where() {
	python3 -B "$top_srcdir/tests/tools/damage.py" where "$meta" "$@"
}

contents() {
	(cd "$MNT" && sha256sum ./* .snapshots/*/*)
}

# said CLAIM STATUS PATTERN COMMAND...: its output, on standard output, ends with a line that matches.
said() {
	local claim=$1 wanted=$2 pattern=$3 out status
	shift 3
	out=$("$@" 2>"$dir/errors")
	status=$?
	if [ $status -eq "$wanted" ] && tail -n 1 <<<"$out" | grep -Eq -- "$pattern" && [ ! -s "$dir/errors" ]; then
		ok "$claim"
	else
		not_ok "$claim"
		diag "status $status, wanted $wanted and: $pattern" "$out" "$(cat "$dir/errors")"
	fi
}

json() {
	thinfs check --json "$@" "$meta" | python3 -c 'import json, sys; print(*sorted(json.load(sys.stdin)))'
}

expect "a pool is made" thinfs format --data-size 64M "$data" "$meta"
mount_pool "$dir"
expect "volumes and a snapshot are in it" sh -ec "
	head -c 3000000 /dev/urandom >'$MNT/one'
	head -c 500000 /dev/urandom >'$MNT/two'
	mkdir '$MNT/.snapshots/monday'
	dd if=/dev/urandom of='$MNT/one' bs=64K seek=5 count=7 conv=notrunc status=none
	'$THINFS' sync '$MNT'"
before=$(contents)

# --- beside a mount ---

pid=$(daemon_of "$MNT")
sum=$(sha256sum <"$meta")
expect_failure "a mounted pool is not checked, and the mount is named" \
	"$meta: in use by process $pid \(thinfs\); unmount it first with 'thinfs umount'$" thinfs check "$meta"
expect_failure "nor repaired" "$meta: in use by process $pid \(thinfs\); unmount it first with 'thinfs umount'$" \
	thinfs check --repair "$meta"
is "and has not been changed" "$(sha256sum <"$meta")" "$sum"
expect "it is unmounted" umount_pool
expect "it is mounted read-only" thinfs mount -o ro "$data" "$meta" "$MNT"
said "then it can be checked" 0 "$meta: clean, [0-9]+ devices with [0-9]+ mapped blocks$" thinfs check "$meta"
expect_failure "but not repaired" "$meta: in use by process [0-9]+ \(thinfs\)" thinfs check --repair "$meta"
expect "it is unmounted again" umount_pool

python3 -B - "$meta" "$dir/locked" <<-'END' &
	import fcntl, sys, time
	f = open(sys.argv[1], "r+b")
	fcntl.lockf(f, fcntl.LOCK_EX)
	open(sys.argv[2], "w")
	time.sleep(1000)
END
locker=$!
on_exit sh -c "kill $locker 2>/dev/null || :"
for ((i = 0; i < 100; i++)); do
	[ -e "$dir/locked" ] && break
	sleep 0.1
done
expect_failure "what another program has locked is not checked, and it is named" \
	"in use by process $locker \(python3.*\); end it first" thinfs check "$meta"
kill $locker
wait $locker 2>/dev/null

# --- a clean one ---

said "a clean one is clean" 0 "$meta: clean, [0-9]+ devices with [0-9]+ mapped blocks$" thinfs check "$meta"
sum="$(sha256sum <"$meta") $(stat -c %y "$meta")"
said "there is nothing to mend in it" 0 "clean, .*; nothing to mend$" thinfs check --repair "$meta"
is "and nothing was written" "$(sha256sum <"$meta") $(stat -c %y "$meta")" "$sum"
is "JSON has the keys that it should" "$(json)" \
	"clean devices errors leaks mapped_blocks needs_check not_listed partial transaction warnings"
is "and for a repair two more" "$(json --repair)" \
	"clean devices errors leaks mapped_blocks needs_check not_listed partial repair repaired transaction warnings"
chmod 400 "$meta"
said "it is only read" 0 "clean" thinfs check "$meta"
chmod 600 "$meta"

# --- after a failed commit ---

damage field "$meta" 4 4 1
said "needs_check is no damage, but said" 0 "clean, .*, needs_check is set; 'thinfs check --repair $meta' mends it$" \
	thinfs check "$meta"
out=$(thinfs mount "$data" "$meta" "$MNT" 2>&1)
grep -q "needs_check is set, so the pool is read-only; unmount it, run 'thinfs check --repair $meta', then mount it again" <<<"$out" &&
	ok "mounting it says what to do" || { not_ok "mounting it says what to do"; diag "$out"; }
thinfs status "$MNT" | grep -q "needs check.*'thinfs check --repair $meta'" &&
	ok "so does its status" || not_ok "so does its status"
expect "it is unmounted" umount_pool
said "that clears it" 0 "mended: needs_check was cleared$" thinfs check --repair "$meta"
expect "it is mounted" thinfs mount "$data" "$meta" "$MNT"
expect "it can be written to" sh -c "echo >'$MNT/three' && rm '$MNT/three'"
is "it reads as before" "$(contents)" "$before"
expect "it is unmounted" umount_pool

# --- damage ---

damage count "$meta" data 0 0
damage count "$meta" data 900 1
damage count "$meta" metadata 3 0
said "wrong counts are found" 1 "2 errors, 1 leaked data block.*; 'thinfs check --repair $meta' mends it$" thinfs check "$meta"
said "and mended" 0 "mended: all reference counts were made anew$" thinfs check --repair "$meta"
expect "all checkers are content" audit_pool "$meta"
expect "it is mounted" thinfs mount "$data" "$meta" "$MNT"
is "it reads as before" "$(contents)" "$before"
expect "it can be written to" sh -c "cat '$MNT/one' >'$MNT/three' && cmp '$MNT/one' '$MNT/three' && rm '$MNT/three'"
expect "it is unmounted" umount_pool

cp "$meta" "$dir/good.img"
details=$(where details)
damage flip "$meta" $((details * 4096 + 50))
damage count "$meta" data 900 1
sum=$(sha256sum <"$meta")
said "a damaged tree is found" 1 \
	"1 error, 1 leaked data block, .*; 1 of them cannot be mended without guessing: 'thin_repair -i $meta -o NEW'" \
	thinfs check "$meta"
said "and not mended" 1 "thin_repair -i .*; nothing was changed$" thinfs check --repair "$meta"
is "nothing was changed" "$(sha256sum <"$meta")" "$sum"
cp "$dir/good.img" "$meta"

# --- names and sizes ---

said "names and sizes are verified" 0 "$data: all [0-9]+ names and sizes are good$" thinfs check --data "$data" "$meta"
id=$(thinfs list --json "$data" "$meta" | python3 -c 'import json, sys
print(next(d["id"] for d in json.load(sys.stdin)["devices"] if d["path"] == "two"))')
python3 -B - "$data" "$id" <<-'END'
	import struct, sys
	with open(sys.argv[1], "r+b") as f:
	    image, at = f.read(), -1
	    while (at := image.find(b"thinfsR1" + struct.pack("<I", int(sys.argv[2])), at + 1)) >= 0:
	        f.seek(at + 200)
	        f.write(b"X")
END
said "a damaged one is told" 1 "$data: the names and sizes of 1 devices are damaged, [0-9]+ are good$" \
	thinfs check --data "$data" "$meta"
is "and which" "$(thinfs check --json --data "$data" "$meta" | python3 -c 'import json, sys
c = json.load(sys.stdin); print(c["clean"], *c["damaged_records"])')" "False $id"

# --- arguments ---

usage() {
	local args status
	for args in "" "$meta $meta" "--unknown $meta" "--json" "--repair=1 $meta" "--data"; do
		# shellcheck disable=SC2086
		thinfs check $args >/dev/null 2>"$dir/errors"
		status=$?
		[ $status -eq 2 ] && [ "$(wc -l <"$dir/errors")" -eq 1 ] || {
			echo "thinfs check $args: status $status, $(cat "$dir/errors")"
			return 1
		}
	done
}
expect "wrong usage is told with one line and status 2" usage
said "the data image is told from the metadata" 1 "1 error" thinfs check "$data"
head -c 100 "$meta" >"$dir/short.img"
said "100 bytes are no metadata" 1 "1 error" thinfs check "$dir/short.img"
expect_failure "what is not there is told with one line" "cannot open|No such file" thinfs check "$dir/absent.img"
