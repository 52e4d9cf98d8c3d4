/*
 * Memory encryption of the emulated SEV platform
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page of RAM contains either raw data or the plaintext of one ASID.
 * sev_memory_view() returns the current view of a page: the ASID or the raw
 * view.  Accesses through the TLB have no extra cost, because a TLB entry is
 * created only while the page has the view that the access needs.  A conversion
 * flushes all TLBs that may have an entry for the page, and drops the code that
 * was translated from the page.
 *
 * The view of a page changes only in an exclusive section, so views are
 * constant while a vCPU executes.
 *
 * A hypervisor must execute WBINVD before a device uses a page that a guest
 * has used, because devices do not see the caches of CPUs.  Without WBINVD, the
 * result on hardware is unpredictable.  This emulation counts such accesses:
 * devices and debuggers read ciphertext, and data that they write is treated as
 * ciphertext.  For devices that map RAM, such as disks and network cards, the
 * mapping is counted, and the device accesses the page in its current view.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitmap.h"
#include "qemu/bitops.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "crypto/cipher.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/page-protection.h"
#include "exec/helper-proto.h"
#include "exec/memory.h"
#include "exec/ram-encryption.h"
#include "exec/ram_addr.h"
#include "exec/target_page.h"
#include "hw/misc/sev-memory.h"
#include "sev-cpu.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include "tcg/tcg.h"
#include "trace.h"

/*
 * Arrays with an element for each page of the memory are allocated in chunks.
 * A chunk has the elements for the pages of 1 GiB.
 */
#define CHUNK_SHIFT 30
#define CHUNK_PAGES (1u << (CHUNK_SHIFT - TARGET_PAGE_BITS))

/* Bytes that AES-XTS encrypts at a time */
#define XTS_BLOCK   16

/* Bytes of a cache line; a PageCache has one bit for each line of a page */
#define LINE_LEN    64

/* More CPUs than a PC can have */
#define MAX_CPUS    4096

bool sev_memory_active;

/*
 * Cache lines of a page that vCPUs may have written through the page's current
 * view and that have not been flushed.  While vCPUs execute, they use atomic
 * operations to change the members "lines", "writers" and "filled".
 */
typedef struct PageCache {
    uint64_t lines;     /* bit n: the line at n * LINE_LEN */
    uint64_t writers;   /* bit n: a vCPU whose index modulo 64 is n */
    /* Value of sev.flushes when a vCPU last got a TLB entry for the page */
    uint32_t filled;
    /*
     * Whether the page is in sev.plain.  Like sev.plain, it is changed only in
     * an exclusive section or while no vCPU runs.
     */
    bool listed;
} PageCache;

static struct {
    unsigned cbitpos;
    unsigned max_asid;
    unsigned max_es_asid;
    /* By ASID; NULL: no guest is active with the ASID */
    QCryptoCipher *key[SEV_MEMORY_MAX_ASID + 1];
    /* By ASID: whether VMRUN can use the ASID */
    bool valid[SEV_MEMORY_MAX_ASID + 1];
    /*
     * Views of pages (one byte each), in chunks by physical address.  A chunk
     * is NULL if its pages have always been raw.
     */
    uint8_t **views;
    /*
     * Page frame numbers (uint64_t) of all pages that are plaintext, and of
     * some pages that are not plaintext any more.  No number occurs twice.
     */
    GArray *plain;
    /* Number of flushes of all TLBs; changes only in exclusive sections */
    uint32_t flushes;
    /*
     * Physical address and ASID of each page, or 0 for a raw page, in chunks by
     * RAM address.  A chunk is NULL if its pages have always been raw.
     */
    uint64_t **plain_at;
    /*
     * Protects views, keys and statistics.  An exclusive section stops the
     * vCPUs, but other threads can still access memory.  So the code in the
     * exclusive section and the other threads take this lock.  It is the
     * innermost lock.
     */
    QemuMutex lock;
    SevMemoryStats stats;
    /*
     * PageCaches of all pages, in chunks by physical address.  A chunk is NULL
     * until one of its pages is used; all cache lines are clean before that.
     */
    PageCache **caches;
    SevMemoryCacheCheck cache_check;
    /*
     * vCPUs, by index, that have executed WBINVD since the last call of
     * sev_memory_forget_wbinvd()
     */
    DECLARE_BITMAP(wbinvd, MAX_CPUS);
} sev;

