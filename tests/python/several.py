#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Check that sevmig.several reports each case and each failure of its programs.
"""
import os
import subprocess
import sys
import unittest

from sevmig import tap


def run(*programs, limit=60):
    """
    Run sevmig.several with @programs, the texts of shell scripts; return its
    exit status and its output without comments.
    """
    args = []
    for text in programs:
        args += ['--', '/bin/sh', '-c', text]
    p = subprocess.run(
        [sys.executable, '-m', 'sevmig.several', *args], text=True,
        stdout=subprocess.PIPE, check=False,
        env={**os.environ, 'SEVERAL_LIMIT': str(limit)})
    return p.returncode, [line for line in p.stdout.splitlines()
                          if not line.startswith('#')]


class Several(unittest.TestCase):
    def test_numbers(self):
        status, lines = run('echo TAP version 13; echo ok 1 - a; echo 1..1',
                            'echo 1..2; echo ok 1 - b; echo "ok 2 - c # SKIP x"',
                            'echo "1..0 # SKIP no reason"')
        self.assertEqual(status, 0)
        self.assertEqual(lines, [
            'TAP version 13', 'ok 1 - sh: a', 'ok 2 - sh: b',
            'ok 3 - sh: c # SKIP x', 'ok 4 - sh # SKIP no reason', '1..4'])

    def fails(self, script, words, **kw):
        """
        Run @script between two programs that do not fail; check that @words are
        in the only failed case.
        """
        good = 'echo ok 1 - good; echo 1..1'
        status, lines = run(good, script, good, **kw)
        self.assertEqual(status, 1)
        bad = [line for line in lines if line.startswith('not ok')]
        self.assertEqual(len(bad), 1, lines)
        self.assertIn(words, bad[0])
        self.assertEqual(lines.count('ok 1 - sh: good'), 1)
        self.assertRegex(lines[-2], r'ok \d - sh: good')

    def test_case(self):
        self.fails('echo not ok 1 - bad; echo 1..1; exit 1', 'sh: bad')

    def test_status(self):
        self.fails('echo ok 1; echo 1..1; exit 3', 'exit status 3')

    def test_too_few(self):
        self.fails('echo 1..2; echo ok 1', '1 cases of 2')

    def test_silent(self):
        self.fails('exit 0', 'no plan')

    def test_dies(self):
        self.fails('echo ok 1; kill -9 $$', 'no plan, exit status -9')

    def test_bail_out(self):
        self.fails('echo "Bail out! no memory"; echo 1..1; exit 1',
                   'Bail out! no memory')

    def test_hangs(self):
        self.fails('echo ok 1; sleep 60', 'killed after 1 seconds', limit=1)


if __name__ == '__main__':
    tap.run()
