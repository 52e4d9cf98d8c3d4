"""
Access to the emulated SEV platform of the host.  A test in the emulated host
uses the QMP of the QEMU that emulates this host, in order to read the
platform's state and to inject faults.  The host must have been started with
scripts/l1 --qmp.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import glob
import json
import os

# Values of the SEV API, from include/uapi/linux/psp-sev.h
INVALID_GUEST_STATE = 0x02
POLICY_FAILURE = 0x07
BAD_MEASUREMENT = 0x0b
HWERROR_PLATFORM = 0x13
RESOURCE_LIMIT = 0x17


class Refused(Exception):
    """A QMP command was refused."""


class Hardware:
    """
    The monitor of the QEMU that emulates the host.  Only one object may exist
    at a time.  If there is no port to the monitor, @why is the reason.

    This class does not use qemu.qmp.  QMPClient connects only to sockets, but
    the port is a character device.  The connection outlives the programs that
    open the port, so an answer to an earlier program can arrive.  QMPClient
    numbers the commands of each program in the same way, and would take this
    answer for that of a command of its own.
    """

    def __init__(self):
        self.why = ''
        self._id = 0
        self._file = None
        for name in glob.glob('/sys/class/virtio-ports/*/name'):
            with open(name, encoding='ascii') as f:
                if f.read().strip() == 'qmp':
                    self._open(f'/dev/{name.split("/")[-2]}')
                    return
        self.why = 'no port to the QMP of the hardware: scripts/l1 --qmp'

    def _open(self, path):
        self._file = open(path, 'r+b', buffering=0)
        self._rest = b''
        try:
            self.cmd('qmp_capabilities')
        except Refused:
            pass            # an earlier program has negotiated already
        self._psp = self._platform()['qom-path']

    def close(self):
        if self._file:
            self._file.close()

    def _line(self):
        while b'\n' not in self._rest:
            self._rest += self._file.read(1 << 16)
        line, self._rest = self._rest.split(b'\n', 1)
        return json.loads(line)

    def cmd(self, command, **arguments):
        self._id += 1
        request = {'execute': command, 'arguments': arguments,
                   'id': f'{os.getpid()}.{self._id}'}
        self._file.write(json.dumps(request).encode() + b'\n')
        while True:
            answer = self._line()
            # Skip the greeting, events, and replies to commands of a program
            # that used this connection before
            if answer.get('id') != request['id']:
                continue
            if 'error' in answer:
                raise Refused(answer['error']['desc'])
            return answer['return']

    def _platform(self):
        return self.cmd('query-sev-platform')[0]

    def guests(self):
        """Return handle -> (state, ASID) of each guest of the firmware."""
        return {g['handle']: (g['state'], g['asid'])
                for g in self._platform()['contexts']}

    def counts(self, key='count'):
        """
        Return command -> number of calls.  @key 'failed' or 'faults' selects
        another counter.
        """
        return {c['command']: c[key] for c in self._platform()['commands']}

    def memory(self):
        """
        Return SevPlatformMemory: statistics of encrypted pages since the
        emulated host was started.  'unflushed-host-writes' must be 0.
        """
        return self._platform()['memory']

    def cache_check(self, mode):
        """Set the reaction to a missing cache flush: off, count, fatal."""
        self.cmd('qom-set', path=self._psp, property='cache-check', value=mode)

    def faults(self, *faults):
        """Set the faults (SevPlatformFault) of the next commands."""
        self.cmd('qom-set', path=self._psp, property='faults',
                 value=list(faults))

    def packet_limits(self, send=0, receive=0):
        """
        Limit the size in bytes of the packets that the firmware sends and
        receives.  0 means the firmware's own limit.
        """
        for name, value in ('send', send), ('receive', receive):
            self.cmd('qom-set', path=self._psp,
                     property=f'{name}-packet-max', value=value)

    def costs(self, *costs):
        """Set the duration (SevPlatformCommandCost) of commands."""
        self.cmd('qom-set', path=self._psp, property='costs',
                 value=list(costs))

    def faults_left(self):
        return self._platform()['faults']