static const RamEncryptionOps sev_memory_ops;

bool sev_memory_init(unsigned cbitpos, unsigned max_asid, unsigned max_es_asid,
                     Error **errp)
{
    if (sev.max_asid) {
        if (cbitpos != sev.cbitpos || max_asid != sev.max_asid ||
            max_es_asid != sev.max_es_asid) {
            error_setg(errp, "all CPUs must have the same SEV properties");
            return false;
        }
        return true;
    }
    if (cbitpos < 32 || cbitpos > 51) {
        error_setg(errp, "sev-cbitpos must be 32 to 51");
        return false;
    }
    if (max_asid < 1 || max_asid > SEV_MEMORY_MAX_ASID) {
        error_setg(errp, "sev-asids must be 1 to %u", SEV_MEMORY_MAX_ASID);
        return false;
    }
    if (max_es_asid > max_asid) {
        error_setg(errp, "sev-es-asids (%u) exceeds sev-asids (%u)",
                   max_es_asid, max_asid);
        return false;
    }
    sev.cbitpos = cbitpos;
    sev.max_asid = max_asid;
    sev.max_es_asid = max_es_asid;
    sev.views = g_new0(uint8_t *, 1ULL << (cbitpos - CHUNK_SHIFT));
    sev.plain = g_array_new(false, false, sizeof(uint64_t));
    sev.plain_at = g_new0(uint64_t *, 1ULL << (cbitpos - CHUNK_SHIFT));
    sev.caches = g_new0(PageCache *, 1ULL << (cbitpos - CHUNK_SHIFT));
    sev.cache_check = SEV_MEMORY_CACHE_CHECK_COUNT;
    qemu_mutex_init(&sev.lock);
    ram_encryption = &sev_memory_ops;
    return true;
}

unsigned sev_memory_max_asid(void)
{
    return sev.max_asid;
}

unsigned sev_memory_max_es_asid(void)
{
    return sev.max_es_asid;
}

uint64_t sev_memory_cbit(void)
{
    return sev.max_asid ? BIT_ULL(sev.cbitpos) : 0;
}

bool sev_memory_has_key(unsigned asid)
{
    return asid && asid <= sev.max_asid && sev.key[asid];
}

void sev_memory_set_asid_valid(unsigned asid)
{
    g_assert(sev_memory_has_key(asid));
    qatomic_set(&sev.valid[asid], true);
    trace_sev_memory_key(asid, "valid");
}

bool sev_memory_asid_valid(unsigned asid)
{
    return asid <= sev.max_asid && qatomic_read(&sev.valid[asid]);
}

static unsigned sev_memory_view(hwaddr pa)
{
    uint8_t *chunk;

    if (pa >> sev.cbitpos) {
        return SEV_MEMORY_RAW;
    }
    chunk = qatomic_read(&sev.views[pa >> CHUNK_SHIFT]);
    return chunk ? chunk[(pa >> TARGET_PAGE_BITS) % CHUNK_PAGES]
                 : SEV_MEMORY_RAW;
}

static void sev_memory_set_page_view(hwaddr pa, unsigned asid)
{
    uint8_t **chunk = &sev.views[pa >> CHUNK_SHIFT];

    if (!*chunk) {
        qatomic_set(chunk, g_new0(uint8_t, CHUNK_PAGES));
    }
    (*chunk)[(pa >> TARGET_PAGE_BITS) % CHUNK_PAGES] = asid;
}

/*
 * If the page at the RAM address @addr contains plaintext, return its physical
 * address, with the ASID of its view in the low bits.  Return 0 if the page has
 * the raw view.  Without sev.lock the result may be outdated.
 */
static uint64_t sev_memory_plain_at(ram_addr_t addr)
{
    uint64_t *chunk;

    if (addr >> sev.cbitpos) {
        return 0;
    }
    chunk = qatomic_read(&sev.plain_at[addr >> CHUNK_SHIFT]);
    return chunk ? qatomic_read(&chunk[(addr >> TARGET_PAGE_BITS) %
                                       CHUNK_PAGES]) : 0;
}

static void sev_memory_set_plain_at(ram_addr_t addr, hwaddr pa, unsigned asid)
{
    uint64_t **chunk = &sev.plain_at[addr >> CHUNK_SHIFT];

    if (!*chunk) {
        qatomic_set(chunk, g_new0(uint64_t, CHUNK_PAGES));
    }
    qatomic_set(&(*chunk)[(addr >> TARGET_PAGE_BITS) % CHUNK_PAGES],
                asid ? (pa & TARGET_PAGE_MASK) | asid : 0);
}

