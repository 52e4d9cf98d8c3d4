/*
 * Tests of the emulated AMD PSP: lifecycle and launch of guests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "amd-psp-cases.h"
#include "hw/misc/amd-psp-certs.h"
#include "hw/misc/amd-psp-crypto.h"

static void test_launch(void)
{
    uint8_t page[4096], raw[4096], plain[4096];
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    fill(page);
    qtest_memwrite(p.qts, PAGE_A, page, sizeof(page));

    h = launch_start(&p, 0);
    g_assert_cmpuint(guest_state(&p, h), ==, 1);
    g_assert_cmphex(launch_update(&p, h, PAGE_A, 4096), ==, 0x08);
    g_assert_cmphex(activate(&p, h, 0), ==, 0x0d);
    g_assert_cmphex(activate(&p, h, 9), ==, 0x0d);
    g_assert_cmphex(activate(&p, h, 1), ==, 0);
    g_assert_cmphex(activate(&p, h, 2), ==, 0x12);
    g_assert_cmphex(launch_update(&p, h, PAGE_A, 0), ==, 0x04);
    g_assert_cmphex(launch_update(&p, h, PAGE_A, 17), ==, 0x04);
    g_assert_cmphex(launch_update(&p, h, PAGE_A + 1, 16), ==, 0x09);
    g_assert_cmphex(launch_update(&p, h, NOT_RAM, 16), ==, 0x09);
    g_assert_cmphex(launch_update(&p, h, 0x8000000 - 4096, 8192), ==, 0x09);
    g_assert_cmphex(launch_update(&p, h, 0xfffffffffffff000, 4096), ==, 0x09);
    qtest_memread(p.qts, PAGE_A, raw, sizeof(raw));
    g_assert_cmpmem(raw, sizeof(raw), page, sizeof(page));
    g_assert_cmphex(launch_update(&p, h, PAGE_A, 4096), ==, 0);

    /* The host sees ciphertext now; DBG_DECRYPT returns the guest's page */
    qtest_memread(p.qts, PAGE_A, raw, sizeof(raw));
    g_assert(memcmp(raw, page, 16));
    g_assert_null(memmem(raw, sizeof(raw), "private", 7));
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, plain, sizeof(plain));
    g_assert_cmpmem(plain, sizeof(plain), page, sizeof(page));

    g_assert_cmphex(guest_cmd(&p, 0x35, h), ==, 0x02);  /* not measured */
    clear(&p);
    put32(&p, 0, h);
    g_assert_cmphex(psp_cmd(&p, 0x33), ==, 0x04);
    g_assert_cmpuint(get32(&p, 16), ==, 48);
    g_assert_cmpuint(guest_state(&p, h), ==, 1);
    g_assert_cmphex(launch_measure(&p, h), ==, 0);
    g_assert_cmpuint(guest_state(&p, h), ==, 2);
    g_assert_cmphex(launch_update(&p, h, PAGE_A, 4096), ==, 0x02);
    g_assert_cmphex(guest_cmd(&p, 0x35, h), ==, 0);
    g_assert_cmpuint(guest_state(&p, h), ==, 3);
    psp_close(&p);
}

