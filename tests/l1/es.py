#!/usr/bin/env python3
#
# Test that a guest with SEV-ES boots unmodified OVMF and Linux.  Runs in an
# emulated SEV host that has SEV-ES; TAP on stdout, progress on stderr.  make
# check-es runs it.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import re
import shutil
import tempfile
import unittest

from sevmig import guest, tap, vm
from sevmig.tap import note

BOOT = 1500     # seconds
MIN_TIMER_PERIOD = '/sys/module/kvm/parameters/min_timer_period_us'
SEV_ES = '/sys/module/kvm_amd/parameters/sev_es'


def parameter(path):
    with open(path, encoding='ascii') as f:
        return f.read().strip()


def set_parameter(path, value):
    with open(path, 'w', encoding='ascii') as f:
        f.write(value)


def slow_timer(case):
    """
    Let KVM raise the period of periodic APIC timers to one second.

    OVMF's timer has a period of 10 ms of real time, and its interrupt handler
    causes 45 VM exits.  On a busy machine the handler takes longer than a
    period, so that OVMF executes nothing else.  Linux uses one-shot timers,
    which the minimum period does not affect.
    """
    case.addCleanup(set_parameter, MIN_TIMER_PERIOD,
                    parameter(MIN_TIMER_PERIOD))
    set_parameter(MIN_TIMER_PERIOD, '1000000')


class Boots(unittest.TestCase):
    """An SEV-ES guest boots."""

    def setUp(self):
        note(self.id())
        self.work = tempfile.mkdtemp(prefix='sev-test.', dir='/run')
        self.addCleanup(shutil.rmtree, self.work)

    def boot(self, policy):
        """Boot a guest with @policy and check it; return its console."""
        workload = guest.Workload('e5', static_kib=4096, dynamic_kib=128)
        v = vm.VM('es', vm.Config.from_env(workload, self.work, policy=policy,
                                           mem=192 * vm.MIB))
        self.addCleanup(v.stop)
        v.launch()
        self.assertEqual(v.cmd('query-sev')['policy'], policy)
        v.wait_ticks(5, BOOT)
        note(f'the guest has booted: {v.ticks()[-1]}')
        self.assertEqual(workload.problems(v.console()), [],
                         repr(v.console()[-2000:]))
        return v.console()

    def test_es(self):
        """
        The guest's Linux reports SEV and SEV-ES, which it reads in SEV_STATUS.
        """
        self.assertEqual(parameter(SEV_ES), 'Y', 'the host has no SEV-ES')
        slow_timer(self)
        self.assertRegex(self.boot(vm.POLICY_NODBG | vm.POLICY_ES),
                         r'Features active: AMD SEV SEV-ES\n')


class Type(unittest.TestCase):
    """
    QEMU chooses between KVM_SEV_ES_INIT and KVM_SEV_INIT2.  The choice matters
    because the launch measurement depends on it.
    """

    def setUp(self):
        note(self.id())
        self.work = tempfile.mkdtemp(prefix='sev-test.', dir='/run')
        self.addCleanup(shutil.rmtree, self.work)

    def needs_init2(self, policy):
        # Use OVMF, because QEMU launches an SEV-ES guest only if the guest's
        # firmware image contains an SEV-ES reset block
        v = vm.VM('type', vm.Config.from_env(
            guest.Workload('type'), self.work, policy=policy,
            mem=64 * vm.MIB, trace=['sev_migration_needs_init2'],
            extra=['-S']).change(backend='ram'))
        self.addCleanup(v.stop)
        v.launch()
        found = re.search(rf'sev_migration_needs_init2 policy {policy:#x}: '
                          r'(\d)', v.log())
        self.assertTrue(found, v.log())
        v.stop()
        return int(found[1])

    def test_auto(self):
        """
        QEMU uses KVM_SEV_INIT2 for in-place memory, which only a guest without
        SEV-ES can have.
        """
        self.assertEqual(parameter(SEV_ES), 'Y', 'the host has no SEV-ES')
        self.assertEqual(self.needs_init2(vm.POLICY_NODBG | vm.POLICY_ES), 0)
        self.assertEqual(self.needs_init2(vm.POLICY_NODBG),
                         os.environ['IN_L1'] == 'module')


if __name__ == '__main__':
    tap.main()
