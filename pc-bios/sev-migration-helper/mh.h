/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interface between QEMU and the SEV migration helper
 *
 * docs/specs/sev-migration-helper.rst describes it.  QEMU and the helper
 * share no other definition.  All numbers are little-endian.
 */
#ifndef SEV_MIGRATION_HELPER_H
#define SEV_MIGRATION_HELPER_H

#define MH_VERSION          1

/* vCPUs that can run the helper at the same time */
#define MH_CPUS             4
/* Channels of a migration; each has its own sequence of batches */
#define MH_CHANNELS         16
/* Maximum number of pages in a batch */
#define MH_BATCH_PAGES      512

/* The helper writes to this I/O port when a command is done */
#define MH_PORT             0xec

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

#define MH_PAGE_SIZE        4096ULL

/*
 * Private memory: the image of the program, then its page tables.  The
 * program runs at the virtual address MH_VA.
 */
#define MH_PRIVATE_SIZE     0x10000ULL
#define MH_TABLES           0xc000ULL       /* offset of the page tables */
#define MH_VA               0x200000ULL

/*
 * Shared memory: MH_CPU_SHARED_SIZE bytes for each helper vCPU.  Offsets in
 * these bytes:
 */
#define MH_CPU_SHARED_SIZE  0x400000ULL
#define MH_SHARED_SIZE      (MH_CPUS * MH_CPU_SHARED_SIZE)
#define MH_MAILBOX          0x0ULL          /* struct MhMailbox */
#define MH_GHCB             0x1000ULL       /* reserved for SEV-ES */
#define MH_PAGES            0x4000ULL       /* struct MhPage[MH_BATCH_PAGES] */
#define MH_DATA             0x200000ULL     /* contents of the pages */

/*
 * Virtual addresses.  MH_GUEST_VA: the 2 MiB through which vCPU @cpu accesses
 * the guest's memory.  MH_SHARED_VA: the shared memory of vCPU @cpu.
 */
#define MH_GUEST_VA(cpu)    (0x1000000ULL + (cpu) * 0x200000ULL)
#define MH_SHARED_VA(cpu)   (0x4000000ULL + (cpu) * MH_CPU_SHARED_SIZE)

/* The file and the private memory begin with this header */
#define MH_MAGIC            0x31504c484d564553ULL   /* SEVMHLP1 */

typedef struct MhImage {
    uint64_t magic;
    uint32_t version;
    uint32_t entry;         /* offset of the entry point */
    /* Offsets at which the code and the data end; multiples of 4 KiB */
    uint32_t text_end;      /* [0, text_end) is executable */
    uint32_t data_end;      /* [text_end, data_end) is writable */
    uint32_t cpus;
    uint32_t channels;
    /* QEMU writes the following fields before the launch; the file has zeros */
    uint64_t private_gpa;
    uint64_t shared_gpa;
    uint64_t c_bit;         /* a mask */
    uint64_t gpa_limit;     /* all guest addresses are below this one */
} MhImage;

typedef enum MhCommand {
    MH_QUERY = 1,
    MH_NEW_KEY,
    MH_SEND,
    MH_RECEIVE,
    MH_SEAL,
    MH_OPEN,
    MH_ROUND,
    MH_SEAL_END,
    MH_SEAL_RESUME,
    MH_FORGET,
} MhCommand;

typedef enum MhStatus {
    MH_OK = 0,
    MH_ERR_COMMAND,
    MH_ERR_STATE,
    MH_ERR_BUSY,
    MH_ERR_CPU,
    MH_ERR_ENTROPY,
    MH_ERR_COUNT,
    MH_ERR_CHANNEL,
    MH_ERR_ADDRESS,
    MH_ERR_FORMAT,
    MH_ERR_TAG,
    MH_ERR_SESSION,
    MH_ERR_REPLAYED,
    MH_ERR_MISSING,
    MH_ERR_BEHIND,
    MH_ERR_BROKEN,
    MH_STATUS_MAX,
    MH_RUNNING = 0xffffffff,
} MhStatus;

typedef enum MhState {
    MH_LAUNCHED = 0,
    MH_KEYED,
    MH_SENDER,
    MH_RECEIVER,
    MH_ENDED,
} MhState;

typedef enum MhImpl {
    MH_IMPL_AESNI_AVX = 1,
    MH_IMPL_VAES_AVX2,
    MH_IMPL_VAES_AVX512,
} MhImpl;

typedef enum MhKind {
    MH_KIND_PAGES = 1,
    MH_KIND_END,
    MH_KIND_RESUME,
} MhKind;