/* The monitor answers between the slices of a long command */
static void test_slices(void)
{
    const size_t len = 96 << 20;
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree uint8_t *zeros = g_malloc0(1 << 20);
    uint8_t digest[32], measure[48], page[4096];
    gsize digest_len = sizeof(digest);
    unsigned answers = 0;
    size_t i;
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    h = launch_start(&p, 0);
    g_assert_cmphex(activate(&p, h, 1), ==, 0);
    clear(&p);
    put32(&p, 0, h);
    put64(&p, 8, TMR);
    put32(&p, 16, len);
    psp_give(&p, 0x31, BUF, false);
    while (!(psp_read(&p, CMDRESP) & DONE)) {
        QDict *info = psp_query(&p);

        answers += qdict_get_bool(info, "busy");
        qobject_unref(info);
    }
    g_assert_cmphex(psp_wait(&p, 0x31), ==, 0);
    g_test_message("%u answers meanwhile", answers);
    g_assert_cmpuint(answers, >, 5);
    g_assert_cmpuint(psp_stat_of(&p, "LAUNCH_UPDATE_DATA", "count"), ==, 1);
    g_assert_cmpuint(psp_stat_of(&p, "LAUNCH_UPDATE_DATA", "guest-bytes"), ==,
                     len);

    /* All of the data were measured and encrypted */
    g_assert_cmphex(launch_measure(&p, h), ==, 0);
    g_assert_cmphex(attestation(&p, h, OUT, 208), ==, 0);
    qtest_memread(p.qts, OUT + 16, measure, 32);
    for (i = 0; i < len; i += 1 << 20) {
        g_checksum_update(sum, zeros, 1 << 20);
    }
    g_checksum_get_digest(sum, digest, &digest_len);
    g_assert_cmpmem(measure, 32, digest, 32);
    qtest_memread(p.qts, TMR + len - 4096, page, sizeof(page));
    g_assert_false(buffer_is_zero(page, sizeof(page)));
    qtest_memread(p.qts, TMR + len, page, sizeof(page));
    g_assert_true(buffer_is_zero(page, sizeof(page)));

    /* A reset ends a command that is partly done */
    h = launch_start(&p, 0);
    g_assert_cmphex(activate(&p, h, 2), ==, 0);
    clear(&p);
    put32(&p, 0, h);
    put64(&p, 8, TMR);
    put32(&p, 16, len);
    psp_give(&p, 0x31, BUF, false);
    qtest_system_reset(p.qts);
    qpci_device_enable(p.dev);
    p.bar = qpci_iomap(p.dev, 2, NULL);
    psp_init(&p);
    h = launch_start(&p, 0);
    g_assert_cmphex(activate(&p, h, 1), ==, 0);
    g_assert_cmphex(launch_update(&p, h, TMR, 4096), ==, 0);
    g_assert_cmphex(launch_update(&p, h, NOT_RAM, len), ==, 0x09);
    psp_close(&p);
}

static void test_teardown(void)
{
    uint32_t a, b;
    uint8_t raw[4096], again[4096];
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    a = launch(&p, 0, 1);
    qtest_memread(p.qts, PAGE_A, raw, sizeof(raw));
    b = launch_start(&p, 0);
    g_assert_cmphex(activate(&p, b, 1), ==, 0x0c);      /* owned */
    g_assert_cmphex(guest_cmd(&p, 0x20, a), ==, 0x12);  /* active */
    g_assert_cmphex(guest_cmd(&p, 0x22, a), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x22, a), ==, 0x08);
    /* Only the ASID that was deactivated needs a DF_FLUSH */
    g_assert_cmphex(activate(&p, b, 1), ==, 0x0f);
    g_assert_cmphex(activate(&p, b, 2), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x22, b), ==, 0);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    g_assert_cmphex(activate(&p, b, 1), ==, 0);
    qtest_memread(p.qts, PAGE_A, again, sizeof(again));
    g_assert_cmpmem(raw, sizeof(raw), again, sizeof(again));
    g_assert_cmphex(guest_cmd(&p, 0x20, a), ==, 0);
    g_assert_cmpuint(guest_state(&p, a), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x22, a), ==, 0x10);
    psp_close(&p);
}

/*
 * Execute LAUNCH_START (0x30) or RECEIVE_START (0x50) with a session that this
 * function makes for @policy and for the platform's PDH.  The memory at the
 * address PDH contains the certificate of the platform's PDH.
 */
static unsigned start_in_session(Psp *p, unsigned cmd, uint32_t policy)
{
    static const uint8_t seed[AMD_PSP_SEED_LEN] = "an owner", nonce[16], iv[16];
    const AmdPspTransportKeys keys = { "encrypts packets", "vouches for them" };
    uint8_t cert[CERT_LEN], z[AMD_PSP_P384_LEN];
    AmdPspSession session;
    AmdPspEcPoint pdh;
    AmdPspEcKey owner;

    qtest_memread(p->qts, PDH, cert, sizeof(cert));
    g_assert(amd_psp_cert_key(cert, AMD_PSP_CERT_PDH, &pdh));
    amd_psp_ec_key(seed, "owner", 0, &owner);
    g_assert(amd_psp_ecdh(&owner, &pdh, z));
    amd_psp_session_wrap(z, nonce, iv, &keys, policy, &session);
    amd_psp_cert_make(&owner.q, AMD_PSP_CERT_PDH, 1, 55, cert);
    qtest_memwrite(p->qts, PAGE_B, cert, sizeof(cert));
    qtest_memwrite(p->qts, SESSION, &session, sizeof(session));
    clear(p);
    put32(p, 4, policy);
    put64(p, 8, PAGE_B);
    put32(p, 16, CERT_LEN);
    put64(p, 24, SESSION);
    put32(p, 32, sizeof(session));
    return psp_cmd(p, cmd);
}

