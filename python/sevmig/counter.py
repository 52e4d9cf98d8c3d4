"""
A guest whose code has 164 bytes.  The guest runs from the flash device, boots
at once, and agrees to be migrated.  Then it repeats these steps: it converts
pages, checks its memory, and prints a count.  Each QEMU has its own console, so
the consoles show which QEMU ran the guest at which count.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import re

CODE = bytes.fromhex(
    '66b9084d564b'      # mov ecx, MSR_KVM_MIGRATION_CONTROL
    '6631d2'            # xor edx, edx
    '66b801000000'      # mov eax, KVM_MIGRATION_READY
    '0f30'              # wrmsr
    'fc'                # cld
    '6631f6'            # xor esi, esi
    '6689360010'        # mov [0x1000], esi: the count
    '6689360050'        # mov [0x5000], esi: a second copy on another page
    'bd0080'            # mov bp, 0x8000
    # fill: write to each of seven segments of 64 KiB
    '8ec5'              # mov es, bp
    '31ff'              # xor di, di
    'b90080'            # mov cx, 0x8000
    '89e8'              # mov ax, bp
    'f3ab'              # rep stosw
    '81ed0010'          # sub bp, 0x1000
    '81fd0010'          # cmp bp, 0x1000
    '75eb'              # jne fill
    # again:
    '66b80c000000'      # mov eax, KVM_HC_MAP_GPA_RANGE
    '66bb00002000'      # mov ebx, 2 MiB
    '66b910000000'      # mov ecx, 16 pages
    '6689f2'            # mov edx, esi
    '0f01d9'            # vmmcall
    '6683f610'          # xor esi, KVM_MAP_GPA_RANGE_ENCRYPTED
    '81c50010'          # add bp, 0x1000: the next segment
    '81fd0080'          # cmp bp, 0x8000
    '7603'              # jbe check
    'bd0020'            # mov bp, 0x2000
    # check:
    '8ec5'              # mov es, bp
    '31ff'              # xor di, di
    'b90080'            # mov cx, 0x8000
    '89e8'              # mov ax, bp
    'f3af'              # repe scasw
    '752e'              # jne bad
    '668b1e0010'        # mov ebx, [0x1000]
    '663b1e0050'        # cmp ebx, [0x5000]
    '7522'              # jne bad
    'b90800'            # mov cx, 8
    'baf803'            # mov dx, 0x3f8
    # digit:
    '66c1c304'          # rol ebx, 4
    '88d8'              # mov al, bl
    '240f'              # and al, 15
    '0461'              # add al, 'a'
    'ee'                # out dx, al
    'e2f3'              # loop digit
    'b00a'              # mov al, '\n'
    'ee'                # out dx, al
    '66ff060010'        # inc dword [0x1000]
    '66ff060050'        # inc dword [0x5000]
    'eb9c'              # jmp again
    # bad:
    'b021'              # mov al, '!'
    'baf803'            # mov dx, 0x3f8
    'ee'                # out dx, al
    'f4'                # hlt
    'ebfd')             # jmp to hlt

# The gfns of the pages that the guest writes and never converts to shared
PAGES = frozenset([0x1, 0x5, *range(0x20, 0x90)])

DIGITS = str.maketrans('abcdefghijklmnop', '0123456789abcdef')


def size(path):
    """Return the size of a console's file, 0 if it does not exist yet."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def counted(consoles):
    """
    Return how many numbers the guest has printed.

    @consoles: the texts of the consoles of the QEMUs that ran the guest, in
               the order in which they ran it
    Raises ValueError unless the numbers on all consoles together are 0, 1, 2
    and so on.  A number that occurs twice shows that the guest executed twice
    after the same state; a missing number shows that some execution was lost.
    """
    lines = ''.join(consoles).split('\n')
    for want, line in enumerate(lines[:-1]):
        if not re.fullmatch('[a-p]{8}', line):
            raise ValueError(f'{line!r} where {want} was expected')
        if int(line.translate(DIGITS), 16) != want:
            raise ValueError(f'{int(line.translate(DIGITS), 16)} where '
                             f'{want} was expected')
    if not re.fullmatch('[a-p]{0,8}', lines[-1]):
        raise ValueError(f'the count ends in {lines[-1]!r}')
    return len(lines) - 1
