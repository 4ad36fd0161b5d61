# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# Functions for guest scripts that drive dm-thin; give it with --file, then ". ./dmthin.sh".
# All sizes are in sectors of 512 bytes. The pool is /dev/mapper/pool, a thin /dev/mapper/thinID.

META=${META:-/dev/vda}
DATA=${DATA:-/dev/vdb}

die() {
    echo "FAILED: $*"
    dmesg | tail -20
    exit 1
}

dm() {
    dmsetup "$@" || die "dmsetup $*"
}

# pool_table BLOCK [FEATURE]... - the pool's table line, as long as the data device
pool_table() {
    block=$1
    shift
    echo "0 $(blockdev --getsz "$DATA") thin-pool $META $DATA $block 0 $# $*"
}

# pool_on BLOCK [FEATURE]... - activate the pool; a metadata device of zeros gets formatted
pool_on() {
    dm create pool --table "$(pool_table "$@")"
}

pool_off() {
    dm remove --retry pool
}

pool_message() {
    dm message pool 0 "$*"
}

# pool_reload BLOCK [FEATURE]... - load a new table, for other features or grown devices
pool_reload() {
    dm suspend pool
    dm reload pool --table "$(pool_table "$@")"
    dm resume pool
}

thin_create() {
    pool_message create_thin "$1"
}

# thin_on ID SECTORS [ORIGIN_DEVICE]
thin_on() {
    dm create "thin$1" --table "0 $2 thin /dev/mapper/pool $1 $3"
}

thin_off() {
    dm remove --retry "thin$1"
}

# thin_snap NEW_ID ORIGIN_ID - the origin is suspended meanwhile where it is active
thin_snap() {
    if dmsetup info "thin$2" > /dev/null 2>&1; then
        dm suspend "thin$2"
        pool_message create_snap "$1" "$2"
        dm resume "thin$2"
    else
        pool_message create_snap "$1" "$2"
    fi
}

thin_delete() {
    pool_message delete "$1"
}

# pattern ID COMMAND... - run a command of patio (see fixtures/make/patio.c) on a thin device
pattern() {
    on=/dev/mapper/thin$1
    shift
    echo "$*" | ./patio "$on" || die "patio $on: $*"
}

# report ID - one line each with the content and the status of an active thin device
report() {
    echo "SHA256 $1 $(sha256sum < "/dev/mapper/thin$1" | cut -d' ' -f1)"
    echo "STATUS $1 $(dmsetup status "thin$1")"
}
