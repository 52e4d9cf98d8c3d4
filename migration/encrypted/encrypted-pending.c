/*
 * When a confidential guest can be stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "exec/encbitmap.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "encrypted-pending.h"
#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "trace.h"

/*
 * Pending bytes to report if the guest must not be stopped: more than any
 * threshold, and small enough that sums do not overflow
 */
#define NOT_YET (UINT64_MAX / 4)

/*
 * The first number of this file's pings.  savevm.c and migration.c use the
 * numbers 1 to 4.
 */
#define PING_FIRST 0x656e6300

/* Time between two pings while the guest is not about to be stopped */
#define PING_NS (200 * SCALE_MS)
/*
 * Maximum number of unanswered pings while the guest is not about to be stopped
 */
#define PINGS_UNANSWERED 4

/*
 * Number of bytes to count for a zero page.  If the number were higher than the
 * bytes that a zero page takes in the stream, zero pages would make a slow
 * channel look fast.
 */
#define ZERO_PAGE_BYTES 8

/* How often a wait for a pong checks whether the migration is ending */
#define PONG_POLL_MS 50

static EncryptedPending *current_pending(void)
{
    return &migrate_get_current()->encrypted.pending;
}

void encrypted_pending_init(EncryptedPending *p)
{
    qemu_mutex_init(&p->lock);
    qemu_cond_init(&p->pong);
    p->ping = PING_FIRST;
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
 * Count the pages that are private and dirty.  The function needs no lock,
 * because the count is only an estimate, like the count of dirty pages: the
 * guest goes on writing and converting.
 */
static void count_pages(EncryptedPending *p)
{
    uint64_t pages = 0;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (encbitmap_npages(rb) && rb->bmap) {
            pages += count_block(rb);
        }
    }
    p->counted = true;
    encrypted_stats_remaining(p->stats, pages);
}

/*
 * Return the number of private pages and the size of the shared pages that the
 * source has written to the stream.  Shared pages count with their size in
 * memory, not in the stream, so the estimate assumes that the remaining pages
 * compress like those that were sent last.
 */
static EncryptedWork work_done(EncryptedPending *p)
{
    EncryptedSent sent = encrypted_stats_get_sent(p->stats);
    uint64_t normal = stat64_get(&mig_stats.normal_pages);
    uint64_t zero = stat64_get(&mig_stats.zero_pages);

    normal -= MIN(normal, sent.pages);
    zero -= MIN(zero, sent.unallocated);
    return (EncryptedWork) {
        .pages = sent.pages,
        .bytes = normal * qemu_target_page_size() + zero * ZERO_PAGE_BYTES,
    };
}

/*
 * Return the private and the shared memory that is left to send.  @bytes: size
 * of all dirty memory, private and shared
 */
static EncryptedWork work_left(EncryptedPending *p, uint64_t bytes)
{
    uint64_t pages = encrypted_stats_get_sent(p->stats).remaining;

    /*
     * The number can be too high: since the pages were counted, some of them
     * may have become shared and been sent
     */
    pages = MIN(pages, bytes >> qemu_target_page_bits());
    return (EncryptedWork) {
        .pages = pages,
        .bytes = bytes - (pages << qemu_target_page_bits()),
    };
}

/* Estimate the downtime in ns if the guest is stopped with @left to send */
static uint64_t downtime_ns(EncryptedPending *p, const EncryptedWork *left)
{
    uint64_t bw = migrate_avail_switchover_bandwidth();
    EncryptedPacked packed = encrypted_stats_get_packed(p->stats);
    double by_user;

    if (!bw || (left->pages && !packed.pages)) {
        QEMU_LOCK_GUARD(&p->lock);
        return encrypted_rate_estimate(&p->rate, left);
    }
    /*
     * The user has set the bandwidth of the channel, so compute the time of
     * the channel from it.  Use measurements only for the platform.
     */
    by_user = ((double)(left->pages << qemu_target_page_bits()) + left->bytes) /
              bw * NANOSECONDS_PER_SECOND;
    if (left->pages) {
        by_user += (double)left->pages * packed.ns / packed.pages;
    }
    return by_user < INT64_MAX ? (uint64_t)by_user : INT64_MAX;
}

static bool fits(EncryptedPending *p, const EncryptedWork *left)
{
    return downtime_ns(p, left) <=
           migrate_downtime_limit() * (uint64_t)SCALE_MS;
}

static uint32_t unanswered(EncryptedPending *p)
{
    QEMU_LOCK_GUARD(&p->lock);
    return encrypted_rate_unacked(&p->rate);
}

/*
 * Send a ping.  The destination answers the ping when it has loaded everything
 * that precedes the ping in the stream.  Returns false if no ping was sent,
 * because no ping is due or because the channels of multifd must be flushed
 * first.
 */
