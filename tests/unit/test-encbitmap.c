/*
 * Tests of the encryption bitmap of a RAMBlock
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qapi/error.h"
#include "encbitmap-fixture.h"

/* A provider that keeps the state in an array with one byte per page */
static struct {
    uint8_t *state;
    uint64_t npages;
    int error;
    uint64_t error_offset;
    unsigned calls, syncs;
    bool sync_fails;
    uint64_t changed;
} fake;

static void fake_reset(RAMBlock *rb, bool all_private)
{
    g_free(fake.state);
    memset(&fake, 0, sizeof(fake));
    fake.npages = encbitmap_npages(rb);
    fake.state = g_malloc(fake.npages);
    memset(fake.state, all_private, fake.npages);
}

static int fake_convert(RAMBlock *rb, uint64_t offset, uint64_t size,
                        bool to_private, uint64_t *error_offset)
{
    fake.calls++;
    g_assert(offset / PAGE + size / PAGE <= fake.npages);
    if (fake.error) {
        *error_offset = fake.error_offset;
        return fake.error;
    }
    memset(fake.state + offset / PAGE, to_private, size / PAGE);
    return 0;
}

static bool fake_sync(RAMBlock *rb, Error **errp)
{
    g_autofree uint64_t *le = g_new0(uint64_t,
                                     DIV_ROUND_UP(fake.npages, 64));

    fake.syncs++;
    if (fake.sync_fails) {
        error_setg(errp, "it does not say");
        return false;
    }
    for (uint64_t i = 0; i < fake.npages; i++) {
        le[i / 64] |= cpu_to_le64((uint64_t)fake.state[i] << (i % 64));
    }
    fake.changed = encbitmap_update(rb, 0, fake.npages, le);
    return true;
}

static const EncBitmapProvider fake_provider = {
    .name = "fake", .convert = fake_convert, .sync = fake_sync,
};

static const EncBitmapProvider fake_dirtying_provider = {
    .name = "fake-dirtying", .dirties = true,
    .convert = fake_convert, .sync = fake_sync,
};

static void test_none(void)
{
    RAMBlock *rb = block_new("plain", 100);
    bool is_private = true;
    Error *err = NULL;

    g_assert_cmpuint(encbitmap_npages(rb), ==, 0);
    g_assert(!encbitmap_test(rb, 0));
    g_assert_cmpuint(encbitmap_run(rb, 3, 90, &is_private), ==, 87);
    g_assert(!is_private);
    g_assert_cmpuint(encbitmap_count(rb, 0, 100), ==, 0);
    encbitmap_send_lock(rb);
    encbitmap_send_unlock(rb);
    g_assert_cmpint(encbitmap_convert(rb, 0, PAGE, false, NULL, &error_abort),
                    ==, 0);
    g_assert_cmpint(encbitmap_convert(rb, 0, PAGE, true, NULL, &err), ==,
                    -ENOTSUP);
    error_free_or_abort(&err);
    g_assert(encbitmap_sync(&error_abort));
    encbitmap_free(rb);
    block_free(rb);
}

/* encbitmap_init() has no effect on a RAMBlock that already has a bitmap */
static void test_init(void)
{
    RAMBlock *rb = block_new("ram", 100);

    encbitmap_init(rb, NULL, true);
    encbitmap_init(rb, NULL, false);
    g_assert_cmpuint(encbitmap_npages(rb), ==, 100);
    g_assert_cmpuint(encbitmap_count(rb, 0, 100), ==, 100);
    g_assert_cmpuint(encbitmap_count(rb, 0, UINT64_MAX), ==, 100);
    g_assert(encbitmap_test(rb, 99));
    g_assert(!encbitmap_test(rb, 100));
    g_assert(!encbitmap_test(rb, UINT64_MAX));
    block_free(rb);
}

/*
 * One private page must not make 64 pages private, and one shared page must
 * not make 64 pages shared
 */
static void test_single(void)
{
    RAMBlock *rb = block_new("ram", 200);

    encbitmap_init(rb, NULL, false);
    for (unsigned i = 0; i < 200; i++) {
        encbitmap_set(rb, i, 1, true);
        g_assert_cmpuint(encbitmap_count(rb, 0, 200), ==, 1);
        for (unsigned j = 0; j < 200; j++) {
            g_assert(encbitmap_test(rb, j) == (i == j));
        }
        encbitmap_set(rb, i, 1, false);
    }
    encbitmap_set(rb, 0, 200, true);
    for (unsigned i = 0; i < 200; i++) {
        encbitmap_set(rb, i, 1, false);
        g_assert_cmpuint(encbitmap_count(rb, 0, 200), ==, 199);
        g_assert(!encbitmap_test(rb, i));
        encbitmap_set(rb, i, 1, true);
    }
    block_free(rb);
}

