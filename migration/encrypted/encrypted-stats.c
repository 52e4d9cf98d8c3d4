/*
 * Statistics of a migration with private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/host-utils.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "qapi/util.h"
#include "encrypted-stats.h"

/*
 * Path by which each page was sent last.  A page that is in neither bitmap has
 * not been sent yet.
 */
typedef struct BlockPaths {
    unsigned long *as_private;
    unsigned long *as_shared;
} BlockPaths;

struct EncryptedStats {
    QemuMutex lock;
    GArray *blocks;                 /* BlockPaths */
    EncryptedRamCounters total;
    EncryptedPacked packed;
    uint64_t remaining;             /* private pages */
    int64_t began;
    /*
     * Round N is at index N modulo the size.  While round N is under way, its
     * counters contain the values that @total had when the round began.  At the
     * end of the round, encrypted_stats_round() replaces these values by the
     * counts of the round.
     */
    EncryptedRamRound rounds[ENCRYPTED_STATS_ROUNDS];
    uint64_t first, last;           /* rounds that are kept; last 0: none */
    bool in_round;                  /* round @last has not ended */
    const char *warning;
    char *helper_unused;
};

EncryptedStats *encrypted_stats_new(void)
{
    EncryptedStats *s = g_new0(EncryptedStats, 1);

    qemu_mutex_init(&s->lock);
    s->blocks = g_array_new(false, true, sizeof(BlockPaths));
    return s;
}

static void forget_blocks(EncryptedStats *s)
{
    for (guint i = 0; i < s->blocks->len; i++) {
        BlockPaths *b = &g_array_index(s->blocks, BlockPaths, i);

        g_free(b->as_private);
        g_free(b->as_shared);
    }
    g_array_set_size(s->blocks, 0);
}

void encrypted_stats_free(EncryptedStats *s)
{
    if (s) {
        forget_blocks(s);
        g_array_unref(s->blocks);
        qemu_mutex_destroy(&s->lock);
        g_free(s->helper_unused);
        g_free(s);
    }
}

void encrypted_stats_add_block(EncryptedStats *s, uint64_t npages)
{
    BlockPaths b = {
        .as_private = bitmap_new(npages),
        .as_shared = bitmap_new(npages),
    };

    QEMU_LOCK_GUARD(&s->lock);
    g_array_append_val(s->blocks, b);
}

void encrypted_stats_forget_blocks(EncryptedStats *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    forget_blocks(s);
}

static EncryptedRamCounters *counters(EncryptedRamRound *round)
{
    return qapi_EncryptedRamRound_base(round);
}

static void subtract(EncryptedRamCounters *c, const EncryptedRamCounters *b)
{
    c->private_pages -= b->private_pages;
    c->private_bytes -= b->private_bytes;
    c->unallocated_pages -= b->unallocated_pages;
    c->shared_pages -= b->shared_pages;
    c->batches -= b->batches;
    c->again_pages -= b->again_pages;
    c->converted_pages -= b->converted_pages;
    c->platform_calls -= b->platform_calls;
    c->platform_time -= b->platform_time;
    c->helper_pages -= b->helper_pages;
}

/* Return the round that has not ended, with its counters up to @now */
static EncryptedRamRound present_round(EncryptedStats *s, int64_t now)
{
    EncryptedRamRound r = s->rounds[s->last % ENCRYPTED_STATS_ROUNDS];
    EncryptedRamCounters before = *counters(&r);

    *counters(&r) = s->total;
    subtract(counters(&r), &before);
    r.duration = now - s->began - r.start;
    return r;
}

