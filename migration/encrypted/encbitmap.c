/*
 * Encryption bitmap of a RAMBlock: which of its pages are private
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The map is an array of unsigned long like every bitmap of QEMU, so that
 * find_next_bit() processes it by words.  It covers max_length of the
 * RAMBlock, so that resizing the RAMBlock does not change it.
 *
 * Lock order: BQL, the RAMBlock's lock, locks that a provider takes.  A thread
 * that holds the RAMBlock's lock as a reader must not take the BQL, because a
 * vCPU may hold the BQL while it waits for the writer's lock.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/rcu.h"
#include "qemu/rcu_queue.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "exec/encbitmap.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "trace.h"

/* Words that encbitmap_update() compares in one step: the state of 16 MiB */
#define SAME_WORDS 64

struct EncBitmap {
    const EncBitmapProvider *provider;
    uint64_t npages;

    /*
     * A reader-writer lock that admits no new reader while a writer waits.
     * The migration thread is a reader, and takes the lock again as soon as it
     * has dropped it.  A vCPU that converts pages is a writer.  With a lock
     * that prefers readers, the vCPU could wait for a whole round.
     */
    QemuMutex mutex;
    QemuCond changed;
    unsigned readers;
    unsigned writers_waiting;
    bool writing;

    /* Words are written atomically, with the writer's lock held */
    unsigned long map[];
};

static void write_lock(EncBitmap *eb)
{
    qemu_mutex_lock(&eb->mutex);
    eb->writers_waiting++;
    while (eb->readers || eb->writing) {
        qemu_cond_wait(&eb->changed, &eb->mutex);
    }
    eb->writers_waiting--;
    eb->writing = true;
    qemu_mutex_unlock(&eb->mutex);
}

static void write_unlock(EncBitmap *eb)
{
    qemu_mutex_lock(&eb->mutex);
    assert(eb->writing);
    eb->writing = false;
    qemu_cond_broadcast(&eb->changed);
    qemu_mutex_unlock(&eb->mutex);
}

static EncBitmap *encbitmap(const RAMBlock *rb)
{
    return qatomic_load_acquire(&rb->encbmap);
}

void encbitmap_send_lock(RAMBlock *rb)
{
    EncBitmap *eb = encbitmap(rb);

    if (!eb) {
        return;
    }
    qemu_mutex_lock(&eb->mutex);
    while (eb->writing || eb->writers_waiting) {
        qemu_cond_wait(&eb->changed, &eb->mutex);
    }
    eb->readers++;
    qemu_mutex_unlock(&eb->mutex);
}

void encbitmap_send_unlock(RAMBlock *rb)
{
    EncBitmap *eb = encbitmap(rb);

    if (!eb) {
        return;
    }
    qemu_mutex_lock(&eb->mutex);
    assert(eb->readers);
    if (!--eb->readers) {
        qemu_cond_broadcast(&eb->changed);
    }
    qemu_mutex_unlock(&eb->mutex);
}

void encbitmap_init(RAMBlock *rb, const EncBitmapProvider *provider,
                    bool all_private)
{
    EncBitmap *eb;
    uint64_t npages;

    if (encbitmap(rb)) {
        return;
    }
    npages = rb->max_length >> qemu_target_page_bits();
    eb = g_malloc0(sizeof(*eb) +
                   DIV_ROUND_UP(npages, BITS_PER_LONG) * sizeof(eb->map[0]));
    eb->provider = provider;
    eb->npages = npages;
    qemu_mutex_init(&eb->mutex);
    qemu_cond_init(&eb->changed);
    if (all_private) {
        bitmap_set(eb->map, 0, npages);
    }
    qatomic_store_release(&rb->encbmap, eb);
    trace_encbitmap_init(rb->idstr, provider ? provider->name : "none",
                         npages, all_private);
}

void encbitmap_free(RAMBlock *rb)
{
    EncBitmap *eb = encbitmap(rb);

    if (!eb) {
        return;
    }
    assert(!eb->readers && !eb->writing && !eb->writers_waiting);
    if (eb->provider && eb->provider->release) {
        eb->provider->release(rb);
    }
    qatomic_set(&rb->encbmap, NULL);
    qemu_cond_destroy(&eb->changed);
    qemu_mutex_destroy(&eb->mutex);
    g_free(eb);
}