/*
 * A word of zeros means that 64 pages are shared, and not that the state of
 * these pages has not changed
 */
static void test_zero_words(void)
{
    RAMBlock *rb = block_new("ram", 256);

    encbitmap_init(rb, &fake_dirtying_provider, true);
    fake_reset(rb, true);
    memset(fake.state + 64, 0, 128);
    g_assert(encbitmap_sync(&error_abort));
    g_assert_cmpuint(fake.changed, ==, 2);
    g_assert_cmpuint(encbitmap_count(rb, 0, 256), ==, 128);
    g_assert_cmpuint(encbitmap_count(rb, 64, 128), ==, 0);

    memset(fake.state, 0, 256);
    g_assert(encbitmap_sync(&error_abort));
    g_assert_cmpuint(encbitmap_count(rb, 0, 256), ==, 0);
    block_free(rb);
}

/*
 * Set a range that begins and ends within words; the other bits must not
 * change
 */
static void test_neighbours(void)
{
    static const unsigned edges[] = { 0, 1, 31, 32, 63, 64, 65, 127, 128,
                                      129, 191, 192, 255, 256, 299, 300 };

    for (int v = 0; v < 2; v++) {
        for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
            for (size_t j = i; j < ARRAY_SIZE(edges); j++) {
                unsigned first = edges[i], n = edges[j] - edges[i];
                RAMBlock *rb = block_new("ram", 300);

                encbitmap_init(rb, NULL, !v);
                encbitmap_set(rb, first, n, v);
                g_assert_cmpuint(encbitmap_count(rb, 0, 300), ==,
                                 v ? n : 300 - n);
                g_assert_cmpuint(encbitmap_count(rb, first, n), ==, v ? n : 0);
                g_assert(!first || encbitmap_test(rb, first - 1) == !v);
                g_assert(first + n == 300 ||
                         encbitmap_test(rb, first + n) == !v);
                block_free(rb);
            }
        }
    }
}

static void test_run(void)
{
    RAMBlock *rb = block_new("ram", 500);
    bool p;

    encbitmap_init(rb, NULL, true);
    encbitmap_set(rb, 63, 2, false);
    encbitmap_set(rb, 130, 300, false);
    g_assert_cmpuint(encbitmap_run(rb, 0, 500, &p), ==, 63);
    g_assert(p);
    g_assert_cmpuint(encbitmap_run(rb, 0, 10, &p), ==, 10);
    g_assert(p);
    g_assert_cmpuint(encbitmap_run(rb, 63, 500, &p), ==, 2);
    g_assert(!p);
    g_assert_cmpuint(encbitmap_run(rb, 64, 65, &p), ==, 1);
    g_assert_cmpuint(encbitmap_run(rb, 65, 500, &p), ==, 65);
    g_assert_cmpuint(encbitmap_run(rb, 200, 500, &p), ==, 230);
    g_assert_cmpuint(encbitmap_run(rb, 430, 10000, &p), ==, 70);
    g_assert(p);
    g_assert_cmpuint(encbitmap_run(rb, 7, 7, &p), ==, 0);
    block_free(rb);
}

/*
 * encbitmap_convert() refuses a range that is not aligned to pages or not in
 * the RAMBlock, and does not round it or cut it off
 */
static void test_convert_range(void)
{
    static const struct {
        uint64_t offset, size;
    } bad[] = {
        { 0, 0 }, { 1, PAGE }, { PAGE, 1 }, { PAGE / 2, PAGE / 2 },
        { 100 * PAGE, PAGE }, { 99 * PAGE, 2 * PAGE }, { 0, 101 * PAGE },
        { PAGE, UINT64_MAX & ~(PAGE - 1) }, { -PAGE, PAGE },
        { -PAGE, 2 * PAGE }, { UINT64_MAX, PAGE },
    };
    RAMBlock *rb = block_new("ram", 100);

    encbitmap_init(rb, NULL, false);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        Error *err = NULL;

        g_assert_cmpint(encbitmap_convert(rb, bad[i].offset, bad[i].size,
                                          true, NULL, &err), ==, -EINVAL);
        g_assert(strstr(error_get_pretty(err), "block ram"));
        error_free(err);
        g_assert_cmpuint(encbitmap_count(rb, 0, 100), ==, 0);
    }
    encbitmap_convert(rb, 99 * PAGE, PAGE, true, NULL, &error_abort);
    g_assert_cmpuint(encbitmap_count(rb, 0, 100), ==, 1);
    encbitmap_convert(rb, 0, 100 * PAGE, true, NULL, &error_abort);
    g_assert_cmpuint(encbitmap_count(rb, 0, 100), ==, 100);
    block_free(rb);
}