static void test_policy(void)
{
    static const struct {
        uint32_t policy;
        unsigned status;
    } bad[] = {
        { 1 << 2, 0x15 },                   /* SEV-ES, not available */
        { 2 << 16, 0x07 },                  /* API 2.0 */
        { 1 << 16 | 56u << 24, 0x07 },      /* API 1.56 */
        { 1 << 6, 0x07 },                   /* reserved bits */
        { 1 << 15, 0x07 },
    };
    uint32_t h;
    size_t i;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        /*
         * LAUNCH_START with an owner's session, and RECEIVE_START, both refuse
         * the policy
         */
        g_assert_cmphex(start_in_session(&p, 0x30, bad[i].policy), ==,
                        bad[i].status);
        g_assert_cmphex(start_in_session(&p, 0x50, bad[i].policy), ==,
                        bad[i].status);
    }
    g_assert_cmphex(start_in_session(&p, 0x30, 1 << 16 | 55 << 24 | 0x3b), ==,
                    0);
    g_assert_cmphex(guest_cmd(&p, 0x20, get32(&p, 0)), ==, 0);
    /* A host that launches without a session can use any policy */
    launch_start(&p, 2 << 16 | 0xffc0);
    clear(&p);
    put32(&p, 4, 1 << 2);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x15);

    g_assert_cmphex(export_certs(&p), ==, 0);
    h = launch(&p, 1 << 0 | 1 << 3, 1);                 /* NODBG, NOSEND */
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 4096), ==, 0x07);
    g_assert_cmphex(dbg(&p, 0x61, h, OUT, PAGE_A, 4096), ==, 0x07);
    g_assert_cmphex(send_start(&p, h), ==, 0x07);
    g_assert_cmpuint(guest_state(&p, h), ==, 3);
    psp_close(&p);
}

static void test_too_many(void)
{
    unsigned n = 0;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    do {
        clear(&p);
        g_assert_cmpuint(n, <, 1000);
    } while (psp_cmd(&p, 0x30) == 0 && ++n);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x17);
    g_assert_cmpuint(n, >=, 8);
    /*
     * DECOMMISSION of guest 3 frees a context.  The next guest uses this
     * context, but gets a new handle.
     */
    g_assert_cmphex(guest_cmd(&p, 0x20, 3), ==, 0);
    g_assert_cmpuint(launch_start(&p, 0), ==, n + 1);
    g_assert_cmpuint(guest_state(&p, 3), ==, 0);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x17);
    psp_close(&p);
}

/* An ASID belongs to one guest at a time, and a guest has one ASID at a time */
static void test_asids(void)
{
    uint32_t h[9], i;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    h[8] = launch_start(&p, 0);
    for (i = 0; i < 8; i++) {
        h[i] = launch(&p, 0, i + 1);
        g_assert_cmphex(activate(&p, h[8], i + 1), ==, 0x0c);
        g_assert_cmphex(activate(&p, h[0], i + 1), ==, 0x0c);
    }
    g_assert_cmphex(activate(&p, h[8], 9), ==, 0x0d);
    g_assert_cmphex(activate(&p, h[8], 0), ==, 0x0d);
    g_assert_cmphex(activate(&p, h[8], 0xffffffff), ==, 0x0d);
    for (i = 0; i < 8; i++) {
        g_assert_cmphex(guest_cmd(&p, 0x22, h[i]), ==, 0);
        g_assert_cmphex(activate(&p, h[8], i + 1), ==, 0x0f);
    }
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    g_assert_cmphex(activate(&p, h[8], 8), ==, 0);
    g_assert_cmphex(activate(&p, h[8], 7), ==, 0x12);
    psp_close(&p);
}

