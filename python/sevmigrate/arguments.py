"""
Options that several subcommands have, and parsers of their values.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import argparse
import re


def integer(low, high, what=None):
    """
    Return a parser of decimal numbers from @low to @high.

    @what: the name of such a number in error messages
    """
    what = what or f'number from {low} to {high}'

    def parse(text):
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f'{text!r} is no {what}')
        return int(text)
    return parse


def api_version(text):
    """Parse MAJOR.MINOR."""
    match = re.fullmatch(r'(\d{1,3})\.(\d{1,3})', text)
    if not match:
        raise argparse.ArgumentTypeError(f'{text!r} is not MAJOR.MINOR')
    return int(match[1]), int(match[2])


build_number = integer(0, 255, 'number up to 255')


def add_minimum(parser):
    """Add the options for the minimum version of a host's firmware."""
    parser.add_argument('--min-api', metavar='MAJOR.MINOR', type=api_version,
                        help='oldest API version of the firmware')
    parser.add_argument('--min-build', metavar='BUILD', type=build_number,
                        help='oldest build of the firmware')