uint64_t encbitmap_npages(const RAMBlock *rb)
{
    EncBitmap *eb = encbitmap(rb);

    return eb ? eb->npages : 0;
}

bool encbitmap_test(const RAMBlock *rb, uint64_t page)
{
    EncBitmap *eb = encbitmap(rb);

    if (!eb || page >= eb->npages) {
        return false;
    }
    return qatomic_read(&eb->map[BIT_WORD(page)]) & BIT_MASK(page);
}

uint64_t encbitmap_run(const RAMBlock *rb, uint64_t page, uint64_t end,
                       bool *is_private)
{
    EncBitmap *eb = encbitmap(rb);
    uint64_t next;

    *is_private = false;
    if (page >= end) {
        return 0;
    }
    if (!eb || page >= eb->npages) {
        return end - page;
    }
    end = MIN(end, eb->npages);
    *is_private = encbitmap_test(rb, page);
    next = *is_private ? find_next_zero_bit(eb->map, end, page)
                       : find_next_bit(eb->map, end, page);
    return next - page;
}

/*
 * Return the mask of those bits of *page's word that belong to [*page, end),
 * and set *nbits to their number.  Advances *page by *nbits.
 */
static unsigned long next_piece(uint64_t *page, uint64_t end, unsigned *nbits)
{
    unsigned shift = *page % BITS_PER_LONG;
    unsigned long mask = ~0UL << shift;

    *nbits = MIN(end - *page, BITS_PER_LONG - shift);
    mask &= ~0UL >> (BITS_PER_LONG - shift - *nbits);
    *page += *nbits;
    return mask;
}

/*
 * Copy the bits of @val that are in @mask to word @word of the map.  Return
 * whether a bit of the map changed.
 */
static bool put_bits(EncBitmap *eb, uint64_t word, unsigned long mask,
                         unsigned long val)
{
    unsigned long old = eb->map[word];
    unsigned long new = (old & ~mask) | (val & mask);

    if (old != new) {
        qatomic_set(&eb->map[word], new);
    }
    return old != new;
}

static void check_range(const EncBitmap *eb, uint64_t first, uint64_t npages)
{
    assert(first <= eb->npages && npages <= eb->npages - first);
}

uint64_t encbitmap_allocated_run(RAMBlock *rb, uint64_t page, uint64_t npages,
                                 bool *allocated)
{
    EncBitmap *eb = encbitmap(rb);
    uint64_t run;

    assert(eb && npages && page + npages <= eb->npages);
    if (!eb->provider || !eb->provider->allocated) {
        *allocated = true;
        return npages;
    }
    run = eb->provider->allocated(rb, page, npages, allocated);
    assert(run && run <= npages);
    return run;
}

bool encbitmap_poisoned(RAMBlock *rb, uint64_t page)
{
    EncBitmap *eb = encbitmap(rb);
    unsigned bits = qemu_target_page_bits();

    return eb && eb->provider && eb->provider->poisoned &&
           eb->provider->poisoned(rb, page << bits, 1ULL << bits);
}

uint64_t encbitmap_count(const RAMBlock *rb, uint64_t first, uint64_t npages)
{
    EncBitmap *eb = encbitmap(rb);
    uint64_t page = first, end, n = 0;
    unsigned nbits;

    if (!eb || first >= eb->npages) {
        return 0;
    }
    end = first + MIN(npages, eb->npages - first);
    while (page < end) {
        uint64_t word = BIT_WORD(page);

        n += ctpopl(qatomic_read(&eb->map[word]) &
                    next_piece(&page, end, &nbits));
    }
    return n;
}

void encbitmap_set(RAMBlock *rb, uint64_t first, uint64_t npages,
                   bool is_private)
{
    EncBitmap *eb = encbitmap(rb);
    uint64_t page = first, end = first + npages;
    unsigned nbits;

    check_range(eb, first, npages);
    while (page < end) {
        uint64_t word = BIT_WORD(page);

        put_bits(eb, word, next_piece(&page, end, &nbits),
                 is_private ? ~0UL : 0);
    }
}

