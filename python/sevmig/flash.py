"""
A flash image that contains the code of a small guest instead of a firmware.

SPDX-License-Identifier: GPL-2.0-or-later
"""

SIZE = 64 << 10


def write(path, code):
    """Write an image whose reset vector jumps to the 16-bit @code."""
    flash = bytearray(b'\xf4' * SIZE)           # hlt
    flash[:len(code)] = code
    flash[-16:-13] = b'\xe9' + (16 - 3).to_bytes(2, 'little')  # jmp 0
    with open(path, 'wb') as f:
        f.write(flash)
