/*
 * Memory encryption of the emulated SEV platform
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This emulates the memory controller of an SEV host.  An SEV guest accesses
 * private pages through the key of its ASID.  The hypervisor, devices and
 * everything else access the raw page.  RAM contains each page in one of these
 * views at a time, and an access through another view converts the page in
 * place.
 *
 * Addresses are physical addresses of the machine, without the C-bit.
 */

#ifndef HW_MISC_SEV_MEMORY_H
#define HW_MISC_SEV_MEMORY_H

#include "exec/hwaddr.h"

/* AES-128-XTS: the data key and the tweak key */
#define SEV_MEMORY_KEY_LEN  32

/* The view of each page, an ASID or SEV_MEMORY_RAW, is stored in one byte */
#define SEV_MEMORY_MAX_ASID 255

/* The raw view: ASID 0 belongs to the hypervisor and never has a key */
#define SEV_MEMORY_RAW      0

/**
 * sev_memory_init: prepare memory encryption for this machine
 * @cbitpos: position of the C-bit, 32 to 51
 * @max_asid: the highest ASID that a guest can have
 * @max_es_asid: the highest ASID of a guest with SEV-ES.  Guests without SEV-ES
 *               have higher ASIDs.  0: no SEV-ES
 * @errp: set if the function was called with other values before
 *
 * Called for every vCPU with SEV.  Returns false with @errp set on failure.
 */
bool sev_memory_init(unsigned cbitpos, unsigned max_asid, unsigned max_es_asid,
                     Error **errp);

/**
 * sev_memory_max_asid: get the highest ASID, or 0 if the machine has no SEV
 */
unsigned sev_memory_max_asid(void);

/**
 * sev_memory_max_es_asid: get the highest ASID that a guest with SEV-ES can
 *                         have
 *
 * Returns 0 if the machine has no SEV-ES.  Guests without SEV-ES have higher
 * ASIDs.
 */
unsigned sev_memory_max_es_asid(void);

/**
 * sev_memory_cbit: get the mask of the C-bit
 */
uint64_t sev_memory_cbit(void);

/**
 * sev_memory_has_key: whether a guest is active with @asid
 *
 * The guest can run once sev_memory_asid_valid() is true as well.
 */
bool sev_memory_has_key(unsigned asid);

/**
 * sev_memory_set_key: install the key of @asid, which has none
 * @asid: 1 to sev_memory_max_asid()
 * @key: SEV_MEMORY_KEY_LEN bytes
 * @errp: set if QEMU cannot create the cipher
 */
bool sev_memory_set_key(unsigned asid, const uint8_t *key, Error **errp);

/**
 * sev_memory_clear_key: convert the pages of @asid to the raw view, and forget
 *                       the key of @asid
 * @asid: if it has no key, the function does nothing
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
 * @pa: physical address
 * @asid: the ASID of the view, or SEV_MEMORY_RAW
 * @buf: set to the data
 * @len: length in bytes; may span pages
 *
 * Decrypts or encrypts the copy in @buf, and leaves each page in RAM in its
 * present view.  Must be called by a vCPU that executes an instruction, or
 * while no vCPU runs, so that no page changes its view meanwhile.  Returns
 * false if a part of the range is not RAM; @buf may then contain a part of the
 * data.
 */
bool sev_memory_read(hwaddr pa, unsigned asid, void *buf, size_t len);

/**
 * sev_memory_write: write memory through the key of an ASID
 *
 * Called in the same context as sev_memory_read().  Returns false, and writes
 * nothing, if a part of the range is not RAM.
 */
bool sev_memory_write(hwaddr pa, unsigned asid, const void *buf, size_t len);

/**
 * sev_memory_dma_read: read memory as a device does
 *
 * Like sev_memory_read() in the raw view, but can be called from any thread
 * that holds the BQL.  Counts each plaintext page in bypassing_reads.
 */
bool sev_memory_dma_read(hwaddr pa, void *buf, size_t len);

