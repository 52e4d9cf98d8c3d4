"""
The two emulated hosts of scripts/l1-pair --lead.

scripts/l1-pair starts the program that drives the migrations in both hosts.  In
host-a, whose console the user sees, the program has two objects: a Host for
host-a itself, and a RemoteHost for host-b.  In host-b the program calls
serve(), which executes the requests of RemoteHost and returns when host-a has
closed the connection.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import base64
import contextlib
import hashlib
import io
import os
import shutil
import time
from multiprocessing.connection import Client, Listener

from sevmigrate import chain
from sevmigrate.__main__ import main as sev_migrate

from . import psp, scan, vm

PORT = 4400
KEY = b'sevmig'         # need not be secret: only these two hosts are connected
BOOT = 600              # timeout in seconds until the other host listens


class RemoteError(Exception):
    """Any exception of the other host, except those that _kind() knows."""


class Refused(vm.ExecuteError):
    """The error of a QMP command in the other host."""

    def __init__(self, text):
        # ExecuteError.__init__() needs the QMP reply, which the other host does
        # not send: it sends only the text of the exception.
        # pylint: disable=super-init-not-called,non-parent-init-called
        Exception.__init__(self, text)


class Host:
    """
    The host on which this program runs: its QEMUs, its PSP, its memory.

    @work: a directory of this host for the files of its QEMUs
    @disks: a directory that both hosts share, for the guests' disks
    """

    def __init__(self, work, disks):
        self.name = os.environ['L1_NAME']
        self.address = os.environ['L1_ADDRESS']
        self.kernel = os.environ['IN_L1']
        self.release = os.uname().release
        self.work = work
        self.disks = disks
        self._counter = None
        os.makedirs(work, exist_ok=True)

    def config(self, config):
        """Return @config with this host's directories and memory backend."""
        return config.change(
            workdir=self.work, disks=self.disks,
            backend=vm.IN_PLACE if self.kernel == 'module' else vm.ORDINARY)

    def launch(self, name, config, incoming=False):
        """Start a QEMU on this host; return its vm.VM."""
        v = vm.VM(name, self.config(config), incoming)
        v.address = self.address
        v.launch()
        return v

    def psp_commands(self):
        """
        Return command -> number of calls.  Counting begins with the first call
        of this method.  Returns None if the commands cannot be counted.
        """
        if self._counter is None:
            self._counter = psp.Counter()
        return None if self._counter.why else self._counter.read()

    @staticmethod
    def new_identity():
        psp.new_identity()

    @staticmethod
    def sev_migrate(*args):
        """
        Run sev-migrate in this process, which is faster than in a new one, and
        return (exit status, stdout, stderr).  This function expands variables
        of this host's environment in @args.
        """
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = sev_migrate([os.path.expandvars(a) for a in args])
        return status, out.getvalue(), err.getvalue()

    @staticmethod
    def find(pid, marks):
        """
        Search the memory of process @pid for @marks (name -> bytes); return the
        scan.Result.
        """
        return scan.process(pid, marks)

    @staticmethod
    def available():
        """Return how many bytes of memory programs can still allocate."""
        with open('/proc/meminfo', encoding='ascii') as f:
            for line in f:
                if line.startswith('MemAvailable:'):
                    return int(line.split()[1]) * 1024
        raise OSError('no MemAvailable in /proc/meminfo')

    def read(self, name):
        """Return the content of the file @name in the work directory."""
        with open(os.path.join(self.work, name), 'rb') as f:
            return f.read()

    def files(self):
        return os.listdir(self.work)


class _Proxy:
    """
    Proxy for an object in the other host, which executes the object's methods.
    """

    def __init__(self, call, key):
        self._call = call
        self._key = key

    def __getattr__(self, method):
        if method.startswith('__'):
            raise AttributeError(method)
        return lambda *args, **kw: self._call(self._key, method, args, kw)


class RemoteVM(_Proxy):
    """A vm.VM of the other host."""

    def __init__(self, call, key, name, config, address):
        super().__init__(call, key)
        self.name = name
        self.config = config
        self.address = address

    # wait_for() cannot run in the other host, because its argument condition is
    # a function of this process
    wait_for = vm.VM.wait_for


