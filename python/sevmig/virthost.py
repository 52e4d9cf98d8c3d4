"""
An emulated host with Debian's libvirt, which scripts/host/libvirt has set up.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import struct
import subprocess

from sevmigrate import firmware

from . import REPO, gmem, hosts, vm
from .domain import CONSOLES, console_path

# A directory that both hosts share, and directories of each host
SHARED = '/srv/shared'
IMAGES = '/var/lib/libvirt/images'
TLS = '/etc/pki/qemu'

# QEMU holds a read lock on this byte of an image that others must not write
NOBODY_ELSE_WRITES = 201


def uri(host):
    """Return the URI of @host's libvirt.  Both hosts can use it."""
    return f'qemu+tcp://{host.name}/system'


class VirtHost(hosts.Host):
    """
    The host on which this program runs.  The argument @domain of a method is the
    name of a domain, or None for libvirtd itself.
    """

    def __init__(self, work, disks):
        super().__init__(work, disks)
        os.makedirs(CONSOLES, exist_ok=True)
        self._locked = None

    @staticmethod
    def shell(command, directory):
        """
        Run @command in @directory, with sev-migrate in PATH; return (exit status,
        output).
        """
        done = subprocess.run(
            ['bash', '-c', command], cwd=directory, check=False, text=True,
            env={**os.environ,
                 'PATH': f'{REPO}/tools/sev-migrate:{os.environ["PATH"]}'},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        return done.returncode, done.stdout

    @staticmethod
    def start_libvirtd():
        subprocess.run(['libvirtd', '--daemon', '--listen'], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    @staticmethod
    def pid(domain=None):
        """Return the process of QEMU or of libvirtd, None if it has ended."""
        path = f'/run/libvirt/qemu/{domain}.pid' if domain else \
            '/run/libvirtd.pid'
        name = 'qemu-system-x86' if domain else 'libvirtd'
        try:
            with open(path, encoding='ascii') as f:
                pid = int(f.read())
            # A process that was killed leaves its file behind
            with open(f'/proc/{pid}/comm', encoding='ascii') as f:
                return pid if f.read().strip() == name else None
        except (FileNotFoundError, ProcessLookupError):
            return None

    def signal(self, number, domain=None):
        os.kill(self.pid(domain), number)

    def confinement(self, domain=None):
        """
        Return (AppArmor profile and mode, user's name) of QEMU or of libvirtd.
        """
        proc = f'/proc/{self.pid(domain)}'
        with open(f'{proc}/attr/apparmor/current', encoding='ascii') as f:
            profile = f.read().strip()
        with open(f'{proc}/status', encoding='ascii') as f:
            uid = int(re.search(r'^Uid:\s+(\d+)', f.read(), re.M)[1])
        return profile, pwd.getpwuid(uid).pw_name

    def has_in_place_memory(self, domain, size):
        """Return whether the @size bytes of RAM of @domain are a guest_memfd."""
        return gmem.find(self.pid(domain), size) is not None

    @staticmethod
    def denials():
        """Return what AppArmor has denied, as the kernel's log reports it."""
        log = subprocess.run(['dmesg'], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
        return re.findall(r'apparmor="DENIED".*', log)

    @staticmethod
    def console(domain):
        """Return what the guest of @domain has printed on this host."""
        try:
            with open(console_path(domain), errors='replace', newline='',
                      encoding='ascii') as f:
                return f.read().replace('\r', '')
        except FileNotFoundError:
            return ''

    @staticmethod
    def log(domain):
        """Return libvirt's log of the QEMUs of @domain on this host."""
        try:
            with open(f'/var/log/libvirt/qemu/{domain}.log', errors='replace',
                      encoding='utf-8') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    @staticmethod
    def firmware_guests():
        """Return how many guests the firmware of this host has."""
        return firmware.platform_status().guests

    @staticmethod
    def amd_cert():
        return vm.VM.amd_cert()

    @staticmethod
    def amd_cek():
        return vm.VM.amd_cek()

    @staticmethod
    def write(path, data):
        with open(path, 'wb') as f:
            f.write(data)

    @staticmethod
    def digest(path):
        """Return the SHA-256 of a file."""
        with open(path, 'rb') as f:
            return hashlib.sha256(f.read()).hexdigest()

    @staticmethod
    def install_tls(top):
        """Copy the certificates in @top to the directory of QEMU's."""
        for name in os.listdir(top):
            # The user of libvirt's guests must be able to read them
            shutil.copyfile(f'{top}/{name}', f'{TLS}/{name}')
            os.chmod(f'{TLS}/{name}', 0o644)

    def lock(self, path):
        """
        Lock the disk image @path, so that no QEMU on this host can write it.
        """
        self._locked = os.open(path, os.O_RDWR)
        # struct flock
        fcntl.fcntl(self._locked, fcntl.F_OFD_SETLK, struct.pack(
            'hhqqi0q', fcntl.F_RDLCK, os.SEEK_SET, NOBODY_ELSE_WRITES, 1, 0))

    def unlock(self):
        if self._locked is not None:
            os.close(self._locked)
        self._locked = None
