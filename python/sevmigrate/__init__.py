"""
sev-migrate: migrate SEV guests between hosts.

The module of each subcommand has the functions add(), which adds the arguments
to the parser, and run(), which executes the subcommand.  The other modules are
used by several subcommands, and by the tests of this project (package sevmig).
The package needs Debian's python3-qemu-qmp and python3-cryptography;
python3-libvirt is optional.

SPDX-License-Identifier: GPL-2.0-or-later
"""

VERSION = '0.1'