bool encrypted_stats_round(EncryptedStats *s, uint64_t number, int64_t now,
                           EncryptedRamRound *ended)
{
    EncryptedRamRound *r;
    bool was_in_round;

    QEMU_LOCK_GUARD(&s->lock);
    was_in_round = s->in_round;
    if (was_in_round) {
        *ended = present_round(s, now);
        s->rounds[s->last % ENCRYPTED_STATS_ROUNDS] = *ended;
    }
    s->in_round = number;
    if (!number) {
        return was_in_round;
    }
    if (!s->last) {
        s->first = number;
        s->began = now;
    }
    s->last = number;
    if (s->last - s->first >= ENCRYPTED_STATS_ROUNDS) {
        s->first = s->last - ENCRYPTED_STATS_ROUNDS + 1;
    }
    r = &s->rounds[number % ENCRYPTED_STATS_ROUNDS];
    *r = (EncryptedRamRound) {
        .round = number,
        .start = now - s->began,
    };
    *counters(r) = s->total;
    return was_in_round;
}

/* Set or clear @npages bits.  Returns how many of them were set before. */
static uint64_t exchange(unsigned long *map, uint64_t page, uint64_t npages,
                         bool set)
{
    uint64_t end = page + npages, before = 0;

    while (page < end) {
        unsigned at = page % BITS_PER_LONG;
        unsigned n = MIN(BITS_PER_LONG - at, end - page);
        unsigned long mask = (~0UL >> (BITS_PER_LONG - n)) << at;
        unsigned long *word = &map[BIT_WORD(page)];

        before += ctpop64(*word & mask);
        *word = set ? *word | mask : *word & ~mask;
        page += n;
    }
    return before;
}

/*
 * Remember the path by which pages are sent.  Returns how many of them were
 * sent by the other path before.
 */
static uint64_t set_path(EncryptedStats *s, unsigned block, uint64_t page,
                          uint64_t npages, bool is_private)
{
    BlockPaths *b;

    if (block >= s->blocks->len) {
        return 0;
    }
    b = &g_array_index(s->blocks, BlockPaths, block);
    exchange(is_private ? b->as_private : b->as_shared, page, npages, true);
    return exchange(is_private ? b->as_shared : b->as_private, page, npages,
                    false);
}

void encrypted_stats_private(EncryptedStats *s, unsigned block, uint64_t page,
                             uint64_t npages, uint64_t bytes)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->total.private_pages += npages;
    s->remaining -= MIN(npages, s->remaining);
    s->total.private_bytes += bytes;
    s->total.batches++;
    s->total.converted_pages += set_path(s, block, page, npages, true);
}

void encrypted_stats_unallocated(EncryptedStats *s, unsigned block,
                                 uint64_t page, uint64_t npages,
                                 uint64_t bytes)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->total.unallocated_pages += npages;
    s->remaining -= MIN(npages, s->remaining);
    s->total.private_bytes += bytes;
    s->total.converted_pages += set_path(s, block, page, npages, true);
}

void encrypted_stats_shared(EncryptedStats *s, unsigned block, uint64_t page)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->total.shared_pages++;
    s->total.converted_pages += set_path(s, block, page, 1, false);
}

void encrypted_stats_requeued(EncryptedStats *s, uint64_t npages)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->total.again_pages += npages;
}

void encrypted_stats_packed(EncryptedStats *s, uint64_t npages, int64_t ns)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->packed.pages += npages;
    s->packed.ns += ns;
    s->total.platform_time = s->packed.ns / SCALE_MS;
}

void encrypted_stats_calls(EncryptedStats *s, uint64_t calls)
{
    QEMU_LOCK_GUARD(&s->lock);
    /*
     * Two threads may read the number of calls and then call this function in
     * the opposite order, so never replace a number by a smaller one
     */
    s->total.platform_calls = MAX(s->total.platform_calls, calls);
}

void encrypted_stats_helper(EncryptedStats *s, uint64_t npages,
                            const char *why_not)
{
    QEMU_LOCK_GUARD(&s->lock);
    /* As in encrypted_stats_calls() */
    s->total.helper_pages = MAX(s->total.helper_pages, npages);
    g_free(s->helper_unused);
    s->helper_unused = g_strdup(why_not);
}

void encrypted_stats_warn(EncryptedStats *s, const char *text)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->warning = text;
}

