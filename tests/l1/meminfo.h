/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory use of the host, in kB.
 */
#ifndef L1_MEMINFO_H
#define L1_MEMINFO_H
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "harness.h"

/* The value of the line @what of /proc/meminfo */
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

/* Free pages in the per-CPU lists, which MemFree does not include */
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
 * Free unused slab memory.  KASAN keeps freed objects, up to 1/32 of the
 * memory, to detect uses after free; shrinking a slab cache releases them.
 */
static inline void shrink_slabs(void)
{
    glob_t slabs;

    if (glob("/sys/kernel/slab/*/shrink", 0, NULL, &slabs)) {
        return;     /* this kernel has no such file */
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
