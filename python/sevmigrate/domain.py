"""
A replacement for monitor.Monitor that sends QMP commands to a domain of
libvirt.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json

from .errors import Refused, Stop

try:
    import libvirt
    import libvirt_qemu
except ImportError:
    libvirt = libvirt_qemu = None


class Domain:
    """
    A domain of libvirt with the methods and attributes of monitor.Monitor.

    @pid, @host: None, because the domain may be on another host, whose address
                 libvirt does not tell
    """
    pid = host = None

    def __init__(self, uri, name):
        if libvirt is None:
            raise Stop('--domain needs python3-libvirt: apt install '
                       'python3-libvirt')
        # Without an error handler, libvirt prints each error on stderr
        libvirt.registerErrorHandler(lambda *_: None, None)
        self.address = f'{name} at {uri}'
        try:
            self.connection = libvirt.open(uri)
            self.domain = self.connection.lookupByName(name)
        except libvirt.libvirtError as e:
            raise Stop(f'{self.address}: {e}') from None
        if not self.domain.isActive():
            raise Stop(f'{self.address}: the domain does not run')

    def cmd(self, command, **arguments):
        """Execute a QMP command; raises the errors of monitor.Monitor.cmd()."""
        request = {'execute': command}
        if arguments:
            request['arguments'] = arguments
        try:
            text = libvirt_qemu.qemuMonitorCommand(
                self.domain, json.dumps(request),
                libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
            answer = json.loads(text)
        except libvirt.libvirtError as e:
            raise Stop(f'{self.address}: {command}: {e}') from None
        except ValueError:
            raise Stop(f'{self.address}: {command}: the answer is no JSON') \
                from None
        if 'error' in answer:
            raise Refused(answer['error'].get('desc', 'unknown error'))
        return answer.get('return')

    def close(self):
        try:
            self.connection.close()
        except libvirt.libvirtError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
