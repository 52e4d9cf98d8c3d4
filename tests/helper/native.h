/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration helper inside a Linux program
 *
 * The programs use the helper's sources, except entry.S and main.c.  native.c
 * replaces these two: the guest's memory is an array, and the caller's thread
 * takes the place of the vCPU.
 */
#ifndef TESTS_HELPER_NATIVE_H
#define TESTS_HELPER_NATIVE_H

#include <stdbool.h>
#include "../../pc-bios/sev-migration-helper/helper.h"

/*
 * The guest's memory begins at address 0 and has GUEST_SIZE bytes.  The other
 * constants are guest addresses: ALIAS is that of a second mapping of the
 * guest's memory, PRIVATE_GPA and SHARED_GPA are those of the helper's private
 * and shared memory, and the helper uses only addresses below GPA_LIMIT.
 */
#ifndef GUEST_SIZE
#define GUEST_SIZE      (1ULL << 20)
#endif
#define ALIAS           (64ULL << 20)
#define PRIVATE_GPA     0x2000000ULL
#define SHARED_GPA      0x2800000ULL
#define GPA_LIMIT       (1ULL << 32)

typedef struct Native {
    MhHelper helper;
    MhImage image;              /* identifies the guest to mh_guest_page() */
    uint8_t *guest;             /* GUEST_SIZE bytes */
    uint8_t *shared[MH_CPUS];   /* MH_CPU_SHARED_SIZE bytes each */
    uint64_t mapped;            /* address of the last mh_guest_page() */
} Native;

/*
 * If @random_bytes is not NULL, mh_random() returns these bytes, and fails when
 * @random_left bytes are used up.  If @random_fails is true, mh_random() fails.
 */
extern const uint8_t *random_bytes;
extern size_t random_left;
extern bool random_fails;

/* Create a guest whose helper was launched, and whose vCPUs use @impl */
Native *native_new(uint32_t impl);
void native_free(Native *native);

/*
 * Create a guest with a copy of @from's helper.  The firmware makes such a copy
 * when it sends the helper.
 */
Native *native_copy(const Native *from);

/* Call @f with each implementation that this CPU can run */
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
