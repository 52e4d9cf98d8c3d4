/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State of the SEV migration helper
 */
#ifndef SEV_MIGRATION_HELPER_HELPER_H
#define SEV_MIGRATION_HELPER_HELPER_H

#include "mh.h"
#include "cipher.h"

/* Data of one helper vCPU; no other vCPU uses it */
typedef struct MhCpu {
    /* Ciphertext is created and checked here, where the VMM cannot change it */
    uint8_t page[MH_PAGE_SIZE] __attribute__((aligned(64)));
    MhCipher cipher;            /* with the subkey of the current batch */
    MhBatch batch;
    uint32_t impl;              /* MhImpl */
} MhCpu;

typedef struct MhChannel {
    uint64_t sequence;          /* number of the next batch */
    uint32_t busy;              /* a vCPU works on a batch of this channel */
    uint32_t broken;            /* only a part of a batch was opened */
} MhChannel;

typedef struct MhHelper {
    /*
     * Number of vCPUs that run a command, or MH_EXCLUSIVE.  @state, @key,
     * @after and the sessions change only under MH_EXCLUSIVE, except that the
     * first batch that is opened sets the session under @session_lock.
     */
    uint32_t users;
    uint32_t state;             /* MhState */
    uint32_t session_lock;
    uint32_t has_session;
    uint8_t session[16];
    MhMasterKey key;
    uint64_t after[MH_CHANNELS];
    MhChannel channel[MH_CHANNELS];
    MhCpu cpu[MH_CPUS];
} MhHelper;

#define MH_EXCLUSIVE 0x80000000U

/*
 * Memory that the VMM can change at any time.  Before the helper checks a value
 * in this memory, it copies the value into private memory with MH_READ() or
 * mh_copy().  From then on, the helper uses only the copy.
 */
typedef struct MhShared {
    MhMailbox *mailbox;
    MhPage *pages;
    uint8_t *data;
} MhShared;

/* volatile, so that the compiler reads the memory exactly once */
#define MH_READ(field) (*(const volatile __typeof__(field) *)&(field))

/**
 * mh_copy: copy to or from shared memory
 *
 * The asm statement keeps the compiler from reading @src again after the copy.
 */
static inline void mh_copy(void *dst, const void *src, size_t size)
{
    __builtin_memcpy(dst, src, size);
    asm volatile("" : : "r"(dst) : "memory");
}

/**
 * mh_command: run the command in the mailbox of a helper vCPU
 * @n: number of the vCPU, less than MH_CPUS
 * @image: the parameters
 * @shared: the MH_CPU_SHARED_SIZE bytes of this vCPU
 *
 * Different vCPUs can run this function at the same time.  Two calls with the
 * same @n must not overlap.
 */
void mh_command(MhHelper *helper, unsigned n, const MhImage *image,
                void *shared);

/**
 * mh_seal_batch: seal @count pages, or none, as the next batch of a channel
 *
 * The caller holds the channel and has checked the arguments.
 */
MhStatus mh_seal_batch(MhHelper *helper, unsigned n, const MhImage *image,
                       const MhShared *shared, MhKind kind, uint32_t channel,
                       uint32_t count, uint32_t *done);

/**
 * mh_open_batch: open the batch whose header is in the private memory of vCPU @n
 * @alias: the helper writes the page with address A to the address A + @alias
 *
 * The caller holds the channel and has checked the format of the header.
 */
MhStatus mh_open_batch(MhHelper *helper, unsigned n, const MhImage *image,
                       const MhShared *shared, uint64_t alias, uint32_t *done);

/**
 * mh_impl: select the fastest implementation of AES-GCM that this CPU can run
 * @xcr0: vector registers that are enabled, as in XCR0
 *
 * Returns 0 if an instruction is missing that the helper needs.
 */
uint32_t mh_impl(uint64_t xcr0);

/**
 * mh_wanted_xcr0: the vector registers that the helper can use on this CPU
 */
uint64_t mh_wanted_xcr0(void);

/**
 * mh_rdrand: fill a buffer with random bytes
 * @size: a multiple of 8
 *
 * Returns false, with zeros in @buf, if RDRAND fails or returns the same value
 * twice in a row.
 */
bool mh_rdrand(void *buf, size_t size);

/*
 * Only the image has mh_image and mh_main(); the programs of tests/helper do
 * not have them
 */

extern const MhImage mh_image;

/**
 * mh_main: run one command on vCPU @n
 *
 * Returns XCR0, so that the caller knows which registers to clear.
 */
uint64_t mh_main(unsigned n);

/*
 * main.c and tests/helper/native.c have different versions of these functions:
 */

/**
 * mh_random: like mh_rdrand(), but a test can choose the bytes
 */
bool mh_random(void *buf, size_t size);

/**
 * mh_guest_page: map a page of the guest, with the C-bit
 * @gpa: less than @image->gpa_limit
 *
 * The mapping is valid until the next call by the same vCPU.
 */
void *mh_guest_page(unsigned n, const MhImage *image, uint64_t gpa);

#endif
