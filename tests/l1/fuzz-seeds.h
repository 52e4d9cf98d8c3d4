/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seeds that l1-fuzz runs before random ones: seeds that found a bug, and a few
 * that reach every call.
 */
0x1, 0x2, 0x3, 0x4, 0x5cff2db889e7ca9b,