/*
 * Get the host address of the RAM page at @pa; NULL if it is not RAM.
 * Called in an RCU critical section.
 */
static void *sev_memory_page(hwaddr pa, ram_addr_t *ram_addr)
{
    hwaddr xlat, len = TARGET_PAGE_SIZE;
    MemoryRegion *mr;

    if (pa >> sev.cbitpos) {
        return NULL;
    }
    mr = address_space_translate(&address_space_memory, pa & TARGET_PAGE_MASK,
                                 &xlat, &len, true, MEMTXATTRS_UNSPECIFIED);
    if (!memory_region_is_ram(mr) || memory_region_is_ram_device(mr) ||
        mr->readonly || len < TARGET_PAGE_SIZE) {
        return NULL;
    }
    *ram_addr = memory_region_get_ram_addr(mr) + xlat;
    return memory_region_get_ram_ptr(mr) + xlat;
}

bool sev_memory_is_ram(hwaddr pa, size_t len)
{
    hwaddr page = pa & TARGET_PAGE_MASK;
    ram_addr_t ram_addr;

    if (!len || pa + len < pa) {
        return false;
    }
    RCU_READ_LOCK_GUARD();
    for (; page < pa + len; page += TARGET_PAGE_SIZE) {
        if (!sev_memory_page(page, &ram_addr)) {
            return false;
        }
    }
    return true;
}

static void sev_memory_page_written(ram_addr_t ram_addr)
{
    if (tcg_enabled()) {
        tb_invalidate_phys_range(ram_addr, ram_addr + TARGET_PAGE_SIZE - 1);
    }
    cpu_physical_memory_set_dirty_range(ram_addr, TARGET_PAGE_SIZE,
                                        BIT(DIRTY_MEMORY_VGA) |
                                        BIT(DIRTY_MEMORY_MIGRATION));
}

/*
 * Convert @page, which is at @pa, from one view to another.  @len: bytes from
 * the start of the page to convert, a multiple of 16; each block of 16 bytes
 * is independent of the others.  Called with sev.lock held.
 */
static void sev_memory_recode(void *page, size_t len, hwaddr pa, unsigned from,
                              unsigned to)
{
    uint8_t tweak[16] = { 0 };

    /* The ciphertext depends on the physical address */
    stq_le_p(tweak, pa >> TARGET_PAGE_BITS);
    /* AES-XTS cannot fail for whole blocks and a tweak of 16 bytes */
    if (from) {
        qcrypto_cipher_setiv(sev.key[from], tweak, sizeof(tweak),
                             &error_abort);
        qcrypto_cipher_encrypt(sev.key[from], page, page, len, &error_abort);
    }
    if (to) {
        qcrypto_cipher_setiv(sev.key[to], tweak, sizeof(tweak), &error_abort);
        qcrypto_cipher_decrypt(sev.key[to], page, page, len, &error_abort);
    }
}

/* Get the PageCache of the page at @pa; NULL: it does not exist */
static PageCache *sev_memory_cache(hwaddr pa)
{
    PageCache *chunk;

    if (pa >> sev.cbitpos) {
        return NULL;
    }
    chunk = qatomic_read(&sev.caches[pa >> CHUNK_SHIFT]);
    return chunk ? &chunk[(pa >> TARGET_PAGE_BITS) % CHUNK_PAGES] : NULL;
}

/*
 * Get or make the PageCache of the page at @pa.  @pa must be less than the
 * C-bit, because sev.caches ends there.
 */
static PageCache *sev_memory_make_cache(hwaddr pa)
{
    PageCache *cache = sev_memory_cache(pa);

    if (!cache) {
        PageCache *chunk = g_new0(PageCache, CHUNK_PAGES);

        if (qatomic_cmpxchg(&sev.caches[pa >> CHUNK_SHIFT], NULL, chunk)) {
            g_free(chunk);
        }
        cache = sev_memory_cache(pa);
    }
    return cache;
}

static void sev_memory_cache_clean(PageCache *cache)
{
    qatomic_set(&cache->writers, 0);
    qatomic_set(&cache->lines, 0);
}

