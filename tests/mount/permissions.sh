#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Who may see and do what in a mount that others are let into: what owner and mode say, as in any
# filesystem, also around the files, by the daemon's own commands.
. "${srcdir:-.}/tests/lib.sh" || exit 99
requires_fuse
requires_root
requires_program python3 setpriv getfattr setfattr

alice=1234
bob=4321
dir=$(mktmp)
# Others must be able to come here; the build's own folder may be closed to them.
chmod a+x "$THINFS_TEST_STATE" "$dir"
cp "$THINFS" "$dir/thinfs"
mnt=$dir/mnt

as() {
	local uid=$1
	shift
	setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
}

as $alice test -x "$dir/thinfs" || skip_all "other users cannot come to $dir"

# Everything that must not change by what is refused.
state() {
	(cd "$mnt" && find . -printf '%p %m %U %G %s\n' | sort && sha256sum theirs private shared open)
}

# refused CLAIM UID COMMAND...: for want of permission, and nothing has changed.
refused() {
	local claim=$1 uid=$2 before
	shift 2
	before=$(state)
	if expect_failure "$claim" "Permission denied|Operation not permitted|only who mounted" as "$uid" "$@" &&
		[ "$(state)" != "$before" ]; then
		not_ok "$claim: and nothing changes"
	fi
}

# The numbers of options in /proc/self/mountinfo: those of the mount, those of the filesystem.
mount_options() {
	awk -v dir="$mnt" '$5 == dir { print $6 "," $NF }' /proc/self/mountinfo
}

has_options() {
	local option
	for option in nosuid nodev default_permissions; do
		[[ ,$(mount_options), == *,$option,* ]] || return 1
	done
}

plan 48
thinfs format --data-size 64M "$dir/data.img" "$dir/meta.img"
mount_pool "$dir" -o suid,dev,default_permissions
expect "nosuid, nodev and default_permissions hold, also when others are asked for" has_options
touch "$mnt/v"
refused_quietly() {
	! as $alice stat "$mnt/v" && ! as $alice ls "$mnt" && ! as $alice "$dir/thinfs" list "$mnt"
}
expect "without allow_other, others see nothing" refused_quietly
rm "$mnt/v"
umount_pool

mount_pool "$dir" -o allow_other
expect "and with allow_other too, they hold" has_options
for name in private shared open theirs; do
	head -c 200000 /dev/urandom >"$mnt/$name"
done
chmod 600 "$mnt/private"
chmod 644 "$mnt/shared"
chmod 666 "$mnt/open"
chown $alice:$alice "$mnt/theirs"
chmod 600 "$mnt/theirs"
mkdir "$mnt/.snapshots/monday"
mkdir -m 700 "$mnt/.snapshots/secret"

# --- files ---
refused "reading what is the owner's alone" $alice cat "$mnt/private"
refused "writing what others may only read" $alice dd if=/dev/zero of="$mnt/shared" bs=4096 count=1 conv=notrunc status=none
refused "truncating it" $alice truncate -s 0 "$mnt/shared"
refused "punching a hole in it" $alice fallocate -p -l 4096 "$mnt/shared"
refused "chmod" $alice chmod 666 "$mnt/shared"
refused "chown to oneself" $alice chown $alice "$mnt/shared"
refused "chown of one's own to another" $alice chown $bob "$mnt/theirs"
refused "setting its times" $alice touch -d 2001-01-01 "$mnt/shared"
refused "another's, to a third" $bob cat "$mnt/theirs"
refused "an extended attribute of what may not be read" $alice getfattr --absolute-names -n user.thinfs.id "$mnt/private"
expect "an extended attribute of what may be read" as $alice getfattr --absolute-names -n user.thinfs.id "$mnt/shared"
expect_failure "nobody sets one" "not supported|Operation not permitted|Permission denied" setfattr -n user.thinfs.id -v 7 "$mnt/shared"
expect "reading what all may read" as $alice cmp "$mnt/shared" "$mnt/shared"
expect "writing what all may write" as $alice sh -c "head -c 5000 /dev/urandom | dd of='$mnt/open' conv=notrunc status=none"
expect "the owner's own" as $alice sh -c "cat '$mnt/theirs' >/dev/null && chmod 640 '$mnt/theirs' && chmod 600 '$mnt/theirs'"

