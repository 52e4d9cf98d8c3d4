"""
Functions that all test programs use: they print notes on stderr and TAP on
stdout.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import sys
import time
import unittest

import pycotap

BEGAN = time.monotonic()


def note(text):
    print(f'# [{time.monotonic() - BEGAN:6.1f}] {text}', file=sys.stderr,
          flush=True)


def run(argv=None):
    """
    Run the tests of __main__ that @argv names, or all if it names none.  The
    default of @argv is sys.argv.
    """
    unittest.main(argv=argv, testRunner=pycotap.TAPTestRunner(
        message_log=pycotap.LogMode.LogToError,
        test_output_log=pycotap.LogMode.LogToError))


def main(why=''):
    """
    Call run(), or skip all tests if this host has no /dev/sev or if @why, the
    reason to skip them, is not empty.
    """
    if not os.path.exists('/dev/sev'):
        why = why or 'no /dev/sev; run it with scripts/l1'
    if why:
        print(f'TAP version 13\n1..0 # SKIP {why}')
        sys.exit(0)
    run()