/*
 * Check for unflushed lines before the page at @pa, which has the view @view,
 * is used through the view of @asid.  Hardware could write such lines back at
 * any later time and overwrite data of the new view.  Count each such page
 * once.  @command: the access of the firmware, or 0 if a vCPU uses the page.
 * Called without sev.lock.
 */
static void sev_memory_check_flushed(hwaddr pa, unsigned view, unsigned asid,
                                     SevMemoryCommandAccess command)
{
    PageCache *cache = sev_memory_cache(pa);
    uint64_t lines = cache ? qatomic_read(&cache->lines) : 0;

    if (!lines || view == asid) {
        return;
    }
    sev_memory_cache_clean(cache);
    WITH_QEMU_LOCK_GUARD(&sev.lock) {
        if (command) {
            sev.stats.unflushed_commands++;
        } else if (view) {
            sev.stats.unflushed_guest_writes++;
        } else {
            sev.stats.unflushed_host_writes++;
        }
    }
    trace_sev_memory_unflushed(pa & TARGET_PAGE_MASK, view, asid,
                               command ? "command" : "vCPU", lines);
    /*
     * Two kinds of access are counted, but not fatal.  The first is an access
     * of a vCPU through the raw view (@asid is 0): the host possibly only reads
     * the page, which destroys no data.  The second is a command that only
     * reads: it destroys no data either, and the hypervisor cannot prevent
     * unflushed lines, because the guest may share a page and write to it while
     * SEND_UPDATE_DATA packs it.  This write makes the page dirty, so that the
     * source sends it again.
     */
    if (sev.cache_check == SEV_MEMORY_CACHE_CHECK_FATAL &&
        (command ? command == SEV_MEMORY_COMMAND_WRITES : asid)) {
        error_report("amd-psp: %s used the page at 0x%" HWADDR_PRIx " with "
                     "ASID %u, but cache lines written with ASID %u (0: the "
                     "host) were not flushed: 0x%016" PRIx64,
                     command ? "the firmware" : "a vCPU",
                     (hwaddr)(pa & TARGET_PAGE_MASK), asid, view, lines);
        qemu_system_shutdown_request_with_code(SHUTDOWN_CAUSE_HOST_ERROR, 1);
    }
}

void sev_memory_set_cache_check(SevMemoryCacheCheck check)
{
    sev.cache_check = check;
}

SevMemoryCacheCheck sev_memory_cache_check(void)
{
    return sev.cache_check;
}

void sev_memory_watch(void)
{
    sev_memory_active = true;
}

void sev_memory_command_uses(hwaddr pa, size_t len, unsigned asid,
                             SevMemoryCommandAccess access)
{
    hwaddr page = pa & TARGET_PAGE_MASK;

    for (; page < pa + len; page += TARGET_PAGE_SIZE) {
        sev_memory_check_flushed(page, sev_memory_view(page), asid, access);
    }
}

void sev_memory_touch(CPUState *cs, hwaddr pa, bool is_write, int *prot)
{
    PageCache *cache;

    if (pa >> sev.cbitpos) {
        return;
    }
    cache = sev_memory_make_cache(pa);
    qatomic_set(&cache->filled, sev.flushes);
    if (sev.cache_check == SEV_MEMORY_CACHE_CHECK_OFF ||
        !(*prot & PAGE_WRITE)) {
        return;
    }
    if (!is_write) {
        /* The first write after a flush must call this function again */
        if (qatomic_read(&cache->lines) != UINT64_MAX) {
            *prot &= ~PAGE_WRITE;
        }
        return;
    }
    qatomic_or(&cache->writers, BIT_ULL(cs->cpu_index % 64));
    /*
     * Later writes use the TLB entry and do not call this function, so set the
     * bits of all lines of the page now
     */
    qatomic_set(&cache->lines, UINT64_MAX);
}

/*
 * CLFLUSH, CLFLUSHOPT and CLWB.  On processors whose caches are not coherent
 * across encryption domains, the C-bit and the ASID are part of a line's tag,
 * so the instruction flushes only lines of the view that it uses itself.
 */
