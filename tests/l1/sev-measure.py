#!/usr/bin/env python3
#
# The launch digest that "sev-migrate measure" computes must be the one that the
# firmware measures.  The firmware's measurement is an HMAC with a key of the
# guest's owner.  This program needs this key to check the measurement, so it
# acts as the owner of the guests.  QEMU launches the guests and does not run
# them.
# The program runs in an emulated SEV host with SEV-ES and prints TAP on stdout:
#
#   scripts/l1 [--kernel module|stock] -- tests/l1/sev-measure.py [TEST...]
#
# SPDX-License-Identifier: GPL-2.0-or-later

import base64
import contextlib
import hmac
import io
import json
import os
import re
import struct
import subprocess
import tempfile
import time
import unittest

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sevmig import BUILD, fixture, tap, vm
from sevmigrate import certs, firmware, launch
from sevmigrate.__main__ import main
from sevmigrate.errors import Stop
from sevmigrate.monitor import Monitor

OVMF = '/usr/share/OVMF/OVMF_CODE_4M.fd'
ES_PARAMETER = '/sys/module/kvm_amd/parameters/sev_es'
START = 60      # seconds


def derive(key, label, context=b''):
    """Return a key by NIST SP 800-108 in counter mode."""
    return hmac.digest(key, struct.pack('<I', 1) + label + b'\0' + context +
                       struct.pack('<I', 128), 'sha256')[:16]


class Owner:
    """
    The owner of a guest.  It makes the TIK and the contents of QEMU's
    dh-cert-file and session-file, encoded with base64, as the SEV API describes
    for LAUNCH_START.
    """

    def __init__(self, pdh, policy):
        key = fixture.ec_key()
        self.tik, tek, nonce, iv = (os.urandom(16) for _ in range(4))
        secret = key.exchange(ec.ECDH(), certs.Cert(pdh).key())
        master = derive(secret, b'sev-master-secret', nonce)
        kek, kik = derive(master, b'sev-kek'), derive(master, b'sev-kik')
        aes = Cipher(algorithms.AES(kek), modes.CTR(iv)).encryptor()
        wrapped = aes.update(tek + self.tik) + aes.finalize()
        session = nonce + wrapped + iv + hmac.digest(kik, wrapped, 'sha256')
        session += hmac.digest(self.tik, struct.pack('<I', policy), 'sha256')
        self.cert = base64.b64encode(
            fixture.body(certs.PDH, key) + 2 * fixture.NO_SIGNATURE)
        self.session = base64.b64encode(session)


def signature():
    """Return EAX of CPUID function 1, from /proc/cpuinfo."""
    with open('/proc/cpuinfo', encoding='ascii') as f:
        text = f.read()
    family, model, stepping = (
        int(re.search(rf'^{name}\s*: (\d+)$', text, re.M)[1])
        for name in ('cpu family', 'model', 'stepping'))
    return ((family - 15) << 20 | (model >> 4) << 16 | 15 << 8 |
            (model & 15) << 4 | stepping)


