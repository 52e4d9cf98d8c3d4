"""
The launch digest of a guest: a hash over everything that QEMU passes to the
firmware, in the order in which QEMU passes it.

The formats are those of the SEV API 0.24 (LAUNCH_MEASURE), of the AMD64
Architecture Programmer's Manual volume 2, appendix B (VMSA), and of the table
of GUIDs at the end of OVMF.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import hashlib
import hmac
import struct
import uuid

POLICY_ES = 1 << 2

FLASH_MAX = 1 << 24         # bytes; more than QEMU allows for its flash devices
# OVMF: the table of GUIDs ends 32 bytes before the end of the firmware
TABLE_END = 32
TABLE_FOOTER = uuid.UUID('96b582de-1fb2-45f7-baea-a366c55a082d')
HASH_TABLE_AREA = uuid.UUID('7255371f-3a3b-4b04-927b-1da6efa8d454')
ES_RESET_BLOCK = uuid.UUID('00f771de-1a7e-4fcb-890e-68c77e2fb44e')
GUID_SIZE = 16
ENTRY = GUID_SIZE + 2       # length and GUID, which are at the end of an entry

# QEMU's table of hashes (kernel-hashes=on), padded to the block size of AES
HASHES = uuid.UUID('9438d606-4f22-4cc9-b479-a793d411fd21')
CMDLINE = uuid.UUID('97d02dd8-bd20-4c94-aa78-e7714d36ab2a')
INITRD = uuid.UUID('44baf731-3a2f-4bd7-9af1-41e29169781d')
KERNEL = uuid.UUID('4de79437-abd2-427f-b835-d5b172d2045b')
BLOCK = 16

PAGE = 4096
RESET_CS, RESET_IP = 0xffff0000, 0xfff0

# The memory of the migration helper: first HELPER_SHARED bytes of shared
# memory, then HELPER_PRIVATE bytes of private memory.  Before QEMU passes the
# private memory to the firmware, it writes addresses and page tables into it.
HELPER_MAGIC, HELPER_VERSION = b'SEVMHLP1', 1
HELPER_HEAD = struct.Struct('<8s6I4Q')      # struct MhImage
HELPER_PRIVATE, HELPER_TABLES = 0x10000, 0xc000
HELPER_SHARED = 4 * 0x400000
HELPER_VA, HELPER_SHARED_VA = 0x200000, 0x4000000
HELPER_LIMIT = 1 << 46
LARGE_PAGE = 0x200000
PTE_P, PTE_W, PTE_AD, PTE_PS, PTE_NX = 1, 2, 0x60, 0x80, 1 << 63


class Malformed(ValueError):
    """A file from which the launch digest cannot be computed."""


def guid_table(flash):
    """
    Return GUID -> data of the table at the end of @flash; empty if there is no
    table.  Raises Malformed if an entry is longer than the table.
    """
    end = len(flash) - TABLE_END
    if end < ENTRY or flash[end - GUID_SIZE:end] != TABLE_FOOTER.bytes_le:
        return {}

    def length_before(at, low):
        size, = struct.unpack_from('<H', flash, at - ENTRY)
        if size < ENTRY or at - size < low:
            raise Malformed(f'the firmware\'s table has an entry of {size} '
                            'bytes')
        return size

    start = end - length_before(end, 0)
    entries, at = {}, end - ENTRY
    while at >= start + ENTRY:
        size = length_before(at, start)
        guid = uuid.UUID(bytes_le=flash[at - GUID_SIZE:at])
        entries[guid] = flash[at - size:at - ENTRY]
        at -= size
    return entries


def has_hash_area(flash):
    """Return whether the firmware @flash has an area for kernel hashes."""
    area = guid_table(flash).get(HASH_TABLE_AREA, b'')
    if len(area) < 8:
        return False
    base, size = struct.unpack_from('<II', area)
    return bool(base) and size >= len(hash_table(b'', b'', ''))


def hash_table(kernel, initrd, cmdline):
    """
    Return the table that QEMU makes for kernel-hashes=on.

    @kernel, @initrd: contents; @initrd is empty if there is none
    """
    entries = b''.join(
        guid.bytes_le + struct.pack('<H', ENTRY + 32) +
        hashlib.sha256(data).digest() for guid, data in (
            (CMDLINE, cmdline.encode() + b'\0'), (INITRD, initrd),
            (KERNEL, kernel)))
    table = HASHES.bytes_le + struct.pack('<H', ENTRY + len(entries)) + entries
    return table + bytes(-len(table) % BLOCK)


def vmsa(first, signature, flash, init2=False):
    """
    Return the VMSA of a vCPU at its reset.

    @first: whether this is the first vCPU; all others start at the address in
            the firmware's reset block
    @signature: EAX of CPUID function 1
    @init2: whether QEMU has used KVM_SEV_INIT2 (legacy-vm-type=off); only then
            KVM puts the state of the FPU into the VMSA
    """
    cs_base, rip = RESET_CS, RESET_IP
    if not first:
        block = guid_table(flash).get(ES_RESET_BLOCK, b'')
        if len(block) < 4:
            raise Malformed('the firmware has no reset block for the second '
                            'vCPU of a guest with SEV-ES')
        address, = struct.unpack_from('<I', block)
        cs_base, rip = address & ~0xffff, address & 0xffff
    page = bytearray(PAGE)

    def segment(at, selector, attributes, base=0):
        struct.pack_into('<HHIQ', page, at, selector, attributes, 0xffff, base)

    for at in (0x00, 0x20, 0x30, 0x40, 0x50):       # ES, SS, DS, FS, GS
        segment(at, 0, 0x93)
    segment(0x10, 0xf000, 0x9b, cs_base)            # CS
    segment(0x60, 0, 0)                             # GDTR
    segment(0x70, 0, 0x82)                          # LDTR
    segment(0x80, 0, 0)                             # IDTR
    segment(0x90, 0, 0x8b)                          # TR
    for at, value in ((0x0d0, 0x1000),              # EFER.SVME
                      (0x148, 0x40),                # CR4.MCE
                      (0x158, 0x10),                # CR0.ET
                      (0x160, 0x400),               # DR7
                      (0x168, 0xffff0ff0),          # DR6
                      (0x170, 2),                   # RFLAGS
                      (0x178, rip),
                      (0x268, 0x0007040600070406),  # PAT
                      (0x310, signature),           # RDX
                      (0x3e8, 1)):                  # XCR0
        struct.pack_into('<Q', page, at, value)
    if init2:
        struct.pack_into('<I', page, 0x408, 0x1f80)     # MXCSR
        struct.pack_into('<H', page, 0x410, 0x37f)      # FCW
    return bytes(page)


def helper_memory(file, address, cbit):
    """
    Return the private memory of a migration helper as QEMU launches it.

    @file: the helper's file
    @address: guest-physical address of the private memory
    @cbit: position of the C-bit
    """
    if not HELPER_HEAD.size < len(file) <= HELPER_TABLES:
        raise Malformed(f'{len(file)} bytes are no migration helper')
    head = list(HELPER_HEAD.unpack_from(file))
    if head[:2] != [HELPER_MAGIC, HELPER_VERSION]:
        raise Malformed('this is no migration helper of version '
                        f'{HELPER_VERSION}')
    text_end, data_end = head[3:5]
    if address % PAGE or address < HELPER_SHARED:
        raise Malformed(f'no helper can have the address {address:#x}')
    shared, mask = address - HELPER_SHARED, 1 << cbit
    head[7:] = address, shared, mask, HELPER_LIMIT
    memory = bytearray(file.ljust(HELPER_PRIVATE, b'\0'))
    HELPER_HEAD.pack_into(memory, 0, *head)
    pml4, pdpt, pd, pt = (HELPER_TABLES + n * PAGE for n in range(4))

    def entry(table, index, value):
        struct.pack_into('<Q', memory, table + 8 * index, value)

    table = mask | PTE_P | PTE_W | PTE_AD
    entry(pml4, 0, address + pdpt | table)
    entry(pdpt, 0, address + pd | table)
    entry(pd, HELPER_VA // LARGE_PAGE, address + pt | table)
    for at in range(0, HELPER_PRIVATE, PAGE):
        flags = PTE_P | PTE_AD
        if at >= text_end:
            flags |= PTE_NX
            if at < data_end or at == pd:
                flags |= PTE_W
        entry(pt, at // PAGE, address + at | mask | flags)
    for at in range(0, HELPER_SHARED, LARGE_PAGE):
        entry(pd, (HELPER_SHARED_VA + at) // LARGE_PAGE,
              shared + at | PTE_P | PTE_W | PTE_AD | PTE_PS | PTE_NX)
    return bytes(memory)


def digest(parts):
    """Return the launch digest of @parts, in the order of the launch."""
    value = hashlib.sha256()
    for part in parts:
        value.update(part)
    return value.digest()


def measurement(tik, api, build, policy, launch_digest, nonce):
    """
    Return the measurement that LAUNCH_MEASURE must return.

    @tik: the integrity key, which only the owner and the firmware know
    @api, @build: the firmware's version
    """
    message = struct.pack('<BBBBI', 4, *api, build, policy) + launch_digest
    return hmac.digest(tik, message + nonce, 'sha256')