static void check_dirty(RAMBlock *rb, uint64_t first, uint64_t n)
{
    uint64_t npages = rb->max_length / PAGE;

    for (uint64_t i = 0; i < npages; i++) {
        g_assert_cmpuint(test_block(rb)->dirty[i], ==,
                         i >= first && i < first + n);
    }
    memset(test_block(rb)->dirty, 0, npages);
}

/*
 * A conversion marks pages dirty.  If the provider has the flag @dirties, the
 * provider marks them.  If the provider does not have this flag,
 * encbitmap_convert() and encbitmap_sync() mark them.
 */
static void test_convert_dirties(void)
{
    RAMBlock *rb = block_new("ram", 300);

    encbitmap_init(rb, NULL, true);
    encbitmap_convert(rb, 60 * PAGE, 10 * PAGE, false, NULL, &error_abort);
    check_dirty(rb, 60, 10);
    /* Without a provider, only pages whose state changes are marked */
    encbitmap_convert(rb, 60 * PAGE, 100 * PAGE, false, NULL, &error_abort);
    check_dirty(rb, 70, 90);
    encbitmap_convert(rb, 60 * PAGE, 100 * PAGE, false, NULL, &error_abort);
    check_dirty(rb, 0, 0);
    /* encbitmap_set(), which the launch uses, marks no pages */
    encbitmap_set(rb, 0, 300, false);
    check_dirty(rb, 0, 0);
    block_free(rb);

    rb = block_new("ram", 300);
    encbitmap_init(rb, &fake_provider, true);
    fake_reset(rb, true);
    encbitmap_convert(rb, 60 * PAGE, 10 * PAGE, false, NULL, &error_abort);
    check_dirty(rb, 60, 10);
    /*
     * encbitmap_convert() also marks the pages whose bits do not change,
     * because their state at the provider may have differed from the bitmap
     */
    encbitmap_convert(rb, 60 * PAGE, 100 * PAGE, false, NULL, &error_abort);
    check_dirty(rb, 60, 100);
    g_assert_cmpuint(fake.calls, ==, 2);
    /* encbitmap_sync() marks the pages of each word that it changes */
    fake.state[200] = 0;
    g_assert(encbitmap_sync(&error_abort));
    g_assert_cmpuint(test_block(rb)->dirty[200], ==, 1);
    g_assert_cmpuint(test_block(rb)->dirty[100], ==, 0);
    block_free(rb);

    rb = block_new("ram", 300);
    encbitmap_init(rb, &fake_dirtying_provider, true);
    fake_reset(rb, true);
    encbitmap_convert(rb, 60 * PAGE, 10 * PAGE, false, NULL, &error_abort);
    g_assert_cmpuint(encbitmap_count(rb, 0, 300), ==, 290);
    /*
     * A provider with the flag @dirties cannot mark pages that are in no memory
     * slot, so encbitmap_convert() also marks the pages that it converts
     */
    check_dirty(rb, 60, 10);
    /*
     * encbitmap_convert() marks only pages whose state in the bitmap changes.
     * The provider itself marks pages whose state changes at the provider.
     */
    encbitmap_convert(rb, 60 * PAGE, 20 * PAGE, false, NULL, &error_abort);
    check_dirty(rb, 70, 10);
    fake.state[200] = 0;
    g_assert(encbitmap_sync(&error_abort));
    check_dirty(rb, 0, 0);
    block_free(rb);
}

/*
 * If the provider refuses a conversion, encbitmap_convert() changes no bit, and
 * a later call can convert the same pages
 */
