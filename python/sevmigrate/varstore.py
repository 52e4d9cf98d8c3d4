"""
Make a variable store with which Linux in an SEV guest agrees to be migrated.

Linux writes MSR_KVM_MIGRATION_CONTROL only if it finds the UEFI variable
SevLiveMigrationEnabled, which no firmware of Debian sets.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json
import os
import subprocess
import tempfile

from .errors import OK, Stop

HELP = "make a variable store with the guest's consent"
NAME = 'SevLiveMigrationEnabled'
# AMD_SEV_MEM_ENCRYPT_GUID of Linux's <linux/efi.h>
GUID = '0cf29b71-9e51-433a-a3b7-81f3ab16b875'
# NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS
ATTR = 7
TOOL = 'virt-fw-vars'


def add(parser):
    parser.add_argument('template', metavar='TEMPLATE',
                        help='variable store to copy, for example '
                        '/usr/share/OVMF/OVMF_VARS_4M.fd, or the store of a '
                        'guest that is shut down')
    parser.add_argument('output', metavar='OUTPUT', help='file to write')


def make(template, output):
    """Write a copy of @template with the variable to @output."""
    if not os.path.isfile(template):
        raise Stop(f'{template}: no file')
    variables = {'version': 2, 'variables': [
        {'name': NAME, 'guid': GUID, 'attr': ATTR, 'data': '01'}]}
    temporary = f'{output}.tmp.{os.getpid()}'
    try:
        with tempfile.NamedTemporaryFile('w', suffix='.json') as f:
            json.dump(variables, f)
            f.flush()
            done = subprocess.run(
                [TOOL, '--input', template, '--output', temporary,
                 '--set-json', f.name], stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode or not os.path.exists(temporary):
            # Only the last line of a traceback helps a user
            last = done.stdout.strip().rpartition('\n')[2]
            raise Stop(f'{template}: {TOOL} cannot add the variable, is this '
                       f'a variable store?  ({last})')
        if os.path.getsize(temporary) != os.path.getsize(template):
            raise Stop(f'{TOOL} changed the size of the store')
        os.replace(temporary, output)
    except FileNotFoundError:
        raise Stop(f'no {TOOL}: apt install python3-virt-firmware') from None
    except OSError as e:
        raise Stop(f'{output}: {e.strerror}') from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def run(args):
    make(args.template, args.output)
    return OK
