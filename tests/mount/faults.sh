#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A mounted pool whose images cannot be flushed, written or read, once or from then on: nobody is told that
# something is durable which is not, nothing that was durable is lost, and the next command is told.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 jq thin_check

# FAULTS|what fails: sync, write or read|whether needs_check can be set
# +N: the Nth after those that mounting needs.
cases=(
	"data:flush:1:EIO|sync|yes"
	"data:flush:drop,data:flush:1:EIO|sync|yes"
	"data:flush:1-:EIO|sync|yes"
	"meta:flush:+1:EIO|sync|yes"
	"meta:flush:+1-:EIO|sync|no"
	"meta:flush:+2:EIO|sync|yes"
	"meta:write:short=1,meta:write:+1:EIO|sync|yes"
	"meta:write:+1-:ENOSPC|sync|no"
	"data:write:short=3,data:write:1:EIO|write|"
	"data:read:+1:EIO|read|"
)
per_sync=15
per_other=6
nr_sync=$(printf '%s\n' "${cases[@]}" | grep -c '|sync|')

base=$(mktmp)
mkdir "$base/mnt"
thinfs format --data-size 64M "$base/data.img" "$base/meta.img" || bail_out "cannot format"
out=$(THINFS_FAULT=nonsense thinfs mount "$base/data.img" "$base/meta.img" "$base/mnt" 2>&1) && {
	thinfs umount "$base/mnt"
	skip_all "this thinfs was built without --enable-debug"
}
plan $((1 + nr_sync * per_sync + (${#cases[@]} - nr_sync) * per_other))
grep -q 'THINFS_FAULT=nonsense: not understood' <<<"$out" && ok "faults that are not understood are refused" ||
	not_ok "faults that are not understood are refused: $out"

# --- what is there before: a is shared up to 1M, its own from 1M to 2M; b and c are their own ---

thinfs mount "$base/data.img" "$base/meta.img" "$base/mnt" || bail_out "cannot mount"
on_exit _end_mount "$base/mnt"
for name in a b c; do
	truncate -s 8M "$base/mnt/$name"
done
dd if=/dev/urandom of="$base/mnt/a" bs=1M count=1 conv=notrunc status=none
mkdir "$base/mnt/.snapshots/one"
dd if=/dev/urandom of="$base/mnt/a" bs=1M count=1 seek=1 conv=notrunc status=none
for name in b c; do
	dd if=/dev/urandom of="$base/mnt/$name" bs=1M count=1 conv=notrunc,fsync status=none
done
thinfs umount "$base/mnt"

# needed IMAGE:OPERATION: how many of them mounting takes.
needed() {
	local n
	for ((n = 0; n < 20; n++)); do
		THINFS_FAULT=$1:$((n + 1)):EIO thinfs mount -o commit=3600 "$base/data.img" "$base/meta.img" "$base/mnt" \
			2>/dev/null && break
	done
	thinfs umount "$base/mnt" >/dev/null 2>&1
	echo $n
}
flushes=$(needed meta:flush)
writes=$(needed meta:write)
reads=$(needed data:read)
echo "# mounting flushes the metadata $flushes times, writes $writes times, and reads data $reads times"

# number FAULTS: with the +N worked out.
number() {
	local n
	for n in 1 2; do
		set -- "${1//meta:flush:+$n/meta:flush:$((flushes + n))}"
		set -- "${1//meta:write:+$n/meta:write:$((writes + n))}"
		set -- "${1//data:read:+$n/data:read:$((reads + n))}"
	done
	echo "$1"
}

mount_faulty() {
	on_exit _end_mount "$dir/mnt"
	audit_at_exit "$dir/meta.img"
	THINFS_FAULT=$faults thinfs mount -f -o commit=3600 "$dir/data.img" "$dir/meta.img" "$dir/mnt" \
		2>"$dir/messages" &
	daemon=$!
	for ((tries = 0; tries < 300; tries++)); do
		! _is_mounted "$dir/mnt" || [ ! -d "$dir/mnt/.snapshots" ] || return 0
		sleep 0.1
	done
	bail_out "$faults: cannot mount: $(cat "$dir/messages")"
}

# durable MNT: all that was synced before, whatever came after; b has been overwritten from 512K on, and from 768K on
# with what fsync may have returned for.
durable() {
	local mnt=$1
	cmp -n 2097152 "$mnt/a" <(dd if="$dir/want.a" bs=2M count=1 status=none) &&
		cmp -n 1048576 "$mnt/.snapshots/one/a" "$dir/want.a" &&
		cmp -n 524288 "$mnt/b" "$dir/want.b" && cmp -n 1048576 "$mnt/c" "$dir/want.c" &&
		{ [ -z "$synced" ] || cmp -i 786432 -n 196608 "$mnt/b" "$dir/want.b"; }
}

# Write to a, where nothing is, and to b, in place; have all synced at once by several: what each is told.
sync_at_once() {
	timeout 60 python3 - "$@" <<-'END'
	import errno, os, sys, threading
	files = [os.open(f"{sys.argv[1]}/{name}", os.O_RDWR) for name in "aaabbb"]
	told = [None] * len(files)
	start = threading.Barrier(len(files))
	def sync(i):
	    data = os.urandom(65536)
	    os.pwrite(files[i], data, (4 << 20) + i * 65536 if i < 3 else (12 + i - 3) << 16)
	    if i >= 3:
	        with open(f"{sys.argv[2]}/want.b", "r+b") as want:
	            want.seek((12 + i - 3) << 16)
	            want.write(data)
	    start.wait()
	    try:
	        os.fsync(files[i])
	        told[i] = "0"
	    except OSError as error:
	        told[i] = errno.errorcode[error.errno]
	for text in "first", "again":
	    threads = [threading.Thread(target=sync, args=(i,)) for i in range(len(files))]
	    if text == "again":
	        def sync(i):
	            start.wait()
	            try:
	                os.fsync(files[i])
	                told[i] = "0"
	            except OSError as error:
	                told[i] = errno.errorcode[error.errno]
	        threads = [threading.Thread(target=sync, args=(i,)) for i in range(len(files))]
	    for t in threads: t.start()
	    for t in threads: t.join()
	    print(text, *told)
	END
}

refused() {
	local out
	out=$("$@" 2>&1) && echo "succeeded: $*" && return 1
	grep -qE 'Input/output error|Read-only file system' <<<"$out" || { echo "$*: $out"; return 1; }
}

# What cannot be without a change of metadata.
changes_refused() {
	refused dd if=/dev/zero of="$1/a" bs=64K count=1 seek=100 conv=notrunc status=none &&
		refused dd if=/dev/zero of="$1/a" bs=64K count=1 conv=notrunc status=none &&
		refused mkdir "$1/.snapshots/two" && refused truncate -s 1M "$1/c" && refused rm "$1/c" &&
		refused fallocate -p -n -o 0 -l 64K "$1/c" && refused touch "$1/new"
}

repair() {
	if thinfs check --help >/dev/null 2>&1; then
		thinfs check --repair "$1"
	else
		thin_check --clear-needs-check-flag "$1"
	fi
}

count() {
	grep -cE "$1" "$dir/messages"
}

failing_sync() {
	local said status
	faults=$faults,data:flush:delay=40ms
	mount_faulty
	said=$(sync_at_once "$dir/mnt" "$dir")
	# b was only overwritten in place: of that, nothing is lost with the metadata.
	case $what in
	data:*) allowed="EIO EIO EIO" ;;
	*) allowed="(EIO|0) (EIO|0) (EIO|0)" ;;
	esac
	grep -qE "^first EIO EIO EIO $allowed$" <<<"$said" && ok "$what: who waits for an fsync gets EIO" ||
		not_ok "$what: who waits for an fsync gets EIO: $said"
	grep -qE "^again EIO EIO EIO $allowed$" <<<"$said" && ok "$what: and whoever asks again for what was lost" ||
		not_ok "$what: and whoever asks again for what was lost: $said"
	synced=$(sed -n 's/^[a-z]* EIO EIO EIO.* 0.*/yes/p' <<<"$said")
	status=$(thinfs status --json "$dir/mnt")
	is "$what: the pool is read-only" "$(jq -r .mode <<<"$status")" ro
	[ "$marked" = no ] || [ "$(jq -r .needs_check <<<"$status")" = true ] && ok "$what: and needs a check" ||
		not_ok "$what: and needs a check"
	is "$what: it is said once that a commit failed" "$(count 'a commit failed')" 1
	[ "$(count 'failed: (Input/output error|No space left)')" -le 1 ] && ok "$what: and once why" || {
		not_ok "$what: and once why"
		diag "$(cat "$dir/messages")"
	}
	grep -qE "(thin_check|check --repair).*$dir/meta.img" "$dir/messages" &&
		ok "$what: and what to run" || not_ok "$what: and what to run: $(cat "$dir/messages")"
	expect "$what: what was durable reads as before" durable "$dir/mnt"
	expect "$what: what is mapped and not shared can be overwritten" \
		dd if=/dev/urandom of="$dir/mnt/b" bs=64K count=2 seek=8 conv=notrunc status=none
	expect "$what: what needs a change of metadata is refused" changes_refused "$dir/mnt"
	thinfs umount "$dir/mnt" 2>"$dir/umount"
	wait $daemon
	! _is_mounted "$dir/mnt" && grep -q 'could not be made durable' "$dir/umount" &&
		ok "$what: unmounting works, and says what is lost" || not_ok "$what: unmounting works, and says what is lost"
	after_failure
}

after_failure() {
	local messages
	messages=$(thinfs mount "$dir/data.img" "$dir/meta.img" "$dir/mnt" 2>&1)
	expect "$what: afterwards, what was durable is there" durable "$dir/mnt"
	if [ "$marked" = yes ] || [ "$(thinfs status --json "$dir/mnt" | jq -r .needs_check)" = true ]; then
		grep -qE 'read-only.*(thin_check|check --repair)' <<<"$messages" && refused touch "$dir/mnt/new" &&
			ok "$what: read-only, with the next command" || not_ok "$what: read-only, with the next command: $messages"
		thinfs umount "$dir/mnt"
		expect "$what: the next command" repair "$dir/meta.img"
		thinfs mount "$dir/data.img" "$dir/meta.img" "$dir/mnt"
	else
		ok "$what: it can be mounted at once"
		ok "$what: and needs no command"
	fi
	durable "$dir/mnt" && dd if=/dev/urandom of="$dir/mnt/a" bs=64K count=1 seek=100 conv=notrunc,fsync status=none &&
		ok "$what: and then all is well" || not_ok "$what: and then all is well"
	thinfs umount "$dir/mnt"
}

# A write or a read that fails concerns whoever asked for it, and nobody else.
failing_once() {
	mount_faulty
	if [ "$kind" = write ]; then
		expect_failure "$what: the writer is told" "Input/output error" \
			dd if=/dev/zero of="$dir/mnt/a" bs=64K count=1 seek=100 conv=notrunc status=none
	else
		expect_failure "$what: the reader is told" "Input/output error" \
			dd if="$dir/mnt/c" of=/dev/null bs=64K count=1 status=none
	fi
	is "$what: the pool goes on" "$(thinfs status --json "$dir/mnt" | jq -r .mode)" rw
	expect "$what: what was durable reads as before" durable "$dir/mnt"
	is "$what: what could not be written is not there" \
		"$(dd if="$dir/mnt/a" bs=64K count=1 skip=100 status=none | tr -d '\0' | wc -c)" 0
	expect "$what: it can be tried again" dd if=/dev/urandom of="$dir/mnt/a" bs=64K count=1 seek=100 conv=notrunc,fsync status=none
	expect "$what: unmounting works" thinfs umount "$dir/mnt"
	wait $daemon
}

for case in "${cases[@]}"; do
	IFS='|' read -r what kind marked <<<"$case"
	faults=$(number "$what")
	synced=
	dir=$(mktmp)
	mkdir "$dir/mnt"
	cp --sparse=always "$base/data.img" "$base/meta.img" "$dir/"
	thinfs mount -o ro "$dir/data.img" "$dir/meta.img" "$dir/mnt"
	for name in a b c; do
		cp --sparse=always "$dir/mnt/$name" "$dir/want.$name"
	done
	thinfs umount "$dir/mnt"
	if [ "$kind" = sync ]; then
		failing_sync
	else
		failing_once
	fi
	rm "$dir"/*.img "$dir"/want.*
done
