"""
A flash with a small guest's code in it, in place of a firmware.

SPDX-License-Identifier: GPL-2.0-or-later
"""

SIZE = 64 << 10


def write(path, code):
    """@code, 16-bit, runs from the flash's beginning at reset."""
    flash = bytearray(b'\xf4' * SIZE)           # hlt
    flash[:len(code)] = code
    flash[-16:-13] = b'\xe9' + (16 - 3).to_bytes(2, 'little')  # jmp 0
    with open(path, 'wb') as f:
        f.write(flash)
