/*
 * Bugs to plant in what is under test, which the fuzzers must find
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tests/fuzz/build includes this file before each file that it names PLANTED,
 * which is migration/encrypted/encrypted-receiver.c (1 and 2), or PSP_PLANTED,
 * which are some of hw/misc/amd-psp-*.c (3 and 4).  The files themselves are
 * not changed.  tests/fuzz/run control checks that the fuzzers find the bugs.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#if PLANT > 2
#include "hw/misc/sev-memory.h"
#endif

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
#elif PLANT == 3
/* Too little room for what a command takes that is more than a page: memory */
#define g_malloc(n) (g_malloc)((n) > 4096 && (n) <= 16384 ? 4096 : (n))
#elif PLANT == 4
/* The key of an ASID that no seed uses is not forgotten: logic */
#define sev_memory_clear_key(asid) \
    ((asid) == 3 ? (void)0 : (sev_memory_clear_key)(asid))
#endif
