/*
 * Statistics of a migration with private pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "../../migration/encrypted/encrypted-stats.h"

static EncryptedRamRound *nth(EncryptedRamStats *stats, unsigned n)
{
    EncryptedRamRoundList *l = stats->recent_rounds;

    while (n-- && l) {
        l = l->next;
    }
    g_assert_nonnull(l);
    return l->value;
}

static unsigned count_rounds(EncryptedRamStats *stats)
{
    unsigned n = 0;

    for (EncryptedRamRoundList *l = stats->recent_rounds; l; l = l->next) {
        n++;
    }
    return n;
}

static void free_stats(EncryptedRamStats *stats)
{
    EncryptedRamRoundList *l = stats->recent_rounds, *next;

    for (; l; l = next) {
        next = l->next;
        g_free(l->value);
        g_free(l);
    }
    g_free(stats);
}

static void test_empty(void)
{
    EncryptedStats *s = encrypted_stats_new();
    EncryptedRamStats *stats = encrypted_stats_get(s, 5);
    g_autofree char *text = encrypted_stats_text(stats);
    EncryptedRamRound ended;

    g_assert_cmpuint(stats->rounds, ==, 0);
    g_assert_null(stats->recent_rounds);
    g_assert_cmpuint(stats->private_pages_per_second, ==, 0);
    g_assert_null(strstr(text, "round "));
    g_assert_false(encrypted_stats_round(s, 0, 7, &ended));
    free_stats(stats);
    encrypted_stats_free(s);
    encrypted_stats_free(NULL);
}

/* Begin at 1000 ms, send pages in round 1, and end the round after 500 ms */
static void run_round_1(EncryptedStats *s)
{
    EncryptedRamRound ended;

    g_assert_false(encrypted_stats_round(s, 1, 1000, &ended));
    encrypted_stats_add_block(s, 1000);
    encrypted_stats_private(s, 0, 0, 64, 70000);
    encrypted_stats_private(s, 0, 64, 10, 11000);
    encrypted_stats_shared(s, 0, 100);
    encrypted_stats_unallocated(s, 0, 500, 300, 40);
    encrypted_stats_requeued(s, 3);
    encrypted_stats_calls(s, 75);
    encrypted_stats_packed(s, 74, 2000 * SCALE_MS);
    g_assert_true(encrypted_stats_round(s, 2, 1500, &ended));
    g_assert_cmpuint(ended.round, ==, 1);
    g_assert_cmpuint(ended.private_pages, ==, 74);
    g_assert_cmpuint(ended.duration, ==, 500);
}

/* Send pages in round 2, and do not end it */
static void run_round_2(EncryptedStats *s)
{
    EncryptedRamStats *stats;

    encrypted_stats_remaining(s, 100);
    encrypted_stats_private(s, 0, 0, 5, 6000);
    /*
     * A slow thread reports an old number of calls.  The number is smaller than
     * the last reported number, so it must not change the statistics.
     */
    encrypted_stats_calls(s, 74);
    stats = encrypted_stats_get(s, 1500);
    g_assert_cmpuint(nth(stats, 1)->platform_calls, ==, 0);
    g_assert_cmpuint(nth(stats, 1)->platform_time, ==, 0);
    free_stats(stats);
    encrypted_stats_calls(s, 80);
    /* No page could be packed, but the call took time */
    encrypted_stats_packed(s, 0, 100 * SCALE_MS);
}

static void assert_totals(const EncryptedRamStats *stats)
{
    g_assert_cmpuint(stats->rounds, ==, 2);
    g_assert_cmpuint(stats->private_pages, ==, 79);
    g_assert_cmpuint(stats->private_bytes, ==, 87040);
    g_assert_cmpuint(stats->unallocated_pages, ==, 300);
    g_assert_cmpuint(stats->batches, ==, 3);
    g_assert_cmpuint(stats->shared_pages, ==, 1);
    g_assert_cmpuint(stats->again_pages, ==, 3);
    g_assert_cmpuint(stats->converted_pages, ==, 0);
    g_assert_cmpuint(stats->platform_calls, ==, 80);
    g_assert_cmpuint(stats->platform_time, ==, 2100);
    g_assert_cmpuint(stats->remaining_private_pages, ==, 95);
}