static void test_convert_again(void)
{
    RAMBlock *rb = block_new("ram", 300);
    uint64_t bad = 0;
    Error *err = NULL;

    encbitmap_init(rb, &fake_provider, false);
    fake_reset(rb, false);
    fake.error = -EAGAIN;
    fake.error_offset = 77 * PAGE;
    g_assert_cmpint(encbitmap_convert(rb, 70 * PAGE, 10 * PAGE, true, &bad,
                                      &err), ==, -EAGAIN);
    g_assert(strstr(error_get_pretty(err), "block ram"));
    g_assert(strstr(error_get_pretty(err), "0x46000"));
    g_assert(strstr(error_get_pretty(err), "0x4d000"));
    error_free(err);
    err = NULL;
    g_assert_cmpuint(bad, ==, 77 * PAGE);
    g_assert_cmpuint(encbitmap_count(rb, 0, 300), ==, 0);
    check_dirty(rb, 0, 0);
    /* @error_offset may be NULL */
    g_assert_cmpint(encbitmap_convert(rb, 70 * PAGE, 10 * PAGE, true, NULL,
                                      &err), ==, -EAGAIN);
    error_free_or_abort(&err);
    fake.error = 0;
    g_assert_cmpint(encbitmap_convert(rb, 70 * PAGE, 10 * PAGE, true, &bad,
                                      &error_abort), ==, 0);
    g_assert_cmpuint(encbitmap_count(rb, 70, 10), ==, 10);
    block_free(rb);
}

static void test_sync_error(void)
{
    RAMBlock *a = block_new("a", 64), *b = block_new("b", 64);
    Error *err = NULL;

    encbitmap_init(a, NULL, true);
    encbitmap_init(b, &fake_provider, false);
    fake_reset(b, false);
    fake.sync_fails = true;
    g_assert(!encbitmap_sync(&err));
    g_assert(strstr(error_get_pretty(err), "block b"));
    error_free(err);
    g_assert_cmpuint(encbitmap_count(a, 0, 64), ==, 64);
    /*
     * encbitmap_convert() takes the writer's lock, so this call would hang if
     * encbitmap_sync() had not released this lock after the error
     */
    encbitmap_convert(b, 0, PAGE, true, NULL, &error_abort);
    block_free(a);
    block_free(b);
}

/* A RAMBlock with more pages than fit in an int */
static void test_big(void)
{
    uint64_t npages = 5ULL << 30;       /* 20 TiB; the bitmap takes 640 MiB */
    TestBlock *tb = g_new0(TestBlock, 1);
    RAMBlock *rb = &tb->rb;
    uint64_t at = npages - 100, le[2];
    bool p;

    if (sizeof(long) < 8 || !g_test_slow()) {
        g_test_skip("needs 640 MiB of memory: -m slow");
        g_free(tb);
        return;
    }
    pstrcpy(rb->idstr, sizeof(rb->idstr), "big");
    rb->mr = &tb->mr;
    rb->used_length = rb->max_length = npages * PAGE;
    encbitmap_init(rb, &fake_dirtying_provider, false);
    g_assert_cmpuint(encbitmap_npages(rb), ==, npages);
    encbitmap_set(rb, at, 70, true);
    g_assert_cmpuint(encbitmap_run(rb, 0, npages, &p), ==, at);
    g_assert(!p);
    g_assert_cmpuint(encbitmap_run(rb, at, npages, &p), ==, 70);
    g_assert(p);
    g_assert(!encbitmap_test(rb, at & UINT32_MAX));
    g_assert_cmpuint(encbitmap_count(rb, 0, npages), ==, 70);
    encbitmap_read(rb, at - 10, 100, le);
    g_assert_cmphex(le64_to_cpu(le[0]), ==, ~0ULL << 10);
    encbitmap_free(rb);
    g_free(tb);
}

/*
 * Number of pages of the model in test_model().  It is odd, so that the last
 * word is not full, and more than the code under test compares in one step.
 */
#define MODEL_NPAGES 9001

/*
 * Give the @n pages from @first on random states, in the provider and in
 * @model, and check encbitmap_sync().
 *
 * Only a provider can call encbitmap_update(), because the caller must hold the
 * writer's lock.  encbitmap_sync() takes this lock and calls the provider,
 * which then calls encbitmap_update().
 */
static void model_sync(uint8_t *model, uint64_t first, uint64_t n)
{
    uint64_t changed = 0;   /* words of the bitmap */

    memcpy(fake.state, model, MODEL_NPAGES);
    for (unsigned i = first, last = UINT_MAX; i < first + n; i++) {
        fake.state[i] = g_test_rand_int_range(0, 2);
        if (fake.state[i] != model[i] && last / 64 != i / 64) {
            changed++;
            last = i;
        }
    }
    g_assert(encbitmap_sync(&error_abort));
    g_assert_cmpuint(fake.changed, ==, changed);
    memcpy(model, fake.state, MODEL_NPAGES);
}

