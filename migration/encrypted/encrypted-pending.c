/*
 * What is left to send on the road of private pages, and how long it takes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "migration/register.h"
#include "encrypted-pending.h"
#include "migration/migration.h"
#include "migration/options.h"
#include "trace.h"

/* A rate that was measured for less is none */
#define RATE_MIN_NS SCALE_MS

/* More than any threshold, and no overflow when it is added to something */
#define NOT_YET (UINT64_MAX / 4)

/* Migration thread, but for start and stop */
static struct {
    EncryptedStats *stats;          /* NULL: there is nothing to do */
    EncryptedPacked at_call;        /* of encrypted_pending_channel_ms() */
    EncryptedPacked at_rate;        /* when page_ns was measured */
    double page_ns;                 /* to pack a page of late; 0: not known */
    bool counted;
    uint64_t pages;                 /* private and dirty at the last sync */
    uint64_t packed_then;
} pending;

static uint64_t count_block(const RAMBlock *rb)
{
    uint64_t end = rb->used_length >> qemu_target_page_bits();
    uint64_t page = 0, n = 0;

    while (page < end) {
        bool is_private;
        uint64_t run = encbitmap_run(rb, page, end, &is_private);

        if (is_private) {
            n += bitmap_count_one_with_offset(rb->bmap, page, run);
        }
        page += run;
    }
    return n;
}

/*
 * No lock: conversions and writes go on, so a count is out of date at once.
 * That is as good as the dirty pages' own.
 */
static void count_pages(void)
{
    RAMBlock *rb;

    pending.pages = 0;
    pending.packed_then = encrypted_stats_get_packed(pending.stats).pages;
    pending.counted = true;
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (encbitmap_npages(rb) && rb->bmap) {
            pending.pages += count_block(rb);
        }
    }
    encrypted_stats_remaining(pending.stats, pending.pages);
}

/* Bytes that the channel could carry while @pages are packed */
static uint64_t packing_as_bytes(uint64_t pages)
{
    MigrationState *s = migrate_get_current();
    uint64_t limit_ms = migrate_downtime_limit();
    double bytes;

    if (!pages) {
        return 0;
    }
    if (!pending.page_ns || !limit_ms) {
        /* Who has no idea how long the guest would stand still, goes on */
        return NOT_YET;
    }
    /* The threshold is the bytes that go within the limit */
    bytes = pages * pending.page_ns / SCALE_MS / limit_ms * s->threshold_size;
    trace_encrypted_pending(pages, pending.page_ns, bytes);
    return MIN(bytes, NOT_YET);
}

static void pending_estimate(void *opaque, uint64_t *must_precopy,
                             uint64_t *can_postcopy)
{
    uint64_t packed, left;

    if (!pending.counted) {
        /* After the first sync */
        count_pages();
    }
    packed = encrypted_stats_get_packed(pending.stats).pages -
             pending.packed_then;
    left = pending.pages - MIN(packed, pending.pages);
    /*
     * Those of them that turned shared are sent, too, and nobody counted:
     * no more than "ram" has left, or the round would never end
     */
    left = MIN(left, *must_precopy >> qemu_target_page_bits());
    *must_precopy += packing_as_bytes(left);
}

/* "ram" was registered earlier, so its sync is over */
static void pending_exact(void *opaque, uint64_t *must_precopy,
                          uint64_t *can_postcopy)
{
    count_pages();
    *must_precopy += packing_as_bytes(pending.pages);
}

static bool pending_is_active(void *opaque)
{
    return pending.stats;
}

/* Sends nothing: RAM's sections have it all */
static const SaveVMHandlers handlers = {
    .is_active = pending_is_active,
    .state_pending_estimate = pending_estimate,
    .state_pending_exact = pending_exact,
};

void encrypted_pending_start(EncryptedStats *stats)
{
    static bool registered;

    if (!registered) {
        register_savevm_live("encrypted-pending", 0, 1, &handlers, NULL);
        registered = true;
    }
    memset(&pending, 0, sizeof(pending));
    pending.stats = stats;
}

void encrypted_pending_stop(void)
{
    pending.stats = NULL;
}

/* The rate of late: other guests may keep the platform busy, runs get short */
static void measure_rate(const EncryptedPacked *now)
{
    uint64_t pages = now->pages - pending.at_rate.pages;
    uint64_t ns = now->ns - pending.at_rate.ns;

    if (pages && ns >= RATE_MIN_NS) {
        pending.page_ns = (double)ns / pages;
        pending.at_rate = *now;
    }
}

double encrypted_pending_channel_ms(uint64_t ms)
{
    EncryptedPacked now;
    double packing_ms;

    if (!pending.stats) {
        return ms;
    }
    now = encrypted_stats_get_packed(pending.stats);
    packing_ms = (double)(now.ns - pending.at_call.ns) / SCALE_MS;
    pending.at_call = now;
    measure_rate(&now);
    return MAX(ms - packing_ms, 1);
}

double encrypted_pending_pack_ms(void)
{
    return pending.stats ? pending.pages * pending.page_ns / SCALE_MS : 0;
}