# --- names ---
refused "creating" $alice touch "$mnt/new"
refused "creating, by the command" $alice "$dir/thinfs" create --size 1M "$mnt/new"
refused "removing one's own in another's directory" $alice rm -f "$mnt/theirs"
refused "removing, by the command" $alice "$dir/thinfs" remove "$mnt/open"
refused "renaming" $alice mv "$mnt/theirs" "$mnt/mine"
refused "replacing" $alice mv -f "$mnt/open" "$mnt/shared"

# --- snapshots ---
is "a snapshot's files keep owner and mode, but may not be written" \
	"$(cd "$mnt/.snapshots/monday" && stat -c '%n %a %u %g' open private shared theirs | tr '\n' ' ')" \
	"open 444 0 0 private 400 0 0 shared 444 0 0 theirs 400 $alice $alice "
refused "reading in a snapshot what is the owner's alone" $alice cat "$mnt/.snapshots/monday/private"
expect "reading in it what is one's own" as $alice cmp "$mnt/.snapshots/monday/theirs" "$mnt/theirs"
expect_failure "not even root writes to it" "Read-only file system" dd if=/dev/zero of="$mnt/.snapshots/monday/shared" bs=1 count=1 conv=notrunc status=none
refused "taking a snapshot" $alice mkdir "$mnt/.snapshots/mine"
refused "taking one, by the command" $alice "$dir/thinfs" snapshot "$mnt" mine
refused "taking one of one's own volume" $alice "$dir/thinfs" snapshot "$mnt" mine theirs
refused "removing a snapshot" $alice rmdir "$mnt/.snapshots/monday"
refused "removing one, by the command" $alice "$dir/thinfs" remove "$mnt/.snapshots/monday"
refused "removing a file from one" $alice rm -f "$mnt/.snapshots/monday/theirs"
refused "moving a file out of one" $alice mv "$mnt/.snapshots/monday/theirs" "$mnt/mine"
refused "entering one that is closed" $alice ls "$mnt/.snapshots/secret"
refused "making another's snapshot writable" $alice chmod u+w "$mnt/.snapshots/monday/shared"
listed() {
	"$@" "$dir/thinfs" list "$mnt" | grep -c "^.snapshots/$name/"
}
name=secret
is "the list of it is closed, too" "$(listed as $alice)" 0
is "but not to root" "$(listed env)" 4
name=monday
is "the others are listed" "$(listed as $alice)" 4

# --- the daemon ---
refused "ending the daemon" $alice "$dir/thinfs" umount --force "$mnt"
# The program itself may be where others cannot come.
expect_failure "ending it without the command" "PermissionError.*Operation not permitted" python3 -c '
import fcntl, os, sys
os.setgroups([])
os.setresgid(*3 * [int(sys.argv[2])])
os.setresuid(*3 * [int(sys.argv[2])])
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0xF563)' "$mnt" $alice
refused "unmounting" $alice "$dir/thinfs" umount "$mnt"
expect "and it is there" thinfs status "$mnt"

# --- new files ---
(umask 027 && setpriv --regid $bob --clear-groups touch "$mnt/made")
is "a new volume has the caller's umask, user and group" "$(stat -c '%a %u %g' "$mnt/made")" "640 0 $bob"
chmod 6755 "$mnt/made"
is "and never a set-id bit" "$(stat -c %a "$mnt/made")" 755

# --- kept ---
before=$(state)
umount_pool
mount_pool "$dir" -o allow_other
is "all of it is there after the next mount" "$(state)" "$before"
chown $bob "$mnt/made"
chmod 604 "$mnt/made"
before=$(state)
thinfs sync "$mnt"
kill_daemon "$mnt"
umount "$mnt"
mount_pool "$dir" -o allow_other
is "and after a crash" "$(state)" "$before"