/*
 * Return @nbits bits of @le, starting with bit @bit.  The higher bits of the
 * result are undefined.  The function reads only the words that contain these
 * @nbits bits, so it does not read past the end of @le.
 */
static unsigned long get_le_bits(const uint64_t *le, uint64_t bit,
                                 unsigned nbits)
{
    unsigned shift = bit % 64;
    uint64_t val = le64_to_cpu(le[bit / 64]) >> shift;

    if (shift + nbits > 64) {
        val |= le64_to_cpu(le[bit / 64 + 1]) << (64 - shift);
    }
    return val;
}

/* Mark pages dirty, so that the next dirty sync finds them */
static void mark_dirty(RAMBlock *rb, uint64_t first, uint64_t npages)
{
    unsigned bits = qemu_target_page_bits();

    /*
     * Outside of a migration, this call has no effect.  That is harmless,
     * because a new migration sends all pages.
     */
    memory_region_set_dirty(rb->mr, first << bits, npages << bits);
}

/*
 * The fast path of encbitmap_update(), which handles nearly all words of a
 * large RAMBlock: update @nwords whole words, the first of which begins with
 * page @page, a multiple of 64.  Most words do not change, so the function is
 * quick at skipping unchanged words.
 */
static uint64_t update_words(RAMBlock *rb, EncBitmap *eb, uint64_t page,
                             uint64_t nwords, const uint64_t *le, bool dirty)
{
    unsigned long *map = &eb->map[BIT_WORD(page)];
    uint64_t changed = 0;

    for (uint64_t at = 0, n; at < nwords; at += n) {
        n = MIN(nwords - at, SAME_WORDS);
        /* memcmp() is several times as fast as the loop below */
        if (!HOST_BIG_ENDIAN && !memcmp(&map[at], &le[at], n * sizeof(*le))) {
            continue;
        }
        for (uint64_t i = at; i < at + n; i++) {
            unsigned long new = le64_to_cpu(le[i]);

            if (map[i] == new) {
                continue;
            }
            qatomic_set(&map[i], new);
            changed++;
            if (dirty) {
                mark_dirty(rb, page + i * 64, 64);
            }
        }
    }
    return changed;
}

uint64_t encbitmap_update(RAMBlock *rb, uint64_t first, uint64_t npages,
                          const uint64_t *le)
{
    EncBitmap *eb = encbitmap(rb);
    uint64_t page = first, end = first + npages, changed = 0;
    bool dirty = eb->provider && !eb->provider->dirties;

    assert(eb->writing);
    check_range(eb, first, npages);
    if (BITS_PER_LONG == 64 && !(first % 64)) {
        changed = update_words(rb, eb, first, npages / 64, le, dirty);
        page += npages / 64 * 64;
    }
    while (page < end) {
        uint64_t at = page;
        unsigned nbits;
        unsigned long mask = next_piece(&page, end, &nbits);
        unsigned long val = get_le_bits(le, at - first, nbits);

        if (!put_bits(eb, BIT_WORD(at), mask, val << (at % BITS_PER_LONG))) {
            continue;
        }
        changed++;
        if (dirty) {
            /*
             * This also marks the unchanged pages of the word.  That is
             * harmless: they are only sent once more.
             */
            mark_dirty(rb, at, nbits);
        }
    }
    return changed;
}

void encbitmap_read(const RAMBlock *rb, uint64_t first, uint64_t npages,
                    uint64_t *le)
{
    EncBitmap *eb = encbitmap(rb);
    uint64_t page = first, end = first + npages;

    check_range(eb, first, npages);
    memset(le, 0, DIV_ROUND_UP(npages, 64) * sizeof(*le));
    while (page < end) {
        uint64_t at = page - first, word = BIT_WORD(page);
        unsigned shift = page % BITS_PER_LONG, nbits;
        uint64_t val = qatomic_read(&eb->map[word]);

        val = (val & next_piece(&page, end, &nbits)) >> shift;
        le[at / 64] |= cpu_to_le64(val << (at % 64));
        if (at % 64 + nbits > 64) {
            le[at / 64 + 1] |= cpu_to_le64(val >> (64 - at % 64));
        }
    }
}