void encrypted_stats_remaining(EncryptedStats *s, uint64_t npages)
{
    QEMU_LOCK_GUARD(&s->lock);
    s->remaining = npages;
}

EncryptedPacked encrypted_stats_get_packed(EncryptedStats *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return s->packed;
}

EncryptedSent encrypted_stats_get_sent(EncryptedStats *s)
{
    QEMU_LOCK_GUARD(&s->lock);
    return (EncryptedSent) {
        .pages = s->total.private_pages,
        .unallocated = s->total.unallocated_pages,
        .remaining = s->remaining,
    };
}

EncryptedRamStats *encrypted_stats_get(EncryptedStats *s, int64_t now)
{
    EncryptedRamStats *stats = g_new0(EncryptedRamStats, 1);
    EncryptedRamRoundList **tail = &stats->recent_rounds;

    QEMU_LOCK_GUARD(&s->lock);
    *qapi_EncryptedRamStats_base(stats) = s->total;
    stats->rounds = s->last;
    stats->remaining_private_pages = s->remaining;
    stats->warning = g_strdup(s->warning);
    stats->helper_unused = g_strdup(s->helper_unused);
    if (s->packed.ns) {
        stats->private_pages_per_second = (double)s->packed.pages *
            NANOSECONDS_PER_SECOND / s->packed.ns;
    }
    for (uint64_t n = s->first; s->last && n <= s->last; n++) {
        EncryptedRamRound *r = &s->rounds[n % ENCRYPTED_STATS_ROUNDS];
        EncryptedRamRound copy = n == s->last && s->in_round ?
                                 present_round(s, now) : *r;

        if (copy.round != n) {
            continue;   /* there was no round with this number */
        }
        QAPI_LIST_APPEND(tail, g_memdup2(&copy, sizeof(copy)));
    }
    return stats;
}

char *encrypted_stats_text(const EncryptedRamStats *stats)
{
    GString *out = g_string_new(NULL);

    g_string_printf(out,
                    "private ram: %" PRIu64 " pages, %" PRIu64 " kbytes, "
                    "%" PRIu64 " batches\n"
                    "unallocated private ram: %" PRIu64 " pages\n"
                    "shared ram: %" PRIu64 " pages\n"
                    "converted after sending: %" PRIu64 " pages\n"
                    "put off while converted: %" PRIu64 " pages\n"
                    "platform: %" PRIu64 " calls, %" PRIu64 " ms\n"
                    "private pages-per-second: %" PRIu64 "\n"
                    "remaining private ram: %" PRIu64 " pages\n",
                    stats->private_pages, stats->private_bytes >> 10,
                    stats->batches, stats->unallocated_pages,
                    stats->shared_pages,
                    stats->converted_pages, stats->again_pages,
                    stats->platform_calls, stats->platform_time,
                    stats->private_pages_per_second,
                    stats->remaining_private_pages);
    if (stats->helper_pages) {
        g_string_append_printf(out, "sealed by the migration helper: %" PRIu64
                               " pages\n", stats->helper_pages);
    }
    if (stats->helper_unused) {
        g_string_append_printf(out, "migration helper not used: %s\n",
                               stats->helper_unused);
    }
    if (stats->warning) {
        g_string_append_printf(out, "warning: %s\n", stats->warning);
    }
    if (stats->recent_rounds) {
        g_string_append(out, "round   start ms  duration    private     "
                        "shared  converted    put off  platform ms\n");
    }
    for (EncryptedRamRoundList *l = stats->recent_rounds; l; l = l->next) {
        const EncryptedRamRound *r = l->value;

        g_string_append_printf(out, "%5" PRIu64 " %10" PRIu64 " %9" PRIu64
                               " %10" PRIu64 " %10" PRIu64 " %10" PRIu64
                               " %10" PRIu64 " %12" PRIu64 "\n",
                               r->round, r->start, r->duration,
                               r->private_pages, r->shared_pages,
                               r->converted_pages, r->again_pages,
                               r->platform_time);
    }
    return g_string_free(out, false);
}
