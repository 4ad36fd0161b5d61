#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A data image that becomes smaller while its volumes and snapshots are in use.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program python3 sha256sum
plan 18

seed=${THINFS_TEST_SEED:-$RANDOM}
echo "# THINFS_TEST_SEED=$seed"

status_of() {
	thinfs status --json "$MNT" | python3 -c "import json,sys; d=json.load(sys.stdin); print(d['$1']['$2'])"
}

sums() {
	(cd "$MNT/.snapshots" && sha256sum */*)
}

# When the connection has not ended, libfuse keeps the name of the directory: after 'thinfs umount --force'.
export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0

pool=$(mktmp)
thinfs format --data-size 256M --metadata-size 8M "$pool/data.img" "$pool/meta.img"
mount_pool "$pool"
# What is to be moved lies behind a volume that is no more.
dd if=/dev/zero of="$MNT/filler" bs=1M count=96 status=none
python3 - "$MNT" "$seed" <<'EOF'
# Four snapshots of two volumes, of which a part has changed each time; and a third that shares blocks.
import os, random, subprocess, sys
mnt, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
for snapshot in range(4):
    for name in "ab":
        fd = os.open(f"{mnt}/{name}", os.O_RDWR | os.O_CREAT)
        for block in range(256):
            if not snapshot or random.random() < 0.2:
                os.pwrite(fd, random.randbytes(random.choice([512, 65536])), block * 65536)
        os.close(fd)
    subprocess.run([os.environ["THINFS"], "snapshot", mnt, f"s{snapshot}", "a", "b"], check=True)
EOF
thinfs clone "$MNT/a" "$MNT/c"
rm "$MNT/filler"
thinfs sync "$MNT"
sums >"$pool/before"
used=$(status_of data used)

expect_failure "a size that is too small is refused, with one that would do" "[0-9]+ bytes .* would do" \
	thinfs shrink "$MNT" --data 1M
expect_failure "so is one that is larger" "thinfs resize" thinfs shrink "$MNT" --data 1G
possible=$(thinfs shrink "$MNT" --data 1M 2>&1 | grep -oE '[0-9]+ bytes' | cut -d ' ' -f 1)
if [ "$possible" -lt $((used + 10 * 65536)) ]; then
	ok "what would do is what is used, and a little for the catalog"
else
	not_ok "what would do is what is used: $possible, $used are used"
fi

# --- under load: writers that check what they have written
cat >"$pool/load.py" <<'EOF'
import os, random, sys, time
path, stop, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(seed)
fd = os.open(path, os.O_RDWR)
shadow, n = {}, 0
while not os.path.exists(stop):
    for _ in range(50):
        block = random.randrange(256)
        data = random.randbytes(4096)
        os.pwrite(fd, data, block * 65536 + 8192)
        shadow[block] = data
        other = random.choice(list(shadow))
        if os.pread(fd, 4096, other * 65536 + 8192) != shadow[other]:
            sys.exit(f"block {other} is not what was written")
        n += 1
    os.fsync(fd)
for block, data in shadow.items():
    if os.pread(fd, 4096, block * 65536 + 8192) != data:
        sys.exit(f"block {block} is not what was written, at the end")
print(n)
EOF
for v in a b c; do
	python3 "$pool/load.py" "$MNT/$v" "$pool/stop" $((seed + 1)) >"$pool/load.$v" 2>&1 &
	eval "load_$v=$!"
done
sleep 1
# Each of them may break the sharing of all it has.
expect "the image becomes smaller under load" thinfs shrink "$MNT" --data 150M
is "the pool is as large as that at once" "$(status_of data total)" $((150 << 20))
is "so is the image" "$(stat -c %s "$pool/data.img")" $((150 << 20))
is "so says df" "$(($(stat -f -c '%b * %S' "$MNT")))" $((150 << 20))
sleep 0.5
touch "$pool/stop"
failed=
for v in a b c; do
	pid=load_$v
	wait "${!pid}" || failed="$failed $v: $(cat "$pool/load.$v")"
done
is "who wrote meanwhile read what they had written" "$failed" ""
sums >"$pool/after"
expect "no snapshot has changed" cmp "$pool/before" "$pool/after"
cat "$MNT"/[abc] | sha256sum >"$pool/volumes"

# --- ended early: by Ctrl-C, by the end of the daemon
thinfs resize "$MNT" --data 256M
thinfs shrink "$MNT" --data 140M 2>"$pool/error" &
pid=$!
sleep 0.03
kill -INT $pid 2>/dev/null
wait $pid
status=$?
total=$(status_of data total)
if [ "$status/$total" = "1/$((256 << 20))" ] || [ "$status/$total" = "0/$((140 << 20))" ]; then
	ok "Ctrl-C ends it early, or comes too late"
else
	not_ok "Ctrl-C: status $status, $total bytes, $(cat "$pool/error")"
fi
[ "$total" = $((256 << 20)) ] || thinfs resize "$MNT" --data 256M
thinfs shrink "$MNT" --data 140M 2>/dev/null &
sleep 0.02
expect "a pool that is being shrunk can be unmounted by force" thinfs umount --force "$MNT"
wait
expect "it is whole" audit_pool "$pool/meta.img"
mount_pool "$pool"
[ "$(status_of data total)" = $((140 << 20)) ] || thinfs shrink "$MNT" --data 140M
is "and becomes smaller the next time" "$(status_of data total)" $((140 << 20))
sums >"$pool/after"
expect "no snapshot has changed" cmp "$pool/before" "$pool/after"
is "nor a volume" "$(cat "$MNT"/[abc] | sha256sum)" "$(cat "$pool/volumes")"

# --- killed in the middle
thinfs resize "$MNT" --data 256M
rm -f "$MNT/c"
thinfs shrink "$MNT" --data 130M 2>/dev/null &
sleep 0.05
kill -9 "$(daemon_of "$MNT")"
wait
umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT"
expect "a daemon that is killed meanwhile leaves a whole pool" audit_pool "$pool/meta.img"
mount_pool "$pool"
sums >"$pool/after"
expect "in which all snapshots are" cmp "$pool/before" "$pool/after"
[ "$(status_of data total)" = $((130 << 20)) ] || thinfs shrink "$MNT" --data 130M
is "and which can be made smaller, if it is not yet" "$(status_of data total)" $((130 << 20))
umount_pool
