/*
 * When a confidential guest can be stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "migration/register.h"
#include "encrypted-pending.h"
#include "encrypted-rate.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "trace.h"

/* More than any threshold, and small enough that sums do not overflow */
#define NOT_YET (UINT64_MAX / 4)

/* Pings of this file start here; savevm.c and migration.c use 1 to 4 */
#define PING_FIRST 0x656e6300

/* While the guest is not about to be stopped, send pings this far apart ... */
#define PING_NS (200 * SCALE_MS)
/* ... and leave no more than this number unanswered */
#define PINGS_UNANSWERED 4

/*
 * Number of bytes to count for a zero page.  This must not be more than a zero
 * page has in the stream, because zero pages would then make a slow channel
 * look fast.
 */
#define ZERO_PAGE_BYTES 8

/* How often a wait for a pong checks whether the migration is ending */
#define PONG_POLL_MS 50

/*
 * With multifd, a ping overtakes data in the channels unless they are flushed
 */
typedef enum FlushState {
    FLUSH_NONE,
    FLUSH_DUE,          /* the next section of RAM shall flush the channels */
    FLUSH_DONE,         /* they were flushed, nothing was sent since */
} FlushState;

/*
 * The migration thread uses these fields, except where noted and except that
 * encrypted_pending_start() and encrypted_pending_stop() run with the BQL.
 */
static struct {
    EncryptedStats *stats;          /* NULL: there is nothing to do */
    FlushState flush;
    int64_t ping_ns;                /* when the last ping was sent */
    bool counted;                   /* private pages counted at 1st sync */
    uint64_t downtime_ns;           /* estimate at the last sync */

    QemuMutex lock;                 /* protects the fields below */
    QemuCond pong;
    EncryptedRate rate;             /* also for the return path thread */
    uint32_t ping;                  /* number of the last ping */
} pending;

static void __attribute__((constructor)) init_pending(void)
{
    qemu_mutex_init(&pending.lock);
    qemu_cond_init(&pending.pong);
    pending.ping = PING_FIRST;
}

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
 * Count the pages that are private and dirty.  This needs no lock: the guest
 * goes on writing and converting, so the count is as inexact as the count of
 * dirty pages.
 */
static void count_pages(void)
{
    uint64_t pages = 0;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (encbitmap_npages(rb) && rb->bmap) {
            pages += count_block(rb);
        }
    }
    pending.counted = true;
    encrypted_stats_remaining(pending.stats, pages);
}

/*
 * The work that is in the stream.  Shared pages count with their size in
 * memory, so the estimate assumes that the rest compresses like the pages that
 * were sent last.
 */
static EncryptedWork work_done(void)
{
    EncryptedSent sent = encrypted_stats_get_sent(pending.stats);
    uint64_t normal = stat64_get(&mig_stats.normal_pages);
    uint64_t zero = stat64_get(&mig_stats.zero_pages);

    normal -= MIN(normal, sent.pages);
    zero -= MIN(zero, sent.unallocated);
    return (EncryptedWork) {
        .pages = sent.pages,
        .bytes = normal * qemu_target_page_size() + zero * ZERO_PAGE_BYTES,
    };
}

/* @bytes: of all dirty memory, private and shared */
static EncryptedWork work_left(uint64_t bytes)
{
    uint64_t pages = encrypted_stats_get_sent(pending.stats).remaining;

    /*
     * Some pages may have become shared, and been sent, since they were
     * counted
     */
    pages = MIN(pages, bytes >> qemu_target_page_bits());
    return (EncryptedWork) {
        .pages = pages,
        .bytes = bytes - (pages << qemu_target_page_bits()),
    };
}

/* Estimate the downtime in ns if the guest is stopped with @left to send */
static uint64_t downtime_ns(const EncryptedWork *left)
{
    uint64_t bw = migrate_avail_switchover_bandwidth();
    EncryptedPacked packed = encrypted_stats_get_packed(pending.stats);
    double by_user;

    if (!bw || (left->pages && !packed.pages)) {
        QEMU_LOCK_GUARD(&pending.lock);
        return encrypted_rate_estimate(&pending.rate, left);
    }
    /*
     * The user's bandwidth describes the channel, so only the platform is
     * measured
     */
    by_user = ((double)(left->pages << qemu_target_page_bits()) + left->bytes) /
              bw * NANOSECONDS_PER_SECOND;
    if (left->pages) {
        by_user += (double)left->pages * packed.ns / packed.pages;
    }
    return by_user < INT64_MAX ? (uint64_t)by_user : INT64_MAX;
}

static bool fits(const EncryptedWork *left)
{
    return downtime_ns(left) <= migrate_downtime_limit() * (uint64_t)SCALE_MS;
}

static uint32_t unanswered(void)
{
    QEMU_LOCK_GUARD(&pending.lock);
    return encrypted_rate_unacked(&pending.rate);
}

/*
 * Send a ping, which the destination answers when it has loaded everything
 * before it.  Returns false if no ping was sent: none is due, or the channels
 * of multifd must be flushed first.
 */
