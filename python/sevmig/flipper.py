"""
The guest that converts its pages and checks them: tests/guest/bare/flip.c.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import re
import time
from dataclasses import dataclass

from . import BUILD, guest, vm

LINE = re.compile(r'^flip (\d+) converted (\d+) calls (\d+) retries (\d+) '
                  r'bad (\d+)$', re.M)
WAIT = re.compile(r'encbitmap_convert_wait block \S+: waited (\d+) ns')


@dataclass
class Pass:
    """A line that the guest prints after each pass over its pages."""
    number: int
    converted: int
    calls: int
    retries: int
    bad: int


def config(workdir, mem=16, where='', **kw):
    """
    Return the vm.Config of this guest with @mem MiB.

    @where selects the addresses of the pages that the guest converts:
    '': from 4 MiB on
    'high': from 4 GiB on
    'pam1': from 0xc0000 on
    'pam2': from 0xc0000 on, and the guest hides these pages most of the time
            with PAM registers
    'paused': from 4 MiB on, and most of the time the guest waits between the
              flush of pages and their conversion to private
    """
    flash = f'{BUILD}/guest/flip{"-" + where if where else ""}.fd'
    return vm.Config.from_env(
        guest.Workload('flip'), workdir, mem=mem * vm.MIB,
        **kw).change(ovmf_code=flash)


def passes(console):
    return [Pass(*map(int, m)) for m in LINE.findall(console)]


def last(v):
    found = passes(v.console())
    return found[-1] if found else None


def wait_passes(v, count, timeout):
    """
    Wait until the guest of @v has made @count passes; return all its passes.
    """
    v.wait_for(f'pass {count}', lambda: len(passes(v.console())) >= count,
               timeout, poll=0.1)
    return passes(v.console())


def wait_more(v, count, timeout):
    return wait_passes(v, len(passes(v.console())) + count, timeout)


def rate(v, seconds):
    """Return the pages per second that the guest of @v converts."""
    began, before = time.monotonic(), last(v)
    while time.monotonic() < began + seconds or last(v) == before:
        time.sleep(0.1)
    return ((last(v).converted - before.converted) /
            (time.monotonic() - began))


def waits(v):
    """
    Return how long each conversion had to wait until the sender had finished
    with the page, in microseconds.
    """
    path = os.path.join(v.config.workdir, f'{v.name}.log')
    with open(path, errors='replace', encoding='utf-8') as f:
        return [int(n) / 1000 for n in WAIT.findall(f.read())]