void helper_sev_flush_line(CPUX86State *env, target_ulong addr)
{
    CPUTLBEntryFull *full;
    PageCache *cache;
    void *host;

    if (!sev_memory_active ||
        sev.cache_check == SEV_MEMORY_CACHE_CHECK_OFF) {
        return;
    }
    env->sev_flush = true;
    probe_access_full(env, addr, 1, MMU_DATA_LOAD,
                      x86_mmu_index_pl(env, env->hflags & HF_CPL_MASK), false,
                      &host, &full, GETPC());
    env->sev_flush = false;
    cache = sev_memory_cache(full->phys_addr);
    if (cache && qatomic_read(&cache->lines)) {
        unsigned line = (addr & ~TARGET_PAGE_MASK) / LINE_LEN;

        if (!qatomic_and_fetch(&cache->lines, ~BIT_ULL(line))) {
            qatomic_set(&cache->writers, 0);
            tlb_flush_page(env_cpu(env), addr & TARGET_PAGE_MASK);
        }
    }
}

/* Handle WBINVD: clean the pages that no vCPU other than @cpu has written */
static void sev_memory_cache_wbinvd(unsigned cpu)
{
    uint64_t chunks = 1ULL << (sev.cbitpos - CHUNK_SHIFT);

    for (uint64_t i = 0; i < chunks; i++) {
        PageCache *chunk = qatomic_read(&sev.caches[i]);

        for (unsigned page = 0; chunk && page < CHUNK_PAGES; page++) {
            if (!chunk[page].writers) {
                continue;
            }
            chunk[page].writers &= ~BIT_ULL(cpu % 64);
            if (!chunk[page].writers) {
                chunk[page].lines = 0;
            }
        }
    }
}

/*
 * Convert the page at @pa to the view of @asid.  Called in an exclusive
 * section, or while no vCPU runs.  Returns whether the page was converted.
 * @stale: set to true if a TLB may contain an entry for the page
 */
static bool sev_memory_convert(hwaddr pa, unsigned asid, bool *stale)
{
    unsigned view = sev_memory_view(pa);
    uint64_t pfn = pa >> TARGET_PAGE_BITS;
    ram_addr_t ram_addr;
    PageCache *cache;
    void *page;

    if (view == asid) {
        return false;
    }
    RCU_READ_LOCK_GUARD();
    page = sev_memory_page(pa, &ram_addr);
    if (!page) {
        return false;
    }
    /* The recorded lines belong to the page's old view */
    cache = sev_memory_make_cache(pa);
    sev_memory_cache_clean(cache);
    *stale |= cache->filled == sev.flushes;
    WITH_QEMU_LOCK_GUARD(&sev.lock) {
        sev_memory_recode(page, TARGET_PAGE_SIZE, pa, view, asid);
        sev_memory_set_page_view(pa, asid);
        sev_memory_set_plain_at(ram_addr, pa, asid);
        sev.stats.plaintext += !view - !asid;
        sev.stats.decrypted += !!asid;
        sev.stats.encrypted += !asid;
    }
    if (asid && !cache->listed) {
        cache->listed = true;
        g_array_append_val(sev.plain, pfn);
    }
    sev_memory_page_written(ram_addr);
    trace_sev_memory_convert(pa, view, asid);
    return true;
}

static void sev_memory_flush_tlbs(void)
{
    CPUState *cs;

    sev.flushes++;
    if (tcg_enabled()) {
        CPU_FOREACH(cs) {
            tlb_flush(cs);
        }
    }
}

/*
 * Convert the pages of @asid, or of all ASIDs if @asid is 0, to the raw view.
 * Called in the same context as sev_memory_convert().
 */
static void sev_memory_write_back(unsigned asid)
{
    guint i, kept = 0, written = 0, listed = sev.plain->len;
    bool stale = false;

    for (i = 0; i < listed; i++) {
        uint64_t pfn = g_array_index(sev.plain, uint64_t, i);
        unsigned view = sev_memory_view(pfn << TARGET_PAGE_BITS);

        if (!view || !asid || view == asid) {
            /* sev_memory_convert() has created the PageCache */
            sev_memory_cache(pfn << TARGET_PAGE_BITS)->listed = false;
        }
        if (!view) {
            continue;
        }
        if (!asid || view == asid) {
            if (sev_memory_convert(pfn << TARGET_PAGE_BITS, SEV_MEMORY_RAW,
                                   &stale)) {
                written++;
                continue;
            }
            /* The RAM was unplugged, so there is nothing to encrypt */
            sev_memory_set_page_view(pfn << TARGET_PAGE_BITS, SEV_MEMORY_RAW);
            WITH_QEMU_LOCK_GUARD(&sev.lock) {
                sev.stats.plaintext--;
            }
            continue;
        }
        g_array_index(sev.plain, uint64_t, kept++) = pfn;
    }
    g_array_set_size(sev.plain, kept);
    if (written) {
        WITH_QEMU_LOCK_GUARD(&sev.lock) {
            sev.stats.encrypted -= written;
            sev.stats.written_back += written;
        }
    }
    if (stale) {
        sev_memory_flush_tlbs();
    }
    trace_sev_memory_write_back(asid, written, listed);
}

