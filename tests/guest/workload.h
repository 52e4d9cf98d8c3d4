/*
 * What the test guest does all day
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_GUEST_WORKLOAD_H
#define TESTS_GUEST_WORKLOAD_H

#include <stddef.h>

typedef struct WorkloadOptions {
    const char *seed;       /* everything random comes from it */
    size_t static_size;     /* bytes of private memory that never change */
    size_t dynamic_size;    /* bytes of private memory rewritten every tick */
    unsigned cpus;          /* that rewrite it, each a part; 1 to 64 */
    unsigned period_ms;     /* sleep after a tick */
    const char *disk;       /* written and read back every tick */
    const char *churn;      /* block device to unbind and bind, or NULL */
} WorkloadOptions;

/** workload_run: runs until the guest ends; returns only with an error said */
void workload_run(const WorkloadOptions *opt);

/** say: one line to the console, in one write */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
