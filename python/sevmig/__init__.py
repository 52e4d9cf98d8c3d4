"""
Modules with which the tests, the tools and the demo of this project start SEV
guests and migrate them.

scripts/in-root and scripts/l1 add this package to PYTHONPATH.  The modules
that start QEMUs need the package qemu.machine of QEMU's source tree;
scripts/l1 adds that package to PYTHONPATH, too.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os

REPO = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.environ.get('BUILD', os.path.join(REPO, 'build'))
