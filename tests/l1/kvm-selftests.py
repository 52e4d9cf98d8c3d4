#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run Linux's KVM selftests on the distribution's and on this project's
modules.

  kvm-selftests.py [--rst FILE] [--fresh] [NAME...]

Run each test on both sets of modules and write the table of results to FILE.
Fail if a result is worse with our modules.  Results are reused until something
that they depend on changes.  --fresh runs all tests again.

  kvm-selftests.py --tap [NAME...]

Run the tests on the loaded modules, in the emulated host.  Print TAP.

  kvm-selftests.py --list [NAME...]

Print the names of the programs to build.

A NAME is one of TESTS below.  "quick" stands for the tests of "make check".
"""
import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time

BUILD = os.environ.get('BUILD', '/b')
WHERE = f'{BUILD}/selftests'
REPO = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
# In seconds.  On an idle machine each test takes at most a quarter of this.
TIMEOUT = 240
KSFT_SKIP = 4

# Some tests depend on timing and can fail in a busy emulated host
TRIES = 3

# Programs and their arguments: the tests of guest memory, private memory,
# memory slots, dirty logging and SEV, reduced to a size that an emulated host
# can run
TESTS = [
    'guest_memfd_test',
    'x86/private_mem_conversions_test -n 2',
    'x86/private_mem_conversions_test -n 2 -m 2',
    'x86/private_mem_kvm_exits_test',
    'pre_fault_memory_test',
    'vm_types_test',
    'dirty_log_perf_test -b 16M -v 2 -i 2',
    'dirty_log_perf_test -b 16M -v 2 -i 2 -g',
    'x86/dirty_log_page_splitting_test -b 16M',
    'x86/nested_dirty_log_test',
    'memslot_modification_stress_test -b 16M -v 2 -i 20',
    'kvm_page_table_test -b 32M -v 2',
    'demand_paging_test -b 16M -v 2',
    'demand_paging_test -b 16M -v 2 -u MISSING',
    'demand_paging_test -b 16M -v 2 -u MINOR -s shmem',
    'access_tracking_perf_test -b 16M -v 2',
    'x86/nested_tdp_fault_test',
    'x86/smaller_maxphyaddr_emulation_test',
    'x86/exit_on_emulation_failure_test',
    'x86/sev_smoke_test',
    'x86/sev_init2_tests',
    'x86/sev_migrate_tests',
    'x86/sev_dbg_test',
    'x86/smm_test',
    'x86/state_test',
    'x86/set_sregs_test',
    'x86/sync_regs_test',
    'x86/userspace_io_test',
    'x86/xen_shinfo_test',
    'x86/kvm_clock_test',
    'x86/kvm_pv_test',
    'x86/hyperv_clock',
    'steal_time',
    'system_counter_offset_test',
    'kvm_binary_stats_test',
    'set_memory_region_test',
    'dirty_log_test -i 4',
    'memslot_perf_test -s 64 -l 1 -t 100 -f 4 -e 4',
]
QUICK = [
    'guest_memfd_test',
    'set_memory_region_test',
    'x86/private_mem_conversions_test -n 2',
    'x86/sev_smoke_test',
]


class KernelLog:
    """Reader of the warnings and errors that the kernel logs from now on."""
    BAD = re.compile(r'WARNING: |BUG: |Oops|general protection|'
                     r'rcu: INFO|possible recursive|circular locking')

    def __init__(self):
        self.fd = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def complaints(self):
        found = []
        while True:
            try:
                line = os.read(self.fd, 8192).decode(errors='replace')
            except BlockingIOError:
                return found
            except BrokenPipeError:     # lines were overwritten
                continue
            if self.BAD.search(line):
                found.append(line.split(';', 1)[-1].splitlines()[0])


def why_skipped(out):
    """Return the reason that the program prints for a skipped test."""
    m = re.findall(r'SKIP[- :]+(.+)', out)
    return m[-1].strip() if m else 'it does not say why'


def why_failed(out):
    m = re.search(r'Test Assertion Failure ={4}\n((?:.*\n){1,2})', out)
    if m:
        return ' '.join(m.group(1).split())
    lines = [l for l in out.splitlines() if l.strip()]
    return lines[-1].strip() if lines else 'it says nothing'


def run(test, log):
    """
    Run @test until it does not fail, at most TRIES times; return its last
    result.
    """
    for n in range(1, TRIES + 1):
        r = run_once(test, log)
        if r['result'] != 'fail' or r['why'].startswith('kernel log'):
            break
    if n > 1 and r['result'] != 'fail':
        r['why'] = ' '.join([f'failed {n - 1} of {n} times.', r['why']]).strip()
    return r


def run_once(test, log):
    """
    Run @test once.  Returns a dict with the members test, result, passed
    (number of cases that passed), why and seconds.
    """
    began = time.monotonic()
    try:
        p = subprocess.run(test.split(), cwd=WHERE, check=False,
                           executable=f'{WHERE}/{test.split()[0]}',
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=TIMEOUT)
        out, rc = p.stdout.decode(errors='replace'), p.returncode
    except subprocess.TimeoutExpired as e:
        out, rc = (e.stdout or b'').decode(errors='replace'), None
    seconds = time.monotonic() - began

    why = ''
    skips = re.findall(r'^ok \d+ .*# SKIP[- ]*(.*)', out, re.M)
    passed = len(re.findall(r'^ok \d+ (?!.*# SKIP)', out, re.M))
    if rc is None:
        result, why = 'fail', f'still ran after {TIMEOUT} s'
    elif rc == KSFT_SKIP:
        result, why = 'skip', why_skipped(out)
    elif rc:
        result = 'fail'
        why = f'signal {-rc}' if rc < 0 else why_failed(out)
    else:
        result = 'pass'
        if skips:
            why = f'{len(skips)} cases skipped: ' + '; '.join(
                sorted(set(s.strip() or 'no reason' for s in skips)))
    bad = log.complaints()
    if bad:
        result, why = 'fail', f'kernel log: {bad[0]}'
    if result == 'fail':
        sys.stderr.write(f'--- {test}\n{out[-4000:]}\n')
    return dict(test=test, result=result, passed=passed, why=why,
                seconds=round(seconds, 1))


def tap(tests):
    """
    Run @tests on the loaded modules, in the emulated host; print TAP.  on()
    reads the results from the lines that begin with '# {'.
    """
    log = KernelLog()
    failed = 0
    # Leave the in-place mode, because the selftests of Linux 7.3 set the state
    # of pages as attributes of the VM
    in_place = '/sys/module/kvm/parameters/gmem_in_place_conversion'
    if os.path.exists(in_place):
        with open(in_place, 'w', encoding='ascii') as f:
            f.write('N')
    # Some tests need huge pages, 128 MiB in total
    with open('/proc/sys/vm/nr_hugepages', 'w', encoding='ascii') as f:
        f.write('64')
    print(f'1..{len(tests)}', flush=True)
    for n, t in enumerate(tests, 1):
        r = run(t, log)
        print('# ' + json.dumps(r))
        ok = 'not ok' if r['result'] == 'fail' else 'ok'
        skip = f' # SKIP {r["why"]}' if r['result'] == 'skip' else ''
        print(f'{ok} {n} - {t}{skip}', flush=True)
        failed += r['result'] == 'fail'
    return 1 if failed else 0


def depends(kernel):
    """Return a hash of the files on which the results on @kernel depend."""
    files = [f'{WHERE}/.made', f'{BUILD}/kernel/version',
             f'{BUILD}/qemu/qemu-system-x86_64', f'{REPO}/scripts/l1']
    if kernel == 'module':
        files += [f'{BUILD}/module/{m}.ko' for m in ('kvm', 'kvm-amd')]
    h = hashlib.sha256()
    for p in files:
        with open(p, 'rb') as f:
            h.update(f.read())
    return h.hexdigest()


class Results(dict):
    """
    The results on one kernel, by test.  A file keeps the results of tests that
    did not fail for the next run of this program.
    """
    def __init__(self, kernel, fresh):
        super().__init__()
        self.path = f'{BUILD}/selftests-{kernel}.json'
        self.key = depends(kernel)
        if not fresh and os.path.exists(self.path):
            with open(self.path, encoding='utf-8') as f:
                old = json.load(f)
            if old['key'] == self.key:
                self.update(old['results'])

    def add(self, r):
        self[r['test']] = r
        good = {t: r for t, r in self.items() if r['result'] != 'fail'}
        with open(self.path, 'w', encoding='utf-8') as f:
            json.dump({'key': self.key, 'results': good}, f, indent=1)


def on(kernel, tests, fresh):
    """
    Run @tests in an emulated host with @kernel.  If the host crashes, the
    current test has failed, and a new host runs the remaining tests.
    """
    results = Results(kernel, fresh)
    while True:
        todo = [t for t in tests if t not in results]
        if not todo:
            return results
        p = subprocess.Popen(
            [f'{REPO}/scripts/l1', '--kernel', kernel, '--', __file__,
             '--tap'] + todo, stdout=subprocess.PIPE, text=True)
        started = False
        for line in p.stdout:
            started = True
            if line.startswith('# {'):
                r = json.loads(line[2:])
                results.add(r)
                print(f'{kernel}: {r["test"]}: {r["result"]}, '
                      f'{r["seconds"]} s {r["why"]}', flush=True)
        rc = p.wait()
        todo = [t for t in todo if t not in results]
        if todo:
            if rc < 0 or not started:
                sys.exit(f'kvm-selftests: scripts/l1 ended with {rc}')
            results.add(dict(test=todo[0], result='fail', passed=0, seconds=0,
                             why='the host died'))
            print(f'{kernel}: {todo[0]}: the host died', flush=True)


def worse(ours, stock):
    rank = ['fail', 'skip', 'pass']
    return (rank.index(ours['result']), ours['passed']) < \
        (rank.index(stock['result']), stock['passed'])


def text(r):
    cases = f' ({r["passed"]} cases)' if r['passed'] else ''
    return r['result'] + cases


HEADER = """\
Linux's own KVM selftests
=========================

