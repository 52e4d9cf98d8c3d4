/*
 * Bugs to plant in the loader, which the fuzzer must find
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Included before migration/encrypted-records.c if PLANT is set; the file
 * itself is not changed.  tests/fuzz/run control looks for them.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"

#if PLANT == 1
/*
 * A run that begins behind page 130 is taken for one of 64 pages: memory.
 * No seed has one that would then end behind the map.
 */
#define bitmap_set(map, start, n) \
    (bitmap_set)(map, start, (start) > 130 ? 64 : (n))
#elif PLANT == 2
/* A private page that never came is taken for one that did: logic */
#define test_bit(nr, map) true
#endif
