# SPDX-License-Identifier: GPL-2.0-or-later
# Shell functions for the tests in this directory, which source this file.
# shellcheck shell=bash

PATH=$PATH:/usr/sbin:/sbin
# shellcheck disable=SC2034 # for the programs that source this
modules=(kvm kvm-amd kvm-intel ccp)
failed=0

# check TEXT CMD...: run CMD and print a result line with TEXT, "ok" if it succeeds
# shellcheck disable=SC2034 # for the programs that source this
check() {
    local text=$1; shift
    if "$@"; then echo "ok - $text"; else echo "not ok - $text"; failed=1; fi
}
not() { ! "$@"; }
skip() { echo "SKIP: $*"; exit 77; }

# stock KERNEL MODULE: print the path of the distribution's own module
stock() { find "/lib/modules/$1/kernel" -name "$2.ko*" | grep .; }
# untouched: are all files kvm* and ccp* of the kernels' packages unchanged?
untouched() {
    local p
    for p in $(dpkg-query -W -f '${Package}\n' 'linux-modules-*' 'linux-image-*' 2> /dev/null); do
        ! dpkg -V "$p" 2> /dev/null | grep -E '/(kvm|ccp)' || return 1
    done
}
# found KERNEL MODULE: print the path from which modprobe would load MODULE
found() { modinfo -k "$1" -F filename "$2" 2> /dev/null | sed 's,^/usr/lib/,/lib/,'; }
# is DIR KERNEL MODULE: would modprobe load MODULE from the subdirectory DIR of
# the kernel's module directory?
is() { case $(found "$2" "$3") in /lib/modules/$2/$1/*) ;; *) false ;; esac; }
# ours KERNEL MODULE: is the module that modprobe would load one of this package?
ours() { modinfo -k "$1" -F version "$2" 2> /dev/null | grep -q '^kvm-page-enc-'; }
# sections KERNEL MODULE: print the sections of the module's object file
sections() {
    local file
    file=$(mktemp)
    xz -dc "$(found "$1" "$2")" > "$file"
    readelf -WS "$file"
    rm "$file"
}

# built: print the kernels for which DKMS has installed our modules.
# kernels: print all installed kernels.
built() {
    dkms status kvm-page-enc | sed -n 's,^kvm-page-enc/[^ ]*\, \([^ ]*\)\, .*: installed.*,\1,p'
}
kernels() { for k in /lib/modules/*/modules.dep; do basename "$(dirname "$k")"; done; }
