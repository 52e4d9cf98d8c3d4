/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the migration helper's commands: what the helper seals, opens and
 * refuses
 *
 * docs/devel/sev-migration-helper.rst lists the helper's promises and the
 * function that checks each of them.
 */
#include <nettle/aes.h>
#include <nettle/cmac.h>
#include <nettle/gcm.h>
#include <pthread.h>
#include "../l1/harness.h"
#include "native.h"

#define PAGE MH_PAGE_SIZE

static uint32_t impl;
static Native *from, *to;

/*
 * A sealed batch: seal() copies it from the sender's shared memory, and open()
 * copies it to the receiver's
 */
typedef struct Packet {
    MhBatch batch;
    MhPage pages[8];
    uint8_t data[8][PAGE];
} Packet;

static void fill(uint8_t *page, uint64_t seed)
{
    uint64_t *words = (uint64_t *)page;
    size_t i;

    for (i = 0; i < PAGE / 8; i++) {
        words[i] = (seed * PAGE + i) * 0x9e3779b97f4a7c15ULL;
    }
}

static uint8_t *guest(Native *native, uint64_t page)
{
    return native->guest + page * PAGE;
}

/* Create a sender, @from, and a receiver, @to, which have the same key */
static void begin(void)
{
    uint64_t i;

    from = native_new(impl);
    for (i = 0; i < GUEST_SIZE / PAGE; i++) {
        fill(guest(from, i), i);
    }
    native_run(from, 0, MH_NEW_KEY);
    to = native_copy(from);
    for (i = 0; i < MH_CPUS; i++) {
        to->helper.cpu[i].impl = impl;
    }
    if (native_run(from, 0, MH_SEND) || native_run(to, 0, MH_RECEIVE)) {
        bail("a sender and a receiver");
    }
}

static void end(void)
{
    native_free(from);
    native_free(to);
}

static uint32_t seal(unsigned channel, uint64_t page, uint32_t count,
                     Packet *packet)
{
    uint32_t i, status;

    mailbox(from, 0)->channel = channel;
    mailbox(from, 0)->count = count;
    for (i = 0; i < count && i < 8; i++) {
        pages(from, 0)[i].gpa = (page + i) * PAGE;
    }
    status = native_run(from, 0, MH_SEAL);
    packet->batch = mailbox(from, 0)->batch;
    memcpy(packet->pages, pages(from, 0), sizeof(packet->pages));
    memcpy(packet->data, data(from, 0), sizeof(packet->data));
    return status;
}

static uint32_t seal_empty(uint32_t command, unsigned channel, Packet *packet)
{
    uint32_t status;

    mailbox(from, 0)->channel = channel;
    status = native_run(from, 0, command);
    packet->batch = mailbox(from, 0)->batch;
    return status;
}

static uint32_t open_at(const Packet *packet, uint64_t alias)
{
    mailbox(to, 0)->batch = packet->batch;
    mailbox(to, 0)->alias = alias;
    memcpy(pages(to, 0), packet->pages, sizeof(packet->pages));
    memcpy(data(to, 0), packet->data, sizeof(packet->data));
    return native_run(to, 0, MH_OPEN);
}

static uint32_t open(const Packet *packet)
{
    return open_at(packet, 0);
}

static bool arrived(uint64_t page, uint64_t count)
{
    return !memcmp(guest(from, page), guest(to, page), count * PAGE);
}

/* Has the receiver written nothing to this page? */
static bool untouched(uint64_t page)
{
    static const uint8_t zeros[PAGE];

    return !memcmp(guest(to, page), zeros, PAGE);
}

static void test_moves(void)
{
    static Packet a, b;

    begin();
    ok(!seal(0, 10, 8, &a) && mailbox(from, 0)->done == 8, "8 pages are sealed");
    ok(!memmem(&a, sizeof(a), guest(from, 10), 16), "the VMM sees ciphertext");
    ok(!open(&a) && arrived(10, 8) && untouched(9) && untouched(18),
       "8 pages are opened, and no others are written");
    fill(guest(from, 10), 999);
    ok(!seal(0, 10, 1, &b) && !open(&b) && arrived(10, 1),
       "a page that was opened before can be sealed and opened again");
    ok(!seal(0, 20, 1, &b) && !open_at(&b, ALIAS) && arrived(20, 1) &&
       to->mapped == ALIAS + 20 * PAGE, "a page is written at the alias");
    ok(memcmp(a.batch.nonce, b.batch.nonce, 24), "each batch has a nonce");
    ok(!seal_empty(MH_SEAL_END, 0, &a) && !open(&a) &&
       mailbox(to, 0)->state == MH_ENDED,
       "the receiver accepts the end of the migration");
    ok(open(&a) == MH_ERR_STATE, "nothing is opened after the end");
    end();
}