/*
 * The code that the machine's CPU executes: wait until the byte at 0x500 is
 * set, execute WBINVD, clear the byte, and repeat.
 *
 *     xor %ax, %ax; mov %ax, %ds
 *  1: cmpb $0, 0x500; je 1b; wbinvd; movb $0, 0x500; jmp 1b
 */
static const uint8_t wbinvd_on_demand[] = {
    0x31, 0xc0, 0x8e, 0xd8,
    0x80, 0x3e, 0x00, 0x05, 0x00, 0x74, 0xf9, 0x0f, 0x09,
    0xc6, 0x06, 0x00, 0x05, 0x00, 0xeb, 0xf0,
};
static const uint8_t jump_to_it[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 };

/* Have the CPU of a running machine execute WBINVD */
static void wbinvd(Psp *p)
{
    int i;

    qtest_writeb(p->qts, 0x500, 1);
    for (i = 0; qtest_readb(p->qts, 0x500); i++) {
        g_assert_cmpint(i, <, 3000);
        g_usleep(10000);
    }
}

/* Shut the platform down and initialize it, without DF_FLUSH */
static void init_again(Psp *p)
{
    g_assert_cmphex(psp_cmd(p, 0x02), ==, 0);
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x01), ==, 0);
}

/* Do one of the operations of test_flushes() */
static void flushes_do(Psp *p, char operation)
{
    uint32_t h;

    switch (operation) {
    case 'W':
        wbinvd(p);
        break;
    case 'F':
        psp_cmd(p, 0x0a);
        break;
    case 'D':
    case 'd':
        h = launch(p, 0, operation == 'D' ? 1 : 2);
        g_assert_cmphex(guest_cmd(p, 0x22, h), ==, 0);
        break;
    case 'N':
        h = launch_start(p, 0);
        g_assert_cmphex(activate(p, h, 1), ==, 0);
        g_assert_cmphex(guest_cmd(p, 0x22, h), ==, 0);
        break;
    case 'I':
        init_again(p);
        break;
    default:
        g_assert_not_reached();
    }
}

/*
 * The history of INIT, DEACTIVATE, WBINVD and DF_FLUSH decides whether an ASID
 * can be used again
 */
static void test_flushes(void)
{
    static const struct {
        /*
         * Operations before ACTIVATE and DF_FLUSH.  flushes_do() defines the
         * letter of each operation.
         */
        const char *before;
        unsigned df_flush, activate;
    } cases[] = {
        /* After INIT */
        { "", 0x0e, 0x0f },
        { "W", 0, 0x0f },
        { "F", 0x0e, 0x0f },
        { "FW", 0, 0x0f },
        { "WF", 0, 0 },
        { "WFF", 0, 0 },
        /* After DEACTIVATE of another guest that used the ASID */
        { "WFD", 0x0e, 0x0f },
        { "WFDF", 0x0e, 0x0f },
        { "WFDW", 0, 0x0f },
        { "WFDFW", 0, 0x0f },
        { "WFDWF", 0, 0 },
        /* After DEACTIVATE of a guest with another ASID */
        { "WFd", 0x0e, 0 },
        { "WFdF", 0x0e, 0 },
        /* After DEACTIVATE of a guest that was never launched to the end */
        { "WFN", 0, 0 },
        { "WFDWFN", 0, 0 },
        /* After SHUTDOWN and another INIT */
        { "WFI", 0x0e, 0x0f },
        { "WFIWF", 0, 0 },
    };
    g_autofree char *name = g_strdup_printf("%s/firmware", dir);
    g_autofree char *rom = g_malloc0(64 * 1024);
    uint32_t h;
    Psp p;

    memcpy(rom, wbinvd_on_demand, sizeof(wbinvd_on_demand));
    memcpy(rom + 0xfff0, jump_to_it, sizeof(jump_to_it));
    g_assert(g_file_set_contents(name, rom, 64 * 1024, NULL));
    memset(&p, 0, sizeof(p));
    /*
     * The second CPU is never started, so DF_FLUSH does not require that this
     * CPU executes WBINVD
     */
    p.qts = qtest_initf("-accel tcg -nodefaults -machine q35 -bios %s -smp 2 "
                        "-cpu EPYC-Milan,+svm,+sev "
                        "-device amd-psp,id=psp,addr=04.0", name);
    psp_attach(&p);
    wbinvd(&p);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        g_test_message("after INIT %s", cases[i].before);
        init_again(&p);
        for (const char *c = cases[i].before; *c; c++) {
            flushes_do(&p, *c);
        }
        h = launch_start(&p, 0);
        g_assert_cmphex(activate(&p, h, 1), ==, cases[i].activate);
        g_assert_cmphex(psp_cmd(&p, 0x0a), ==, cases[i].df_flush);
    }
    psp_close(&p);
    unlink(name);
}

