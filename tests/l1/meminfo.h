/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the host has in use, in kB.
 */
#ifndef L1_MEMINFO_H
#define L1_MEMINFO_H
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "harness.h"

/* A line of /proc/meminfo */
static long meminfo(const char *what)
{
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    long kb = -1;

    while (f && fgets(line, sizeof(line), f)) {
        if (!strncmp(line, what, strlen(what)) && line[strlen(what)] == ':') {
            kb = atol(line + strlen(what) + 1);
        }
    }
    if (f) {
        fclose(f);
    }
    if (kb < 0) {
        bail("/proc/meminfo: no %s", what);
    }
    return kb;
}

/* kB that CPUs keep for their next allocations: free, but not counted so */
static inline long per_cpu_lists_kb(void)
{
    FILE *f = fopen("/proc/zoneinfo", "r");
    long pages = 0, n;
    char line[256];

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, " count: %ld", &n) == 1) {
            pages += n;
        }
    }
    if (!f) {
        bail("/proc/zoneinfo");
    }
    fclose(f);
    return pages * (PAGE >> 10);
}

/*
 * Give back what slabs hold without need.  KASAN keeps what was freed, to see
 * who uses it still, up to a 32nd of the memory; shrinking a slab ends that.
 */
static inline void shrink_slabs(void)
{
    glob_t slabs;

    if (glob("/sys/kernel/slab/*/shrink", 0, NULL, &slabs)) {
        return;     /* a kernel that does not have it */
    }
    for (size_t i = 0; i < slabs.gl_pathc; i++) {
        FILE *f = fopen(slabs.gl_pathv[i], "w");

        if (f) {
            fputs("1", f);
            fclose(f);
        }
    }
    globfree(&slabs);
}

#endif