static bool send_ping(MigrationState *s, bool now)
{
    EncryptedWork done;
    uint32_t ping;

    if (!now && (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - pending.ping_ns <
                 PING_NS || unanswered() >= PINGS_UNANSWERED)) {
        return false;
    }
    if (migrate_multifd() && pending.flush != FLUSH_DONE) {
        pending.flush = FLUSH_DUE;
        return false;
    }
    pending.flush = FLUSH_NONE;
    done = work_done();
    WITH_QEMU_LOCK_GUARD(&pending.lock) {
        /* Set this before the pong can come; the write below may block */
        ping = ++pending.ping;
        encrypted_rate_mark(&pending.rate, ping, &done,
                            qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    }
    trace_encrypted_pending_mark(ping, done.pages, done.bytes);
    qemu_savevm_send_ping(s->to_dst_file, ping);
    qemu_fflush(s->to_dst_file);
    pending.ping_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    return true;
}

/*
 * Wait until the destination has loaded everything that was sent.  Returns
 * false if the migration is ending instead.
 */
static bool wait_pong(MigrationState *s)
{
    QEMU_LOCK_GUARD(&pending.lock);
    while (encrypted_rate_unacked(&pending.rate)) {
        if (migrate_has_error(s)) {
            /*
             * The destination reported the error, or the return path has ended
             */
            qemu_file_set_error(s->to_dst_file, -EIO);
        }
        if (s->state != MIGRATION_STATUS_ACTIVE ||
            qemu_file_get_error(s->to_dst_file)) {
            return false;
        }
        qemu_cond_timedwait(&pending.pong, &pending.lock, PONG_POLL_MS);
    }
    encrypted_rate_idle(&pending.rate, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    return true;
}

/*
 * QEMU compares the sum of what the handlers report with a threshold of bytes.
 * This handler is the last one and decides for all: with NOT_YET QEMU goes on
 * to send pages, otherwise it syncs the dirty bitmap and asks pending_exact().
 */
static void pending_estimate(void *opaque, uint64_t *must_precopy,
                             uint64_t *can_postcopy)
{
    MigrationState *s = migrate_get_current();
    EncryptedWork left;
    bool sent, can_stop;

    if (!pending.counted) {
        count_pages();
    }
    left = work_left(*must_precopy);
    can_stop = fits(&left);
    sent = send_ping(s, can_stop);
    if (!can_stop || !sent || !wait_pong(s) || !fits(&left)) {
        *must_precopy = NOT_YET;
        return;
    }
    /* QEMU does not sync again before it stops the guest if this is 0 */
    *must_precopy = migrate_downtime_limit() ? 1 : *must_precopy;
}

/* The handler of "ram" was registered earlier, so it has synced the bitmap */
static void pending_exact(void *opaque, uint64_t *must_precopy,
                          uint64_t *can_postcopy)
{
    EncryptedWork left;

    count_pages();
    left = work_left(*must_precopy);
    pending.downtime_ns = downtime_ns(&left);
    trace_encrypted_pending(left.pages, left.bytes,
                            pending.downtime_ns / SCALE_MS);
    *must_precopy = fits(&left) ? 0 : NOT_YET;
}

static bool pending_is_active(void *opaque)
{
    return pending.stats;
}

/* The handler has no section of its own; RAM's sections have all pages */
static const SaveVMHandlers handlers = {
    .is_active = pending_is_active,
    .state_pending_estimate = pending_estimate,
    .state_pending_exact = pending_exact,
};

void encrypted_pending_start(EncryptedStats *stats)
{
    static bool registered;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (!registered) {
        register_savevm_live("encrypted-pending", 0, 1, &handlers, NULL);
        registered = true;
    }
    pending.stats = stats;
    pending.flush = FLUSH_NONE;
    pending.ping_ns = now;
    pending.counted = false;
    pending.downtime_ns = ENCRYPTED_RATE_UNKNOWN;
    WITH_QEMU_LOCK_GUARD(&pending.lock) {
        encrypted_rate_start(&pending.rate, pending.ping, now);
    }
}

void encrypted_pending_stop(void)
{
    pending.stats = NULL;
}

bool encrypted_pending_flush_channels(void)
{
    if (!pending.stats || pending.flush == FLUSH_NONE) {
        return false;
    }
    pending.flush = FLUSH_DONE;
    return true;
}

void encrypted_pending_pong(uint32_t value)
{
    QEMU_LOCK_GUARD(&pending.lock);
    if (value > PING_FIRST) {
        encrypted_rate_ack(&pending.rate, value,
                           qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
        trace_encrypted_pending_ack(value, pending.rate.page_ns,
                                    pending.rate.byte_ns ?
                                    SCALE_MS / pending.rate.byte_ns : 0);
        qemu_cond_signal(&pending.pong);
    }
}

int64_t encrypted_pending_downtime_ms(void)
{
    return pending.stats && pending.downtime_ns != ENCRYPTED_RATE_UNKNOWN ?
           pending.downtime_ns / SCALE_MS : 0;
}
