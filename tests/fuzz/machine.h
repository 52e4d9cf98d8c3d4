/*
 * What the loader of private pages sees of a machine, for its fuzzer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RAM blocks, the channel, the kernel and the firmware are made up here;
 * everything between them is the code that QEMU runs.
 */
#ifndef TESTS_FUZZ_MACHINE_H
#define TESTS_FUZZ_MACHINE_H

#include "exec/cpu-common.h"
#include "system/confidential-guest-migration.h"

#define PAGE_BITS 12
#define PAGE (1ULL << PAGE_BITS)

/* The destination that reads an input */
enum {
    MACHINE_PRIVATE = 1,    /* pages are private before they come */
    MACHINE_KERNEL = 2,     /* a kernel keeps the state, and can say no */
    MACHINE_REFUSES = 4,    /* firmware that does not like some packets */
    MACHINE_PLAIN = 8,      /* no confidential guest support */
    MACHINE_BATCH = 16,     /* the kernel takes many pages in one call;
                               with MACHINE_KERNEL, in one packet, too */
    MACHINE_BIG = 32,       /* a block of more pages than one state record */
};

/* Pages of pc.ram of an ordinary machine and of a big one */
#define RAM_PAGES 200
#define BIG_PAGES ((1 << 20) + 100)

/*
 * What multifd's channels would bring.  Two items of the fuzzer's own: in a
 * migration they are packets.
 */
#define ITEM_BUFFER 0x200       /* state of "ram"; the word has its length */
#define ITEM_COPIES 0x400       /* plain pages of pc.ram or blob */
#define COPIES_OF(word) ((word) >> 16 & 7)
#define ZEROES_OF(word) ((word) >> 24 & 7)

/** machine_new: @config of MACHINE_* */
void machine_new(unsigned config);

/** machine_free: after the last machine_load() into it */
void machine_free(void);

/**
 * machine_load: load what a migration's RAM section has
 *
 * Ends the process if something is accepted that must not be, or refused
 * without a reason.  Returns whether the guest could start.
 */
bool machine_load(const uint8_t *data, size_t len);

/** machine_block: by name; NULL if there is none */
RAMBlock *machine_block(const char *name);

/* The policy of the guest that is sent, which the receiving machine has as well */
extern const uint32_t machine_policy;

/* The functions of target/i386/sev/ that receive; only the firmware is replaced */
extern const ConfidentialGuestMigrationOps sev_receive_ops;

#endif
