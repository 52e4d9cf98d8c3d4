/*
 * How fast the destination receives and unpacks a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <math.h>
#include "system/confidential-guest-migration.h"
#include "encrypted-rate.h"

static EncryptedMark *last_mark(EncryptedRate *r)
{
    return &r->marks[r->n - 1];
}

void encrypted_rate_start(EncryptedRate *r, uint32_t id, int64_t now)
{
    *r = (EncryptedRate) {
        .marks[0] = { .id = id, .sent_ns = now, .acked_ns = now },
        .n = 1,
        .acked = id,
    };
}

void encrypted_rate_mark(EncryptedRate *r, uint32_t id,
                         const EncryptedWork *done, int64_t now)
{
    EncryptedMark *last = last_mark(r);

    if (done->pages == last->done.pages && done->bytes == last->done.bytes) {
        /*
         * The source has sent nothing since the ping @last, so replace @last by
         * the new ping.  If the destination has not acknowledged @last yet, the
         * acknowledgement of the new ping also says when the destination had
         * loaded the work before @last.
         */
        last->id = id;
        last->sent_ns = now;
        return;
    }
    if (r->n == ENCRYPTED_RATE_MARKS) {
        memmove(r->marks, r->marks + 1, --r->n * sizeof(r->marks[0]));
    }
    r->marks[r->n++] = (EncryptedMark) {
        .id = id, .done = *done, .sent_ns = now,
    };
}

/*
 * Return the time for @amount if @measured took @ns; infinite if @measured is 0
 */
static double scale(double ns, uint64_t amount, uint64_t measured)
{
    if (!amount) {
        return 0;
    }
    return measured ? ns * amount / measured : INFINITY;
}

/*
 * Set @work to the memory between the pings @a and @b in the stream, and return
 * the time in ns from the sending of @a to the acknowledgement of @b.  The
 * memory was packed, transferred and loaded within this time, which is
 * therefore an upper bound for each of these three stages.  The time also
 * contains the time for earlier work that was still in the buffers.
 */
static double interval(const EncryptedMark *a, const EncryptedMark *b,
                       EncryptedWork *work)
{
    work->pages = b->done.pages - a->done.pages;
    work->bytes = b->done.bytes - MIN(a->done.bytes, b->done.bytes);
    return MAX(b->acked_ns - a->sent_ns, 1);
}

static void update_bounds(EncryptedRate *r)
{
    double page_ns = INFINITY, byte_ns = INFINITY;

    for (unsigned j = 1; j < r->n && r->marks[j].acked_ns; j++) {
        for (unsigned i = 0; i < j; i++) {
            EncryptedWork work;
            double ns = interval(&r->marks[i], &r->marks[j], &work);

            page_ns = MIN(page_ns, scale(ns, 1, work.pages));
            byte_ns = MIN(byte_ns, scale(ns, 1, work.bytes));
        }
    }
    /*
     * If no private pages were sent between any two pings, keep the old bound
     * of private pages.  If no shared bytes were sent, keep the old bound of
     * shared bytes.
     */
    r->page_ns = isinf(page_ns) ? r->page_ns : page_ns;
    r->byte_ns = isinf(byte_ns) ? r->byte_ns : byte_ns;
}

void encrypted_rate_ack(EncryptedRate *r, uint32_t id, int64_t now)
{
    /* Numbers may wrap */
    if (!r->n || id - r->acked - 1 >= encrypted_rate_unacked(r)) {
        return;
    }
    r->acked = id;
    for (unsigned i = 0; i < r->n; i++) {
        if (!r->marks[i].acked_ns && (int32_t)(id - r->marks[i].id) >= 0) {
            r->marks[i].acked_ns = now;
        }
    }
    update_bounds(r);
}

uint32_t encrypted_rate_unacked(const EncryptedRate *r)
{
    return r->marks[r->n - 1].id - r->acked;
}

void encrypted_rate_idle(EncryptedRate *r, int64_t now)
{
    last_mark(r)->sent_ns = now;
}

/*
 * Compute several upper bounds and return the smallest one.
 *
 * Each interval gives one bound (@together).  If A pages and B bytes were sent
 * in the interval, then k * A pages and k * B bytes take at most k times the
 * interval.  The bound uses the smallest k for which k * A pages are at least
 * the remaining pages and k * B bytes are at least the remaining bytes.
 *
 * One more bound (@apart) is the time for the remaining pages alone plus the
 * time for the remaining bytes alone.
 */
uint64_t encrypted_rate_estimate(const EncryptedRate *r,
                                 const EncryptedWork *left)
{
    EncryptedWork work = *left;
    double together = INFINITY, apart;

    /*
     * While the source packs the first record, the destination has nothing to
     * unpack.  While the destination unpacks the last record, the source has
     * nothing to pack.  N records therefore take the time of N + 1 records, so
     * count the pages of one more record.
     */
    work.pages += MIN(work.pages, CGS_MIGRATION_PAGES_MAX);
    if ((work.pages && !r->page_ns) || (work.bytes && !r->byte_ns)) {
        return ENCRYPTED_RATE_UNKNOWN;
    }
    apart = work.pages * r->page_ns + work.bytes * r->byte_ns;
    for (unsigned j = 1; j < r->n && r->marks[j].acked_ns; j++) {
        for (unsigned i = 0; i < j; i++) {
            EncryptedWork done;
            double ns = interval(&r->marks[i], &r->marks[j], &done);

            together = MIN(together, MAX(scale(ns, work.pages, done.pages),
                                         scale(ns, work.bytes, done.bytes)));
        }
    }
    together = MIN(together, apart);
    return together < INT64_MAX ? (uint64_t)together : INT64_MAX;
}