/* ATTESTATION returns a report on the launched data, signed with the PEK */
static void test_attestation(void)
{
    uint8_t report[208], zero[32] = { 0 }, digest[32], page[4096];
    gsize digest_len = sizeof(digest);
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    uint8_t number[2][48], pek[CERT_LEN];
    AmdPspEcSignature sig;
    AmdPspEcPoint q;
    uint32_t a, b;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    a = launch(&p, 0x2, 1);
    g_assert_cmphex(attestation(&p, a, 0, 0), ==, 0x04);
    g_assert_cmpuint(get32(&p, 32), ==, sizeof(report));
    g_assert_cmphex(attestation(&p, a, OUT, sizeof(report) - 1), ==, 0x04);
    g_assert_cmphex(attestation(&p, a, NOT_RAM, sizeof(report)), ==, 0x09);
    g_assert_cmphex(attestation(&p, a, OUT, 4096), ==, 0);
    g_assert_cmpuint(get32(&p, 32), ==, sizeof(report));
    qtest_memread(p.qts, OUT, report, sizeof(report));
    fill(page);
    g_checksum_update(sum, page, sizeof(page));
    g_checksum_get_digest(sum, digest, &digest_len);
    g_assert_cmpmem(report, 16, "sixteen bytes...", 16);
    g_assert_cmpmem(report + 16, 32, digest, 32);
    g_assert_cmphex(ldl_le_p(report + 48), ==, 0x2);
    g_assert_cmphex(ldl_le_p(report + 52), ==, 0x1002);
    g_assert_cmphex(ldl_le_p(report + 56), ==, 2);

    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, CHAIN, pek, CERT_LEN);
    g_assert(amd_psp_cert_key(pek, AMD_PSP_CERT_PEK, &q));
    amd_psp_reverse(number[0], report + 64, 48);
    amd_psp_reverse(number[1], report + 64 + 72, 48);
    memcpy(sig.r, number[0], 48);
    memcpy(sig.s, number[1], 48);
    g_assert(amd_psp_ecdsa_verify(&q, false, report, 52, &sig));
    report[16] ^= 1;
    g_assert(!amd_psp_ecdsa_verify(&q, false, report, 52, &sig));

    /*
     * ATTESTATION refuses a guest that is being received, because it was not
     * launched on this platform
     */
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(receive_start(&p, 0x2, &b), ==, 0);
    g_assert_cmphex(attestation(&p, b, OUT, 4096), ==, 0x02);
    g_assert_cmphex(activate(&p, b, 2), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x53, b), ==, 0);
    g_assert_cmphex(attestation(&p, b, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, report, sizeof(report));
    g_assert_cmpmem(report + 16, 32, zero, 32);
    psp_close(&p);
}

static void test_activate_ex(void)
{
    uint32_t a, b;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    a = launch_start(&p, 0);
    b = launch_start(&p, 0);
    g_assert_cmphex(activate_ex(&p, 16, a, 1, 1, OUT), ==, 0x16);
    g_assert_cmphex(activate_ex(&p, 24, a, 1, 0, OUT), ==, 0x16);
    g_assert_cmphex(activate_ex(&p, 24, a, 1, 0x40000000, OUT), ==, 0x16);
    g_assert_cmphex(activate_ex(&p, 24, a, 1, 2, 0x8000000 - 4), ==, 0x09);
    g_assert_cmphex(activate_ex(&p, 24, a, 0, 1, OUT), ==, 0x0d);
    g_assert_cmphex(activate_ex(&p, 24, a, 1, 1, OUT), ==, 0);
    g_assert_cmphex(activate_ex(&p, 24, a, 2, 1, OUT), ==, 0x12);
    g_assert_cmphex(activate_ex(&p, 24, b, 1, 1, OUT), ==, 0x0c);
    g_assert_cmphex(launch_update(&p, a, PAGE_A, 4096), ==, 0);
    psp_close(&p);
}