bool sev_memory_set_key(unsigned asid, const uint8_t *key, Error **errp)
{
    g_assert(asid && asid <= sev.max_asid && !sev.key[asid]);

    sev.key[asid] = qcrypto_cipher_new(QCRYPTO_CIPHER_ALGO_AES_128,
                                       QCRYPTO_CIPHER_MODE_XTS,
                                       key, SEV_MEMORY_KEY_LEN, errp);
    if (!sev.key[asid]) {
        return false;
    }
    sev_memory_active = true;
    trace_sev_memory_key(asid, "set");
    return true;
}

void sev_memory_clear_key(unsigned asid)
{
    if (!sev_memory_has_key(asid)) {
        return;
    }
    sev_memory_write_back(asid);
    qatomic_set(&sev.valid[asid], false);
    WITH_QEMU_LOCK_GUARD(&sev.lock) {
        qcrypto_cipher_free(sev.key[asid]);
        sev.key[asid] = NULL;
    }
    trace_sev_memory_key(asid, "clear");
}

/*
 * Read or write @len bytes at @offset of @page through the view of @asid, while
 * the page has another view.  Called with sev.lock held.
 */
static void sev_memory_rw_recoded(uint8_t *page, hwaddr pa, unsigned view,
                                  unsigned asid, size_t offset, void *buf,
                                  size_t len, bool is_write)
{
    uint8_t copy[TARGET_PAGE_SIZE];
    size_t end = ROUND_UP(offset + len, XTS_BLOCK);

    memcpy(copy, page, end);
    sev_memory_recode(copy, end, pa, view, asid);
    if (!is_write) {
        memcpy(buf, copy + offset, len);
        return;
    }
    memcpy(copy + offset, buf, len);
    sev_memory_recode(copy, end, pa, asid, view);
    memcpy(page, copy, end);
}

/*
 * Read or write within one page.  If the page has another view, convert a copy
 * of it instead of the page itself, so that vCPUs do not have to stop.
 */
static bool sev_memory_rw_page(hwaddr pa, unsigned asid, void *buf, size_t len,
                               bool is_write)
{
    unsigned view = sev_memory_view(pa);
    size_t offset = pa & ~TARGET_PAGE_MASK;
    ram_addr_t ram_addr;
    uint8_t *page;

    RCU_READ_LOCK_GUARD();
    page = sev_memory_page(pa, &ram_addr);
    if (!page) {
        return false;
    }
    if (view == asid) {
        if (!is_write) {
            memcpy(buf, page + offset, len);
            return true;
        }
        memcpy(page + offset, buf, len);
    } else {
        WITH_QEMU_LOCK_GUARD(&sev.lock) {
            sev_memory_rw_recoded(page, pa, view, asid, offset, buf, len,
                                  is_write);
        }
        if (!is_write) {
            return true;
        }
    }
    sev_memory_page_written(ram_addr);
    return true;
}

static bool sev_memory_rw(hwaddr pa, unsigned asid, void *buf, size_t len,
                          bool is_write)
{
    g_assert(!asid || sev_memory_has_key(asid));

    while (len) {
        size_t n = MIN(len, TARGET_PAGE_SIZE - (pa & ~TARGET_PAGE_MASK));

        if (!sev_memory_rw_page(pa, asid, buf, n, is_write)) {
            return false;
        }
        pa += n;
        buf += n;
        len -= n;
    }
    return true;
}

bool sev_memory_read(hwaddr pa, unsigned asid, void *buf, size_t len)
{
    return sev_memory_rw(pa, asid, buf, len, false);
}

bool sev_memory_write(hwaddr pa, unsigned asid, const void *buf, size_t len)
{
    return sev_memory_is_ram(pa, len) &&
           sev_memory_rw(pa, asid, (void *)buf, len, true);
}

static bool sev_memory_dma(hwaddr pa, void *buf, size_t len, bool is_write)
{
    /* The BQL keeps RAM mapped, so the access cannot reach a device */
    g_assert(bql_locked());
    return sev_memory_is_ram(pa, len) &&
           address_space_rw(&address_space_memory, pa, MEMTXATTRS_UNSPECIFIED,
                            buf, len, is_write) == MEMTX_OK;
}

