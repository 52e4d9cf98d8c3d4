"""
sev-migrate: migrate SEV guests between hosts.

Each subcommand is a module that has add(), which adds its arguments to the
command line, and run().  The other modules are used by several of them, and by
the tests of this project (package sevmig).  The package needs Debian's
python3-qemu-qmp and python3-cryptography; python3-libvirt is optional.

SPDX-License-Identifier: GPL-2.0-or-later
"""

VERSION = '0.1'