static void assert_round_1(const EncryptedRamRound *r)
{
    g_assert_cmpuint(r->round, ==, 1);
    g_assert_cmpuint(r->start, ==, 0);
    g_assert_cmpuint(r->duration, ==, 500);
    g_assert_cmpuint(r->private_pages, ==, 74);
    g_assert_cmpuint(r->private_bytes, ==, 81040);
    g_assert_cmpuint(r->unallocated_pages, ==, 300);
    g_assert_cmpuint(r->batches, ==, 2);
    g_assert_cmpuint(r->shared_pages, ==, 1);
    g_assert_cmpuint(r->again_pages, ==, 3);
    g_assert_cmpuint(r->platform_calls, ==, 75);
    g_assert_cmpuint(r->platform_time, ==, 2000);
}

/*
 * The statistics of the present round have its counters and its duration until
 * now
 */
static void assert_round_2(const EncryptedRamRound *r)
{
    g_assert_cmpuint(r->round, ==, 2);
    g_assert_cmpuint(r->start, ==, 500);
    g_assert_cmpuint(r->duration, ==, 100);
    g_assert_cmpuint(r->private_pages, ==, 5);
    g_assert_cmpuint(r->platform_calls, ==, 5);
    g_assert_cmpuint(r->platform_time, ==, 100);
}

/*
 * The counters of a round count what happens in the round, and the totals count
 * all rounds
 */
static void test_rounds(void)
{
    EncryptedStats *s = encrypted_stats_new();
    EncryptedRamStats *stats;
    EncryptedRamRound ended;

    run_round_1(s);
    run_round_2(s);
    stats = encrypted_stats_get(s, 1600);
    assert_totals(stats);
    g_assert_cmpuint(count_rounds(stats), ==, 2);
    assert_round_1(nth(stats, 0));
    assert_round_2(nth(stats, 1));
    free_stats(stats);

    /*
     * The source sends more private pages than remained, because the guest has
     * converted some since the sync
     */
    encrypted_stats_remaining(s, 3);
    encrypted_stats_unallocated(s, ENCRYPTED_STATS_NO_BLOCK, 0, 4, 28);
    stats = encrypted_stats_get(s, 1600);
    g_assert_cmpuint(stats->remaining_private_pages, ==, 0);
    free_stats(stats);

    /* After the last round has ended, its duration does not change */
    g_assert_true(encrypted_stats_round(s, 0, 1700, &ended));
    g_assert_false(encrypted_stats_round(s, 0, 1800, &ended));
    stats = encrypted_stats_get(s, 9999);
    g_assert_cmpuint(stats->rounds, ==, 2);
    g_assert_cmpuint(nth(stats, 1)->duration, ==, 200);
    g_assert_cmpuint(nth(stats, 1)->private_pages, ==, 5);
    free_stats(stats);
    encrypted_stats_free(s);
}

/* The statistics keep the last rounds in their order */
static void test_many_rounds(void)
{
    EncryptedStats *s = encrypted_stats_new();
    EncryptedRamStats *stats;
    EncryptedRamRound ended;
    uint64_t last = ENCRYPTED_STATS_ROUNDS * 3 + 5, n = 0;

    for (uint64_t i = 1; i <= last; i++) {
        encrypted_stats_round(s, i, i * 10, &ended);
        encrypted_stats_private(s, ENCRYPTED_STATS_NO_BLOCK, 0, i, 1);
        stats = encrypted_stats_get(s, i * 10 + 1);
        g_assert_cmpuint(count_rounds(stats), ==,
                         MIN(i, ENCRYPTED_STATS_ROUNDS));
        free_stats(stats);
    }
    stats = encrypted_stats_get(s, last * 10 + 3);
    g_assert_cmpuint(stats->private_pages, ==, last * (last + 1) / 2);
    for (EncryptedRamRoundList *l = stats->recent_rounds; l; l = l->next) {
        uint64_t want = last - ENCRYPTED_STATS_ROUNDS + 1 + n++;

        g_assert_cmpuint(l->value->round, ==, want);
        g_assert_cmpuint(l->value->private_pages, ==, want);
        g_assert_cmpuint(l->value->start, ==, (want - 1) * 10);
        g_assert_cmpuint(l->value->duration, ==, want == last ? 3 : 10);
    }
    free_stats(stats);
    encrypted_stats_free(s);
}