.. SPDX-License-Identifier: GPL-2.0-or-later
.. Made by ``make check-selftests``: do not edit.

This page lists the results of the KVM selftests of Linux {version}, the kernel
that the module supports.  The tests ran in the emulated host, once with the
distribution's kvm.ko and kvm-amd.ko (stock) and once with ours (module).
``make check-selftests`` builds and runs the tests, and writes this page.  It
fails if the module's result of a test is worse than the stock result, or if
fewer cases pass.  A test also fails if it causes a warning in the kernel's log.
Some tests depend on timing.  A test that fails for any other reason than such a
warning is therefore run up to {tries} times, and a note says how often it failed.
The times were measured in the emulated host, on a machine that did other work as
well.  They only show how long you have to wait for the tests.

The distribution's kernel does not support software-protected VMs.  For the selftests,
``make check-selftests`` uses a build of the module that supports such VMs.

``guest_memfd_conversions_test`` of Linux 7.4 is not among the tests, because it needs
types of VMs and a library that Linux 7.3 does not have.  Tests of this repository make
the same assertions; "Upstream's conversion selftests" in :doc:`kvm-module` lists them.

``make check`` runs these tests: {quick}.

"""


def rst(tests, stock, ours):
    with open(f'{BUILD}/kernel/version', encoding='utf-8') as f:
        version = f.read().strip()
    rows = [('test', 'stock', 'module', 'seconds')]
    notes = []
    for t in tests:
        marks = []
        for r in stock[t], ours[t]:
            mark = ''
            if r['why']:
                if r['why'] not in notes:
                    notes.append(r['why'])
                mark = f' [{notes.index(r["why"]) + 1}]'
            marks.append(text(r) + mark)
        rows.append((f'``{t}``', *marks,
                     f'{stock[t]["seconds"]:.0f}, {ours[t]["seconds"]:.0f}'))
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    line = '  '.join('=' * w for w in widths)
    out = HEADER.format(version=version, tries=TRIES,
                        quick=', '.join(f'``{q}``' for q in QUICK))
    for i, r in enumerate(rows):
        if i < 2:
            out += line + '\n'
        out += '  '.join(c.ljust(w) for c, w in zip(r, widths)).rstrip() + '\n'
    out += line + '\n'
    if notes:
        out += '\nMessages of the tests:\n\n'
        for i, n in enumerate(notes, 1):
            out += f'{i}. {n.replace("*", chr(92) + "*")}\n'
    return out


def both(tests, path, fresh):
    ours, stock = on('module', tests, fresh), on('stock', tests, fresh)
    bad = [t for t in tests if worse(ours[t], stock[t])]
    page = rst(tests, stock, ours)
    if path:
        with open(path, 'w', encoding='utf-8') as f:
            f.write(page)
    for t in bad:
        print(f'worse: {t}: stock {text(stock[t])}, module {text(ours[t])} '
              f'{ours[t]["why"]}')
    print(f'{len(tests)} selftests, {len(bad)} worse with the module')
    return 1 if bad or not tests else 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--list', action='store_true')
    p.add_argument('--tap', action='store_true')
    p.add_argument('--rst')
    p.add_argument('--fresh', action='store_true')
    p.add_argument('tests', nargs='*')
    a = p.parse_args()
    if a.tests == ['quick']:
        a.tests = QUICK
    tests = []
    for n in a.tests or TESTS:
        found = [t for t in TESTS if n in (t, t.split()[0])]
        if not found:
            sys.exit(f'kvm-selftests: there is no {n}')
        tests += [t for t in found if t not in tests]
    if a.list:
        print('\n'.join(sorted(set(t.split()[0] for t in tests))))
        return 0
    if a.tap:
        return tap(tests)
    return both(tests, a.rst, a.fresh)


sys.exit(main())