class RemoteHost(_Proxy):
    """
    Proxy for the other host's Host object, whose methods serve() calls there.
    """

    def __init__(self):
        end = time.monotonic() + BOOT
        while True:
            try:
                self._peer = Client((os.environ['L1_PEER'], PORT), authkey=KEY)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        super().__init__(self._ask, None)
        for name in 'name', 'address', 'kernel', 'release', 'work', 'disks':
            setattr(self, name, self._ask(None, name, None, None))

    def _ask(self, key, method, args, kw):
        """
        Call @method of the object @key in the other host.  If @args is None,
        @method is an attribute, which is read.  If the other host raises one of
        the exceptions of _kind(), this method raises the same exception.
        """
        self._peer.send((key, method, args, kw))
        try:
            kind, value = self._peer.recv()
        except EOFError:
            raise RemoteError('the other host has hung up') from None
        if kind == 'value':
            return value
        raise {'ExecuteError': Refused, 'Gone': vm.Gone, 'OSError': OSError,
               'Timeout': vm.Timeout}.get(kind, RemoteError)(value)

    def launch(self, name, config, incoming=False):
        key, config = self._ask(None, 'launch', (name, config, incoming), {})
        return RemoteVM(self._ask, key, name, config, self.address)

    def close(self):
        self._peer.close()


def _kind(e):
    """
    Return the name by which RemoteHost._ask() recognizes the exception @e.
    """
    for c in (vm.Gone, vm.Timeout, vm.ExecuteError, OSError):
        if isinstance(e, c):
            return c.__name__
    return type(e).__name__


class _Server:
    """
    The objects that serve() offers to the other host: its Host and its VMs.
    """

    def __init__(self, host):
        self.host = host
        self.vms = []

    def answer(self, key, method, args, kw):
        if key is None and method == 'launch':
            v = self.host.launch(*args, **kw)
            self.vms.append(v)
            return len(self.vms) - 1, v.config
        found = getattr(self.host if key is None else self.vms[key], method)
        return found if args is None else found(*args, **kw)

    def run(self, peer):
        while True:
            try:
                request = peer.recv()
            except (EOFError, ConnectionError):
                return
            try:
                answer = 'value', self.answer(*request)
            except Exception as e:      # pylint: disable=broad-except
                answer = _kind(e), f'{self.host.name}: {e}'
            peer.send(answer)


def is_second():
    """Return whether this program runs in host-b, which calls serve()."""
    return os.environ.get('L1_NAME') == 'host-b'


def work_dir():
    return '/run/sev-hosts'


def serve(kind=Host):
    """
    Execute the requests of host-a for a Host of class @kind, until host-a
    closes the connection.
    """
    host = kind(work_dir(), os.environ['L1_SHARED'])
    server = _Server(host)
    with Listener((host.address, PORT), authkey=KEY) as listener:
        with listener.accept() as peer:
            try:
                server.run(peer)
            finally:
                for v in server.vms:
                    v.stop()
    shutil.rmtree(host.work)


def pair(kind=Host):
    """
    Return (Host, RemoteHost) for the program in host-a.  @kind is the class of
    the Host, and serve() in host-b has the same argument.
    """
    return kind(work_dir(), os.environ['L1_SHARED']), RemoteHost()


def fingerprint(cert):
    """
    Return the first 8 bytes of the SHA-256 of a certificate, in a form that
    people can compare.
    """
    text = hashlib.sha256(cert).hexdigest()[:16].upper()
    return ':'.join(text[i:i + 4] for i in range(0, len(text), 4))


def identity(info):
    """
    Return the fingerprints of the PDH and of the CEK in @info, the result of
    flow.session_info().  The CEK of a chip never changes.
    """
    exported = base64.b64decode(info['plat-cert'])
    return {'PDH': fingerprint(base64.b64decode(info['pdh'])),
            'CEK': fingerprint(chain.cek(exported))}
