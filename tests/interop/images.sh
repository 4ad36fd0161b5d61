#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Metadata images that the kernel made (tests/data/dm-thin-images), with an empty data image of the
# right size: each can be listed, and written to where it was clean, or is refused for a reason.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 gzip


audit() {
	python3 -B "$top_srcdir/tests/tools/dm-thin-audit.py" --no-mappings --compact "$1"
}

# What the audit says of the metadata, as a python expression of it.
of_audit() {
	python3 -B -c 'import json, sys; m = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$dir/audit" "$1"
}

mount_image() {
	timeout 60 "$THINFS" mount "${with_transport[@]}" "$@" "$dir/data.img" "$dir/meta.img" "$dir/mnt"
}

write_volume() {
	dd if=/dev/urandom of="$dir/mnt/$1" bs=64K count=5 seek=3 conv=notrunc,fsync status=none
}

# Some of every extent, so as not to read terabytes of holes.
read_all() {
	python3 -B - "$dir"/mnt/thin-* <<-'END'
		import errno, os, sys
		for path in sys.argv[1:]:
		    if "*" in path:
		        break
		    fd, at = os.open(path, os.O_RDONLY), 0
		    while True:
		        try:
		            begin = os.lseek(fd, at, os.SEEK_DATA)
		        except OSError as error:
		            assert error.errno == errno.ENXIO
		            break
		        at = os.lseek(fd, begin, os.SEEK_HOLE)
		        assert at > begin
		        length = min(at - begin, 4096)
		        assert len(os.pread(fd, length, begin)) == length
		    os.close(fd)
	END
}

cases() {
	for image in "$top_srcdir"/tests/data/dm-thin-images/k*.img.gz; do
		name=$(basename "$image" .img.gz)
		dir=$(mktmp)
		mkdir "$dir/mnt"
		gzip -dc "$image" >"$dir/meta.img"
		audit "$dir/meta.img" >"$dir/audit"
		was_clean=$?
		truncate -s "$(of_audit 'm["data_space_map"]["root"]["nr_blocks"] * m["superblock"]["data_block_size"] * 512')" "$dir/data.img"
		sum=$(sha256sum <"$dir/meta.img")
		on_exit _end_mount "$dir/mnt"

		# Read-only, all of them: what is wrong with some does not keep from reading.
		expect "$name: mounts read-only" mount_image -o ro || continue
		is "$name: all devices are there" \
			"$(thinfs list --json "$dir/mnt" | python3 -c 'import json, sys
print(sorted(d["id"] for d in json.load(sys.stdin)["devices"]))')" \
			"$(of_audit '[d["dev_id"] for d in m["devices"]]')"
		is "$name: each has as many blocks mapped as it should" \
			"$(thinfs list --json "$dir/mnt" | python3 -c 'import json, sys
print(sorted((d["id"], d["mapped"] // 65536) for d in json.load(sys.stdin)["devices"]))')" \
			"$(of_audit '[(d["dev_id"], d["mapped_blocks"]) for d in m["devices"]]')"
		expect "$name: all that is mapped can be read" read_all
		expect "$name: unmounts" thinfs umount "$dir/mnt"
		is "$name: the metadata have not changed" "$(sha256sum <"$dir/meta.img")" "$sum"

		# Read-write. k17 has needs_check set; k19's clock has run past what a mapping can hold.
		case $name in
		k17* | k19*)
			out=$(mount_image 2>&1)
			if [ "${name%%-*}" = k17 ]; then
				reason="needs_check is set, so the pool is read-only; unmount it, run 'thinfs check --repair"
			else
				reason='clock has run past 2\^24, so the pool is read-only'
			fi
			if grep -q "$reason" <<<"$out"; then
				ok "$name: says what is wrong with it"
			else
				not_ok "$name: says what is wrong with it"
				diag "$out"
			fi
			expect_failure "$name: takes no snapshot" "Read-only file system" mkdir "$dir/mnt/.snapshots/x"
			thinfs umount "$dir/mnt"
			is "$name: the metadata have not changed this time" "$(sha256sum <"$dir/meta.img")" "$sum"
			continue
			;;
		k16*)
			# No free metadata block: it can be read, and that it is full is said, not suffered.
			expect "$name: mounts" mount_image -o error_if_no_space
			expect_failure "$name: a new volume is refused" "No space left on device" touch "$dir/mnt/new"
			thinfs sync "$dir/mnt"
			expect "$name: its volume can be removed" rm "$dir/mnt/thin-0"
			expect "$name: then there is room" sh -ec "
				for try in 1 2 3 4 5 6 7 8; do
					touch '$dir/mnt/new' && break || sleep 1 # the space comes in the background
				done
				dd if=/dev/zero of='$dir/mnt/new' bs=64K count=50 conv=notrunc,fsync status=none"
			thinfs umount "$dir/mnt"
			python3 -B -c 'import json, subprocess, sys
m = json.loads(subprocess.run([sys.executable, sys.argv[1], "--no-mappings", "--compact", sys.argv[2]],
                              stdout=subprocess.PIPE).stdout)["audit"]
sys.exit(m["metadata"]["mismatches"] > 0 or m["data"]["mismatches"] != 1 or m["data"]["leaks"] != 1
         or len(m["problems"]) != 1)
' "$top_srcdir/tests/tools/dm-thin-audit.py" "$dir/meta.img" &&
				ok "$name: nothing but the leaked block is wrong with it" ||
				not_ok "$name: nothing but the leaked block is wrong with it"
			continue
			;;
		esac
		expect "$name: mounts" mount_image -o error_if_no_space || continue
		if ls "$dir"/mnt/thin-* >/dev/null 2>&1; then
			set -- "$dir"/mnt/thin-*
		else
			set -- "$dir/mnt/new"
		fi
		expect "$name: writes, snapshots and removes" sh -ec "
			dd if=/dev/urandom of='$1' bs=64K count=5 seek=3 conv=notrunc,fsync status=none
			mkdir '$dir/mnt/.snapshots/x'
			dd if=/dev/urandom of='$1' bs=4K count=5 seek=50 conv=notrunc,fsync status=none
			rm '$1'
			thinfs=$THINFS; \$thinfs sync '$dir/mnt'"
		expect "$name: unmounts again" thinfs umount "$dir/mnt"
		is "$name: the audit was clean before" $was_clean 0
		expect "$name: the audit is clean" audit_pool "$dir/meta.img"
		rm -rf "$dir"
	done
}

tap=$(mktmp)/tap
cases | tee "$tap"
plan "$(grep -cE '^(not )?ok' "$tap")"
