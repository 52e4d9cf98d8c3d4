/*
 * How fast the destination receives and unpacks a confidential guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "../../migration/encrypted/encrypted-rate.h"

#define MS 1000000ll
#define S (1000 * MS)
#define MB 1000000ull
#define PAGE 4096

#define RECORD_PAGES 64
#define SHARED_CHUNK (16 * PAGE)
#define RTT (1 * MS)

static uint64_t estimate(const EncryptedRate *r, uint64_t pages, uint64_t bytes)
{
    EncryptedWork left = { pages, bytes };

    return encrypted_rate_estimate(r, &left);
}

/* Record that the source has sent ping @id, see EncryptedMark */
static void mark(EncryptedRate *r, uint32_t id, uint64_t pages, uint64_t bytes,
                 int64_t now)
{
    EncryptedWork done = { pages, bytes };

    encrypted_rate_mark(r, id, &done, now);
}

/*
 * The estimate of private or of shared pages is unknown until the destination
 * has acknowledged pages of this kind
 */
static void test_unknown(void)
{
    EncryptedRate r;

    encrypted_rate_start(&r, 7, S);
    g_assert_cmpuint(estimate(&r, 0, 0), ==, 0);
    g_assert_cmpuint(estimate(&r, 1, 0), ==, ENCRYPTED_RATE_UNKNOWN);
    g_assert_cmpuint(estimate(&r, 0, 1), ==, ENCRYPTED_RATE_UNKNOWN);

    mark(&r, 8, 0, 10 * MB, 2 * S);
    g_assert_cmpuint(encrypted_rate_unacked(&r), ==, 1);
    g_assert_cmpuint(estimate(&r, 0, MB), ==, ENCRYPTED_RATE_UNKNOWN);
    encrypted_rate_ack(&r, 8, 3 * S);
    g_assert_cmpuint(encrypted_rate_unacked(&r), ==, 0);
    g_assert_cmpuint(estimate(&r, 0, MB), ==, 2 * S / 10);
    g_assert_cmpuint(estimate(&r, 1, MB), ==, ENCRYPTED_RATE_UNKNOWN);

    encrypted_rate_idle(&r, 10 * S);
    mark(&r, 9, 1000, 10 * MB, 11 * S);
    encrypted_rate_ack(&r, 9, 11 * S);
    /*
     * 1000 pages took 1 s, so 100 pages take 100 ms.  The estimate adds the
     * time of one record, 64 pages.
     */
    g_assert_cmpuint(estimate(&r, 100, 0), ==, 164 * MS);
    /*
     * Private and shared pages were sent in different intervals, so the
     * estimate is the sum of two times: 164 ms for the private pages, and
     * 200 ms for 1 MB of shared pages
     */
    g_assert_cmpuint(estimate(&r, 100, MB), ==, 364 * MS);
}

/*
 * The source has sent 1000 private pages and 10 MB of shared pages in one
 * interval of 1 s.  The estimate cannot divide this time between the two kinds
 * of pages.  Half of one kind therefore takes as long as half of both kinds:
 * 500 ms.  The estimate adds the pages of one record, so the test passes 64
 * private pages fewer.
 */
static void test_mixture(void)
{
    EncryptedRate r;

    encrypted_rate_start(&r, 0, 0);
    mark(&r, 1, 1000, 10 * MB, S);
    encrypted_rate_ack(&r, 1, S);
    g_assert_cmpuint(estimate(&r, 1000 / 2 - 64, 5 * MB), ==, 500 * MS);
    g_assert_cmpuint(estimate(&r, 1000 / 2 - 64, 0), ==, 500 * MS);
    g_assert_cmpuint(estimate(&r, 0, 5 * MB), ==, 500 * MS);
}

/*
 * An acknowledgement of a ping that the source has not sent, or that was
 * acknowledged before, has no effect
 */