static void model_count(RAMBlock *rb, const uint8_t *model, uint64_t first,
                        uint64_t n)
{
    uint64_t want = 0;

    for (unsigned i = first; i < first + n; i++) {
        want += model[i];
    }
    g_assert_cmpuint(encbitmap_count(rb, first, n), ==, want);
}

static void model_run(RAMBlock *rb, const uint8_t *model, uint64_t first,
                      uint64_t n)
{
    uint64_t want = 0;
    bool p;

    while (want < n && model[first + want] == model[first]) {
        want++;
    }
    g_assert_cmpuint(encbitmap_run(rb, first, first + n, &p), ==, want);
    g_assert(p == model[first]);
}

static void model_read(RAMBlock *rb, const uint8_t *model, uint64_t first,
                       uint64_t n)
{
    uint64_t le[MODEL_NPAGES / 64 + 2];

    memset(le, 0xa5, sizeof(le));
    encbitmap_read(rb, first, n, le);
    for (unsigned i = 0; i < ROUND_UP(n, 64); i++) {
        g_assert_cmpuint(le64_to_cpu(le[i / 64]) >> (i % 64) & 1, ==,
                         i < n ? model[first + i] : 0);
    }
    /* The words after the range are unchanged */
    g_assert_cmphex(le[DIV_ROUND_UP(n, 64)], ==, 0xa5a5a5a5a5a5a5a5ULL);
}

/* Compare all functions with a model of one byte per page, for random ranges */
static void test_model(void)
{
    g_autofree uint8_t *model = g_malloc0(MODEL_NPAGES);
    RAMBlock *rb = block_new("ram", MODEL_NPAGES);

    encbitmap_init(rb, &fake_dirtying_provider, false);
    fake_reset(rb, false);
    for (int op = 0; op < 20000; op++) {
        uint64_t first = g_test_rand_int_range(0, MODEL_NPAGES);
        uint64_t n = g_test_rand_int_range(1, MODEL_NPAGES - first + 1);
        bool val = g_test_rand_int_range(0, 2);

        switch (g_test_rand_int_range(0, 6)) {
        case 0:
            encbitmap_set(rb, first, n, val);
            memset(model + first, val, n);
            break;
        case 1:
            encbitmap_convert(rb, first * PAGE, n * PAGE, val, NULL,
                              &error_abort);
            memset(model + first, val, n);
            break;
        case 2:
            model_sync(model, first, n);
            break;
        case 3:
            model_count(rb, model, first, n);
            break;
        case 4:
            model_run(rb, model, first, n);
            break;
        case 5:
            model_read(rb, model, first, n);
            break;
        }
        g_assert(encbitmap_test(rb, first) == model[first]);
    }
    for (unsigned i = 0; i < MODEL_NPAGES; i++) {
        g_assert(encbitmap_test(rb, i) == model[i]);
    }
    block_free(rb);
}

/*
 * The provider's function @allocated says which pages are allocated.  If a
 * provider has no such function, all pages are allocated.
 */
static uint64_t allocated_run(RAMBlock *rb, uint64_t page, uint64_t npages,
                              bool *allocated)
{
    /* Groups of ten pages are alternately allocated and unallocated */
    *allocated = page / 10 % 2;
    return MIN(npages, 10 - page % 10);
}

static void test_allocated(void)
{
    static const EncBitmapProvider provider = {
        .name = "lazy", .dirties = true, .allocated = allocated_run,
    };
    RAMBlock *rb = block_new("ram", 400);
    bool allocated = false;

    encbitmap_init(rb, NULL, true);
    g_assert_cmpuint(encbitmap_allocated_run(rb, 0, 400, &allocated), ==, 400);
    g_assert_true(allocated);
    encbitmap_free(rb);
    encbitmap_init(rb, &provider, true);
    g_assert_cmpuint(encbitmap_allocated_run(rb, 3, 397, &allocated), ==, 7);
    g_assert_false(allocated);
    g_assert_cmpuint(encbitmap_allocated_run(rb, 10, 4, &allocated), ==, 4);
    g_assert_true(allocated);
    block_free(rb);
}

/*
 * Call encbitmap_update() with ranges that begin and end at any bit of a word
 * of the bitmap
 */
