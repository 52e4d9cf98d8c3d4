"""
Live migration of encrypted guests, as tests, tools and the demo drive it.

scripts/in-root and scripts/l1 put this package into PYTHONPATH.  The modules
that start QEMUs need qemu.machine, which is part of QEMU's source tree;
scripts/l1 puts that there, too.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os

REPO = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.environ.get('BUILD', os.path.join(REPO, 'build'))