static void test_untrusted_acks(void)
{
    EncryptedRate r = {}, before;

    encrypted_rate_ack(&r, 1, S);
    encrypted_rate_start(&r, UINT32_MAX - 1, S);
    mark(&r, UINT32_MAX, 10, 0, 2 * S);
    mark(&r, 0, 20, 0, 3 * S);
    before = r;
    encrypted_rate_ack(&r, 1, 4 * S);
    encrypted_rate_ack(&r, UINT32_MAX - 1, 4 * S);
    encrypted_rate_ack(&r, 0x80000000, 4 * S);
    g_assert_cmpmem(&r, sizeof(r), &before, sizeof(before));
    /* An acknowledgement of a ping also acknowledges all earlier pings */
    encrypted_rate_ack(&r, 0, 4 * S);
    g_assert_cmpuint(encrypted_rate_unacked(&r), ==, 0);
    before = r;
    encrypted_rate_ack(&r, UINT32_MAX, 5 * S);
    g_assert_cmpmem(&r, sizeof(r), &before, sizeof(before));
}

/*
 * EncryptedRate keeps the last pings in @marks.  If the source sends no work
 * between two pings, the second ping replaces the first ping in @marks.  The
 * oldest ping must stay in @marks, because the estimate needs the interval
 * between the oldest ping and the ping after it.
 */
static void test_same_place(void)
{
    EncryptedRate r;

    encrypted_rate_start(&r, 1, 0);
    mark(&r, 2, 1000, 0, S);
    encrypted_rate_ack(&r, 2, S);
    for (uint32_t id = 3; id < 3 + 2 * ENCRYPTED_RATE_MARKS; id++) {
        mark(&r, id, 1000, 0, id * S);
        g_assert_cmpuint(encrypted_rate_unacked(&r), ==, 1);
        encrypted_rate_ack(&r, id, id * S + RTT);
        g_assert_cmpuint(estimate(&r, 64, 0), ==, 128 * MS);
    }
}

/*
 * If pages begin to take less time, the estimate decreases at once.  If they
 * begin to take more time, the estimate increases only when newer pings have
 * pushed the pings of the faster pages out of @marks.
 */
static void test_changes(void)
{
    EncryptedRate r;
    uint64_t pages = 0;
    uint32_t id = 0;
    int64_t now = 0;

    encrypted_rate_start(&r, 0, 0);
    for (int page_us = 4000; page_us >= 1000; page_us /= 2) {
        mark(&r, ++id, pages += 100, 0, now += 100 * page_us * 1000ll);
        encrypted_rate_ack(&r, id, now);
        g_assert_cmpuint(estimate(&r, 64, 0), ==, 128 * page_us * 1000ull);
    }
    for (int i = 0; i < ENCRYPTED_RATE_MARKS - 2; i++) {
        mark(&r, ++id, pages += 100, 0, now += 800 * MS);
        encrypted_rate_ack(&r, id, now);
        g_assert_cmpuint(estimate(&r, 64, 0), ==, 128 * MS);
    }
    mark(&r, ++id, pages += 100, 0, now += 800 * MS);
    encrypted_rate_ack(&r, id, now);
    g_assert_cmpuint(estimate(&r, 64, 0), ==, 128 * 8 * MS);

    /*
     * While the source sends only shared pages, the estimate of private pages
     * does not change
     */
    for (int i = 0; i < 2 * ENCRYPTED_RATE_MARKS; i++) {
        mark(&r, ++id, pages, i * MB, now += 100 * MS);
        encrypted_rate_ack(&r, id, now);
    }
    g_assert_cmpuint(estimate(&r, 64, 0), ==, 128 * 8 * MS);
    g_assert_cmpuint(estimate(&r, 0, MB), ==, 100 * MS);
}

/*
 * A pipeline of the source's platform, a channel and the destination's
 * platform, with a buffer before and a buffer behind the channel.
 */
typedef struct Pipe {
    int64_t pack_ns, unpack_ns;         /* for each page */
    double bytes_per_ns;
    uint64_t buffer;                    /* size of each buffer in bytes */
} Pipe;

#define ITEMS_MAX 8192

/*
 * The source has sent these items since the pipeline was last empty.  An item
 * is a record of private pages or a number of shared pages.  item[0] stands for
 * the empty pipeline.
 */
typedef struct Flow {
    const Pipe *p;
    unsigned n;
    struct {
        uint64_t end;                   /* bytes up to the item's end */
        double written, carried, begun, unpacked;       /* ns */
    } item[ITEMS_MAX];
} Flow;

/*
 * A new item, which ends at byte @end of the stream, enters a buffer of @buffer
 * bytes.  Earlier items must leave the buffer until the new item fits.  Return
 * the last item that must have left completely; 0 if no item must leave.
 */