static bool send_ping(EncryptedPending *p, MigrationState *s, bool now)
{
    EncryptedWork done;
    uint32_t ping;

    if (!now && (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - p->ping_ns <
                 PING_NS || unanswered(p) >= PINGS_UNANSWERED)) {
        return false;
    }
    if (migrate_multifd() && p->flush != ENCRYPTED_FLUSH_DONE) {
        p->flush = ENCRYPTED_FLUSH_DUE;
        return false;
    }
    p->flush = ENCRYPTED_FLUSH_NONE;
    done = work_done(p);
    WITH_QEMU_LOCK_GUARD(&p->lock) {
        /*
         * Record the ping before sending it, because the pong can arrive while
         * the write below blocks
         */
        ping = ++p->ping;
        encrypted_rate_mark(&p->rate, ping, &done,
                            qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    }
    trace_encrypted_pending_mark(ping, done.pages, done.bytes);
    qemu_savevm_send_ping(s->to_dst_file, ping);
    qemu_fflush(s->to_dst_file);
    p->ping_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    return true;
}

/*
 * Wait until the destination has loaded everything that was sent.  Returns
 * false if the migration is ending instead.
 */
static bool wait_pong(EncryptedPending *p, MigrationState *s)
{
    QEMU_LOCK_GUARD(&p->lock);
    while (encrypted_rate_unacked(&p->rate)) {
        if (migrate_has_error(s)) {
            /*
             * Do not wait for a pong that may never come: the destination has
             * reported an error, or the return path has ended
             */
            qemu_file_set_error(s->to_dst_file, -EIO);
        }
        if (s->state != MIGRATION_STATUS_ACTIVE ||
            qemu_file_get_error(s->to_dst_file)) {
            return false;
        }
        qemu_cond_timedwait(&p->pong, &p->lock, PONG_POLL_MS);
    }
    encrypted_rate_idle(&p->rate, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    return true;
}

void encrypted_pending_estimate(MigrationState *s, uint64_t *pending)
{
    EncryptedPending *p = &s->encrypted.pending;
    EncryptedWork left;
    bool sent, can_stop;

    if (!p->stats) {
        return;
    }
    if (!p->counted) {
        count_pages(p);
    }
    left = work_left(p, *pending);
    can_stop = fits(p, &left);
    sent = send_ping(p, s, can_stop);
    if (!can_stop || !sent || !wait_pong(p, s) || !fits(p, &left)) {
        *pending = NOT_YET;
        return;
    }
    /*
     * QEMU should sync the dirty bitmap again before it stops the guest.  QEMU
     * syncs if @pending is below the threshold, but stops the guest without a
     * sync if @pending is 0 and not below the threshold.  This can happen while
     * QEMU has not measured the bandwidth, because the threshold is 0 until
     * then.  Therefore set @pending to 1: QEMU goes on to send pages while the
     * threshold is 0, and syncs as soon as the threshold is higher than 1.
     *
     * A downtime limit of 0 keeps the threshold at 0 during the whole
     * migration.  QEMU then stops the guest only if @pending is 0, so do not
     * change it.
     */
    *pending = migrate_downtime_limit() ? 1 : *pending;
}

void encrypted_pending_exact(MigrationState *s, uint64_t *pending)
{
    EncryptedPending *p = &s->encrypted.pending;
    EncryptedWork left;

    if (!p->stats) {
        return;
    }
    count_pages(p);
    left = work_left(p, *pending);
    p->downtime_ns = downtime_ns(p, &left);
    trace_encrypted_pending(left.pages, left.bytes,
                            p->downtime_ns / SCALE_MS);
    *pending = fits(p, &left) ? 0 : NOT_YET;
}

void encrypted_pending_start(EncryptedPending *p, EncryptedStats *stats)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    p->stats = stats;
    p->flush = ENCRYPTED_FLUSH_NONE;
    p->ping_ns = now;
    p->counted = false;
    p->downtime_ns = ENCRYPTED_RATE_UNKNOWN;
    WITH_QEMU_LOCK_GUARD(&p->lock) {
        encrypted_rate_start(&p->rate, p->ping, now);
    }
}

void encrypted_pending_stop(EncryptedPending *p)
{
    p->stats = NULL;
}

bool encrypted_pending_flush_channels(void)
{
    EncryptedPending *p = current_pending();

    if (!p->stats || p->flush == ENCRYPTED_FLUSH_NONE) {
        return false;
    }
    p->flush = ENCRYPTED_FLUSH_DONE;
    return true;
}

void encrypted_pending_pong(uint32_t value)
{
    EncryptedPending *p = current_pending();

    QEMU_LOCK_GUARD(&p->lock);
    if (value > PING_FIRST) {
        encrypted_rate_ack(&p->rate, value,
                           qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
        trace_encrypted_pending_ack(value, p->rate.page_ns,
                                    p->rate.byte_ns ?
                                    SCALE_MS / p->rate.byte_ns : 0);
        qemu_cond_signal(&p->pong);
    }
}

int64_t encrypted_pending_downtime_ms(void)
{
    EncryptedPending *p = current_pending();

    return p->stats && p->downtime_ns != ENCRYPTED_RATE_UNKNOWN ?
           p->downtime_ns / SCALE_MS : 0;
}
