#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Check that the man page, the completion and the firmware descriptor, which are
installed with sev-migrate, match the program.
"""

import argparse
import glob
import json
import os
import re
import subprocess
import unittest

from sevmig import REPO, tap
from sevmigrate import VERSION, errors
from sevmigrate.__main__ import parser

TOP = os.path.join(REPO, 'tools/sev-migrate')
FIRMWARE = '/usr/share/qemu/firmware'


def read(name):
    with open(os.path.join(TOP, name), encoding='utf-8') as f:
        return f.read()


def commands():
    """Return name -> parser of each subcommand."""
    # argparse has no public attribute for the subparsers
    # pylint: disable=protected-access
    action, = (a for a in parser()._actions
               if isinstance(a, argparse._SubParsersAction))
    return action.choices


def options(command):
    """Return the long options of a subcommand's parser."""
    # pylint: disable=protected-access
    return {o for a in command._actions
            for o in a.option_strings if o.startswith('--')}


class ManPage(unittest.TestCase):
    def setUp(self):
        self.page = read('sev-migrate.rst')

    def section(self, name):
        """Return the text below the heading @name."""
        found = re.search(rf'^{name}\n-+\n(.*?)(?=^[\w ]+\n-+\n|\Z)',
                          self.page, re.M | re.S)
        self.assertTrue(found, f'no section {name}')
        return found[1]

    def test_options(self):
        """Each section describes all options of its command, and no others."""
        common = {'--guest', '--domain', '--connect', '--json', '--help'}
        for name, command in commands().items():
            named = set(re.findall(r'\*\*(--[\w-]+)\*\*', self.section(name)))
            have = options(command)
            self.assertEqual(have - common - named, set(), name)
            self.assertEqual(named - have, set(), name)

    def test_exit_statuses(self):
        text = ' '.join(self.section('Exit status').split())
        for status, meaning in errors.MEANINGS.items():
            self.assertIn(f'* - {status} - {meaning}', text)

    def test_synopsis(self):
        self.assertEqual(
            re.findall(r'^\| \*\*sev-migrate (\w+)\*\*', self.page, re.M),
            list(commands()))


class Completion(unittest.TestCase):
    def complete(self, *words):
        """Return the completions that bash offers for the last of @words."""
        done = subprocess.run(
            ['bash', '-c', '. "$0"; COMP_WORDS=("$@"); '
             'COMP_CWORD=$(($# - 1)); _sev_migrate; '
             'printf "%s\\n" "${COMPREPLY[@]}"',
             os.path.join(TOP, 'sev-migrate.bash'), 'sev-migrate', *words],
            check=True, stdout=subprocess.PIPE, text=True)
        return set(done.stdout.split())

    def test_commands(self):
        self.assertEqual(self.complete(''),
                         set(commands()) | {'--help', '--version'})
        self.assertEqual(self.complete('ver'), {'verify'})

    def test_options(self):
        for name, command in commands().items():
            self.assertEqual(self.complete(name, '--'), options(command))

    def test_values(self):
        self.assertEqual(self.complete('run', '--on-limit', ''),
                         {'cancel', 'stop'})
        self.assertEqual(self.complete('verify', '--product', 'M'), {'Milan'})
        self.assertEqual(self.complete('run', '--multifd', ''), set())
        self.assertIn('/usr', self.complete('export', '/us'))
        self.assertIn('/usr', self.complete('run', '--host', '/us'))
        # --helper has no argument in "run", and a file as argument in "measure"
        self.assertIn('--quit', self.complete('run', '--helper', '--'))
        self.assertIn('/usr', self.complete('measure', '--helper', '/us'))


class Descriptor(unittest.TestCase):
    """The firmware descriptor for libvirt."""

    def test_descriptor(self):
        name, = glob.glob(f'{TOP}/*.json')
        with open(name, encoding='utf-8') as f:
            ours = json.load(f)
        with open(f'{FIRMWARE}/60-edk2-x86_64.json', encoding='utf-8') as f:
            debian = json.load(f)
        self.assertEqual(ours['features'], debian['features'])
        self.assertIn('amd-sev', ours['features'])
        self.assertEqual(ours['targets'], debian['targets'])
        mapping = ours['mapping']
        self.assertEqual(mapping['executable'],
                         debian['mapping']['executable'])
        self.assertIn(mapping['nvram-template']['filename'],
                      read('sev-migrate.rst'))
        # libvirt reads the descriptors in the order of their names and uses the
        # first that fits.  Our descriptor must come before Debian's descriptor
        # without secure boot, because these two fit the same guests.  Our
        # descriptor must come after Debian's descriptors with secure boot, so
        # that libvirt still prefers the descriptors with secure boot.
        order = sorted([os.path.basename(name), *os.listdir(FIRMWARE)])
        at = order.index(os.path.basename(name))
        self.assertEqual(order[at + 1], '60-edk2-x86_64.json')
        self.assertIn('secure', order[at - 1])


class Launcher(unittest.TestCase):
    def test_launcher(self):
        """The program needs no PYTHONPATH and no certain working directory."""
        done = subprocess.run(
            [os.path.join(TOP, 'sev-migrate'), '--version'], check=True,
            cwd='/', env={'PATH': '/usr/bin'}, stdout=subprocess.PIPE,
            text=True)
        self.assertEqual(done.stdout, f'sev-migrate {VERSION}\n')


if __name__ == '__main__':
    tap.run()