bool sev_memory_dma_read(hwaddr pa, void *buf, size_t len)
{
    return sev_memory_dma(pa, buf, len, false);
}

bool sev_memory_dma_write(hwaddr pa, const void *buf, size_t len)
{
    return sev_memory_dma(pa, (void *)buf, len, true);
}

/* Check whether a page in the RAM [@addr, @addr + @len) may be plaintext */
static bool sev_memory_any_plain(ram_addr_t addr, size_t len)
{
    ram_addr_t end = addr + len;

    if (!sev_memory_active) {
        return false;
    }
    for (addr &= TARGET_PAGE_MASK; addr < end; addr += TARGET_PAGE_SIZE) {
        if (sev_memory_plain_at(addr)) {
            return true;
        }
    }
    return false;
}

/* Called with sev.lock held */
static void sev_memory_bypassed(uint64_t plain, bool is_write, const char *how)
{
    *(is_write ? &sev.stats.bypassing_writes : &sev.stats.bypassing_reads) += 1;
    trace_sev_memory_bypassed(plain & TARGET_PAGE_MASK,
                              plain & ~TARGET_PAGE_MASK, how);
}

static bool sev_memory_access(ram_addr_t addr, void *buf, size_t len,
                              bool is_write)
{
    if (!sev_memory_any_plain(addr, len)) {
        return false;
    }
    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(&sev.lock);
    while (len) {
        size_t offset = addr & ~TARGET_PAGE_MASK;
        size_t n = MIN(len, TARGET_PAGE_SIZE - offset);
        uint8_t *page = qemu_map_ram_ptr(NULL, addr & TARGET_PAGE_MASK);
        uint64_t plain = sev_memory_plain_at(addr);

        if (plain) {
            sev_memory_bypassed(plain, is_write, is_write ? "write" : "read");
            sev_memory_rw_recoded(page, plain & TARGET_PAGE_MASK,
                                  plain & ~TARGET_PAGE_MASK, SEV_MEMORY_RAW,
                                  offset, buf, n, is_write);
        } else if (is_write) {
            memcpy(page + offset, buf, n);
        } else {
            memcpy(buf, page + offset, n);
        }
        addr += n;
        buf += n;
        len -= n;
    }
    return true;
}

static void sev_memory_map(ram_addr_t addr, size_t len, bool is_write)
{
    ram_addr_t end = addr + len;

    if (!sev_memory_any_plain(addr, len)) {
        return;
    }
    QEMU_LOCK_GUARD(&sev.lock);
    for (addr &= TARGET_PAGE_MASK; addr < end; addr += TARGET_PAGE_SIZE) {
        uint64_t plain = sev_memory_plain_at(addr);

        if (plain) {
            sev_memory_bypassed(plain, is_write,
                                is_write ? "map to write" : "map to read");
        }
    }
}

static void sev_memory_write_back_all(void)
{
    sev_memory_write_back(0);
}

static const RamEncryptionOps sev_memory_ops = {
    .access = sev_memory_access,
    .map = sev_memory_map,
    .write_back = sev_memory_write_back_all,
};

void sev_memory_stats(SevMemoryStats *stats)
{
    QEMU_LOCK_GUARD(&sev.lock);
    *stats = sev.stats;
}

/*
 * Stop the other vCPUs; @cs is the current one.  If the BQL is held, it is
 * unlocked first: start_exclusive() waits for all vCPUs, and one of them may
 * wait for the BQL.  Returns whether the BQL was unlocked.
 */
static bool sev_memory_begin(CPUState *cs)
{
    bool locked = bql_locked();

    if (!qemu_tcg_mttcg_enabled() || cpu_in_exclusive_context(cs)) {
        return false;
    }
    if (locked) {
        bql_unlock();
    }
    cpu_exec_end(cs);
    start_exclusive();
    return locked;
}

static void sev_memory_end(CPUState *cs, bool was_exclusive, bool locked)
{
    if (!qemu_tcg_mttcg_enabled() || was_exclusive) {
        return;
    }
    end_exclusive();
    cpu_exec_start(cs);
    if (locked) {
        bql_lock();
    }
}

