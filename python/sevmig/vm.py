"""
A QEMU with an SEV guest, which is the source or the destination of a migration.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import re
import shutil
import time
from dataclasses import dataclass, field, replace
from typing import List

from . import BUILD, guest

# pylint: disable=wrong-import-order
from qemu.machine import QEMUMachine
from qemu.qmp import ExecuteError, QMPError

MIB = 1 << 20

RAM = 'ram'         # the block with the guest's memory

POLICY_NODBG = 1 << 0
POLICY_ES = 1 << 2
POLICY_NOSEND = 1 << 3
POLICY_SEV = 1 << 5         # the guest may be sent only to SEV platforms


def env_path(name, *defaults):
    """
    Return the path in the environment variable @name.  If it is not set, return
    the first of @defaults that exists.
    """
    paths = [os.environ[name]] if name in os.environ else defaults
    for path in paths:
        if os.path.exists(path):
            return path
    raise SystemExit(f'no {" or ".join(paths)}: run make, or set {name} to '
                     'the path of this file')


def ovmf(file):
    """
    Return the paths at which @file of Debian's package ovmf can be.  If the
    file tree of this host is not build/root, the package may be in build/root
    only.
    """
    return f'/usr/share/OVMF/{file}', f'{BUILD}/root/usr/share/OVMF/{file}'


class Timeout(Exception):
    """An event for which the caller waited did not happen in time."""


class Gone(Timeout):
    """A QEMU ended although nobody had asked it to end."""


# Memory backends.  IN_PLACE needs the module, ORDINARY works on any kernel.
# IN_PLACE does not use guest-memfd=auto, because QEMU would then use ordinary
# memory without an error if the kernel cannot convert in place.
IN_PLACE = 'memfd,guest-memfd=on'
ORDINARY = 'ram'


def backend_properties(backend):
    """
    Return the arguments of object-add for @backend (IN_PLACE or ORDINARY).
    """
    kind, *options = backend.split(',')
    return {'qom-type': f'memory-backend-{kind}',
            **dict(o.split('=') for o in options)}


@dataclass
class Config:
    """The guest and the options of its QEMU."""
    workload: guest.Workload
    workdir: str
    disks: str = ''     # directory of the disks; default workdir
    qemu: str = ''
    kernel: str = ''
    initrd: str = ''
    ovmf_code: str = ''
    ovmf_vars: str = ''
    mem: int = 256 * MIB
    # IN_PLACE or ORDINARY
    backend: str = ''
    policy: int = 0
    sev: bool = True
    consent: bool = True
    # The migration helper: '' for none, 'on', or the name of its file
    helper: str = ''
    trace: List[str] = field(default_factory=list)
    accel: str = 'kvm'
    machine: str = 'q35'
    cpu: str = 'host'
    extra: List[str] = field(default_factory=list)

    @classmethod
    def from_env(cls, workload, workdir, **kw):
        """
        Return a Config with the paths that meson and scripts/l1 set in the
        environment.  HELPER is the default of @helper.
        """
        kw.setdefault('helper', os.environ.get('HELPER', ''))
        module = os.environ.get('IN_L1', 'stock') == 'module'
        consent = kw.get('consent', True)
        ovmf_vars = env_path('OVMF_VARS', f'{BUILD}/guest/sev-vars.fd')
        if not consent:
            ovmf_vars = env_path('OVMF_VARS_TEMPLATE', *ovmf('OVMF_VARS_4M.fd'))
        return cls(
            workload, workdir,
            qemu=os.environ.get('QEMU', 'qemu-system-x86_64'),
            kernel=env_path('GUEST_KERNEL', f'{BUILD}/guest/vmlinuz'),
            initrd=env_path('GUEST_INITRD', f'{BUILD}/guest/initrd.gz'),
            ovmf_code=env_path('OVMF_CODE', *ovmf('OVMF_CODE_4M.fd')),
            ovmf_vars=ovmf_vars,
            backend=IN_PLACE if module else ORDINARY, **kw)

    def change(self, **kw):
        return replace(self, **kw)


class VM(QEMUMachine):
    """
    One QEMU process.  It writes the guest's console to a file.  The source and
    the destination use the same disk files, as hosts with shared storage do.
    """

    # The address of this QEMU's host, or None if both QEMUs are on one host
    address = None

    def __init__(self, name, config, incoming=False):
        os.makedirs(config.workdir, exist_ok=True)
        super().__init__(config.qemu, name=name, base_temp_dir=config.workdir,
                         log_dir=config.workdir, qmp_timer=60)
        self.name = name
        self.config = config
        self.console_path = os.path.join(config.workdir, f'{name}.console')
        self._forget(self.console_path)
        self.add_args(*self._machine_args(), *self._disk_args(),
                      '-serial', f'file:{self.console_path}')
        if incoming:
            self.add_args('-incoming', 'defer')
        for t in config.trace:
            self.add_args('-trace', t)
        self.add_args(*config.extra)

    @staticmethod
    def _forget(path):
        if os.path.exists(path):
            os.unlink(path)

    def _machine_args(self):
        c = self.config
        machine = f'{c.machine},vmport=off,memory-backend=ram'
        args = ['-nodefaults', '-no-reboot', '-accel', c.accel, '-cpu', c.cpu,
                '-smp', str(c.workload.cpus), '-m', f'{c.mem // MIB}M']
        if c.sev:
            machine += ',confidential-guest-support=sev0'
            # The C-bit takes one physical address bit from every SEV guest
            args += ['-object', 'sev-guest,id=sev0,reduced-phys-bits=1,'
                     f'cbitpos={os.environ.get("SEV_CBITPOS", "47")},'
                     f'policy={c.policy:#x}' +
                     (f',migration-helper={c.helper}' if c.helper else '')]
        backend = c.backend if c.sev else ORDINARY
        args += ['-object',
                 f'memory-backend-{backend},id=ram,size={c.mem // MIB}M']
        # Each QEMU has its own copy of the variable store.  The contents of the
        # flash device arrive with the migration stream.
        nvram = os.path.join(c.workdir, f'{self.name}.vars')
        shutil.copyfile(c.ovmf_vars, nvram)
        args += ['-machine', machine,
                 '-drive', 'if=pflash,format=raw,unit=0,readonly=on,'
                 f'file={c.ovmf_code}',
                 '-drive', f'if=pflash,format=raw,unit=1,file={nvram}']
        if c.kernel:
            # Without nowatchdog, the guest's kernel would report vCPUs that get
            # no CPU time, which is normal in the emulated host.  The tests do
            # not need the watchdog: they notice a hanging guest by missing
            # ticks.
            args += ['-kernel', c.kernel, '-initrd', c.initrd, '-append',
                     'console=ttyS0 panic=-1 loglevel=3 nowatchdog ' +
                     c.workload.cmdline()]
        return args

    def _disk_args(self):
        args = []
        disks = [('disk', 4 * MIB)]
        if self.config.workload.churn:
            disks.append(('churn', 1 * MIB))
        for name, size in disks:
            path = os.path.join(self.config.disks or self.config.workdir,
                                f'{name}.raw')
            if not os.path.exists(path):
                with open(path, 'wb') as f:
                    # The guest reads the disk "churn" again and again, and
                    # compares the contents with those that it read first.
                    # The guest's buffer is zero before each read.  The disk's
                    # contents are not zero, so the guest also notices a read
                    # that does not change the buffer.
                    if name == 'churn':
                        f.write(guest.derive(b'churn', b'', size))
                    f.truncate(size)
            args += ['-blockdev',
                     f'driver=file,filename={path},node-name={name}',
                     '-device', f'virtio-blk-pci,drive={name},id={name},'
                     'disable-legacy=on,iommu_platform=on']
        return args

    @staticmethod
    def _published(variable, what):
        """
        Return the content of the file with @what, which AMD publishes for real
        hardware.  scripts/l1 sets @variable to the path of this file.
        """
        path = os.environ.get(variable)
        if not path:
            raise OSError(f'{variable}: no file with {what} of this host')
        with open(path, 'rb') as f:
            return f.read()

    @classmethod
    def amd_cert(cls):
        """
        Return the ASK and ARK of this VM's host, in AMD's format.
        """
        return cls._published('SEV_AMD_CERT', 'the ASK and ARK')

    @classmethod
    def amd_cek(cls):
        """
        Return the CEK of this VM's host with the signature of the ASK.
        """
        return cls._published('SEV_AMD_CEK', 'the signed CEK')

    def console(self):
        try:
            with open(self.console_path, errors='replace',
                      encoding='ascii', newline='') as f:
                return f.read().replace('\r', '')
        except FileNotFoundError:
            return ''

    def ticks(self):
        return guest.ticks(self.console())

    def log(self):
        """Return QEMU's stderr."""
        path = os.path.join(self.config.workdir, f'{self.name}.log')
        try:
            with open(path, errors='replace', encoding='utf-8') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    def firmware_calls(self, way):
        """
        Return (private pages, ioctls for these pages) of the last session.
        @way is 'send' or 'receive'.  The trace event sev_migration_send_final
        or sev_migration_receive_final must be on.
        """
        found = re.findall(rf'sev_migration_{way}_final pages (\d+), '
                           r'calls (\d+)', self.log())
        return tuple(int(n) for n in found[-1])

    def complaints(self):
        """Return QEMU's error messages, without its trace."""
        return [re.sub(r'^\S*qemu\S*: ', '', line)
                for line in self.log().splitlines()
                if re.match(r'\S*qemu\S*: ', line)]

    def gone(self, when):
        """
        Return the exception Gone, whose text contains QEMU's exit status, the
        end of its log and the end of the guest's console.
        """
        for _ in range(20):
            if not self.is_running():
                break
            time.sleep(0.1)
        return Gone(f'{self.name} ended {when}, with status '
                    f'{self.exitcode()}; it said: '
                    + ('; '.join(self.log().splitlines()[-10:]) or 'nothing')
                    + f'; the console ends in:\n{self.console()[-1500:]}')

    def cmd(self, cmd, args_dict=None, **args):
        """Execute a QMP command; raises Gone if QEMU has ended."""
        # The parameter conv_keys of QEMUMachine.cmd() is one of **args here
        # pylint: disable=arguments-differ
        try:
            return super().cmd(cmd, args_dict, **args)
        except ExecuteError:
            raise
        except (QMPError, OSError, EOFError) as e:
            raise self.gone(f'at {cmd} ({e})') from None

    def wait_for(self, what, condition, timeout, poll=0.3):
        """
        Wait until @condition() is true.  Raises Timeout, whose text contains
        @what, if that takes more than @timeout seconds.
        """
        end = time.monotonic() + timeout
        while not condition():
            if not self.is_running():
                raise self.gone(f'while waiting for {what}')
            if time.monotonic() > end:
                tail = self.console()[-1500:]
                raise Timeout(f'{self.name}: no {what} in {timeout} s; '
                              f'the console ends in:\n{tail}\n'
                              f'The vCPUs:\n{self.where_vcpus_are()}')
            time.sleep(poll)

    def where_vcpus_are(self):
        """
        Return the instruction pointer, flags, HLT state and CR3 of each vCPU
        three times within two seconds, and then the local APICs.  The values
        show whether a guest that prints nothing hangs, waits or loops.
        """
        def hmp(line):
            return self.cmd('human-monitor-command', {'command-line': line})

        said = []
        try:
            for pause in 0, 1, 1:
                time.sleep(pause)
                said += re.findall(r'^(?:CPU#|RIP=|CR0=).*',
                                   hmp('info registers -a'), re.M)
            for n in range(self.config.workload.cpus):
                said.append(hmp(f'info lapic {n}'))
        except (QMPError, Timeout) as e:
            said.append(str(e))
        return '\n'.join(said)

    def wait_for_end(self, timeout):
        """Wait until the process ends by itself."""
        end = time.monotonic() + timeout
        while self.is_running():
            if time.monotonic() > end:
                raise Timeout(f'{self.name} has not ended in {timeout} s')
            time.sleep(0.05)
        self.stop()

    def wait_ticks(self, count, timeout=180):
        """Wait until this QEMU's console has @count ticks."""
        self.wait_for(f'tick {count}', lambda: len(self.ticks()) >= count,
                      timeout)

    def stop(self):
        """End the process, whatever state it is in."""
        try:
            if self.is_running():
                self.shutdown(hard=True)
            elif self._launched:
                self.wait()
        except Exception:   # pylint: disable=broad-except
            pass            # QEMU has ended, as intended
