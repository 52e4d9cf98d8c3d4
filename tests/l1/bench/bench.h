/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the benchmarks share: a clock, and how a sample is said.
 *
 * A program prints one JSON object a line for each sample; tests/l1/bench/bench.py
 * takes medians and ratios.  Samples of what is compared follow each other, so
 * that a machine that is busy for a while is busy for both.
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

/**
 * sample - say one measurement
 * @bench: "attributes", "bitmap" or "faults"
 * @what: which operation
 * @with: on which of the things that are compared
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

/* Time @call, once */
#define TIME(call) ({                                                   \
    uint64_t t0_ = now_ns();                                            \
    call;                                                               \
    now_ns() - t0_;                                                     \
})

#endif