/*
 * A sealed batch equals the result of another implementation, which uses nettle
 * and follows the steps of docs/specs/sev-migration-helper.rst.
 */
static void test_format(void)
{
    static Packet p;
    static uint8_t plain[PAGE];
    uint8_t random[32 + 16 + 24], subkey[32], block[16], iv[12], tag[16];
    uint8_t ad[48];
    struct gcm_aes256_ctx gcm;
    struct cmac_aes256_ctx cmac;
    uint32_t i, good = 0;

    for (i = 0; i < sizeof(random); i++) {
        random[i] = i * 7 + 1;
    }
    random_bytes = random;
    random_left = sizeof(random);
    begin();
    ok(!seal(5, 3, 4, &p),
       "a batch of 4 pages is sealed with known random numbers");
    random_bytes = NULL;
    ok(!memcmp(p.batch.session, random + 32, 16) &&
       !memcmp(p.batch.nonce, random + 48, 24) && p.batch.version == 1 &&
       p.batch.kind == MH_KIND_PAGES && p.batch.count == 4 &&
       p.batch.channel == 5 && !p.batch.sequence,
       "the header of a batch with known random numbers is as specified");
    /* Each half of the subkey is the CMAC of one whole block */
    cmac_aes256_set_key(&cmac, random);
    for (i = 0; i < 2; i++) {
        memcpy(block, (uint8_t[]) { 0, i + 1, 'X', 0 }, 4);
        memcpy(block + 4, random + 48, 12);
        cmac_aes256_update(&cmac, 16, block);
        cmac_aes256_digest(&cmac, 16, subkey + 16 * i);
    }
    gcm_aes256_set_key(&gcm, subkey);
    for (i = 0; i < 4; i++) {
        uint64_t gpa = (3 + i) * PAGE;

        memset(ad, 0, sizeof(ad));
        memcpy(ad, random + 32, 16);
        memcpy(ad + 24, &gpa, 8);
        ad[32] = 5;
        ad[36] = i;
        ad[40] = 4;
        ad[44] = MH_KIND_PAGES;
        memcpy(iv, random + 60, 12);
        iv[11] ^= i;
        gcm_aes256_set_iv(&gcm, sizeof(iv), iv);
        gcm_aes256_update(&gcm, sizeof(ad), ad);
        gcm_aes256_decrypt(&gcm, PAGE, plain, p.data[i]);
        gcm_aes256_digest(&gcm, sizeof(tag), tag);
        good += !memcmp(tag, p.pages[i].tag, 16) &&
            !memcmp(plain, guest(from, 3 + i), PAGE);
    }
    ok(good == 4, "nettle opens the pages that the helper sealed");
    memcpy(iv, random + 60, 12);
    for (i = 8; i < 12; i++) {
        iv[i] ^= 0xff;
    }
    gcm_aes256_set_iv(&gcm, sizeof(iv), iv);
    gcm_aes256_update(&gcm, 192, (uint8_t *)&p.batch);
    gcm_aes256_digest(&gcm, sizeof(tag), tag);
    ok(!memcmp(tag, p.batch.tag, 16),
       "nettle computes the tag that the helper put into the header");
    end();
}