static void sev_memory_convert_work(CPUState *cs, run_on_cpu_data data)
{
    unsigned asid = data.target_ptr & ~TARGET_PAGE_MASK;
    bool stale = false;

    if (asid && !sev_memory_has_key(asid)) {
        return;
    }
    sev_memory_convert(data.target_ptr & TARGET_PAGE_MASK, asid, &stale);
    if (stale) {
        sev_memory_flush_tlbs();
    }
}

/* Get the view of @asid, which is the raw view if its key was removed */
static unsigned sev_memory_asid_view(unsigned asid)
{
    return sev_memory_has_key(asid) ? asid : SEV_MEMORY_RAW;
}

bool sev_memory_has_view(hwaddr pa, unsigned asid)
{
    return likely(sev_memory_view(pa) == sev_memory_asid_view(asid)) ||
           !sev_memory_is_ram(pa & TARGET_PAGE_MASK, TARGET_PAGE_SIZE);
}

bool sev_memory_need_view(CPUState *cs, hwaddr pa, unsigned asid, bool restart,
                          uintptr_t retaddr)
{
    if (sev_memory_has_view(pa, asid)) {
        return false;
    }
    sev_memory_check_flushed(pa, sev_memory_view(pa),
                             sev_memory_asid_view(asid), 0);
    return sev_memory_change_view(cs, pa, asid, restart, retaddr);
}

bool sev_memory_change_view(CPUState *cs, hwaddr pa, unsigned asid,
                            bool restart, uintptr_t retaddr)
{
    bool exclusive = cpu_in_exclusive_context(cs);
    bool locked, stale = false;

    QEMU_BUILD_BUG_ON(SEV_MEMORY_MAX_ASID >= TARGET_PAGE_SIZE);

    if (sev_memory_has_view(pa, asid)) {
        return false;
    }
    asid = sev_memory_asid_view(asid);
    /*
     * If the instruction can be restarted, convert the page in safe work and
     * restart the instruction.  Stopping the other vCPUs here would not allow a
     * return to the generated code, because another vCPU may flush this code
     * before it stops.  During translation, exit to the CPU loop even if the
     * instruction cannot be restarted: the translator holds a page lock, and
     * another vCPU may wait for that lock and never stop.
     */
    if ((restart && !exclusive) || (tcg_ctx && tcg_ctx->gen_tb)) {
        async_safe_run_on_cpu(cs, sev_memory_convert_work,
                              RUN_ON_CPU_TARGET_PTR((pa & TARGET_PAGE_MASK) |
                                                    asid));
        cpu_loop_exit_restore(cs, retaddr);
    }
    /*
     * A probe or the delivery of an interrupt cannot be restarted, so convert
     * the page here while the other vCPUs are stopped
     */
    locked = sev_memory_begin(cs);
    sev_memory_convert(pa & TARGET_PAGE_MASK, asid, &stale);
    if (stale) {
        sev_memory_flush_tlbs();
    }
    sev_memory_end(cs, exclusive, locked);
    return true;
}

void sev_memory_forget_wbinvd(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(sev.wbinvd); i++) {
        qatomic_set(&sev.wbinvd[i], 0);
    }
}

bool sev_memory_all_wbinvd(void)
{
    CPUState *cs;

    if (!tcg_enabled()) {
        /* With qtest, vCPUs do not run */
        return true;
    }
    RCU_READ_LOCK_GUARD();
    CPU_FOREACH(cs) {
        bool dead = cs->halted && !(X86_CPU(cs)->env.eflags & IF_MASK);

        if (!dead && cs->cpu_index < MAX_CPUS &&
            !test_bit(cs->cpu_index, sev.wbinvd)) {
            return false;
        }
    }
    return true;
}

static void sev_memory_wbinvd_work(CPUState *cs, run_on_cpu_data data)
{
    sev_memory_write_back(0);
    sev_memory_cache_wbinvd(cs->cpu_index);
    /* The next write to each page must call sev_memory_touch() */
    sev_memory_flush_tlbs();
}

/* WBINVD ends its translation block, so safe work runs before the next block */
void helper_wbinvd(CPUX86State *env)
{
    unsigned cpu = env_cpu(env)->cpu_index;

    if (cpu < MAX_CPUS) {
        set_bit_atomic(cpu, sev.wbinvd);
    }
    if (sev_memory_active) {
        async_safe_run_on_cpu(env_cpu(env), sev_memory_wbinvd_work,
                              RUN_ON_CPU_NULL);
    }
}