static unsigned before(const Flow *f, uint64_t end, uint64_t buffer)
{
    unsigned i = f->n;

    while (i > 0 && end - f->item[i].end < buffer) {
        i--;
    }
    return i;
}

/* Put a record of @pages, or @bytes of shared pages, into the stream */
static void flow_put(Flow *f, uint64_t pages, uint64_t bytes)
{
    unsigned last = f->n, full;
    uint64_t size = pages ? pages * PAGE : bytes;
    uint64_t end = f->item[last].end + size;
    double t;

    full = before(f, end, f->p->buffer);
    t = MAX(f->item[last].written + pages * f->p->pack_ns,
            f->item[full].carried);
    g_assert_cmpuint(f->n, <, ITEMS_MAX - 1);
    f->item[++f->n].end = end;
    f->item[f->n].written = t;
    t = MAX(MAX(t, f->item[last].carried), f->item[full].begun);
    f->item[f->n].carried = t + size / f->p->bytes_per_ns;
    f->item[f->n].begun = MAX(f->item[f->n].carried, f->item[last].unpacked);
    f->item[f->n].unpacked = f->item[f->n].begun + pages * f->p->unpack_ns;
}

static void flow_empty(Flow *f, const Pipe *p, double now)
{
    f->p = p;
    f->n = 0;
    f->item[0].end = 0;
    f->item[0].written = f->item[0].carried = now;
    f->item[0].begun = f->item[0].unpacked = now;
}

/* Return the time that @work takes in a pipeline that is empty at first */
static double takes(const Pipe *p, const EncryptedWork *work)
{
    g_autofree Flow *f = g_new(Flow, 1);
    EncryptedWork left = *work;

    flow_empty(f, p, 0);
    while (left.pages || left.bytes) {
        uint64_t pages = MIN(left.pages, RECORD_PAGES);
        uint64_t bytes = MIN(left.bytes, SHARED_CHUNK);

        flow_put(f, pages, bytes);
        left.pages -= pages;
        left.bytes -= pages ? 0 : bytes;
    }
    return f->item[f->n].unpacked;
}

typedef struct Source {
    EncryptedRate rate;
    EncryptedWork done;
    Flow flow;
    uint32_t id;
    double marked;
    /*
     * The times (double) at which the acknowledgements of pings 1, 2, ...
     * arrive
     */
    GArray *acks;
} Source;

/* Acknowledge the pings whose answers have arrived by @now */
static void source_acks(Source *s, double now)
{
    while (encrypted_rate_unacked(&s->rate)) {
        uint32_t id = s->id - encrypted_rate_unacked(&s->rate) + 1;
        double at = g_array_index(s->acks, double, id - 1);

        if (at > now) {
            return;
        }
        encrypted_rate_ack(&s->rate, id, at);
    }
}

static void source_mark(Source *s)
{
    double now = s->flow.item[s->flow.n].written;
    double ack = s->flow.item[s->flow.n].unpacked + RTT;

    g_array_append_val(s->acks, ack);
    encrypted_rate_mark(&s->rate, ++s->id, &s->done, now);
    s->marked = now;
}

/*
 * One round: send @work, send a ping every 200 ms and at the end, and wait
 * until the destination has acknowledged all pings
 */
static void source_round(Source *s, const EncryptedWork *work)
{
    EncryptedWork left = *work;
    double now;

    while (left.pages || left.bytes) {
        uint64_t pages = MIN(left.pages, RECORD_PAGES);
        uint64_t bytes = pages ? 0 : MIN(left.bytes, SHARED_CHUNK);

        flow_put(&s->flow, pages, bytes);
        left.pages -= pages;
        left.bytes -= bytes;
        s->done.pages += pages;
        s->done.bytes += bytes;
        now = s->flow.item[s->flow.n].written;
        source_acks(s, now);
        if (now - s->marked >= 200 * MS &&
            encrypted_rate_unacked(&s->rate) < 4) {
            source_mark(s);
        }
    }
    source_mark(s);
    now = g_array_index(s->acks, double, s->id - 1);
    source_acks(s, now);
    g_assert_cmpuint(encrypted_rate_unacked(&s->rate), ==, 0);
    encrypted_rate_idle(&s->rate, now);
    flow_empty(&s->flow, s->flow.p, now);
}