static uint64_t update_first, update_n, update_le[8];
static bool update_sync(RAMBlock *rb, Error **errp)
{
    /*
     * The buffer has no more bytes than encbitmap_update() may read, so that a
     * sanitizer detects reads after the buffer
     */
    size_t size = DIV_ROUND_UP(update_n, 64) * 8;
    g_autofree uint64_t *le = g_malloc(size);

    memcpy(le, update_le, size);
    encbitmap_update(rb, update_first, update_n, le);
    return true;
}

static void test_update_unaligned(void)
{
    static const EncBitmapProvider provider = {
        .name = "update", .dirties = true, .sync = update_sync,
    };

    for (update_first = 0; update_first < 130; update_first++) {
        for (update_n = 1; update_n < 200; update_n += 7) {
            RAMBlock *rb = block_new("ram", 400);

            for (int i = 0; i < ARRAY_SIZE(update_le); i++) {
                update_le[i] = (uint64_t)g_test_rand_int() << 32 |
                               (uint32_t)g_test_rand_int();
            }
            encbitmap_init(rb, &provider, true);
            g_assert(encbitmap_sync(&error_abort));
            for (uint64_t i = 0; i < 400; i++) {
                uint64_t j = i - update_first;
                bool want = i < update_first || j >= update_n ||
                    le64_to_cpu(update_le[j / 64]) >> (j % 64) & 1;

                g_assert(encbitmap_test(rb, i) == want);
            }
            block_free(rb);
        }
    }
}

/*
 * A sender takes the lock again as soon as it has dropped the lock, while
 * another thread converts pages.  The state must not change while the sender
 * holds the lock, and a conversion must not wait long.
 */
static RAMBlock *lock_rb;
static bool lock_stop;
static uint64_t lock_sends;

static void *sender(void *unused)
{
    rcu_register_thread();
    while (!qatomic_read(&lock_stop)) {
        uint64_t n;
        bool p, q;

        encbitmap_send_lock(lock_rb);
        n = encbitmap_run(lock_rb, 5, 100, &p);
        g_usleep(1000);
        g_assert_cmpuint(n, ==, encbitmap_run(lock_rb, 5, 100, &q));
        g_assert(p == q);
        /* A sender must see the conversion of all 64 pages, or of none */
        g_assert_cmpuint(n, >=, 64);
        qatomic_set(&lock_sends, lock_sends + 1);
        encbitmap_send_unlock(lock_rb);
    }
    rcu_unregister_thread();
    return NULL;
}

static void test_lock(void)
{
    QemuThread threads[4];
    int64_t start = g_get_monotonic_time();

    lock_rb = block_new("ram", 200);
    encbitmap_init(lock_rb, NULL, false);
    for (int i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_create(&threads[i], "sender", sender, NULL,
                           QEMU_THREAD_JOINABLE);
    }
    while (!qatomic_read(&lock_sends)) {
        g_usleep(100);
    }
    for (int i = 0; i < 200; i++) {
        encbitmap_convert(lock_rb, 5 * PAGE, 64 * PAGE, i & 1, NULL,
                          &error_abort);
    }
    qatomic_set(&lock_stop, true);
    for (int i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_join(&threads[i]);
    }
    /*
     * A sender holds the lock for 1 ms.  If the lock preferred readers, the
     * senders would keep this thread waiting, and the 200 conversions would
     * take longer than this limit.
     */
    g_assert_cmpint(g_get_monotonic_time() - start, <, 20 * G_USEC_PER_SEC);
    block_free(lock_rb);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/encbitmap/none", test_none);
    g_test_add_func("/encbitmap/init", test_init);
    g_test_add_func("/encbitmap/single", test_single);
    g_test_add_func("/encbitmap/zero-words", test_zero_words);
    g_test_add_func("/encbitmap/neighbours", test_neighbours);
    g_test_add_func("/encbitmap/run", test_run);
    g_test_add_func("/encbitmap/convert/range", test_convert_range);
    g_test_add_func("/encbitmap/convert/dirties", test_convert_dirties);
    g_test_add_func("/encbitmap/convert/again", test_convert_again);
    g_test_add_func("/encbitmap/sync-error", test_sync_error);
    g_test_add_func("/encbitmap/big", test_big);
    g_test_add_func("/encbitmap/model", test_model);
    g_test_add_func("/encbitmap/update-unaligned", test_update_unaligned);
    g_test_add_func("/encbitmap/allocated", test_allocated);
    g_test_add_func("/encbitmap/lock", test_lock);
    return g_test_run();
}
