/*
 * RAM that holds something else than what is seen of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A machine that emulates the encryption of memory may hold pages in the view
 * of a guest in it.  Nobody but that guest's vCPUs may see them so: who does
 * not access RAM by a vCPU's TLB asks here first.
 */

#ifndef EXEC_RAM_ENCRYPTION_H
#define EXEC_RAM_ENCRYPTION_H

#include "exec/cpu-common.h"

typedef struct RamEncryptionOps {
    /*
     * Read or write @len bytes at @addr of RAM as they are outside of the
     * machine's vCPUs.  Returns false, having done nothing, if they are
     * simply what RAM holds.
     */
    bool (*access)(ram_addr_t addr, void *buf, size_t len, bool is_write);
    /* Somebody gets a pointer to them and does that without asking */
    void (*map)(ram_addr_t addr, size_t len, bool is_write);
    /* Have RAM hold nothing else; no vCPU runs, and none until it is over */
    void (*write_back)(void);
} RamEncryptionOps;

/* NULL: RAM is what it seems to be.  Set once, before any vCPU runs. */
extern const RamEncryptionOps *ram_encryption;

/* See RamEncryptionOps.access */
static inline bool ram_encryption_read(ram_addr_t addr, void *buf, size_t len)
{
    return unlikely(ram_encryption) &&
           ram_encryption->access(addr, buf, len, false);
}

static inline bool ram_encryption_write(ram_addr_t addr, const void *buf,
                                        size_t len)
{
    return unlikely(ram_encryption) &&
           ram_encryption->access(addr, (void *)buf, len, true);
}

/* See RamEncryptionOps.map */
static inline void ram_encryption_map(ram_addr_t addr, size_t len,
                                      bool is_write)
{
    if (unlikely(ram_encryption)) {
        ram_encryption->map(addr, len, is_write);
    }
}

/* See RamEncryptionOps.write_back */
static inline void ram_encryption_write_back(void)
{
    if (unlikely(ram_encryption)) {
        ram_encryption->write_back();
    }
}

#endif