/*
 * After every round, check the estimates of different amounts of remaining
 * work.  If an estimate were too short, the downtime would exceed the limit; if
 * it were too long, QEMU would never stop the guest.
 */
static void check_estimates(const Source *s, const EncryptedWork *round)
{
    for (uint64_t k = 1; k <= 32; k++) {
        EncryptedWork left = {
            round->pages * k / 32, round->bytes * k / 32 / PAGE * PAGE,
        };
        double real = takes(s->flow.p, &left);
        double says = encrypted_rate_estimate(&s->rate, &left);

        g_assert_cmpfloat(real, <=, 1.5 * says + 50 * MS);
        if (k >= 16) {
            g_assert_cmpfloat(says, <=, 3 * real + 10 * MS);
        }
    }
    /*
     * Check work that has another mixture of private and shared pages than the
     * round had.  Its estimate must not be too short.
     */
    for (uint64_t k = 0; k <= 8; k++) {
        EncryptedWork left = {
            round->pages * k / 8, round->bytes * (8 - k) / 8 / PAGE * PAGE,
        };

        g_assert_cmpfloat(takes(s->flow.p, &left), <=,
                          1.5 * encrypted_rate_estimate(&s->rate, &left) +
                          50 * MS);
    }
}

static void check_pipe(const Pipe *p)
{
    static const EncryptedWork rounds[] = {
        { 2048, 10 * MB }, { 4096, 0 }, { 0, 20 * MB }, { 64, 30 * MB },
        { 1024, 100000 }, { 1024, 10 * MB }, { 200, 300000 },
    };
    g_autofree Source *s = g_new0(Source, 1);

    s->acks = g_array_new(false, false, sizeof(double));
    encrypted_rate_start(&s->rate, 0, 0);
    flow_empty(&s->flow, p, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(rounds); i++) {
        source_round(s, &rounds[i]);
        check_estimates(s, &rounds[i]);
    }
    g_array_unref(s->acks);
}

/*
 * Test pipelines in which any of the stages is the bottleneck, with small and
 * with large buffers
 */
static void test_pipes(void)
{
    static const int64_t costs[] = { 0, 2000, 250000, 2500000 };
    static const double links[] = { 0.008, 0.08, 0.8, 10 };
    static const uint64_t buffers[] = { 300000, 5 * MB };

    for (size_t i = 0; i < G_N_ELEMENTS(costs); i++) {
        for (size_t j = 0; j < G_N_ELEMENTS(costs); j++) {
            for (size_t l = 0; l < G_N_ELEMENTS(links); l++) {
                for (size_t b = 0; b < G_N_ELEMENTS(buffers); b++) {
                    Pipe p = { costs[i], costs[j], links[l], buffers[b] };

                    g_test_message("pack %" PRId64 " ns, unpack %" PRId64
                                   " ns, %.0f MB/s, buffers of %" PRIu64,
                                   p.pack_ns, p.unpack_ns,
                                   p.bytes_per_ns * 1000, p.buffer);
                    check_pipe(&p);
                }
            }
        }
    }
}

/* The largest possible numbers do not overflow */
static void test_limits(void)
{
    EncryptedRate r;

    encrypted_rate_start(&r, 0, 0);
    mark(&r, 1, 1, 1, 1);
    encrypted_rate_ack(&r, 1, INT64_MAX);
    g_assert_cmpuint(estimate(&r, UINT64_MAX / PAGE, UINT64_MAX), ==,
                     INT64_MAX);
    encrypted_rate_start(&r, 0, 0);
    mark(&r, 1, UINT64_MAX / PAGE, UINT64_MAX, 1);
    encrypted_rate_ack(&r, 1, 1);
    g_assert_cmpuint(estimate(&r, 1000, 1000), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/encrypted-rate/unknown", test_unknown);
    g_test_add_func("/encrypted-rate/mixture", test_mixture);
    g_test_add_func("/encrypted-rate/untrusted-acks", test_untrusted_acks);
    g_test_add_func("/encrypted-rate/same-place", test_same_place);
    g_test_add_func("/encrypted-rate/changes", test_changes);
    g_test_add_func("/encrypted-rate/pipes", test_pipes);
    g_test_add_func("/encrypted-rate/limits", test_limits);
    return g_test_run();
}
