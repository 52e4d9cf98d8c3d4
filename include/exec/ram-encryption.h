/*
 * Emulated memory encryption: accesses to RAM that bypass the vCPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A machine that emulates memory encryption can keep a page in RAM as the
 * plaintext that a guest of the machine sees.  Only the vCPU that runs this
 * guest may see the plaintext.  Code that accesses RAM other than through a
 * vCPU's TLB calls these functions first.
 */

#ifndef EXEC_RAM_ENCRYPTION_H
#define EXEC_RAM_ENCRYPTION_H

#include "exec/cpu-common.h"

typedef struct RamEncryptionOps {
    /*
     * If RAM contains the plaintext of a page of [@addr, @addr + @len), read
     * or write this range as ciphertext, and return true.  Otherwise return
     * false without an access.  The caller then accesses RAM itself.
     */
    bool (*access)(ram_addr_t addr, void *buf, size_t len, bool is_write);
    /*
     * The caller is about to get a pointer to [@addr, @addr + @len) of RAM.
     * Accesses through the pointer do not call @access.  If RAM contains the
     * plaintext of a page, the caller therefore sees the plaintext and not the
     * ciphertext.  The function counts these pages in the statistics.
     */
    void (*map)(ram_addr_t addr, size_t len, bool is_write);
    /* Store all of RAM as ciphertext.  No vCPU may run during the call. */
    void (*write_back)(void);
} RamEncryptionOps;

/* NULL: memory is not encrypted.  Set once, before any vCPU runs. */
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