/*
 * A new guest cannot share the key of another guest if the other guest does not
 * exist, if the two policies differ, or if the policies have NOKS.
 * LAUNCH_START and RECEIVE_START check this.
 */
static void test_policy_noks(void)
{
    uint32_t open, closed;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    open = launch_start(&p, 0);
    closed = launch_start(&p, 2);
    clear(&p);
    put32(&p, 0, 0xabcdef);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x10);
    clear(&p);
    put32(&p, 0, closed);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x07);
    clear(&p);
    put32(&p, 0, open);
    put32(&p, 4, 2);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x07);
    /* The policies differ, although each of them allows sharing of the key */
    clear(&p);
    put32(&p, 0, open);
    put32(&p, 4, 1);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x07);
    /* A guest that is received cannot share a key if its policy has NOKS */
    g_assert_cmphex(export_certs(&p), ==, 0);
    g_assert_cmphex(start_in_session(&p, 0x50, 2), ==, 0);
    clear(&p);
    put32(&p, 0, closed);
    put32(&p, 4, 2);
    put64(&p, 8, PAGE_B);
    put32(&p, 16, CERT_LEN);
    put64(&p, 24, SESSION);
    put32(&p, 32, 128);
    g_assert_cmphex(psp_cmd(&p, 0x50), ==, 0x07);
    psp_close(&p);
}

/*
 * Guests that share a key can read each other's memory, but have their own
 * handles, states and ASIDs
 */
static void test_key_sharing(void)
{
    static const struct {
        bool shared;
        uint32_t asid;
    } others[] = { { true, 2 }, { false, 3 } };
    uint8_t page[4096], buf[4096];
    uint32_t first;
    size_t i;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    first = launch(&p, 0, 1);
    fill(page);
    for (i = 0; i < ARRAY_SIZE(others); i++) {
        uint32_t h;

        clear(&p);
        put32(&p, 0, others[i].shared ? first : 0);
        g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0);
        h = get32(&p, 0);
        g_assert_cmpuint(h, !=, first);
        /* The new guest has a state and an ASID of its own */
        g_assert_cmpuint(guest_state(&p, h), ==, 1);
        g_assert_cmphex(activate(&p, h, 1), ==, 0x0c);
        g_assert_cmphex(activate(&p, h, others[i].asid), ==, 0);
        g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 4096), ==, 0);
        qtest_memread(p.qts, OUT, buf, sizeof(buf));
        g_assert_cmpint(!memcmp(buf, page, sizeof(buf)), ==,
                        others[i].shared);
    }
    /* The second guest keeps the key after the first one is gone */
    g_assert_cmphex(guest_cmd(&p, 0x22, first), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x20, first), ==, 0);
    g_assert_cmphex(dbg(&p, 0x60, first + 1, PAGE_A, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, buf, sizeof(buf));
    g_assert_cmpmem(buf, sizeof(buf), page, sizeof(page));
    psp_close(&p);
}

void add_guest_tests(void)
{
    qtest_add_func("/amd-psp/launch", test_launch);
    qtest_add_func("/amd-psp/slices", test_slices);
    qtest_add_func("/amd-psp/teardown", test_teardown);
    qtest_add_func("/amd-psp/policy", test_policy);
    qtest_add_func("/amd-psp/too-many", test_too_many);
    qtest_add_func("/amd-psp/activate-ex", test_activate_ex);
    qtest_add_func("/amd-psp/policy/noks", test_policy_noks);
    qtest_add_func("/amd-psp/key-sharing", test_key_sharing);
    qtest_add_func("/amd-psp/asids", test_asids);
    qtest_add_func("/amd-psp/flushes", test_flushes);
    qtest_add_func("/amd-psp/attestation", test_attestation);
}
