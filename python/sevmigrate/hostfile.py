"""
The file that describes a host to other hosts: "export" writes it, "verify" and
"run" read it.

The file is a JSON object.  Nothing in it is secret.  Certificates are encoded
with base64, as in the arguments of QEMU's migrate-set-sev-info.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import base64
import binascii
import json
import os
from dataclasses import dataclass

from . import certs, chain
from .errors import Stop

KIND, VERSION = 'sev-migrate-host', 1
SIZE_MAX = 1 << 18          # bytes of the file; normally it has 17 KiB
TEXT_MAX = 300
ID_MAX = 64                 # bytes of the chip's identifier

# member of the JSON object -> (attribute of HostFile, allowed sizes in bytes)
BINARY = {'pdh': ('pdh', (chain.CERT,)),
          'plat-cert': ('plat_cert', (3 * chain.CERT,)),
          'amd-cert': ('amd_cert', tuple(
              2 * n for n in certs.AMD_CERT.values()))}


@dataclass
class HostFile:
    """
    The description of a host for other hosts.

    @pdh: PDH certificate
    @plat_cert: PEK, OCA and CEK
    @amd_cert: ASK and ARK in AMD's format; empty if they are missing
    @chip_id: the chip's identifier
    @name: the host's name
    @product: the product line, determined by the processor's model; empty if
              unknown
    @api, @build: the firmware's version
    @made: time at which "export" made this description
    """
    pdh: bytes
    plat_cert: bytes
    amd_cert: bytes = b''
    chip_id: bytes = b''
    name: str = ''
    product: str = ''
    api: tuple = (0, 0)
    build: int = 0
    made: str = ''

    def info(self):
        """Return the arguments of migrate-set-sev-info."""
        if not self.amd_cert:
            raise Stop('the host file has no ASK and ARK: export it again with '
                       '--amd FILE')
        return {member: base64.b64encode(getattr(self, name)).decode()
                for member, (name, _) in BINARY.items()}

    def to_json(self):
        value = {'kind': KIND, 'version': VERSION, 'host': self.name,
                 'made': self.made, 'product': self.product,
                 'firmware': {'api': list(self.api), 'build': self.build},
                 'chip-id': self.chip_id.hex()}
        for member, (name, _) in BINARY.items():
            if getattr(self, name):
                value[member] = base64.b64encode(getattr(self, name)).decode()
        return json.dumps(value, indent=1) + '\n'

    def write(self, path):
        """
        Write the file.  os.replace() is atomic, so no reader finds an
        incomplete file.
        """
        temporary = f'{path}.tmp.{os.getpid()}'
        try:
            with open(temporary, 'x', encoding='ascii') as f:
                f.write(self.to_json())
            os.replace(temporary, path)
        except OSError as e:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise Stop(f'{path}: cannot be written: {e.strerror}') from None


def _text(value, member):
    text = value.get(member, '')
    if not isinstance(text, str) or len(text) > TEXT_MAX or \
       not text.isprintable():
        raise ValueError(f'"{member}" is no short text')
    return text


def _number(value, what, largest):
    if not isinstance(value, int) or isinstance(value, bool) or \
       not 0 <= value <= largest:
        raise ValueError(f'{what} is no number up to {largest}')
    return value


def _binary(value, member, sizes):
    text = value.get(member)
    if text is None and member == 'amd-cert':
        return b''
    if not isinstance(text, str):
        raise ValueError(f'"{member}" is missing')
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f'"{member}" is not encoded with base64') from None
    if len(data) not in sizes:
        raise ValueError(f'"{member}" has {len(data)} bytes, expected ' +
                         ' or '.join(map(str, sizes)))
    return data


def parse(text):
    """Return the HostFile in @text.  Raises ValueError with the reason."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('it is no JSON; "sev-migrate export" makes a host '
                         'file') from None
    if not isinstance(value, dict) or value.get('kind') != KIND:
        raise ValueError('it is JSON, but no host file; "sev-migrate export" '
                         'makes one')
    if value.get('version') != VERSION:
        raise ValueError(f'it has version {value.get("version")!r:.20}, this '
                         f'program knows {VERSION}')
    binary = {name: _binary(value, member, sizes)
              for member, (name, sizes) in BINARY.items()}
    firmware = value.get('firmware')
    if not isinstance(firmware, dict) or \
       not isinstance(firmware.get('api'), list) or \
       len(firmware['api']) != 2:
        raise ValueError('"firmware" has no version')
    try:
        chip_id = bytes.fromhex(_text(value, 'chip-id'))
    except ValueError:
        raise ValueError('"chip-id" is not hexadecimal') from None
    if len(chip_id) > ID_MAX:
        raise ValueError(f'"chip-id" has {len(chip_id)} bytes')
    return HostFile(
        chip_id=chip_id, name=_text(value, 'host'),
        product=_text(value, 'product'), made=_text(value, 'made'),
        api=tuple(_number(n, 'the API version', 255) for n in firmware['api']),
        build=_number(firmware.get('build'), 'the build', 255), **binary)


def read_file(path, size_max=SIZE_MAX):
    """Return the bytes of a file.  Raises Stop if it has more than @size_max."""
    try:
        with open(path, 'rb') as f:
            data = f.read(size_max + 1)
    except OSError as e:
        raise Stop(f'{path}: {e.strerror}') from None
    if len(data) > size_max:
        raise Stop(f'{path}: more than {size_max} bytes')
    return data


def read(path):
    """Return the HostFile at @path.  Raises Stop with the reason."""
    try:
        text = read_file(path).decode('ascii')
    except UnicodeDecodeError:
        raise Stop(f'{path}: not a host file: it is no text; "sev-migrate '
                   'export" makes a host file') from None
    try:
        return parse(text)
    except ValueError as e:
        raise Stop(f'{path}: not a host file: {e}') from None
