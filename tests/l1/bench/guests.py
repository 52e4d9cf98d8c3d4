#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure how long a guest takes to boot, and its downtime in a migration.

The guest runs in turns without SEV, with SEV on a guest_memfd, and with SEV on
ordinary memory, which the distribution's KVM supports as well.  The guest on
ordinary memory boots, but is not migrated.  The program runs in the emulated
host and prints samples for bench.py.

  scripts/l1 -- tests/l1/bench/guests.py ROUNDS
"""
import json
import shutil
import sys
import tempfile
import time

from sevmig import flow, guest, vm
from sevmig.guest import BOOT, MIGRATION, TICKS

MEMORY = 192 * vm.MIB
KINDS = ['plain', 'sev', 'sev, ram']


def sample(what, kind, seconds):
    print(json.dumps({'bench': 'guests', 'what': what, 'size': MEMORY,
                      'with': kind,
                      'ns': round(seconds * 1e9)}), flush=True)


def migrate(source, destination, sev):
    """Migrate the guest.  Returns the downtime that QEMU reports, in seconds."""
    if sev:
        flow.wait_agreed(source, TICKS)
        flow.prepare(source, destination)
    else:
        for v in (source, destination):
            flow.set_up(v)
    outcome = flow.migrate(source, destination, flow.direct(destination),
                           MIGRATION)
    destination.wait_ticks(3, TICKS)
    return outcome.downtime_ms / 1000


def one(workload, work, kind):
    sev = kind != 'plain'
    config = vm.Config.from_env(workload, work, sev=sev, mem=MEMORY)
    if kind == 'sev, ram':
        config = config.change(backend='ram')
    source = vm.VM('source', config)
    destination = vm.VM('destination', config, incoming=True)
    try:
        began = time.monotonic()
        source.launch()
        source.wait_ticks(1, BOOT)
        sample('boot', kind, time.monotonic() - began)
        if kind != 'sev, ram':
            destination.launch()
            sample('downtime', kind, migrate(source, destination, sev))
        problems = workload.problems(source.console() + destination.console())
        if problems:
            sys.exit(f'guests: {problems}')
    finally:
        source.stop()
        destination.stop()


def main():
    workload = guest.Workload('bench', static_kib=1024)
    work = tempfile.mkdtemp(dir='/run')
    try:
        for i in range(int(sys.argv[1])):
            for kind in KINDS[i % 3:] + KINDS[:i % 3]:
                one(workload, work, kind)
    finally:
        shutil.rmtree(work)


main()
