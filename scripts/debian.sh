# SPDX-License-Identifier: GPL-2.0-or-later
# Functions for a Debian system in a directory, for scripts and tests that source
# this file after scripts/lib.sh and run as root in build/root.
#
# The scripts that source this file set these variables: d, their directory below
# /b; root, the Debian system in which in_debian runs commands; and log, a file to
# which these functions append output.
# shellcheck shell=bash
# shellcheck disable=SC2154 # these variables
export DEBIAN_FRONTEND=noninteractive

# make_debian DIR: make a bare Debian system with the machine's apt configuration
make_debian() {
    local aptopts=() o
    rm -rf --one-file-system "$1"
    while read -r o; do aptopts+=("--aptopt=$o"); done < <(
        apt-config dump | grep -E '^Acquire::(https?::.*[Pp]roxy|Check-)' || true)
    mmdebstrap --quiet --mode=root --variant=apt --skip=cleanup/apt/lists \
        --dpkgopt=force-unsafe-io ${aptopts[@]+"${aptopts[@]}"} \
        trixie "$1" - < /etc/apt/sources.list >> "$log" 2>&1
}

# mounts: mount the file systems that programs in $root need, and the compiler
# cache
mounts() {
    mount --rbind /proc "$root/proc"
    # --rbind, because each device of scripts/in-root is a mount of its own
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmp "$root/tmp"
    mount -t tmpfs run "$root/run"
    mkdir -p "$root/cache"
    mount --bind /cache "$root/cache"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2> /dev/null || :
}

# unmount: unmount all that is mounted at or below $root
unmount() {
    local m
    # shellcheck disable=SC2013 # /proc/mounts has no white space in a path
    for m in $(awk -v r="$root" '$2 ~ "^" r "(/|$)" {print $2}' /proc/mounts | sort -r); do
        umount -l "$m" || :
    done
}

# in_debian CMD...: run CMD in the Debian system.  It has the compiler
# cache of build/root.
in_debian() {
    chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 \
        PATH=/usr/lib/ccache:/usr/sbin:/usr/bin:/sbin:/bin \
        CCACHE_DIR=/cache/ccache DEBIAN_FRONTEND=noninteractive "$@" 9>&-
}
export -f in_debian
export root

# quietly CMD...: write the output of CMD to the log and to $d/out
quietly() {
    local rc=0
    "$@" > "$d/out" 2>&1 < /dev/null || rc=$?
    cat "$d/out" >> "$log"
    return $rc
}
