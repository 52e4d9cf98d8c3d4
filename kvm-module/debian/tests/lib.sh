# SPDX-License-Identifier: GPL-2.0-or-later
# Shell functions of these tests; sourced.
# shellcheck shell=bash

PATH=$PATH:/usr/sbin:/sbin
# shellcheck disable=SC2034 # for the programs that source this
modules=(kvm kvm-amd kvm-intel ccp)
failed=0

# check TEXT CMD...: CMD succeeds
# shellcheck disable=SC2034 # for the programs that source this
check() {
    local text=$1; shift
    if "$@"; then echo "ok - $text"; else echo "not ok - $text"; failed=1; fi
}
not() { ! "$@"; }
skip() { echo "SKIP: $*"; exit 77; }

# stock KERNEL MODULE: the distribution's own file of it
stock() { find "/lib/modules/$1/kernel" -name "$2.ko*" | grep .; }
# untouched: no file of a package with one of these modules is another than it was
untouched() {
    local p
    for p in $(dpkg-query -W -f '${Package}\n' 'linux-modules-*' 'linux-image-*' 2> /dev/null); do
        ! dpkg -V "$p" 2> /dev/null | grep -E '/(kvm|ccp)' || return 1
    done
}
# Where modprobe would take MODULE from: found KERNEL MODULE
found() { modinfo -k "$1" -F filename "$2" 2> /dev/null | sed 's,^/usr/lib/,/lib/,'; }
# is DIR KERNEL MODULE: from DIR of the kernel's
is() { case $(found "$2" "$3") in /lib/modules/$2/$1/*) ;; *) false ;; esac; }
# ours KERNEL MODULE
ours() { modinfo -k "$1" -F version "$2" 2> /dev/null | grep -q '^kvm-page-enc-'; }
# sections KERNEL MODULE: of its object file
sections() {
    local file
    file=$(mktemp)
    xz -dc "$(found "$1" "$2")" > "$file"
    readelf -WS "$file"
    rm "$file"
}

# Kernels that DKMS has built for, and all that there are
built() {
    dkms status kvm-page-enc | sed -n 's,^kvm-page-enc/[^ ]*\, \([^ ]*\)\, .*: installed.*,\1,p'
}
kernels() { for k in /lib/modules/*/modules.dep; do basename "$(dirname "$k")"; done; }
