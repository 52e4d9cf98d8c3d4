"""
Description of a domain for libvirt.  It is made from the example for users,
tools/sev-migrate/guest.xml.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
from dataclasses import dataclass
from xml.etree import ElementTree

from . import REPO

EXAMPLE = f'{REPO}/tools/sev-migrate/guest.xml'
QEMU = 'http://libvirt.org/schemas/domain/qemu/1.0'
# Directory of the guests' consoles, which each host has
CONSOLES = '/var/lib/libvirt/consoles'
# MiB above the guest's RAM that KVM locks and QEMU uses
MORE = 256


@dataclass
class Config:
    """
    What differs from the example.

    @loader: flash image of the guest; '' for the OVMF of the example
    @disk: path of the disk; '' for none
    @linux: (kernel, initramfs, command line) of the guest, or None
    """
    name: str
    mem_mib: int = 8
    in_place: bool = False
    helper: bool = False
    policy: int = 1
    loader: str = ''
    disk: str = ''
    linux: tuple = None


def console_path(name):
    """Return the file with what the guest of the domain @name has printed."""
    return f'{CONSOLES}/{name}.console'


def _add(parent, tag, text=None, **attributes):
    e = ElementTree.SubElement(parent, tag, attributes)
    e.text = text
    return e


def _set_os(domain, config):
    e = domain.find('os')
    if config.loader:
        del e.attrib['firmware']
        e.remove(e.find('firmware'))
        _add(e, 'loader', config.loader, readonly='yes', type='pflash',
             stateless='yes')
    if config.linux:
        for tag, text in zip(('kernel', 'initrd', 'cmdline'), config.linux):
            _add(e, tag, text)


def _set_devices(domain, config):
    devices = domain.find('devices')
    for tag in 'interface', 'serial':
        devices.remove(devices.find(tag))
    disk = devices.find('disk')
    if config.disk:
        disk.find('driver').set('type', 'raw')
        disk.find('source').set('file', config.disk)
    else:
        devices.remove(disk)
    _add(devices, 'controller', type='usb', model='none')
    serial = _add(devices, 'serial', type='file')
    # Keep what the guest has printed on this host before it left
    _add(serial, 'source', path=console_path(config.name), append='on')


def _add_helper(domain, sev):
    """
    libvirt cannot set the property migration-helper, so let QEMU use another
    sev-guest object than that of libvirt.
    """
    line = _add(domain, f'{{{QEMU}}}commandline')
    for arg in ('-object', f'sev-guest,id=helped,cbitpos={sev["cbitpos"]},'
                f'reduced-phys-bits={sev["reducedPhysBits"]},'
                f'policy={sev["policy"]},migration-helper=on',
                '-machine', 'confidential-guest-support=helped'):
        _add(line, f'{{{QEMU}}}arg', value=arg)


def describe(config):
    """Return the XML of the domain."""
    ElementTree.register_namespace('qemu', QEMU)
    domain = ElementTree.parse(EXAMPLE).getroot()
    domain.find('name').text = config.name
    for path, size in (('memory', config.mem_mib),
                       ('memtune/hard_limit', config.mem_mib + MORE)):
        domain.find(path).text = str(size)
        domain.find(path).set('unit', 'MiB')
    if not config.in_place:
        domain.remove(domain.find('memoryBacking'))
    domain.find('vcpu').text = '1'
    _set_os(domain, config)
    _set_devices(domain, config)
    sev = {'cbitpos': os.environ['SEV_CBITPOS'], 'reducedPhysBits': '1',
           'policy': f'{config.policy:#06x}'}
    for tag, text in sev.items():
        domain.find(f'launchSecurity/{tag}').text = text
    if config.helper:
        _add_helper(domain, sev)
    return ElementTree.tostring(domain, encoding='unicode')