static void test_changed(void)
{
    static Packet good, bad;
    uint32_t i, refused = 0;

    begin();
    seal(0, 1, 2, &good);
    for (i = 0; i < sizeof(MhBatch); i++) {
        uint32_t status;

        bad = good;
        ((uint8_t *)&bad.batch)[i] ^= 1 << (i % 8);
        status = open(&bad);
        refused += status == MH_ERR_TAG || status == MH_ERR_FORMAT ||
            status == MH_ERR_CHANNEL;
    }
    ok(refused == i && untouched(1), "%d of %d changed headers are refused",
       refused, i);
    ok(!open(&good) && arrived(1, 2),
       "a refused header does not break the channel");
    end();

    for (i = 0; i < 5; i++) {
        static const char *what[] = {
            "a changed byte", "a changed tag", "a page at another address",
            "two pages that are swapped", "a page of another batch",
        };
        Packet other;

        begin();
        seal(0, 1, 2, &good);
        bad = good;
        switch (i) {
        case 0:
            bad.data[0][4000] ^= 1;
            break;
        case 1:
            bad.pages[0].tag[15] ^= 0x80;
            break;
        case 2:
            bad.pages[0].gpa = 3 * PAGE;
            break;
        case 3:
            bad.pages[0] = good.pages[1];
            memcpy(bad.data[0], good.data[1], PAGE);
            break;
        case 4:
            seal(0, 1, 2, &other);
            bad.pages[0] = other.pages[0];
            memcpy(bad.data[0], other.data[0], PAGE);
            break;
        }
        ok(open(&bad) == MH_ERR_TAG && !mailbox(to, 0)->done && untouched(1) &&
           untouched(2) && untouched(3), "%s is refused, nothing is written",
           what[i]);
        ok(open(&good) == MH_ERR_BROKEN,
           "the channel is broken after %s was refused", what[i]);
        seal_empty(MH_SEAL_END, 0, &other);
        ok(open(&other) == MH_ERR_BROKEN,
           "the end is refused on the broken channel after %s", what[i]);
        end();
    }

    begin();
    seal(0, 1, 2, &good);
    good.data[1][0] ^= 1;
    ok(open(&good) == MH_ERR_TAG && mailbox(to, 0)->done == 1 &&
       arrived(1, 1) && untouched(2), "pages before a changed one are written");
    ok(open(&good) == MH_ERR_BROKEN,
       "a batch that failed after its first page is never opened again");
    end();
}

static void test_order(void)
{
    static Packet p[4], e;

    begin();
    seal(0, 1, 1, &p[0]);
    seal(0, 2, 1, &p[1]);
    seal(0, 3, 1, &p[2]);
    ok(!open(&p[0]) && open(&p[0]) == MH_ERR_REPLAYED,
       "a batch is refused the second time");
    ok(open(&p[2]) == MH_ERR_MISSING && untouched(3),
       "a batch is refused if one before it is missing");
    seal_empty(MH_SEAL_END, 0, &e);
    ok(open(&e) == MH_ERR_MISSING && mailbox(to, 0)->state == MH_RECEIVER,
       "the end is refused if a batch is missing");
    ok(!open(&p[1]) && !open(&p[2]) && !open(&e),
       "batches that were refused out of order are opened in order");
    end();

    begin();
    seal(0, 1, 1, &p[0]);
    seal(3, 2, 1, &p[1]);
    seal_empty(MH_SEAL_END, 7, &e);
    ok(!open(&p[1]) && open(&e) == MH_ERR_MISSING,
       "the end is refused if a batch of another channel is missing");
    ok(!open(&p[0]) && !open(&e), "channels are independent of each other");
    end();

    begin();
    seal(0, 1, 1, &p[0]);
    fill(guest(from, 1), 77);
    ok(!native_run(from, 0, MH_ROUND) && !seal(1, 1, 1, &p[1]),
       "a page is sealed again on another channel, in a new round");
    ok(open(&p[1]) == MH_ERR_BEHIND && untouched(1),
       "a page of the new round is refused while its old contents are missing");
    ok(!open(&p[0]) && !open(&p[1]) && arrived(1, 1),
       "a page of the new round is opened after its old contents");
    end();
}

static void test_resume(void)
{
    static Packet old, lost, again, resume, e;

    begin();
    seal(0, 1, 1, &old);
    seal(0, 2, 1, &lost);
    ok(!open(&old) && !seal_empty(MH_SEAL_RESUME, 1, &resume),
       "a batch is lost with its connection");
    seal(0, 2, 1, &again);
    ok(open(&again) == MH_ERR_MISSING && !open(&resume) && !open(&again) &&
       arrived(2, 1),
       "after the resume record, a page whose batch was lost is opened");
    ok(open(&lost) == MH_ERR_REPLAYED && open(&old) == MH_ERR_REPLAYED &&
       open(&resume) == MH_ERR_REPLAYED,
       "after the resume record, earlier batches are refused");
    seal_empty(MH_SEAL_END, 0, &e);
    ok(!open(&e), "the end is accepted after a resumed channel");
    end();

    begin();
    seal(0, 1, 1, &old);
    old.data[0][0] ^= 1;
    open(&old);
    seal_empty(MH_SEAL_RESUME, 0, &resume);
    seal(0, 1, 1, &again);
    ok(open(&again) == MH_ERR_BROKEN && !open(&resume) && !open(&again) &&
       arrived(1, 1), "a broken channel works after the resume record");
    end();
}

