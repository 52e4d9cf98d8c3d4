/*
 * Caches of the host and pages that an SEV guest is about to make private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Some processors (AMD EPYC 7001 and 7002) can have two cache lines for one
 * address: one for accesses with the guest's key and one for those without.  A
 * guest that makes a shared page private flushes the page first, so that no
 * line without the key is written back later over the data of the private
 * page.
 *
 * If the guest migrates after that flush, the flush was made at the source.
 * QEMU has written the shared page at the destination, and this line is in the
 * caches there.  So the destination flushes all shared pages before the guest
 * runs.
 *
 * KVM flushes private pages when the firmware receives them.  It does not
 * flush pages when it converts them: that is the guest's duty.  The migration
 * helper writes to private pages at the destination, so QEMU flushes these
 * pages before it makes them private.
 */
#include "qemu/osdep.h"
#include "qemu/cpuid.h"
#include "qemu/rcu.h"
#include "cpu.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "sev-migration-internal.h"
#include "trace.h"

/* Bytes of a cache line of all processors with SEV */
#define LINE_LEN 64

/* AMD64 APM volume 3, Fn8000_001F_EAX[CoherencyEnforced] */
#define CPUID_SEV_FEATURES      0x8000001f
#define CPUID_SEV_COHERENT      BIT(10)

static bool caches_are_coherent(void)
{
    uint32_t eax, ebx, ecx, edx;

    __cpuid(CPUID_SEV_FEATURES, eax, ebx, ecx, edx);
    return eax & CPUID_SEV_COHERENT;
}

static void flush(uint8_t *host, size_t len)
{
    for (size_t i = 0; i < len; i += LINE_LEN) {
        asm volatile("clflush %0" : "+m"(host[i]));
    }
}

/* Flush the shared pages of @rb.  Returns their number.  RCU read lock held. */
static uint64_t flush_block(RAMBlock *rb)
{
    uint64_t npages = encbitmap_npages(rb), run, flushed = 0;

    for (uint64_t page = 0; page < npages; page += run) {
        bool private;

        run = encbitmap_run(rb, page, npages, &private);
        if (!private) {
            flush(rb->host + (page << TARGET_PAGE_BITS),
                  run << TARGET_PAGE_BITS);
            flushed += run;
        }
    }
    return flushed;
}

void sev_cache_flush_pages(RAMBlock *rb, uint64_t offset, uint64_t npages)
{
    uint64_t page = offset >> TARGET_PAGE_BITS, end = page + npages, run;

    if (caches_are_coherent()) {
        return;
    }
    for (; page < end; page += run) {
        bool private, allocated = false;

        run = MIN(encbitmap_run(rb, page, end, &private), end - page);
        if (!private) {
            run = MIN(encbitmap_allocated_run(rb, page, run, &allocated), run);
        }
        if (allocated) {
            flush(rb->host + (page << TARGET_PAGE_BITS),
                  run << TARGET_PAGE_BITS);
        }
    }
    asm volatile("mfence" : : : "memory");
}

void sev_cache_flush_shared(void)
{
    uint64_t npages = 0;
    RAMBlock *rb;

    if (caches_are_coherent()) {
        return;
    }
    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (sev_ram_is_guest_ram(rb)) {
                npages += flush_block(rb);
            }
        }
    }
    asm volatile("mfence" : : : "memory");
    trace_sev_migration_flush_shared(npages);
}
