"""
Checks of a host: firmware, kernel, QEMU, limits, TLS.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import argparse
import datetime
import os
import re
import resource
import subprocess
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from . import firmware

GOOD, WARN, BAD = 'ok', 'warn', 'bad'
MIB = 1 << 20
# Bytes that are pinned in addition to RAM: OVMF, option ROMs, video memory
PINNED_MORE = 64 * MIB
APPARMOR = ('/etc/apparmor.d/abstractions/libvirt-qemu',
            '/etc/apparmor.d/local/abstractions/libvirt-qemu')
APPARMOR_RULE = '/dev/sev rw,'
QEMU_TIMEOUT = 30


@dataclass
class Item:
    """The result of one check, which is one line of the output."""
    name: str
    status: str
    text: str
    advice: str = ''


def size(text):
    """Parse a size as QEMU writes it: 512M, 2G, bytes without a suffix."""
    match = re.fullmatch(r'(\d{1,9})([KMGT]?)(i?B)?', text.strip(), re.I)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f'{text!r} is no size, as 2G')
    return int(match[1]) << {'': 0, 'K': 10, 'M': 20, 'G': 30,
                             'T': 40}[match[2].upper()]


def mib(number):
    return f'{number / MIB:.0f} MiB'


class System:
    """
    Access to the files of this host.

    @root: a directory in which tests provide other files; '' for this host
    """

    def __init__(self, root=''):
        self.root = root

    def read(self, path):
        """Return the text of a file without its last newline, or None."""
        try:
            with open(self.root + path, encoding='utf-8',
                      errors='replace') as f:
                return f.read().rstrip('\n')
        except OSError:
            return None

    def exists(self, path):
        return os.path.exists(self.root + path)

    def usable(self, path):
        return os.access(self.root + path, os.R_OK | os.W_OK)


def _device(system):
    if not system.exists(firmware.DEVICE):
        return Item('/dev/sev', BAD, 'does not exist',
                    'switch SEV (SMEE, SEV ASIDs) on in the host\'s setup, '
                    'and load ccp and kvm_amd; dmesg says what fails')
    if not system.usable(firmware.DEVICE):
        return Item('/dev/sev', BAD, 'this user cannot read and write it',
                    'run this command as root; let the user of QEMU use it '
                    '(libvirt does so for its guests)')
    return Item('/dev/sev', GOOD, 'this user can read and write it')


def _apparmor(system):
    if system.read('/sys/module/apparmor/parameters/enabled') != 'Y' or \
       not system.exists(APPARMOR[0]):
        return None
    rules = '\n'.join(system.read(p) or '' for p in APPARMOR)
    if re.search(r'^\s*/dev/sev\s+\w*r\w*w?', rules, re.M):
        return Item('AppArmor', GOOD, 'lets guests of libvirt use /dev/sev')
    return Item('AppArmor', WARN, 'denies /dev/sev to guests of libvirt',
                f'for libvirt: add the line "{APPARMOR_RULE}" to '
                f'{APPARMOR[1]}, and restart the guests')


def firmware_items(system, min_api=None, min_build=None):
    """Return the Items of the device and of the firmware."""
    device = _device(system)
    out = [i for i in (device, _apparmor(system)) if i]
    if device.status == BAD:
        return out
    try:
        status = firmware.platform_status()
    except OSError as e:
        return out + [Item('firmware', BAD, f'does not answer: {e}',
                           'see the log of the kernel (dmesg | grep ccp)')]
    old = (min_api and status.api < min_api) or (
        min_build is not None and status.build < min_build)
    if status.state == 0:
        out.append(Item('firmware', BAD, 'is not initialised',
                        'load kvm_amd with sev=1; dmesg says what fails'))
    elif old:
        wanted = '.'.join(map(str, min_api)) if min_api else 'any'
        out.append(Item('firmware', BAD, f'{status.version()} is too old '
                        f'(wanted: API {wanted}'
                        + (f', build {min_build}' if min_build is not None
                           else '') + ')',
                        "install AMD's firmware (package amd64-microcode, "
                        'amd/amd_sev_*.sbin) and reboot'))
    else:
        out.append(Item('firmware', GOOD, f'{status.version()}, '
                        f'{status.state_name}, {status.guests} guests, owner '
                        + ('external' if status.owned else 'self')))
    return out


def _kvm(system):
    sev = system.read('/sys/module/kvm_amd/parameters/sev')
    if sev is None:
        return Item('KVM', BAD, 'kvm_amd is not loaded', 'modprobe kvm_amd')
    if sev not in ('Y', '1'):
        return Item('KVM', BAD, 'kvm_amd does not support SEV',
                    'load it with sev=1; if that does not help, dmesg says '
                    'what fails')
    version = system.read('/sys/module/kvm/version')
    release = system.read('/proc/sys/kernel/osrelease') or '?'
    return Item('KVM', GOOD, f'Linux {release}, ' + (
        f'module {version}' if version and version.startswith('kvm-page-enc')
        else "the kernel's own module"))


def _asids(system):
    """
    Return the Item for the free ASIDs, which the cgroup controller misc knows.
    """
    for top in '/sys/fs/cgroup', '/sys/fs/cgroup/unified':
        # The files in the root cgroup have the numbers of the whole host
        both = [system.read(f'{top}/misc.{f}') for f in
                ('capacity', 'current')]
        if None not in both:
            total, used = (re.search(r'^sev (\d+)$', text, re.M)
                           for text in both)
            break
    else:
        total = used = None
    if not total or not used:
        return Item('ASIDs', WARN, 'the number of free ASIDs is not known',
                    'mount cgroup2 with the controller misc at /sys/fs/cgroup')
    free = int(total[1]) - int(used[1])
    if free <= 0:
        return Item('ASIDs', BAD, f'all {total[1]} are used: no guest can '
                    'start or arrive here', 'end an SEV guest of this host')
    return Item('ASIDs', GOOD, f'{free} of {total[1]} are free')


def host_items(system):
    """Return the Items of the kernel."""
    return [_kvm(system), _asids(system)]


def _ask_qemu(program, *args):
    done = subprocess.run([program, *args], check=False, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=QEMU_TIMEOUT)
    return done.stdout


def qemu_items(program):
    """Return the Items of the QEMU that would start guests here."""
    try:
        version = re.search(r'version (\S+(?: \(.*\))?)',
                            _ask_qemu(program, '--version'))
        properties = _ask_qemu(program, '-object', 'sev-guest,help')
    except (OSError, subprocess.TimeoutExpired) as e:
        return [Item('QEMU', BAD, f'{program}: {e}',
                     'install qemu-system-x86, or name it with --qemu')]
    text = f'{program} {version[1] if version else "?"}'
    if not re.search(r'^\s*migration=', properties, re.M):
        return [Item('QEMU', BAD, f'{text} cannot migrate SEV guests',
                     'install the QEMU of this project on both hosts')]
    if re.search(r'^\s*migration-helper=', properties, re.M):
        text += ', offers the migration helper'
    return [Item('QEMU', GOOD, text)]


def memlock_item(limit, ram, what):
    """
    Return the Item for locked memory.

    @limit: the limit of locked memory in bytes
    @ram: the size of the guest's RAM in bytes
    @what: the user or program that has the limit, for the message
    """
    if limit == resource.RLIM_INFINITY:
        return Item('memlock', GOOD, f'{what} has no limit')
    if limit >= ram + PINNED_MORE:
        return Item('memlock', GOOD, f'{what} may lock {mib(limit)}')
    return Item('memlock', BAD, f'{what} may lock {mib(limit)}, a guest with '
                f'{mib(ram)} of ordinary memory needs '
                f'{mib(ram + PINNED_MORE)}',
                'raise it: LimitMEMLOCK= or ulimit -l; for libvirt '
                '<memtune><hard_limit> in the domain; in-place memory does '
                'not need it')


def memlock_items(ram):
    """
    Return the Item for this user's limit of locked memory; [] if @ram, the size
    of the guest's RAM in bytes, is None.
    """
    if not ram:
        return []
    # root has CAP_IPC_LOCK, so the limit does not apply
    if os.geteuid() == 0:
        return [Item('memlock', GOOD, 'root has no limit; for another user '
                     'of QEMU, run this command as that user')]
    return [memlock_item(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], ram,
                         'this user')]


def _credentials(directory, end):
    """
    Check the credentials of @end ("server" or "client") in @directory; return
    its certificate.  Raises OSError or ValueError if something is wrong.
    """
    def load(name):
        with open(os.path.join(directory, name), 'rb') as f:
            return f.read()

    ca = x509.load_pem_x509_certificate(load('ca-cert.pem'))
    cert = x509.load_pem_x509_certificate(load(f'{end}-cert.pem'))
    key = serialization.load_pem_private_key(load(f'{end}-key.pem'), None)
    if key.public_key() != cert.public_key():
        raise ValueError(f'{end}-key.pem is not the key of {end}-cert.pem')
    try:
        cert.verify_directly_issued_by(ca)
    except InvalidSignature:
        raise ValueError(f'ca-cert.pem has not signed {end}-cert.pem') \
            from None
    now = datetime.datetime.now(datetime.timezone.utc)
    for c, name in (ca, 'ca'), (cert, end):
        if not c.not_valid_before_utc <= now <= c.not_valid_after_utc:
            raise ValueError(f'{name}-cert.pem is valid from '
                             f'{c.not_valid_before_utc:%Y-%m-%d} to '
                             f'{c.not_valid_after_utc:%Y-%m-%d} only')
    return cert


def tls_items(directory):
    """Return the Items of the credentials that a host has in @directory."""
    out = []
    for end, use in ('client', 'send'), ('server', 'receive'):
        try:
            cert = _credentials(directory, end)
        except (OSError, ValueError, TypeError) as e:
            text = f'{e.filename}: {e.strerror}' if isinstance(e, OSError) \
                else str(e)
            out.append(Item(f'TLS {end}', BAD, f'cannot {use}: {text}',
                            'make the credentials anew, see "TLS setup" in '
                            "QEMU's manual"))
            continue
        out.append(Item(f'TLS {end}', GOOD, f'can {use} as '
                        f'{cert.subject.rfc4514_string()}, until '
                        f'{cert.not_valid_after_utc:%Y-%m-%d}'))
    return out
