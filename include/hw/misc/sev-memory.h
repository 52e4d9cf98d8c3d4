/*
 * Memory encryption of the emulated SEV platform
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the memory controller of an SEV host does: every page of the machine's
 * RAM is seen either raw, by the hypervisor, by devices and by the host's own
 * CPU contexts, or through the key of an ASID, by the SEV guest that runs
 * with it.  The RAM itself holds a page in one of these views at a time; it
 * is converted in place when somebody with the other view touches it.
 *
 * Addresses are physical addresses of the machine, without the C-bit.
 */

#ifndef HW_MISC_SEV_MEMORY_H
#define HW_MISC_SEV_MEMORY_H

#include "exec/hwaddr.h"

/* AES-128-XTS: the data key and the tweak key */
#define SEV_MEMORY_KEY_LEN  32

/* An ASID has to fit the byte that holds a page's view */
#define SEV_MEMORY_MAX_ASID 255

/* The raw view; ASID 0 is the hypervisor's and never has a key */
#define SEV_MEMORY_RAW      0

/**
 * sev_memory_init: prepare memory encryption for this machine
 * @cbitpos: position of the C-bit, 32 to 51
 * @max_asid: the highest ASID that a guest can have
 * @max_es_asid: the highest of a guest with SEV-ES, which others cannot have;
 *               0: no SEV-ES
 * @errp: set if it was prepared with other values before
 *
 * Called for every vCPU with SEV.  Returns false with @errp set on failure.
 */
bool sev_memory_init(unsigned cbitpos, unsigned max_asid, unsigned max_es_asid,
                     Error **errp);

/**
 * sev_memory_max_asid: the highest ASID, 0 if the machine has no SEV
 */
unsigned sev_memory_max_asid(void);

/**
 * sev_memory_max_es_asid: the highest ASID of a guest with SEV-ES
 *
 * 0 if the machine has no SEV-ES.  The ASIDs above are those of other guests.
 */
unsigned sev_memory_max_es_asid(void);

/**
 * sev_memory_cbit: the C-bit as a mask
 */
uint64_t sev_memory_cbit(void);

/**
 * sev_memory_has_key: whether a guest is active with @asid
 *
 * It can run once sev_memory_asid_valid() is true, too.
 */
bool sev_memory_has_key(unsigned asid);

/**
 * sev_memory_set_key: install the key of @asid, which has none
 * @asid: 1 to sev_memory_max_asid()
 * @key: SEV_MEMORY_KEY_LEN bytes
 * @errp: set if the cipher cannot be had
 */
bool sev_memory_set_key(unsigned asid, const uint8_t *key, Error **errp);

/**
 * sev_memory_clear_key: write back the pages of @asid and forget its key
 * @asid: does not need to have a key
 *
 * No vCPU may run: call it from safe work or while the VM is stopped.
 */
void sev_memory_clear_key(unsigned asid);

/**
 * sev_memory_set_asid_valid: let VMRUN use @asid, which has a key
 *
 * sev_memory_clear_key() makes it invalid again.
 */
void sev_memory_set_asid_valid(unsigned asid);

/**
 * sev_memory_asid_valid: whether VMRUN can use @asid
 */
bool sev_memory_asid_valid(unsigned asid);

/**
 * sev_memory_read: read memory through the key of an ASID
 * @pa: where from
 * @asid: whose view, or SEV_MEMORY_RAW
 * @buf: where to
 * @len: in bytes; may span pages
 *
 * Converts nothing in memory.  The caller is a vCPU in the middle of an
 * instruction, or no vCPU runs: then no page changes its view meanwhile.
 * Returns false, having read an unspecified part, if any of it is not RAM.
 */
bool sev_memory_read(hwaddr pa, unsigned asid, void *buf, size_t len);

/**
 * sev_memory_write: write memory through the key of an ASID
 *
 * As sev_memory_read().  Nothing is written if any of it is not RAM.
 */
bool sev_memory_write(hwaddr pa, unsigned asid, const void *buf, size_t len);

/**
 * sev_memory_dma_read: read memory as a device does
 *
 * As sev_memory_read() in the raw view, but from anywhere, with the BQL.  A
 * page that is plaintext is counted as read by no vCPU.
 */
bool sev_memory_dma_read(hwaddr pa, void *buf, size_t len);

/**
 * sev_memory_dma_write: write memory as a device does
 *
 * As sev_memory_dma_read().  Nothing is written if any of it is not RAM.
 */
bool sev_memory_dma_write(hwaddr pa, const void *buf, size_t len);

/**
 * sev_memory_forget_wbinvd: from now on, WBINVD has been executed nowhere
 */
void sev_memory_forget_wbinvd(void);

/**
 * sev_memory_all_wbinvd: whether all vCPUs have executed WBINVD since then
 *
 * Not meant are those that cannot: which were never started, or are halted
 * for good.
 */
bool sev_memory_all_wbinvd(void);

/* What has happened to pages since the machine was started */
typedef struct SevMemoryStats {
    uint64_t plaintext;     /* pages that are plaintext now */
    uint64_t decrypted;     /* conversions for a guest */
    uint64_t encrypted;     /* conversions for the hypervisor's own access */
    uint64_t written_back;  /* conversions by WBINVD, DEACTIVATE, a dump */
    /* Accesses by none of the vCPUs to a page that was plaintext, in pages */
    uint64_t bypassing_reads;
    uint64_t bypassing_writes;
    /* Pages used through one view before lines of another were flushed */
    uint64_t unflushed_host_writes;
    uint64_t unflushed_guest_writes;
    uint64_t unflushed_commands;
} SevMemoryStats;

/* In the order of the QAPI enum SevPlatformCacheCheck */
typedef enum SevMemoryCacheCheck {
    SEV_MEMORY_CACHE_CHECK_OFF,     /* writes are not watched */
    SEV_MEMORY_CACHE_CHECK_COUNT,
    SEV_MEMORY_CACHE_CHECK_FATAL,   /* the first such use ends QEMU */
} SevMemoryCacheCheck;

/**
 * sev_memory_set_cache_check: what is to happen if a flush is missing
 *
 * Writes from before the change are not known.
 */
void sev_memory_set_cache_check(SevMemoryCacheCheck check);

/**
 * sev_memory_cache_check: what happens if a flush is missing
 */
SevMemoryCacheCheck sev_memory_cache_check(void);

/**
 * sev_memory_watch: begin to watch which pages vCPUs write
 *
 * The firmware calls it when it is initialized.  The WBINVD that the host has
 * to execute then makes the watch complete.
 */
void sev_memory_watch(void);

/* What a firmware command does with memory */
typedef enum SevMemoryCommandAccess {
    SEV_MEMORY_COMMAND_READS = 1,
    SEV_MEMORY_COMMAND_WRITES,
} SevMemoryCommandAccess;

/**
 * sev_memory_command_uses: a firmware command uses [@pa, @pa + @len)
 * @asid: through which view, or SEV_MEMORY_RAW
 * @access: whether it reads or writes
 *
 * Checks that the lines there that were written through another view have been
 * flushed.  The context is that of sev_memory_read().
 */
void sev_memory_command_uses(hwaddr pa, size_t len, unsigned asid,
                             SevMemoryCommandAccess access);

/**
 * sev_memory_stats: get all of that, at any time
 */
void sev_memory_stats(SevMemoryStats *stats);

/**
 * sev_memory_is_ram: whether all of [@pa, @pa + @len) is RAM
 */
bool sev_memory_is_ram(hwaddr pa, size_t len);

#endif
