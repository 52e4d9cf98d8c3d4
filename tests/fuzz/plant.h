/*
 * Bugs that the fuzzers must find when they are planted in the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tests/fuzz/build compiles a fuzzer with bug number PLANT and includes this
 * file before each file under test that gets the bug: bugs 1 and 2 go into
 * migration/encrypted/encrypted-receiver.c, and bugs 3 and 4 into some of
 * hw/misc/amd-psp-*.c.  The files themselves are not changed.  "tests/fuzz/run
 * control" checks that the fuzzers find the bugs.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#if PLANT > 2
#include "hw/misc/sev-memory.h"
#endif

#if PLANT == 1
/*
 * A memory error: a run of pages that begins after page 130 sets 64 bits of the
 * bitmap.  If the run begins late enough, some of these bits are beyond the end
 * of the bitmap.  No run in the seeds begins so late: the fuzzer must find one.
 */
#define bitmap_set(map, start, n) \
    (bitmap_set)(map, start, (start) > 130 ? 64 : (n))
#elif PLANT == 2
/* A logic error: every private page counts as received */
#define test_bit(nr, map) true
#elif PLANT == 3
/*
 * A memory error: buffers for more than a page, up to 16 KiB, get only one page
 * of memory
 */
#define g_malloc(n) (g_malloc)((n) > 4096 && (n) <= 16384 ? 4096 : (n))
#elif PLANT == 4
/* A logic error: the key of ASID 3, which no seed uses, is not cleared */
#define sev_memory_clear_key(asid) \
    ((asid) == 3 ? (void)0 : (sev_memory_clear_key)(asid))
#endif