/**
 * sev_memory_dma_write: write memory as a device does
 *
 * Like sev_memory_dma_read(), but counts in bypassing_writes.  Writes nothing
 * if a part of the range is not RAM.
 */
bool sev_memory_dma_write(hwaddr pa, const void *buf, size_t len);

/**
 * sev_memory_forget_wbinvd: forget which vCPUs have executed WBINVD
 */
void sev_memory_forget_wbinvd(void);

/**
 * sev_memory_all_wbinvd: whether all vCPUs have executed WBINVD since the last
 *                        call of sev_memory_forget_wbinvd()
 *
 * Ignores vCPUs that were never started or are halted with interrupts off.
 */
bool sev_memory_all_wbinvd(void);

/* Statistics since the start of the machine */
typedef struct SevMemoryStats {
    uint64_t plaintext;     /* pages that are plaintext now */
    uint64_t decrypted;     /* conversions for a guest */
    uint64_t encrypted;     /* conversions for the hypervisor's own access */
    uint64_t written_back;  /* conversions by WBINVD, DEACTIVATE, a dump */
    /*
     * How often a device or a debugger has read or written a page that was
     * plaintext.  Such an access does not convert the page, so it bypasses the
     * page's present view.
     */
    uint64_t bypassing_reads;
    uint64_t bypassing_writes;
    /*
     * How often a page was used through one view while cache lines that had
     * been written through another view were not flushed.  The first two
     * counters count uses by vCPUs: after writes of the host, and after writes
     * of a guest.  The third one counts uses by firmware commands.
     */
    uint64_t unflushed_host_writes;
    uint64_t unflushed_guest_writes;
    uint64_t unflushed_commands;
} SevMemoryStats;

/*
 * Reaction to a missing flush.  hw/misc/amd-psp.c passes values of
 * SevPlatformCacheCheck without translating them, so the values must be equal.
 */
typedef enum SevMemoryCacheCheck {
    SEV_MEMORY_CACHE_CHECK_OFF,     /* writes are not recorded */
    SEV_MEMORY_CACHE_CHECK_COUNT,
    SEV_MEMORY_CACHE_CHECK_FATAL,   /* a harmful missing flush ends QEMU */
} SevMemoryCacheCheck;

/**
 * sev_memory_set_cache_check: set the reaction to a missing flush
 *
 * If the check was off, writes before the call were not recorded.
 */
void sev_memory_set_cache_check(SevMemoryCacheCheck check);

/**
 * sev_memory_cache_check: get the reaction to a missing flush
 */
SevMemoryCacheCheck sev_memory_cache_check(void);

/**
 * sev_memory_watch: begin to record which pages vCPUs write
 *
 * The firmware calls this function when the host initializes the firmware.  A
 * vCPU does not record writes through TLB entries that already exist.  The
 * emulated WBINVD flushes the TLBs, so all writes are recorded after the host
 * has executed WBINVD, which SEV requires on each vCPU before DF_FLUSH.
 */
void sev_memory_watch(void);

/* What a firmware command does with memory */
typedef enum SevMemoryCommandAccess {
    SEV_MEMORY_COMMAND_READS = 1,
    SEV_MEMORY_COMMAND_WRITES,
} SevMemoryCommandAccess;

/**
 * sev_memory_command_uses: check the use of [@pa, @pa + @len) by a command
 * @asid: the ASID of the view that the command uses, or SEV_MEMORY_RAW
 * @access: whether the command reads or writes
 *
 * Checks that lines which were written through another view have been flushed.
 * Called in the same context as sev_memory_read().
 */
void sev_memory_command_uses(hwaddr pa, size_t len, unsigned asid,
                             SevMemoryCommandAccess access);

/**
 * sev_memory_stats: get the statistics; can be called from any context
 */
void sev_memory_stats(SevMemoryStats *stats);

/**
 * sev_memory_is_ram: whether all of [@pa, @pa + @len) is RAM
 */
bool sev_memory_is_ram(hwaddr pa, size_t len);

#endif
