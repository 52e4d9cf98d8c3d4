/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration helper inside a Linux program
 *
 * The sources are those of the helper, without entry.S and main.c.  This file
 * takes the place of those two: a guest is an array, and the vCPU is the
 * caller's thread.
 */
#ifndef TESTS_HELPER_NATIVE_H
#define TESTS_HELPER_NATIVE_H

#include <stdbool.h>
#include "../../pc-bios/sev-migration-helper/helper.h"

/* Guest addresses: memory, a second mapping of it, and the helper's own */
#define GUEST_SIZE      (1ULL << 20)
#define ALIAS           (64ULL << 20)
#define PRIVATE_GPA     0x2000000ULL
#define SHARED_GPA      0x2800000ULL
#define GPA_LIMIT       (1ULL << 32)

typedef struct Native {
    MhHelper helper;
    MhImage image;              /* identifies the guest to mh_guest_page() */
    uint8_t *guest;             /* GUEST_SIZE bytes */
    uint8_t *shared[MH_CPUS];   /* MH_CPU_SHARED_SIZE bytes each */
    uint64_t mapped;            /* the last address of mh_guest_page() */
} Native;

/* If not NULL, mh_random() takes these bytes, or fails after random_left */
extern const uint8_t *random_bytes;
extern size_t random_left;
extern bool random_fails;

/* A guest whose helper was launched; each vCPU uses @impl */
Native *native_new(uint32_t impl);
void native_free(Native *native);

/* A guest to which the firmware has copied the helper of @from */
Native *native_copy(const Native *from);

/* The implementations that this CPU can run: calls @f with each of them */
void native_each_impl(void (*f)(uint32_t impl));

static inline MhMailbox *mailbox(Native *native, unsigned n)
{
    return (MhMailbox *)(native->shared[n] + MH_MAILBOX);
}

static inline MhPage *pages(Native *native, unsigned n)
{
    return (MhPage *)(native->shared[n] + MH_PAGES);
}

static inline uint8_t *data(Native *native, unsigned n)
{
    return native->shared[n] + MH_DATA;
}

/* Run a command on helper vCPU @n.  Returns its status. */
uint32_t native_run(Native *native, unsigned n, uint32_t command);

#endif
