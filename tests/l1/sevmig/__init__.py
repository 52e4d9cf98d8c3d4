"""
Live migration of encrypted guests, as tests and the demo drive it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import sys

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
BUILD = os.environ.get('BUILD', os.path.join(REPO, 'build'))

# QEMU's own library for its processes and its monitor, from its source tree
sys.path.append(os.environ.get('QEMU_PYTHON',
                               os.path.join(BUILD, 'qemu-src', 'python')))
