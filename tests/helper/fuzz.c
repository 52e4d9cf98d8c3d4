/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the migration helper's mailbox and records
 *
 * An input is a list of actions of a VMM that has a sender and a receiver: it
 * changes their shared memory, copies it from one to the other, and runs
 * commands.  Whatever the VMM does, the pages of the sender's guest must keep
 * their contents, and each page of the receiver's guest must still be zero or
 * have the contents of the sender's page at the same address.  ASAN finds
 * accesses outside of the shared memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "native.h"

#define PAGE MH_PAGE_SIZE
/*
 * Actions change and copy only the first HEADERS page headers of a batch, and
 * the data of these pages
 */
#define HEADERS 4

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static Native *vm[2];
static uint8_t contents[GUEST_SIZE];

static void start(void)
{
    static MhHelper keyed;
    unsigned i, n;

    if (!vm[0]) {
        for (i = 0; i < GUEST_SIZE; i++) {
            contents[i] = i % 251 + i / PAGE;
        }
        vm[0] = native_new(MH_IMPL_AESNI_AVX);
        vm[1] = native_new(MH_IMPL_AESNI_AVX);
        native_run(vm[0], 0, MH_NEW_KEY);
        keyed = vm[0]->helper;
    }
    for (i = 0; i < 2; i++) {
        vm[i]->helper = keyed;
        for (n = 0; n < 2; n++) {
            memset(vm[i]->shared[n], 0, MH_PAGES + HEADERS * sizeof(MhPage));
        }
    }
    memcpy(vm[0]->guest, contents, GUEST_SIZE);
    memset(vm[1]->guest, 0, GUEST_SIZE);
}

static void check(void)
{
    static const uint8_t zeros[PAGE];
    uint64_t i;

    for (i = 0; i < GUEST_SIZE; i += PAGE) {
        if (memcmp(vm[0]->guest + i, contents + i, PAGE) ||
            (memcmp(vm[1]->guest + i, contents + i, PAGE) &&
             memcmp(vm[1]->guest + i, zeros, PAGE))) {
            fprintf(stderr, "page %d has wrong contents\n", (int)(i / PAGE));
            abort();
        }
    }
}

/*
 * Perform an action.  @a[0] selects the action, one of the two VMs and a helper
 * vCPU; the other bytes are the arguments of the action.
 */
static void act(const uint8_t a[4])
{
    Native *native = vm[a[0] >> 7];
    unsigned n = a[0] >> 6 & 1;
    MhMailbox *box = mailbox(native, n);
    uint8_t *byte;
    unsigned offset = a[1] | a[2] << 8;

    switch (a[0] & 7) {
    case 0:                     /* run a command, with channel and count */
        box->channel = a[2] & 0xf;
        box->count = a[2] >> 4 ? a[3] | (a[2] >> 4) << 8 : a[3] & 7;
        box->alias = 0;
        native_run(native, n, a[1]);
        break;
    case 1:                     /* change a byte of the mailbox */
        byte = (uint8_t *)box + offset % sizeof(*box);
        *byte ^= a[3];
        break;
    case 2:                     /* change a byte of a page header */
        byte = (uint8_t *)pages(native, n);
        byte[offset % (HEADERS * sizeof(MhPage))] ^= a[3];
        break;
    case 3:                     /* change a byte of the contents */
        data(native, n)[offset % (HEADERS * PAGE)] ^= a[3];
        break;
    case 4:                     /* the address of a page to seal */
        pages(native, n)[a[1] % HEADERS].gpa = a[2] % 16 * PAGE;
        break;
    case 5:                     /* from the sender to the receiver */
        mailbox(vm[1], n)->batch = mailbox(vm[0], n)->batch;
        memcpy(pages(vm[1], n), pages(vm[0], n), HEADERS * sizeof(MhPage));
        memcpy(data(vm[1], n), data(vm[0], n), HEADERS * PAGE);
        break;
    default:                    /* run a command as it is */
        box->alias = a[3] & 1 ? ALIAS : 0;
        native_run(native, n, a[1] % 12);
    }
}

/*
 * The sender seals two batches of pages, a RESUME record and an END record, and
 * the receiver opens them
 */
static const uint8_t seed[] = {
    0x00, MH_SEND, 0, 0, 0x80, MH_RECEIVE, 0, 0,
    0x04, 0, 1, 0, 0x04, 1, 2, 0, 0x00, MH_SEAL, 0, 2,
    0x05, 0, 0, 0, 0x80, MH_OPEN, 0, 0,
    0x00, MH_ROUND, 0, 0, 0x04, 0, 3, 0, 0x00, MH_SEAL, 1, 1,
    0x05, 0, 0, 0, 0x86, MH_OPEN, 0, 1,
    0x00, MH_SEAL_RESUME, 0, 0, 0x05, 0, 0, 0, 0x80, MH_OPEN, 0, 0,
    0x00, MH_SEAL_END, 0, 0, 0x05, 0, 0, 0, 0x80, MH_OPEN, 0, 0,
};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static bool first = true;
    size_t i;

    if (first) {
        first = false;
        LLVMFuzzerTestOneInput(seed, sizeof(seed));
        if (mailbox(vm[1], 0)->state != MH_ENDED ||
            memcmp(vm[1]->guest + PAGE, contents + PAGE, 3 * PAGE)) {
            fprintf(stderr, "the seed does not move its pages\n");
            abort();
        }
        if (getenv("FUZZ_SEEDS")) {
            char path[4096];
            FILE *f;

            snprintf(path, sizeof(path), "%s/moves", getenv("FUZZ_SEEDS"));
            f = fopen(path, "wb");
            fwrite(seed, 1, sizeof(seed), f);
            fclose(f);
        }
    }
    start();
    for (i = 0; i + 4 <= size; i += 4) {
        act(input + i);
    }
    check();
    return 0;
}
