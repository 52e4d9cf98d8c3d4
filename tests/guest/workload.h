/*
 * Workload of the test guest: it changes memory, and later checks the contents
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
    unsigned cpus;          /* CPUs that rewrite dynamic memory, 1 to 64 */
    unsigned period_ms;     /* sleep after a tick */
    const char *disk;       /* block device to write and read back every tick */
    const char *churn;      /* block device to unbind and bind, or NULL */
} WorkloadOptions;

/** workload_run: run forever; returns only after an error, which it prints */
void workload_run(const WorkloadOptions *opt);

/** say: print one line to the console with a single write */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