static void test_states(void)
{
    static Packet p;
    Native *native = native_new(impl);
    unsigned i;
    static const uint32_t need_key[] = {
        MH_SEND, MH_RECEIVE, MH_SEAL, MH_OPEN, MH_ROUND, MH_SEAL_END,
        MH_SEAL_RESUME,
    };
    int refused = 0;

    mailbox(native, 0)->count = 1;
    for (i = 0; i < 7; i++) {
        refused += native_run(native, 0, need_key[i]) == MH_ERR_STATE ||
            need_key[i] == MH_OPEN;
    }
    mailbox(native, 0)->batch = (MhBatch) { .version = 1, .kind = 1,
                                            .count = 1 };
    ok(refused == 7 && native_run(native, 0, MH_OPEN) == MH_ERR_STATE,
       "without a key nothing is sealed or opened");
    ok(native_run(native, 0, 0) == MH_ERR_COMMAND &&
       native_run(native, 0, 99) == MH_ERR_COMMAND,
       "unknown commands are refused");
    random_fails = true;
    ok(native_run(native, 0, MH_NEW_KEY) == MH_ERR_ENTROPY &&
       mailbox(native, 0)->state == MH_LAUNCHED, "no key without RDRAND");
    random_fails = false;
    ok(!native_run(native, 0, MH_NEW_KEY) &&
       native_run(native, 0, MH_SEAL) == MH_ERR_STATE,
       "a key alone seals nothing");
    native->helper.cpu[1].impl = 0;
    ok(native_run(native, 1, MH_QUERY) == MH_ERR_CPU,
       "a CPU without AES is refused");
    native_free(native);

    begin();
    seal(0, 1, 1, &p);
    ok(native_run(to, 0, MH_SEAL) == MH_ERR_STATE &&
       native_run(to, 0, MH_SEND) == MH_ERR_STATE &&
       native_run(to, 0, MH_SEAL_END) == MH_ERR_STATE,
       "a receiver does not seal");
    ok(native_run(from, 0, MH_OPEN) == MH_ERR_STATE &&
       native_run(from, 0, MH_RECEIVE) == MH_ERR_STATE,
       "a sender does not open");
    random_fails = true;
    ok(seal(0, 1, 1, &p) == MH_ERR_ENTROPY, "no batch without RDRAND");
    random_fails = false;
    ok(seal(0, 1, 0, &p) == MH_ERR_COUNT &&
       seal(0, 1, MH_BATCH_PAGES + 1, &p) == MH_ERR_COUNT &&
       seal(MH_CHANNELS, 1, 1, &p) == MH_ERR_CHANNEL,
       "a wrong number of pages and a wrong channel are refused");
    ok(!native_run(to, 0, MH_NEW_KEY) && !native_run(to, 0, MH_SEND),
       "with a new key the receiver becomes a sender");
    ok(!native_run(from, 0, MH_FORGET) &&
       native_run(from, 0, MH_SEAL) == MH_ERR_STATE, "a key is forgotten");
    end();

    begin();
    from->helper.channel[2].busy = 1;
    ok(seal(2, 1, 1, &p) == MH_ERR_BUSY && !seal(1, 1, 1, &p),
       "a channel seals one batch at a time");
    from->helper.users = 1;
    ok(native_run(from, 0, MH_ROUND) == MH_ERR_BUSY &&
       native_run(from, 0, MH_NEW_KEY) == MH_ERR_BUSY && !seal(1, 1, 1, &p),
       "some commands need all other vCPUs to wait");
    from->helper.users = MH_EXCLUSIVE;
    ok(seal(1, 1, 1, &p) == MH_ERR_BUSY,
       "no batch is sealed while another vCPU runs a command that needs all to "
       "wait");
    from->helper.users = 0;
    end();
}

static void test_addresses(void)
{
    static Packet p;
    static const uint64_t bad[] = {
        PRIVATE_GPA, PRIVATE_GPA + MH_PRIVATE_SIZE - PAGE, SHARED_GPA,
        SHARED_GPA + MH_SHARED_SIZE - PAGE, GPA_LIMIT, GPA_LIMIT - 1, 1,
        0x800, -PAGE,
    };
    unsigned i, sealed = 0, opened = 0, n = sizeof(bad) / sizeof(bad[0]);

    for (i = 0; i < n; i++) {
        begin();
        mailbox(from, 0)->count = 1;
        mailbox(from, 0)->channel = 0;
        pages(from, 0)[0].gpa = bad[i];
        sealed += native_run(from, 0, MH_SEAL) == MH_ERR_ADDRESS;
        seal(0, 1, 1, &p);
        opened += open_at(&p, bad[i] - PAGE) == MH_ERR_ADDRESS;
        end();
    }
    ok(sealed == n && opened == n, "%d and %d of %d bad addresses are refused",
       sealed, opened, n);
}

