"""
Estimate the total time and the downtime of a migration before it is started,
and whether it converges.

The command measures the guest's dirty rate for a few seconds with KVM's dirty
log, while the guest runs.  For the rate at which the firmware packs pages, it
uses the rate of the last migration from this QEMU.  Before the first
migration, it uses --pages-per-second or assumes a rate.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import argparse
import json
import time
from dataclasses import dataclass

from . import guest, hostcheck
from .arguments import integer
from .errors import OK, PROBLEM, Refused, Stop
from .progress import PAGE, duration

HELP = 'estimate time and downtime of a migration'

# Private pages per second.  Published figures for EPYC are 2.5 to 4 ms per page
# (USENIX ATC 2024: 2 GiB in 33.7 minutes).
ASSUMED_PAGES = 260
ASSUMED_BYTES = 125 * 10**6     # 1 Gbit/s
ROUNDS = 50
STEP = 0.2
MIB = 1 << 20
DOWNTIME_MS = 300               # QEMU's default limit


def rate(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e12:
        raise argparse.ArgumentTypeError(f'{text!r} is no rate')
    return value


def add(parser):
    guest.add_arguments(parser, True)
    parser.add_argument('--pages-per-second', metavar='N', type=rate,
                        help='private pages that firmware or helper pack in a '
                        'second, if another value is known')
    parser.add_argument('--bandwidth', metavar='SIZE', type=hostcheck.size,
                        help='bytes per second of the network, e.g. 100M')
    parser.add_argument('--downtime', metavar='MS', type=rate,
                        help='limit of the downtime (default: that of the '
                        'guest)')
    parser.add_argument('--seconds', metavar='N', type=integer(1, 60), default=2,
                        help='how long to measure (default: %(default)s)')
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON')


@dataclass
class Load:
    """
    How many pages have to be sent, how fast the guest writes them, and how fast
    they can be sent.

    @private, @shared: number of private and shared pages
    @dirty: pages that the guest writes per second
    @private_rate: private pages that firmware or helper pack per second
    @bytes_rate: bytes that the network transfers per second
    """
    private: float
    shared: float
    dirty: float
    private_rate: float
    bytes_rate: float

    def seconds(self, private, shared):
        """
        Return the time in seconds for sending these pages.  Packing and sending
        do not overlap: the source sends a page before it packs the next one.
        """
        return private / self.private_rate + \
            (private + shared) * PAGE / self.bytes_rate


@dataclass
class Forecast:
    """
    The expected course of a migration.

    @rounds: (seconds, private pages, shared pages) of each round
    """
    rounds: list
    converges: bool
    total: float            # seconds
    downtime: float         # seconds


def forecast(load, downtime):
    """
    Return the Forecast of a migration that may stop the guest for @downtime
    seconds.  It assumes that the guest dirties private and shared pages in
    proportion to their number, and never writes a page twice in a round.  Real
    guests write some pages often, so they dirty fewer pages in a round.
    """
    pages = load.private + load.shared
    share = load.private / pages if pages else 0
    left = load.private, load.shared
    rounds = []
    while True:
        needed = load.seconds(*left)
        if needed <= downtime:
            converges = True
            break
        # The migration does not converge if a round takes about as long as the
        # round before it.  The first round sends all pages, so its length does
        # not depend on how fast the guest writes: do not compare the second
        # round with it.
        if len(rounds) > 1 and needed >= rounds[-1][0] * 0.95 or \
           len(rounds) >= ROUNDS:
            converges = False
            break
        rounds.append((needed, *left))
        dirty = min(load.dirty * needed, pages)
        left = dirty * share, dirty * (1 - share)
    return Forecast(rounds, converges,
                    sum(r[0] for r in rounds) + needed, needed)


def dirty_pages(monitor, time_to_measure):
    """Return how many pages the guest dirties per second."""
    # The mode page-sampling reads the guest's memory, but QEMU cannot read
    # private pages.  QEMU accepts one of the other two modes, depending on the
    # option dirty-ring-size of its accelerator.
    refused = []
    for mode in 'dirty-bitmap', 'dirty-ring':
        try:
            monitor.cmd('calc-dirty-rate', **{'calc-time': time_to_measure,
                                              'mode': mode})
            break
        except Refused as e:
            refused.append(f'{mode}: {e}')
    else:
        raise Stop('the dirty rate cannot be measured: ' + '; '.join(refused))
    end = time.monotonic() + time_to_measure + 60
    while True:
        time.sleep(STEP)
        answer = monitor.cmd('query-dirty-rate')
        if answer['status'] == 'measured':
            return answer['dirty-rate'] * MIB / PAGE
        if time.monotonic() > end:
            raise Stop('the measurement of the dirty rate has not ended')


def _paths(monitor, args):
    """
    Return private_rate and bytes_rate of Load, and for each a sentence that
    says where its value comes from.
    """
    notes = []
    private = args.pages_per_second
    if private:
        notes.append(f'{private:.0f} private pages/s, as given')
    else:
        private = monitor.cmd('query-migrate').get('encrypted-ram', {}).get(
            'private-pages-per-second', 0)
        notes.append(f'{private} private pages/s in the last migration')
    if not private:
        private = ASSUMED_PAGES
        notes[-1] = (f'{private} private pages/s ASSUMED, a published figure '
                     'for the firmware of EPYC; give --pages-per-second')
    limit = monitor.cmd('query-migrate-parameters').get('max-bandwidth', 0)
    network = args.bandwidth or ASSUMED_BYTES
    if limit and limit < network:
        network = limit
        notes.append(f'{limit / 1e6:.0f} MB/s, the limit max-bandwidth')
    else:
        notes.append(f'{network / 1e6:.0f} MB/s ' + (
            'as given' if args.bandwidth else 'ASSUMED; give --bandwidth'))
    return private, network, notes


def advice(load, found, downtime):
    """
    Return sentences that advise the user what to do about a migration that does
    not converge; [] if it converges.
    """
    if found.converges:
        return []
    out = [f'A downtime limit of {found.downtime * 1000:.0f} ms lets it end '
           '(run --downtime).']
    # The migration converges if sending a page takes less time than the guest
    # needs to dirty one.
    a_page = load.seconds(*(
        (load.private, load.shared) if load.private + load.shared
        else (0, 1))) / max(1, load.private + load.shared)
    slower = 1 - 1 / (load.dirty * a_page) if load.dirty * a_page > 1 else 0
    if slower < 0.99:
        out.append(f'The guest would have to run {100 * slower:.0f} % slower '
                   '(run --auto-converge), or write less.')
    else:
        out.append('The guest writes far more than the path takes: no '
                   'auto-converge helps; stop the guest at a time limit '
                   '(run --time-limit N --on-limit stop).')
    if downtime < found.downtime:
        out.append('The migration helper packs pages at memory speed, if QEMU '
                   'and the guest have it.')
    return out


def estimate(monitor, args):
    """
    Return Load, Forecast, the downtime limit in seconds, and the notes of
    _paths().
    """
    migration = guest.sev(monitor)['migration']
    status = guest.migrating(monitor)
    if status:
        raise Stop(f'a migration of the guest is {status}')
    if monitor.cmd('query-status')['running']:
        dirty = dirty_pages(monitor, args.seconds)
    else:
        dirty = 0.0
    private_rate, bytes_rate, notes = _paths(monitor, args)
    load = Load(migration['private-pages'], migration['shared-pages'], dirty,
                private_rate, bytes_rate)
    limit = args.downtime or monitor.cmd('query-migrate-parameters').get(
        'downtime-limit', DOWNTIME_MS)
    return load, forecast(load, limit / 1000), limit / 1000, notes


def run(args):
    with guest.connect(args) as monitor:
        load, found, limit, notes = estimate(monitor, args)
    hints = advice(load, found, limit)
    if args.json:
        print(json.dumps({
            'private-pages': load.private, 'shared-pages': load.shared,
            'dirty-pages-per-second': load.dirty,
            'private-pages-per-second': load.private_rate,
            'bytes-per-second': load.bytes_rate, 'notes': notes,
            'downtime-limit': limit, 'converges': found.converges,
            'seconds': found.total, 'downtime': found.downtime,
            'rounds': [{'seconds': s, 'private-pages': p, 'shared-pages': q}
                       for s, p, q in found.rounds], 'advice': hints}))
        return OK if found.converges else PROBLEM
    print(f'memory: {load.private} private and {load.shared} shared pages; '
          'the times are upper bounds, because private pages that were never '
          'accessed count here and cost nothing')
    print(f'dirty rate: {load.dirty:.0f} pages/s')
    print('path: ' + '; '.join(notes))
    for n, (took, private, shared) in enumerate(found.rounds[:8], 1):
        print(f'round {n}: {private:.0f} private, {shared:.0f} shared pages, '
              f'{duration(took)}')
    if len(found.rounds) > 8:
        print(f'... {len(found.rounds)} rounds')
    if found.converges:
        print(f'It converges: about {duration(found.total)} in all, downtime '
              f'{found.downtime * 1000:.0f} ms (limit {limit * 1000:.0f} ms).')
    else:
        print('It does NOT converge: after '
              f'{len(found.rounds)} rounds the guest has dirtied '
              f'{duration(found.downtime)} of pages again (limit '
              f'{limit * 1000:.0f} ms).')
        print('\n'.join(hints))
    return OK if found.converges else PROBLEM