static uint64_t converted(EncryptedStats *s)
{
    EncryptedRamStats *stats = encrypted_stats_get(s, 0);
    uint64_t n = stats->converted_pages;

    free_stats(stats);
    return n;
}

/*
 * Compare the number of converted pages with a model that has one byte per
 * page: the path by which the page was sent last
 */
static void test_converted(void)
{
    EncryptedStats *s = encrypted_stats_new();
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    enum { BLOCKS = 2, PAGES = 1000 };
    uint8_t model[BLOCKS][PAGES] = { };
    uint64_t want = 0;

    for (int i = 0; i < BLOCKS; i++) {
        encrypted_stats_add_block(s, PAGES);
    }
    for (int i = 0; i < 20000; i++) {
        unsigned b = g_rand_int_range(rand, 0, BLOCKS);
        uint64_t page = g_rand_int_range(rand, 0, PAGES);
        uint64_t n = MIN(g_rand_int_range(rand, 1, 130), PAGES - page);
        bool is_private = g_rand_boolean(rand);

        if (!is_private) {
            n = 1;
            encrypted_stats_shared(s, b, page);
        } else {
            encrypted_stats_private(s, b, page, n, 0);
        }
        for (uint64_t p = page; p < page + n; p++) {
            want += model[b][p] && model[b][p] != 1 + is_private;
            model[b][p] = 1 + is_private;
        }
        g_assert_cmpuint(converted(s), ==, want);
    }
    g_assert_cmpuint(want, >, 1000);
    /* Sending a page by the same path again is no conversion */
    encrypted_stats_private(s, 0, 0, PAGES, 0);
    want = converted(s);
    encrypted_stats_private(s, 0, 0, PAGES, 0);
    g_assert_cmpuint(converted(s), ==, want);
    /*
     * Two pages change their path, but the statistics cannot count them as
     * converted, because they do not have the earlier path.  For the first
     * page, which is in a RAMBlock without an index, the statistics store no
     * path.  The path of page 0 is freed by encrypted_stats_forget_blocks().
     */
    encrypted_stats_private(s, ENCRYPTED_STATS_NO_BLOCK, 1 << 30, 1, 0);
    encrypted_stats_shared(s, ENCRYPTED_STATS_NO_BLOCK, 1 << 30);
    encrypted_stats_forget_blocks(s);
    encrypted_stats_shared(s, 0, 0);
    g_assert_cmpuint(converted(s), ==, want);
    encrypted_stats_free(s);
}

static void test_rate(void)
{
    EncryptedStats *s = encrypted_stats_new();
    EncryptedRamStats *stats = encrypted_stats_get(s, 0);

    g_assert_cmpuint(stats->private_pages_per_second, ==, 0);
    free_stats(stats);
    encrypted_stats_packed(s, 100, 999999);
    encrypted_stats_packed(s, 300, 99000001);
    g_assert_cmpuint(encrypted_stats_get_packed(s).pages, ==, 400);
    g_assert_cmpuint(encrypted_stats_get_packed(s).ns, ==, 100000000);
    stats = encrypted_stats_get(s, 0);
    g_assert_cmpuint(stats->private_pages_per_second, ==, 4000);
    free_stats(stats);
    encrypted_stats_free(s);
}