/* A batch on the wire: this header, then count times MhPage, then the data */
typedef struct MhBatch {
    uint32_t version;               /* MH_VERSION */
    uint16_t kind;                  /* MhKind */
    uint16_t count;                 /* pages, 0 to MH_BATCH_PAGES */
    uint32_t channel;               /* < MH_CHANNELS */
    uint32_t zero;
    uint8_t nonce[24];
    uint8_t session[16];
    uint64_t sequence;              /* number of this batch in its channel */
    uint64_t after[MH_CHANNELS];    /* batches that must be opened before */
    uint8_t tag[16];                /* of all bytes before it */
} MhBatch;

typedef struct MhPage {
    uint64_t gpa;
    uint8_t tag[16];
} MhPage;

typedef struct MhMailbox {
    /* QEMU writes: */
    uint32_t command;               /* MhCommand */
    uint32_t channel;               /* MH_SEAL, MH_SEAL_END, MH_SEAL_RESUME */
    uint32_t count;                 /* MH_SEAL: pages */
    uint32_t reserved;
    uint64_t alias;                 /* MH_OPEN: added to each page's gpa */
    uint64_t reserved2;
    /* The helper writes: */
    uint32_t status;                /* MhStatus */
    uint32_t done;                  /* pages that were sealed or opened */
    uint32_t state;                 /* MhState */
    uint32_t impl;                  /* MhImpl, or 0 */
    uint64_t reserved3[2];
    MhBatch batch;                  /* MH_SEAL* write it, MH_OPEN reads it */
} MhMailbox;

_Static_assert(sizeof(MhImage) == 64, "header of the image");
_Static_assert(sizeof(MhBatch) == 208, "batch header on the wire");
_Static_assert(sizeof(MhPage) == 24, "page header on the wire");
_Static_assert(sizeof(MhMailbox) == 272 && offsetof(MhMailbox, batch) == 64,
               "mailbox");

/* Bits of a page table entry */
#define MH_PTE_P            0x1ULL
#define MH_PTE_W            0x2ULL
#define MH_PTE_AD           0x60ULL         /* accessed and dirty */
#define MH_PTE_PS           0x80ULL
#define MH_PTE_NX           (1ULL << 63)

/* The tables are four pages from MH_TABLES on: PML4, PDPT, PD, PT */
#define MH_PML4             (MH_TABLES + 0x0000)
#define MH_PDPT             (MH_TABLES + 0x1000)
#define MH_PD               (MH_TABLES + 0x2000)
#define MH_PT               (MH_TABLES + 0x3000)

/* The index of a virtual address in the PD */
#define MH_PD_INDEX(va)     ((va) >> 21)

/**
 * mh_image_prepare: write the parameters and the page tables
 * @image: MH_PRIVATE_SIZE bytes that begin with the file; the rest is 0
 * @private_gpa: address of these bytes in the guest, a multiple of 4 KiB
 * @shared_gpa: address of MH_SHARED_SIZE bytes, a multiple of 2 MiB
 * @c_bit: mask of the C-bit
 * @gpa_limit: end of the addresses that the helper seals and opens
 *
 * The result is what LAUNCH_UPDATE_DATA encrypts and measures.
 */
static inline void mh_image_prepare(uint8_t *image, uint64_t private_gpa,
                                    uint64_t shared_gpa, uint64_t c_bit,
                                    uint64_t gpa_limit)
{
    MhImage *header = (MhImage *)image;
    uint64_t *pml4 = (uint64_t *)(image + MH_PML4);
    uint64_t *pdpt = (uint64_t *)(image + MH_PDPT);
    uint64_t *pd = (uint64_t *)(image + MH_PD);
    uint64_t *pt = (uint64_t *)(image + MH_PT);
    const uint64_t table = MH_PTE_P | MH_PTE_W | MH_PTE_AD;
    uint64_t i;

    header->private_gpa = private_gpa;
    header->shared_gpa = shared_gpa;
    header->c_bit = c_bit;
    header->gpa_limit = gpa_limit;
    pml4[0] = (private_gpa + MH_PDPT) | c_bit | table;
    pdpt[0] = (private_gpa + MH_PD) | c_bit | table;
    pd[MH_PD_INDEX(MH_VA)] = (private_gpa + MH_PT) | c_bit | table;
    for (i = 0; i < MH_PRIVATE_SIZE; i += MH_PAGE_SIZE) {
        uint64_t flags = MH_PTE_P | MH_PTE_AD;

        if (i >= header->text_end) {
            flags |= MH_PTE_NX;
            /* The program writes its data and the PD */
            if (i < header->data_end || i == MH_PD) {
                flags |= MH_PTE_W;
            }
        }
        pt[i / MH_PAGE_SIZE] = (private_gpa + i) | c_bit | flags;
    }
    for (i = 0; i < MH_SHARED_SIZE; i += 0x200000) {
        pd[MH_PD_INDEX(MH_SHARED_VA(0) + i)] = (shared_gpa + i) | MH_PTE_P |
            MH_PTE_W | MH_PTE_AD | MH_PTE_PS | MH_PTE_NX;
    }
}

#endif /* __ASSEMBLER__ */
#endif
