# SPDX-License-Identifier: GPL-2.0-or-later
# Functions for the tests of packages, which source this file after scripts/lib.sh
# and set the variables of scripts/debian.sh.
# shellcheck shell=bash
# shellcheck disable=SC2154 # these variables
. "$repo/scripts/debian.sh"

cases=0 failed=0
ok() { cases=$((cases + 1)); echo "ok $cases - $*"; }
no() { cases=$((cases + 1)); failed=1; echo "not ok $cases - $*"; }
# check TEXT CMD...: a test case that passes if CMD succeeds
check() { local t=$1; shift; if "$@"; then ok "$t"; else no "$t"; fi; }

# suite CMD...: run CMD, which prints "ok - TEXT" or "not ok - TEXT" for each
# case
suite() {
    local line rc=0
    "$@" > "$d/out" 2>&1 || rc=$?
    cat "$d/out" >> "$log"
    while read -r line; do
        case $line in
        "ok - "*) ok "${line#ok - }" ;;
        "not ok - "*) no "${line#not ok - }" ;;
        *) echo "# $line" ;;
        esac
    done < "$d/out"
    [ "$rc" = 0 ] || [ "$failed" = 1 ] || no "status $rc of: $*"
}

# copy_debian DIR: make $root a copy of the Debian system DIR, and mount in it what
# its programs need
copy_debian() {
    rm -rf --one-file-system "$root" "$d/upper" "$d/work"
    mkdir "$root" "$d/upper" "$d/work"
    mount -t overlay -o "lowerdir=$1,upperdir=$d/upper,workdir=$d/work" over "$root" \
        2> /dev/null || cp -a --reflink=auto "$1/." "$root"
    mounts
}
