# SPDX-License-Identifier: GPL-2.0-or-later
# Shell functions for scripts/ and tests/, which source this file.
# shellcheck shell=bash

repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")

# A base is a pair of releases of Linux and QEMU.  A base other than the default
# one has its own build directory.  All bases use the Debian root build/root.
: "${KERNEL_SERIES:=7.3}" "${QEMU_SERIES:=10.0}"
export KERNEL_SERIES QEMU_SERIES
case $KERNEL_SERIES,$QEMU_SERIES in
7.3,10.0) build=${BUILD:-$repo/build} ;;
*) build=${BUILD:-$repo/build/bases/linux-$KERNEL_SERIES-qemu-$QEMU_SERIES} ;;
esac
me=$(readlink -f "$0")

# say TEXT: print a progress message with the time since the command began
: "${STEP_BEGAN:=$(date +%s)}"
export STEP_BEGAN
say() {
    local t=$(($(date +%s) - STEP_BEGAN))
    printf '[%2d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*"
}
die() { echo "${me#"$repo/"}: $*" >&2; exit 1; }

# as_root CMD...: run CMD as root, with sudo if necessary
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo > /dev/null; then sudo -- "$@"
    else die "needs root: run it as root or install sudo"
    fi
}

# alone NAME: wait for the lock NAME of this build directory, and hold the lock
# until this process ends.  Without the lock, two processes that build NAME
# would write the same files at the same time.
alone() {
    exec 9> "$build/.lock-$1"
    flock -n 9 || { say "waiting for another build of $1"; flock 9; }
}
