/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared by the benchmarks: a clock, and the output of samples.
 *
 * A program prints each sample as one line with a JSON object;
 * tests/l1/bench/bench.py computes medians and ratios.  Samples that are
 * compared are taken one after the other, so that other work on the machine
 * affects both.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <time.h>
#include "../vm.h"

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * sample - print one measurement
 * @bench: "attributes", "bitmap" or "faults"
 * @what: operation
 * @with: which of the compared variants
 * @size: bytes of guest memory
 * @ns: nanoseconds for one operation
 */
static void sample(const char *bench, const char *what, const char *with,
                   uint64_t size, double ns)
{
    printf("{\"bench\": \"%s\", \"what\": \"%s\", \"with\": \"%s\", "
           "\"size\": %llu, \"ns\": %.1f}\n", bench, what, with,
           (unsigned long long)size, ns);
}

/* Measure the time of one @call */
#define TIME(call) ({                                                   \
    uint64_t t0_ = now_ns();                                            \
    call;                                                               \
    now_ns() - t0_;                                                     \
})

#endif
