/*
 * Compare the time of a round's sync of an encryption bitmap with that of a
 * copy
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   encbitmap-bench [GIB [REPETITIONS]]
 *
 * Prints one line with a JSON object for each sample.  A sample is the time in
 * ns for the bitmap of GIB of memory (default 1024).  "update" is the time to
 * take over a bitmap that the kernel has written to a buffer, "memcpy" the time
 * to copy this buffer.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "../unit/encbitmap-fixture.h"

static struct {
    uint64_t *le;       /* what the kernel says */
    uint64_t npages;
    int64_t ns;
    uint64_t changed;
} bench;

static int64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static bool sync_all(RAMBlock *rb, Error **errp)
{
    int64_t start = now();

    bench.changed = encbitmap_update(rb, 0, bench.npages, bench.le);
    bench.ns = now() - start;
    return true;
}

static const EncBitmapProvider provider = {
    .name = "bench", .dirties = true, .sync = sync_all,
};

static void sample(const char *what, const char *with, int64_t ns)
{
    printf("{\"bench\": \"sync\", \"what\": \"%s\", \"with\": \"%s\", "
           "\"size\": %" PRIu64 ", \"ns\": %" PRId64 "}\n", what, with,
           (uint64_t)(bench.npages * PAGE), ns);
}

/*
 * Convert the first @run of each @every pages, none if @every is 0.  Then
 * measure how long a sync of the encryption bitmap takes, and how long memcpy()
 * takes to copy the kernel's bitmap, which has the same size, to @copy.
 */
static void one(const char *what, uint64_t every, uint64_t run, uint64_t *copy)
{
    size_t bytes = bench.npages / 8;
    uint64_t want = 0, last = UINT64_MAX;
    int64_t start;

    for (uint64_t page = 0; every && page < bench.npages; page += every) {
        for (uint64_t i = page; i < page + run; i++) {
            bench.le[i / 64] ^= cpu_to_le64(1ULL << (i % 64));
            want += i / 64 != last;
            last = i / 64;
        }
    }
    g_assert(encbitmap_sync(&error_abort));
    g_assert_cmpuint(bench.changed, ==, want);
    sample(what, "update", bench.ns);
    start = now();
    memcpy(copy, bench.le, bytes);
    sample(what, "memcpy", now() - start);
    /* So that the copy is made */
    g_assert_cmpuint(copy[0], ==, bench.le[0]);
}

int main(int argc, char **argv)
{
    uint64_t gib = 1024, repetitions = 5, *copy;
    RAMBlock *rb;

    if ((argc > 1 && (qemu_strtou64(argv[1], NULL, 0, &gib) || !gib ||
                      gib > 64 * KiB)) ||
        (argc > 2 && qemu_strtou64(argv[2], NULL, 0, &repetitions))) {
        fprintf(stderr, "usage: %s [GIB [REPETITIONS]]\n", argv[0]);
        return 1;
    }
    bench.npages = gib * GiB / PAGE;
    bench.le = g_malloc(bench.npages / 8);
    memset(bench.le, 0xff, bench.npages / 8);
    copy = g_malloc(bench.npages / 8);
    memset(copy, 0, bench.npages / 8);
    rb = block_new("ram", bench.npages);
    encbitmap_init(rb, &provider, true);
    for (uint64_t i = 0; i < repetitions; i++) {
        one("nothing changed", 0, 0, copy);
        one("every 100th page changed", 100, 1, copy);
        one("2 MiB in every 64 changed", 64 * MiB / PAGE, 2 * MiB / PAGE,
            copy);
        one("all changed", 64, 64, copy);
    }
    block_free(rb);
    g_free(copy);
    g_free(bench.le);
    return 0;
}
