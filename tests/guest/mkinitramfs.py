#!/usr/bin/env python3
#
# Makes the test guest's initramfs: one static program and the kernel modules
# that it needs.  The same input gives the same bytes.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import gzip
import lzma
import os
import re
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = ('init.c', 'workload.c', 'shake.c')
MODULES = ('virtio_blk', 'virtio_balloon')


class Cpio:
    """A cpio archive of the format newc in memory, without times and owners."""

    def __init__(self):
        self.data = bytearray()
        self.ino = 0

    def add(self, name, mode, data=b'', rdev=(0, 0)):
        self.ino += 1
        raw = name.encode() + b'\0'
        fields = (self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev,
                  len(raw), 0)
        self.data += b'070701' + b''.join(b'%08X' % f for f in fields) + raw
        self._pad()
        self.data += data
        self._pad()

    def _pad(self):
        self.data += bytes(-len(self.data) % 4)

    def finish(self):
        self.ino = -1  # add() increments it, and the trailer has inode 0
        self.add('TRAILER!!!', 0)
        return bytes(self.data)


def read_module(path):
    """Return the decompressed ELF image of a module."""
    if path.endswith('.xz'):
        with lzma.open(path) as f:
            return f.read()
    if path.endswith('.gz'):
        with gzip.open(path) as f:
            return f.read()
    if path.endswith('.zst'):
        return subprocess.run(['zstd', '-dcq', path], check=True,
                              stdout=subprocess.PIPE).stdout
    with open(path, 'rb') as f:
        return f.read()


def find_modules(kernel_dir):
    """Return name -> path of all module files below @kernel_dir."""
    found = {}
    for where, dirs, files in os.walk(os.path.join(kernel_dir, 'kernel')):
        dirs.sort()
        for f in sorted(files):
            m = re.fullmatch(r'(.+)\.ko(\.\w+)?', f)
            if m:
                found[m[1].replace('-', '_')] = os.path.join(where, f)
    return found


def builtin_modules(kernel_dir):
    with open(os.path.join(kernel_dir, 'modules.builtin'),
              encoding='utf-8') as f:
        return {os.path.basename(line.strip())[:-3].replace('-', '_')
                for line in f}


def load_order(wanted, kernel_dir):
    """
    Return the modules @wanted and those on which they depend, in the order of
    loading.
    """
    found, builtin = find_modules(kernel_dir), builtin_modules(kernel_dir)
    order = {}

    def visit(name):
        name = name.replace('-', '_')
        if not name or name in builtin or name in order:
            return
        if name not in found:
            sys.exit(f'mkinitramfs: {kernel_dir} has no module {name}')
        image = read_module(found[name])
        m = re.search(rb'\0depends=([^\0]*)\0', image)
        for dep in m[1].decode().split(',') if m else ():
            visit(dep)
        order[name] = image

    for name in wanted:
        visit(name)
    return order


def compile_init(cc):
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, 'init')
        subprocess.run([*cc.split(), '-static', '-O3', '-g0', '-Wall',
                        '-Wextra', '-Werror', '-std=gnu11', '-D_GNU_SOURCE',
                        '-Wl,--build-id=none', '-s', '-o', out,
                        *(os.path.join(HERE, s) for s in SOURCES)],
                       check=True)
        with open(out, 'rb') as f:
            return f.read()


def main():
    p = argparse.ArgumentParser(description="make the test guest's initramfs")
    p.add_argument('--kernel-dir', required=True,
                   help='/lib/modules/VERSION of the guest kernel')
    p.add_argument('--cc', default=os.environ.get('CC', 'gcc'))
    p.add_argument('-o', '--output', required=True)
    args = p.parse_args()

    cpio = Cpio()
    for d in ('dev', 'proc', 'sys', 'modules'):
        cpio.add(d, stat.S_IFDIR | 0o755)
    cpio.add('dev/console', stat.S_IFCHR | 0o600, rdev=(5, 1))
    modules = load_order(MODULES, args.kernel_dir)
    for i, (name, image) in enumerate(modules.items()):
        cpio.add(f'modules/{i:02}-{name}.ko', stat.S_IFREG | 0o644, image)
    cpio.add('init', stat.S_IFREG | 0o755, compile_init(args.cc))

    tmp = args.output + '.tmp'
    with open(tmp, 'wb') as f:
        f.write(gzip.compress(cpio.finish(), 6, mtime=0))
    os.replace(tmp, args.output)


if __name__ == '__main__':
    main()
