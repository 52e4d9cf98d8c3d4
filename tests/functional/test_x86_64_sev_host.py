#!/usr/bin/env python3
#
# Functional test of the emulated SEV host: QEMU runs a Linux whose KVM runs an
# SEV guest
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The host needs a kernel, an initramfs with the KVM modules, a QEMU and a
# guest.  No image that can be downloaded has all of them.  SEV_HOST_BUILD is
# the directory into which "make" of the emulated host's own repository has
# written them.

import os
import time

from qemu_test import QemuSystemTest


class SevHost(QemuSystemTest):

    timeout = 800
    # The host executes this script as root.  It writes the guest's console to a
    # file in a directory that it shares with this test.
    COMMAND = '''
exec > /run/l1/output 2>&1
dmesg | grep -i 'sev.*enabled'
cd /run
cp {build}/guest/flip.fd {build}/guest/sev-vars.fd /run
PATH={build}/bin:$PATH
qemu-system-x86_64 -accel kvm -cpu host -m 16M -nodefaults -display none \\
    -machine q35,confidential-guest-support=sev0 \\
    -object sev-guest,id=sev0,cbitpos=47,reduced-phys-bits=1,policy=1 \\
    -drive if=pflash,format=raw,unit=0,readonly=on,file=flip.fd \\
    -drive if=pflash,format=raw,unit=1,file=sev-vars.fd \\
    -serial file:/run/l1/console &
n=0
until grep -q '^flip 2 ' /run/l1/console; do
    n=$((n + 1))
    [ $n -lt 1000 ] || exit 1
    kill -0 $! || exit 2
    sleep 0.2
done
touch /run/l1/runs
until [ -e /run/l1/seen ]; do sleep 0.2; done
kill $!
wait $!
# The test ends the emulated host
exec sleep 100000
'''

    def in_build(self, name):
        build = os.environ.get('SEV_HOST_BUILD')
        if not build:
            self.skipTest('SEV_HOST_BUILD does not say where the kernel and '
                          'the guest for an SEV host are')
        path = os.path.join(build, name)
        if not os.path.exists(path):
            self.skipTest(f'SEV_HOST_BUILD: no {path}')
        return path

    def share(self, tag, path, options=''):
        self.vm.add_args('-fsdev', f'local,id={tag},path={path},'
                         f'security_model=none,multidevs=remap{options}',
                         '-device', f'virtio-9p-pci,fsdev={tag},mount_tag={tag}')

    def wait(self, what, condition):
        end = time.monotonic() + self.timeout
        while not condition():
            self.assertLess(time.monotonic(), end, f'no {what}')
            time.sleep(0.2)

    def platform(self):
        return self.vm.cmd('query-sev-platform')[0]

    def test_guest(self):
        kernel = self.in_build('guest/vmlinuz')
        initrd = self.in_build('l1/initrd-module.gz')
        build = os.path.dirname(os.path.dirname(kernel))
        self.in_build('guest/flip.fd')
        self.in_build('bin/qemu-system-x86_64')
        self.set_machine('q35')
        self.require_accelerator('tcg')
        self.require_device('amd-psp')

        control = self.scratch_file('control')
        os.mkdir(control)
        for name, text in (('cmd', self.COMMAND.format(build=build)),
                           ('shares', '')):
            with open(os.path.join(control, name), 'w',
                      encoding='ascii') as f:
                f.write(text)
        self.vm.add_args('-accel', 'tcg,thread=multi', '-no-reboot',
                         '-cpu', 'EPYC-Milan,+svm,+npt,+nrip-save,'
                         '+decodeassists,+flushbyasid,+sev,-erms,-fsrm',
                         '-smp', '2', '-m', '2G', '-device', 'amd-psp',
                         '-kernel', kernel, '-initrd', initrd, '-append',
                         'console=ttyS0 panic=-1 reboot=t no_timer_check',
                         '-device', 'virtio-rng-pci',
                         '-device', 'virtio-serial-pci',
                         '-chardev', 'null,id=n0',
                         '-device', 'virtconsole,chardev=n0',
                         '-chardev', 'null,id=n1',
                         '-device', 'virtconsole,chardev=n1')
        self.share('root', '/', ',readonly=on')
        self.share('ctl', control)
        self.vm.launch()

        def said(name):
            try:
                with open(os.path.join(control, name), encoding='ascii',
                          errors='replace') as f:
                    return f.read()
            except FileNotFoundError:
                return None

        self.wait('guest that runs', lambda: said('runs') is not None or
                  said('status'))
        self.assertIsNone(said('status'), said('output'))
        self.assertIn('SEV enabled', said('output'))
        # The firmware must have one guest, in state "running".  The emulator's
        # memory contains a page as plaintext only after a vCPU has accessed
        # the page with the guest's key.  A plaintext page therefore shows that
        # the guest has used its key.
        platform = self.platform()
        self.assertEqual(platform['state'], 'working')
        self.assertEqual([(g['state'], g['asid'] > 0)
                          for g in platform['contexts']], [('running', True)])
        self.assertGreater(platform['memory']['plaintext'], 0)
        # Control: after the guest's QEMU has ended, the firmware has no guest
        with open(os.path.join(control, 'seen'), 'w', encoding='ascii'):
            pass
        self.wait('end of the guest',
                  lambda: self.platform()['guests'] == 0)
        self.assertEqual(self.platform()['memory']['plaintext'], 0)


if __name__ == '__main__':
    QemuSystemTest.main()
