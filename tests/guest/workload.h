/*
 * Workload of the test guest: changes memory and reports what it finds there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_GUEST_WORKLOAD_H
#define TESTS_GUEST_WORKLOAD_H

#include <stddef.h>

typedef struct WorkloadOptions {
    const char *seed;       /* all random data is derived from it */
    size_t static_size;     /* bytes of private memory that never change */
    size_t dynamic_size;    /* bytes of private memory rewritten every tick */
    unsigned cpus;          /* number of them that rewrite dynamic memory; 1 to 64 */
    unsigned period_ms;     /* sleep after a tick */
    const char *disk;       /* written and read back every tick */
    const char *churn;      /* block device to unbind and bind, or NULL */
} WorkloadOptions;

/** workload_run: run until the guest ends; prints an error if it returns */
void workload_run(const WorkloadOptions *opt);

/** say: print one line to the console with a single write */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
