"""
The name of this host, the product line of its processor, and AMD's download
addresses for its certificates.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import re

CEK_URL = 'https://kdsintf.amd.com/cek/id/'
AMD_URL = 'https://download.amd.com/developer/eula/sev/'
PAGE_URL = 'https://www.amd.com/en/developer/sev.html'

# (family, first model, last model, product line).  Family and models are those
# of /proc/cpuinfo.  Some of these models have another code name, but AMD signs
# them with the ASK of the product line given here.
LINES = (
    (0x17, 0x00, 0x0f, 'Naples'),
    (0x17, 0x30, 0x3f, 'Rome'),
    (0x19, 0x00, 0x0f, 'Milan'),
    (0x19, 0x10, 0x1f, 'Genoa'),
    (0x19, 0xa0, 0xaf, 'Genoa'),
    (0x1a, 0x00, 0x1f, 'Turin'),
)
FILES = {'Naples': 'ask_ark_naples.cert', 'Rome': 'ask_ark_rome.cert',
         'Milan': 'ask_ark_milan.cert', 'Genoa': 'ask_ark_genoa.cert',
         'Turin': 'ask_ark_prod_turin.cert'}


def line_of(cpuinfo):
    """Return the product line for the text of /proc/cpuinfo; '' if unknown."""
    def value(key):
        found = re.search(rf'^{key}\s*: (.*)$', cpuinfo, re.M)
        return found[1] if found else ''

    if value('vendor_id') != 'AuthenticAMD':
        return ''
    family, model = value('cpu family'), value('model')
    if not family.isdigit() or not model.isdigit():
        return ''
    for of_family, first, last, line in LINES:
        if int(family) == of_family and first <= int(model) <= last:
            return line
    return ''


def product(path='/proc/cpuinfo'):
    """Return the product line of this host's processor; '' if unknown."""
    try:
        with open(path, encoding='ascii', errors='replace') as f:
            return line_of(f.read())
    except OSError:
        return ''


def name():
    return os.uname().nodename


def sources(chip_id, line):
    """
    Return lines of text that say where AMD publishes certificates.

    @chip_id: identifier of the chip; empty if unknown
    @line: product line of the chip; '' if unknown
    """
    out = ['The CEK of this chip, signed by AMD:']
    out.append(f'  {CEK_URL}{chip_id.hex()}' if chip_id else
               f'  {CEK_URL}ID (this firmware has not told the identifier)')
    if line:
        out += [f'ASK and ARK of its product line, {line}:',
                f'  {AMD_URL}{FILES[line]}']
    else:
        out += ['ASK and ARK of its product line (not known from the '
                'processor\'s model):',
                *(f'  {AMD_URL}{file}' for file in FILES.values())]
    out.append(f'AMD links these files from {PAGE_URL}')
    return out
