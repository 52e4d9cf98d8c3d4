/*
 * Copies of shared pages in multifd's channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page of a RAMBlock that can have private pages may be converted while a
 * channel reads or writes it.  So multifd's methods work with copies, which are
 * in memory of the packet (source) or of the channel (destination).
 */
#ifndef MIGRATION_MULTIFD_COPIES_H
#define MIGRATION_MULTIFD_COPIES_H

#include "exec/ramblock.h"

typedef struct MultiFDCopies {
    /* Memory for as many pages as a packet can have */
    uint8_t *host;
    /* The RAMBlock of the pages that are in @host, or NULL */
    RAMBlock *of;
    /*
     * The offset of each page in the RAMBlock @of.  At the destination, zero
     * pages come last.
     */
    ram_addr_t *offset;
} MultiFDCopies;

MultiFDCopies *multifd_copies_new(void);

/** multifd_copies_free: NULL is allowed */
void multifd_copies_free(MultiFDCopies *c);

#endif