/*
 * Copies of a helper have the same key.  Nonces are random, so two copies that
 * seal use different subkeys.  A receiver accepts the batches of only one of
 * them.
 */
static void test_forks(void)
{
    static Packet a, b;
    Native *fork, *first;

    begin();
    native_run(from, 0, MH_NEW_KEY);
    fork = native_copy(from);
    native_free(to);
    to = native_copy(from);
    fork->helper.cpu[0].impl = to->helper.cpu[0].impl = impl;
    native_run(from, 0, MH_SEND);
    native_run(fork, 0, MH_SEND);
    native_run(to, 0, MH_RECEIVE);
    memcpy(fork->guest, from->guest, GUEST_SIZE);
    seal(0, 1, 1, &a);
    first = from;
    from = fork;
    seal(0, 1, 1, &b);
    ok(memcmp(a.batch.nonce, b.batch.nonce, 24) &&
       memcmp(a.batch.session, b.batch.session, 16) &&
       memcmp(a.data[0], b.data[0], PAGE), "two senders use different subkeys");
    seal(0, 2, 1, &b);
    ok(!open(&a) && open(&b) == MH_ERR_SESSION && untouched(2),
       "a receiver takes the batches of one sender");
    native_free(first);
    end();

    begin();
    seal(0, 1, 1, &a);
    native_run(to, 0, MH_NEW_KEY);
    native_run(to, 0, MH_RECEIVE);
    ok(open(&a) == MH_ERR_TAG, "a batch of another key is refused");
    end();
}

/*
 * While the helper works, the VMM changes shared memory that the helper has
 * already checked
 */
static volatile bool stop_changing;

static void *change(void *opaque)
{
    while (!stop_changing) {
        data(to, 0)[100] ^= 1;
        pages(to, 0)[0].gpa ^= PAGE;
        mailbox(to, 0)->batch.count ^= 2;
        mailbox(to, 0)->batch.sequence ^= 1;
    }
    return opaque;
}

static void test_changing(void)
{
    static Packet p;
    pthread_t thread;
    int i, wrong = 0, accepted = 0;

    for (i = 0; i < 100; i++) {
        begin();
        seal(0, 4, 1, &p);
        stop_changing = false;
        pthread_create(&thread, NULL, change, NULL);
        if (open(&p) == MH_OK) {
            accepted++;
            wrong += !arrived(4, 1) || !untouched(5);
        } else {
            wrong += !untouched(4) || !untouched(5);
        }
        stop_changing = true;
        pthread_join(thread, NULL);
        end();
    }
    ok(!wrong, "a VMM that changes records meanwhile gets nothing else written");
    note("%d of %d batches were accepted", accepted, i);
}

/* Transfer the batches of one channel on a separate vCPU */
static volatile int failed;

static void *carry(void *opaque)
{
    unsigned n = (uintptr_t)opaque;
    uint64_t page, share = GUEST_SIZE / PAGE / MH_CPUS;
    uint32_t i, count = 32;

    for (page = n * share; page < (n + 1) * share; page += count) {
        mailbox(from, n)->channel = n;
        mailbox(from, n)->count = count;
        for (i = 0; i < count; i++) {
            pages(from, n)[i].gpa = (page + i) * PAGE;
        }
        failed += native_run(from, n, MH_SEAL) != MH_OK;
        mailbox(to, n)->batch = mailbox(from, n)->batch;
        memcpy(pages(to, n), pages(from, n), count * sizeof(MhPage));
        memcpy(data(to, n), data(from, n), count * PAGE);
        failed += native_run(to, n, MH_OPEN) != MH_OK;
    }
    return NULL;
}

static void test_parallel(void)
{
    static Packet e;
    pthread_t threads[MH_CPUS];
    uintptr_t n;

    begin();
    for (n = 0; n < MH_CPUS; n++) {
        pthread_create(&threads[n], NULL, carry, (void *)n);
    }
    for (n = 0; n < MH_CPUS; n++) {
        pthread_join(threads[n], NULL);
    }
    seal_empty(MH_SEAL_END, 0, &e);
    ok(!failed && arrived(0, GUEST_SIZE / PAGE) && !open(&e),
       "%d channels at the same time", MH_CPUS);
    end();
}

static void test_impl(uint32_t which)
{
    impl = which;
    note("implementation %u", impl);
    test_moves();
    test_format();
    test_changed();
    test_order();
    test_resume();
    test_states();
    test_addresses();
    test_forks();
    test_changing();
    test_parallel();
}

int main(void)
{
    native_each_impl(test_impl);
    return done_testing();
}