/* The part of encbitmap_convert() that runs with the writer's lock held */
static int convert_locked(RAMBlock *rb, EncBitmap *eb, uint64_t first,
                          uint64_t npages, bool to_private,
                          uint64_t *error_offset, Error **errp)
{
    const EncBitmapProvider *p = eb->provider;
    unsigned bits = qemu_target_page_bits();
    uint64_t page = first, end = first + npages;

    if (p && p->convert) {
        uint64_t bad = first << bits;
        int ret = p->convert(rb, first << bits, npages << bits, to_private,
                             &bad);

        if (ret < 0) {
            if (error_offset) {
                *error_offset = bad;
            }
            error_setg_errno(errp, -ret, "block %s: cannot convert 0x%" PRIx64
                             " bytes at offset 0x%" PRIx64 " to %s (%s, first "
                             "bad offset 0x%" PRIx64 ")", rb->idstr,
                             npages << bits, first << bits,
                             to_private ? "private" : "shared", p->name, bad);
            return ret;
        }
    }
    if (p && !p->dirties) {
        /*
         * The provider does not mark the pages that it has converted.  The
         * bitmap does not tell which pages the provider has converted, because
         * the bitmap may have differed from the provider's state before.  A bit
         * that already has the new value does not prove that its page was not
         * converted.  Therefore mark the whole range.
         */
        mark_dirty(rb, first, npages);
    }
    while (page < end) {
        bool is_private;
        uint64_t run = encbitmap_run(rb, page, end, &is_private);

        if (is_private != to_private) {
            if (!p || p->dirties) {
                /*
                 * Mark only the pages whose state changes, because the others
                 * keep their contents.  The provider's marks do not suffice: it
                 * marks only pages in a memory slot, and pages that a PAM
                 * register hides are in no slot.
                 */
                mark_dirty(rb, page, run);
            }
            encbitmap_set(rb, page, run, to_private);
        }
        page += run;
    }
    return 0;
}

int encbitmap_convert(RAMBlock *rb, uint64_t offset, uint64_t size,
                      bool to_private, uint64_t *error_offset, Error **errp)
{
    EncBitmap *eb = encbitmap(rb);
    unsigned bits = qemu_target_page_bits();
    uint64_t len = rb->max_length;
    int64_t start;
    int ret;

    if (!size || ((offset | size) & ((1ULL << bits) - 1)) ||
        offset > len || size > len - offset) {
        error_setg(errp, "block %s: cannot convert 0x%" PRIx64 " bytes at "
                   "offset 0x%" PRIx64 ": expected a range of whole pages "
                   "in a block of 0x%" PRIx64 " bytes", rb->idstr, size,
                   offset, len);
        return -EINVAL;
    }
    if (!eb) {
        if (!to_private) {
            return 0;
        }
        error_setg(errp, "block %s: cannot convert 0x%" PRIx64 " bytes at "
                   "offset 0x%" PRIx64 " to private: the block's memory is "
                   "always shared", rb->idstr, size, offset);
        return -ENOTSUP;
    }
    start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    write_lock(eb);
    trace_encbitmap_convert_wait(rb->idstr,
                                 qemu_clock_get_ns(QEMU_CLOCK_REALTIME) -
                                 start);
    ret = convert_locked(rb, eb, offset >> bits, size >> bits, to_private,
                         error_offset, errp);
    write_unlock(eb);
    trace_encbitmap_convert(rb->idstr, offset, size, to_private, ret);
    return ret;
}

bool encbitmap_sync(Error **errp)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        EncBitmap *eb = encbitmap(rb);
        bool ok;

        if (!eb || !eb->provider || !eb->provider->sync) {
            continue;
        }
        write_lock(eb);
        ok = eb->provider->sync(rb, errp);
        write_unlock(eb);
        if (!ok) {
            error_prepend(errp, "block %s: cannot read which pages are "
                          "private: ", rb->idstr);
            return false;
        }
        trace_encbitmap_sync(rb->idstr, eb->provider->name,
                             encbitmap_count(rb, 0, eb->npages), eb->npages);
    }
    return true;
}