static void *sender(void *opaque)
{
    for (int i = 0; i < 10000; i++) {
        encrypted_stats_private(opaque, 0, i % 100, 3, 1);
        encrypted_stats_shared(opaque, 0, i % 100);
    }
    return NULL;
}

/*
 * Several threads send pages, one begins rounds, and one reads the statistics
 * at the same time
 */
static void test_threads(void)
{
    EncryptedStats *s = encrypted_stats_new();
    EncryptedRamStats *stats;
    EncryptedRamRound ended;
    QemuThread threads[4];
    uint64_t sum = 0;

    encrypted_stats_add_block(s, 200);
    encrypted_stats_round(s, 1, 0, &ended);
    for (int i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_create(&threads[i], "sender", sender, s,
                           QEMU_THREAD_JOINABLE);
    }
    for (int i = 2; i <= 200; i++) {
        stats = encrypted_stats_get(s, i);
        g_assert_cmpuint(stats->private_pages, ==, 3 * stats->batches);
        free_stats(stats);
        g_usleep(10);
        encrypted_stats_round(s, i, i, &ended);
        sum += ended.private_pages;
    }
    for (int i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_join(&threads[i]);
    }
    encrypted_stats_round(s, 0, 300, &ended);
    sum += ended.private_pages;
    stats = encrypted_stats_get(s, 300);
    g_assert_cmpuint(stats->private_pages, ==,
                     30000 * ARRAY_SIZE(threads));
    g_assert_cmpuint(sum, ==, stats->private_pages);
    g_assert_cmpuint(stats->shared_pages, ==, 10000 * ARRAY_SIZE(threads));
    free_stats(stats);
    encrypted_stats_free(s);
}

static void test_text(void)
{
    EncryptedStats *s = encrypted_stats_new();
    EncryptedRamStats *stats;
    EncryptedRamRound ended;
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    encrypted_stats_add_block(s, 10);
    encrypted_stats_round(s, 1, 0, &ended);
    encrypted_stats_private(s, 0, 0, 7, 8192);
    encrypted_stats_shared(s, 0, 3);
    encrypted_stats_unallocated(s, 0, 8, 2, 40);
    encrypted_stats_calls(s, 2);
    encrypted_stats_packed(s, 7, 5000 * (int64_t)SCALE_MS);
    encrypted_stats_remaining(s, 3);
    encrypted_stats_round(s, 2, 30, &ended);
    stats = encrypted_stats_get(s, 40);
    text = encrypted_stats_text(stats);
    g_test_message("%s", text);
    lines = g_strsplit(text, "\n", 0);
    g_assert_cmpstr(lines[0], ==,
                    "private ram: 7 pages, 8 kbytes, 1 batches");
    g_assert_cmpstr(lines[1], ==, "unallocated private ram: 2 pages");
    g_assert_cmpstr(lines[3], ==, "converted after sending: 1 pages");
    g_assert_cmpstr(lines[5], ==, "platform: 2 calls, 5000 ms");
    g_assert_cmpstr(lines[7], ==, "remaining private ram: 3 pages");
    g_assert_cmpuint(g_strv_length(lines), ==, 8 + 1 + 2 + 1);
    g_assert_cmpuint(strlen(lines[8]), ==, strlen(lines[9]));
    g_assert_nonnull(strstr(lines[9], " 5000"));
    free_stats(stats);
    encrypted_stats_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/encrypted-stats/empty", test_empty);
    g_test_add_func("/encrypted-stats/rounds", test_rounds);
    g_test_add_func("/encrypted-stats/many-rounds", test_many_rounds);
    g_test_add_func("/encrypted-stats/converted", test_converted);
    g_test_add_func("/encrypted-stats/rate", test_rate);
    g_test_add_func("/encrypted-stats/threads", test_threads);
    g_test_add_func("/encrypted-stats/text", test_text);
    return g_test_run();
}
