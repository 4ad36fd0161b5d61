#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Everything but losetup works for an ordinary user: in a user namespace of their own, and with set-uid
# fusermount3. And the daemon, whoever started it, gives up all privileges, but can still unmount.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_program setpriv unshare

dir=$(mktmp)
chmod 1777 "$THINFS_TEST_STATE" # what a sanitizer finds is put there
chmod a+x "$dir"
cp "$THINFS" "$dir/thinfs"

# What an ordinary user does; in a folder of theirs, which is the argument. Each line names what failed.
cat >"$dir/steps" <<'EOS'
cd "$1" || exit 1
thinfs=$2
mkdir mnt
wrong() { echo "failed: $*"; "$thinfs" umount --force mnt; exit 1; }
"$thinfs" format --data-size 32M data.img meta.img || wrong format
"$thinfs" mount data.img meta.img mnt || wrong mount
pid=$("$thinfs" status mnt | sed -n 's/^served by *process //p')
grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs):' /proc/$pid/task/*/status | sed 's/.*:\t*//' | sort | uniq >privileges
"$thinfs" create --size 4M mnt/v || wrong create
head -c 300000 /dev/urandom >mnt/w && cp mnt/w copy || wrong write
fallocate -p -o 65536 -l 65536 mnt/w && truncate -s 1M mnt/w || wrong "fallocate, truncate"
cp mnt/w copy
"$thinfs" snapshot mnt monday || wrong snapshot
mkdir mnt/.snapshots/w@one || wrong "mkdir in .snapshots"
echo more >>mnt/w
cmp copy mnt/.snapshots/monday/w && cmp copy mnt/.snapshots/w@one/w || wrong "the snapshot's contents"
[ "$("$thinfs" list mnt | grep -c /w)" = 2 ] || wrong list
mv mnt/.snapshots/monday/v mnt/v2 && chmod u+w mnt/.snapshots/w@one/w || wrong "writable snapshots"
"$thinfs" remove mnt/.snapshots/monday mnt/v || wrong remove
"$thinfs" sync mnt || wrong sync
"$thinfs" status --json mnt >/dev/null || wrong status
case $3 in
umount) "$thinfs" umount mnt || wrong umount ;;
force) "$thinfs" umount --force mnt || wrong "umount --force" ;;
esac
case $3 in
TERM) kill $pid && for i in $(seq 100); do [ -e /proc/$pid/fd/0 ] && sleep 0.1; done ;;
esac
! grep -q " $PWD/mnt " /proc/self/mountinfo || wrong "unmounted by $3"
"$thinfs" list data.img meta.img | grep -q '^v2 ' || wrong "list of what is not mounted"
"$thinfs" status data.img meta.img >/dev/null || wrong "status of what is not mounted"
"$thinfs" mount -o ro data.img meta.img mnt || wrong "mount -o ro"
cmp copy mnt/.snapshots/w@one/w || wrong "the snapshot's contents, read-only"
"$thinfs" umount mnt || wrong umount
EOS
chmod a+r "$dir/steps"

# run HOW COMMAND... : all steps, by COMMAND; HOW the mount ends.
run() {
	local how=$1 home=$dir/$how-$RANDOM
	shift
	mkdir -m 777 "$home"
	audit_at_exit "$home/meta.img"
	"$@" sh "$dir/steps" "$home" "$dir/thinfs" "$how" && cp "$home/privileges" "$dir/"
}

# One line: capability sets that are empty; that programs gain nothing.
given_up() {
	is "$1: the daemon has no capabilities, and can get none" "$(tr '\n' ' ' <"$dir/privileges")" "0000000000000000 1 "
	rm "$dir/privileges"
}

# A mount namespace in which all may open /dev/fuse, as where udev is.
with_fuse() {
	unshare -m sh -c 'mknod -m 666 "$0" c 10 229 && mount --bind "$0" /dev/fuse && rm "$0" && exec "$@"' "$dir/fuse" "$@"
}

nobody() {
	with_fuse setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

in_namespace() {
	nobody unshare -rm "$@"
}

# As the one who runs the test, whoever that is.
plan 10
for how in umount TERM; do
	expect "as user $(id -u), ended by $how" run $how env
done
given_up "as user $(id -u)"

if [ "$(id -u)" -ne 0 ]; then
	skip 7 "is no root, who could be somebody else; what was done as this user says the same"
elif ! why=$(nobody test -r "$dir/steps" 2>&1); then
	skip 7 "cannot be another user here: $why"
else
	if why=$(in_namespace true 2>&1); then
		expect "in a user namespace" run umount in_namespace
		expect "in a user namespace, ended by TERM" run TERM in_namespace
		given_up "in a user namespace"
	else
		skip 3 "no user namespaces: $why"
	fi
	if [ -u "$(command -v fusermount3 || echo /)" ]; then
		for how in umount TERM force; do
			expect "with set-uid fusermount3, ended by $how" run $how nobody
		done
		given_up "with set-uid fusermount3"
	else
		skip 4 "fusermount3 is not set-uid root"
	fi
fi