class Measure(unittest.TestCase):
    def setUp(self):
        tap.note(self.id())
        directory = tempfile.TemporaryDirectory(dir='/run')
        self.addCleanup(directory.cleanup)
        self.top = directory.name
        self.status = firmware.platform_status()
        # What query-sev reports about the migration helper of the guest that
        # measured() has launched last
        self.helper = None

    def file(self, name, data):
        path = os.path.join(self.top, name)
        with open(path, 'wb') as f:
            f.write(data)
        return path

    def measured(self, policy, flash, *args, cpus=1, bios=False, **properties):
        """
        Launch a guest with the firmware @flash, in a flash device or with the
        option -bios.  Returns the TIK of its owner and the measurement.
        """
        owner = Owner(firmware.export()[0], policy)
        properties = {
            'cbitpos': os.environ['SEV_CBITPOS'], 'reduced-phys-bits': 1,
            'policy': policy, 'dh-cert-file': self.file('cert', owner.cert),
            'session-file': self.file('session', owner.session), **properties}
        sev = ','.join(f'{k}={v}' for k, v in properties.items())
        qmp = os.path.join(self.top, 'qmp')
        log = os.path.join(self.top, 'log')
        with open(log, 'wb') as f:
            qemu = subprocess.Popen([
                'qemu-system-x86_64', '-nodefaults', '-display', 'none', '-S',
                '-accel', 'kvm', '-cpu', 'host', '-smp', str(cpus), '-m',
                '128M', '-machine', 'q35,confidential-guest-support=sev0,'
                'memory-backend=ram,vmport=off',
                '-object', 'memory-backend-ram,id=ram,size=128M',
                '-object', f'sev-guest,id=sev0,{sev}',
                *(('-bios', flash) if bios else
                  ('-drive', 'if=pflash,format=raw,unit=0,readonly=on,'
                   f'file={flash}')), '-qmp', f'unix:{qmp},server=on,wait=off', *args],
                stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        self.addCleanup(qemu.wait)
        self.addCleanup(qemu.kill)
        end = time.monotonic() + START
        while True:
            try:
                monitor = Monitor(qmp)
                break
            except Stop:
                if qemu.poll() is not None or time.monotonic() > end:
                    with open(log, encoding='utf-8') as f:
                        self.fail(f'QEMU does not start: {f.read()}')
                time.sleep(0.1)
        with monitor:
            self.helper = monitor.cmd('query-sev')['migration'].get('helper')
            return owner.tik, monitor.cmd('query-sev-launch-measure')['data']

    def compare(self, policy, answer, *args, status=0):
        """
        Run "sev-migrate measure" with @answer, the result of measured(); check
        its exit status.
        """
        tik, data = answer
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            got = main(['measure', '--json', '--policy', hex(policy), '--tik',
                        self.file('tik', tik), '--expect', data, '--api',
                        '%d.%d' % self.status.api, '--build',
                        str(self.status.build), *args])
        self.assertEqual(got, status, out.getvalue())
        self.assertEqual(json.loads(out.getvalue())['matches'], not status)

    def small(self):
        """
        Return the path of a small firmware image with a hash table area and a
        reset block.
        """
        return self.file('flash', fixture.flash([
            (launch.HASH_TABLE_AREA, struct.pack('<II', 0x10c00, 1024)),
            (launch.ES_RESET_BLOCK, struct.pack('<I', 0x80b004))], 1 << 16))

    def test_ovmf(self):
        answer = self.measured(vm.POLICY_NODBG, OVMF)
        self.compare(vm.POLICY_NODBG, answer, '--firmware', OVMF)
        # Control: the digest of another firmware does not match
        self.compare(vm.POLICY_NODBG, answer, '--firmware', self.small(),
                     status=1)

    def test_helper(self):
        flash = self.small()
        answer = self.measured(vm.POLICY_NODBG, flash,
                               **{'migration-helper': 'on'})
        args = ['--firmware', flash, '--helper',
                f'{BUILD}/helper/sev-migration-helper.bin',
                '--cbit', os.environ['SEV_CBITPOS'],
                '--helper-address', hex(self.helper['private-address'])]
        self.compare(vm.POLICY_NODBG, answer, *args)
        # Controls: the digest does not match without the helper, nor with
        # another address of the helper
        self.compare(vm.POLICY_NODBG, answer, *args[:2], status=1)
        self.compare(vm.POLICY_NODBG, answer, *args[:-1],
                     hex(self.helper['private-address'] + 4096), status=1)

    def test_kernel_hashes(self):
        flash = self.small()
        kernel, initrd = f'{BUILD}/guest/vmlinuz', self.file('initrd', b'i')
        answer = self.measured(
            vm.POLICY_NODBG, flash, '-kernel', kernel, '-initrd', initrd,
            '-append', 'quiet', **{'kernel-hashes': 'on'})
        args = ['--firmware', flash, '--kernel', kernel, '--initrd', initrd,
                '--append']
        self.compare(vm.POLICY_NODBG, answer, *args, 'quiet')
        self.compare(vm.POLICY_NODBG, answer, *args, 'debug', status=1)

    def es(self, *args, **properties):
        with open(ES_PARAMETER, encoding='ascii') as f:
            if f.read().strip() != 'Y':
                self.skipTest('this host has no SEV-ES')
        flash = self.small()
        policy = vm.POLICY_NODBG | vm.POLICY_ES
        answer = self.measured(policy, flash, cpus=2, **properties)
        common = ['--firmware', flash, '--signature', hex(signature()), *args]
        self.compare(policy, answer, *common, '--cpus', '2')
        self.compare(policy, answer, *common, '--cpus', '1', status=1)

    def test_es(self):
        self.es(**{'legacy-vm-type': 'on'})

    def test_es_init2(self):
        # KVM has no read-only memory for guests of KVM_SEV_INIT2 with SEV-ES,
        # so they cannot have a flash device
        self.es('--init2', bios=True, **{'legacy-vm-type': 'off'})

    def test_es_auto(self):
        """
        By default the measurement is that of the old VM type on every kernel,
        also if the kernel has the new one.
        """
        # If QEMU wrongly chose the new VM type here, the measurement would be
        # another one, and the test would fail.  For this, QEMU must start with
        # either VM type.  The guest therefore has -bios and no flash device,
        # which SEV-ES guests of the new VM type cannot have.
        self.es(bios=True, **{'legacy-vm-type': 'auto'})


if __name__ == '__main__':
    tap.main()
