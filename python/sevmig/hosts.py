"""
The two emulated hosts of scripts/l1-pair --lead.

The program that drives the migrations is started in both hosts.  In host-a,
where its output is seen, it has two objects: Host, for host-a itself, and
RemoteHost, for host-b.  In host-b the same program calls serve(), which
executes the requests of RemoteHost and ends when its peer has hung up.

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
KEY = b'sevmig'         # no secret: the network has only these two hosts
BOOT = 600              # seconds until the other host listens, at most


class RemoteError(Exception):
    """Something went wrong in the other host."""


class Refused(vm.ExecuteError):
    """The error of a QMP command in the other host."""

    def __init__(self, text):
        # ExecuteError wants the reply, which is in the other host
        # pylint: disable=super-init-not-called,non-parent-init-called
        Exception.__init__(self, text)


class Host:
    """
    The host that this program runs in: its QEMUs, its PSP, its memory.

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
        """Return @config, changed to what this host can run."""
        return config.change(
            workdir=self.work, disks=self.disks,
            backend=vm.IN_PLACE if self.kernel == 'module' else vm.ORDINARY)

    def launch(self, name, config, incoming=False):
        """A running QEMU in this host."""
        v = vm.VM(name, self.config(config), incoming)
        v.address = self.address
        v.launch()
        return v

    def psp_commands(self):
        """
        Return command -> number of calls since the first call of this method,
        or None if they cannot be counted.
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
        Run sev-migrate in this process, which is faster than a new one; return
        (exit status, stdout, stderr).  Variables of this host's environment are
        expanded in @args.
        """
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = sev_migrate([os.path.expandvars(a) for a in args])
        return status, out.getvalue(), err.getvalue()

    @staticmethod
    def find(pid, marks):
        """
        Search the memory of process @pid for the bytes of @marks; scan.Result.
        """
        return scan.process(pid, marks)

    @staticmethod
    def available():
        """Return how many bytes of memory programs can still get."""
        with open('/proc/meminfo', encoding='ascii') as f:
            for line in f:
                if line.startswith('MemAvailable:'):
                    return int(line.split()[1]) * 1024
        raise OSError('no MemAvailable in /proc/meminfo')

    def read(self, name):
        """The content of a file in the work directory."""
        with open(os.path.join(self.work, name), 'rb') as f:
            return f.read()

    def files(self):
        return os.listdir(self.work)


class _Proxy:
    """Calls each method of an object in the other host."""

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

    # Runs here, because the condition is a function of this host
    wait_for = vm.VM.wait_for


class RemoteHost(_Proxy):
    """The Host that serve() has in the other host."""

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
        Call @method of the object @key there; @args None: read an attribute.
        An exception there becomes the same kind of exception here.
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
    """The name under which RemoteHost knows the exception @e."""
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
    """Whether this program runs in the host that serves."""
    return os.environ.get('L1_NAME') == 'host-b'


def work_dir():
    return '/run/sev-hosts'


def serve():
    """Serve as the second host until the first one hangs up."""
    host = Host(work_dir(), os.environ['L1_SHARED'])
    server = _Server(host)
    with Listener((host.address, PORT), authkey=KEY) as listener:
        with listener.accept() as peer:
            try:
                server.run(peer)
            finally:
                for v in server.vms:
                    v.stop()
    shutil.rmtree(host.work)


def pair():
    """Return (Host, RemoteHost) for the program that leads."""
    return Host(work_dir(), os.environ['L1_SHARED']), RemoteHost()


def fingerprint(cert):
    """The first bytes of the SHA-256 of a certificate, as people compare it."""
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
