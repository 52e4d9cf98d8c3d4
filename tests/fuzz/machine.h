/*
 * A simulated machine for the fuzzer of the loader of private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * machine.c simulates RAM blocks, the migration channel, the kernel and the
 * firmware.  Everything between them is QEMU's own code.
 */
#ifndef TESTS_FUZZ_MACHINE_H
#define TESTS_FUZZ_MACHINE_H

#include "exec/cpu-common.h"
#include "system/confidential-guest-migration.h"

#define PAGE_BITS 12
#define PAGE (1ULL << PAGE_BITS)

/* The destination that reads an input */
enum {
    MACHINE_PRIVATE = 1,    /* all pages are private before the load */
    MACHINE_KERNEL = 2,     /* KVM keeps the state, and may refuse to convert */
    MACHINE_REFUSES = 4,    /* the firmware refuses some packets */
    MACHINE_PLAIN = 8,      /* no confidential guest support */
    MACHINE_BATCH = 16,     /* the kernel accepts several pages in one call;
                               with MACHINE_KERNEL, also in one packet */
    MACHINE_BIG = 32,       /* a block needs more than one state record */
};

/* Pages of pc.ram of an ordinary machine and of a big one */
#define RAM_PAGES 200
#define BIG_PAGES ((1 << 20) + 100)

/*
 * Two items that only the fuzzer's inputs have.  They contain data that in a
 * migration are in packets of multifd's channels.  Each item begins with a word
 * of 64 bits, which contains one of these flags.
 */
#define ITEM_BUFFER 0x200       /* a record; bits 12 and up: its length */
#define ITEM_COPIES 0x400       /* plain pages of block pc.ram or blob */
#define COPIES_OF(word) ((word) >> 16 & 7)
#define ZEROES_OF(word) ((word) >> 24 & 7)

/** machine_new: create the machine; @config: a combination of MACHINE_* */
void machine_new(unsigned config);

/** machine_free: destroy the machine that machine_new() has created */
void machine_free(void);

/**
 * machine_load: load the RAM section of a migration stream
 *
 * Ends the process if the loader accepts data that it must refuse, or refuses
 * data without an error message.  Returns whether the guest could start.
 */
bool machine_load(const uint8_t *data, size_t len);

/** machine_block: find a RAMBlock by its name; NULL if there is none */
RAMBlock *machine_block(const char *name);

/* The guest's policy, which is the same at the source and in this machine */
extern const uint32_t machine_policy;
/* Bytes of the machine's RAM below 4 GiB */
#define MACHINE_BELOW_4G 0x80000000

/*
 * SEV's operations for receiving a guest, from target/i386/sev/.  The firmware
 * that they call is simulated.
 */
extern const ConfidentialGuestMigrationOps sev_receive_ops;

#endif
