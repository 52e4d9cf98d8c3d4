/*
 * Tests of the emulated AMD PSP: the platform and its identity
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "amd-psp-cases.h"

static void test_platform(void)
{
    uint32_t handle;
    Psp p;

    psp_open(&p, "");
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);       /* API 1.55 */
    g_assert_cmpuint(qtest_readb(p.qts, BUF + 1), ==, 55);
    g_assert_cmpuint(qtest_readb(p.qts, BUF + 2), ==, 0);   /* UNINIT */
    g_assert_cmpuint(get32(&p, 8), ==, 0);

    /* Before INIT there are no guests and no certificates */
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x01);
    g_assert_cmphex(export_certs(&p), ==, 0x01);

    psp_init(&p);
    g_assert_cmphex(psp_cmd(&p, 0x01), ==, 0x01);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF + 2), ==, 1);   /* INIT */
    g_assert_cmphex(psp_cmd(&p, 0x03), ==, 0x01);           /* FACTORY_RESET */

    handle = launch_start(&p, 0);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF + 2), ==, 2);   /* WORKING */
    g_assert_cmpuint(get32(&p, 8), ==, 1);

    /* SHUTDOWN removes all guests */
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    psp_init(&p);
    g_assert_cmpuint(guest_state(&p, handle), ==, 0);
    psp_close(&p);
}

static void test_get_id(void)
{
    uint8_t id[64], zero[64] = { 0 };
    Psp p;

    psp_open(&p, "");
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x0c), ==, 0x04);
    g_assert_cmpuint(get32(&p, 8), ==, 64);
    put64(&p, 0, NOT_RAM);
    g_assert_cmphex(psp_cmd(&p, 0x0c), ==, 0x09);
    put64(&p, 0, OUT);
    put32(&p, 8, 63);
    g_assert_cmphex(psp_cmd(&p, 0x0c), ==, 0x04);
    put32(&p, 8, 64);
    g_assert_cmphex(psp_cmd(&p, 0x0c), ==, 0);
    qtest_memread(p.qts, OUT, id, sizeof(id));
    g_assert(memcmp(id, zero, sizeof(id)));
    psp_close(&p);
}

static void read_pdh(const char *options, uint8_t pdh[CERT_LEN])
{
    Psp p;

    psp_open(&p, options);
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, pdh, CERT_LEN);
    psp_close(&p);
}

static void test_certs(void)
{
    static const uint32_t usage[] = { 0x1002, 0x1001, 0x1004 };
    uint8_t a[CERT_LEN], b[CERT_LEN], c[CERT_LEN], d[CERT_LEN];
    unsigned i;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x08), ==, 0x04);
    g_assert_cmpuint(get32(&p, 8), ==, CERT_LEN);
    g_assert_cmpuint(get32(&p, 24), ==, CHAIN_LEN);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, a, CERT_LEN);
    g_assert_cmphex(ldl_le_p(a), ==, 1);
    g_assert_cmphex(ldl_le_p(a + 8), ==, 0x1003);       /* PDH */
    g_assert_cmphex(ldl_le_p(a + 16), ==, 2);           /* P-384 */
    for (i = 0; i < ARRAY_SIZE(usage); i++) {
        g_assert_cmphex(qtest_readl(p.qts, CHAIN + i * CERT_LEN + 8), ==,
                        usage[i]);
    }
    /* PDH_GEN makes another PDH */
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x09), ==, 0);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, b, CERT_LEN);
    g_assert(memcmp(a, b, CERT_LEN));
    /*
     * PDH_CERT_EXPORT refuses an output buffer that is not in RAM or is too
     * short
     */
    put64(&p, 0, NOT_RAM);
    g_assert_cmphex(psp_cmd(&p, 0x08), ==, 0x09);
    put64(&p, 0, PDH);
    put32(&p, 24, CHAIN_LEN - 1);
    g_assert_cmphex(psp_cmd(&p, 0x08), ==, 0x04);
    psp_close(&p);

    /*
     * Platforms with the same seed have the same keys.  A platform without a
     * seed has its own keys.
     */
    read_pdh(",seed=alice", a);
    read_pdh(",seed=alice", b);
    read_pdh(",seed=bob", c);
    read_pdh("", d);
    g_assert_cmpmem(a, CERT_LEN, b, CERT_LEN);
    g_assert(memcmp(a, c, CERT_LEN));
    g_assert(memcmp(a, d, CERT_LEN));
}

static void test_pek_csr(void)
{
    uint8_t csr[CERT_LEN], pek[CERT_LEN];
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x06), ==, 0x04);
    g_assert_cmpuint(get32(&p, 8), ==, CERT_LEN);
    put64(&p, 0, NOT_RAM);
    g_assert_cmphex(psp_cmd(&p, 0x06), ==, 0x09);
    put64(&p, 0, OUT);
    put32(&p, 8, CERT_LEN - 1);
    g_assert_cmphex(psp_cmd(&p, 0x06), ==, 0x04);
    g_assert_cmphex(psp_cmd(&p, 0x06), ==, 0);
    qtest_memread(p.qts, OUT, csr, CERT_LEN);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, CHAIN, pek, CERT_LEN);
    /*
     * The CSR is the PEK without signatures.  The signed part of a certificate,
     * which includes the key, ends at offset 0x414.
     */
    g_assert_cmpmem(csr, 0x414, pek, 0x414);
    g_assert_cmphex(ldl_le_p(csr + 0x414), ==, 0x1000);
    g_assert_cmphex(ldl_le_p(csr + 0x61c), ==, 0x1000);
    g_assert_cmphex(psp_cmd(&p, 0x05), ==, 0);
    clear(&p);
    put64(&p, 0, OUT);
    put32(&p, 8, CERT_LEN);
    g_assert_cmphex(psp_cmd(&p, 0x06), ==, 0);
    qtest_memread(p.qts, OUT, csr, CERT_LEN);
    g_assert(memcmp(csr, pek, 0x414));
    psp_close(&p);
}

static void test_download_firmware(void)
{
    Psp p;

    psp_open(&p, "");
    clear(&p);
    put64(&p, 0, OUT);
    g_assert_cmphex(psp_cmd(&p, 0x0b), ==, 0x04);
    put32(&p, 8, 0xffffffff);
    g_assert_cmphex(psp_cmd(&p, 0x0b), ==, 0x04);
    put32(&p, 8, 65536);
    g_assert_cmphex(psp_cmd(&p, 0x0b), ==, 0x0a);
    put64(&p, 0, 0x8000000 - 4096);
    g_assert_cmphex(psp_cmd(&p, 0x0b), ==, 0x09);
    put64(&p, 0, 0xfffffffffffff000);
    g_assert_cmphex(psp_cmd(&p, 0x0b), ==, 0x09);
    psp_close(&p);
}

static void get_pdh(Psp *p, uint8_t pdh[CERT_LEN])
{
    g_assert_cmphex(export_certs(p), ==, 0);
    qtest_memread(p->qts, PDH, pdh, CERT_LEN);
}

/*
 * INIT_EX: the firmware writes the platform's keys to storage that the host
 * keeps, and reads them from there the next time
 */
static void test_init_ex(void)
{
    g_autofree uint8_t *nv = g_malloc(NV_LEN);
    uint8_t first[CERT_LEN], second[CERT_LEN], got[CERT_LEN];
    Psp p;

    psp_open(&p, ",seed=alice");
    g_assert_cmphex(init_ex(&p, 35, NV, NV_LEN), ==, 0x04);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN - 1), ==, 0x04);
    g_assert_cmphex(init_ex(&p, 36, NV, 0xffffffff), ==, 0x04);
    g_assert_cmphex(init_ex(&p, 36, 0, NV_LEN), ==, 0x09);
    g_assert_cmphex(init_ex(&p, 36, NOT_RAM, NV_LEN), ==, 0x09);
    g_assert_cmphex(init_ex(&p, 36, 0x8000000 - 4096, NV_LEN), ==, 0x09);
    qtest_memset(p.qts, NV, 0xff, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    get_pdh(&p, first);
    g_assert_cmphex(psp_cmd(&p, 0x05), ==, 0);          /* PEK_GEN */
    g_assert_cmphex(psp_cmd(&p, 0x09), ==, 0);          /* PDH_GEN */
    get_pdh(&p, second);
    g_assert(memcmp(first, second, CERT_LEN));
    qtest_memread(p.qts, NV, nv, NV_LEN);
    psp_close(&p);

    /*
     * INIT does not read the storage, so the platform has the keys that follow
     * from its seed.  INIT_EX reads the storage, so the platform has the keys
     * that PEK_GEN and PDH_GEN have generated.
     */
    psp_open(&p, ",seed=alice");
    psp_init(&p);
    get_pdh(&p, got);
    g_assert_cmpmem(got, CERT_LEN, first, CERT_LEN);
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    qtest_memwrite(p.qts, NV, nv, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    get_pdh(&p, got);
    g_assert_cmpmem(got, CERT_LEN, second, CERT_LEN);
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);

    /*
     * If the storage was changed, INIT_EX fails and initializes the storage, so
     * that the next INIT_EX succeeds
     */
    nv[8] ^= 1;
    qtest_memwrite(p.qts, NV, nv, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0x18);
    assert_query(&p, "uninit", false, false);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    nv[8] ^= 1;
    psp_close(&p);

    /* A platform does not accept the storage of another platform */
    psp_open(&p, ",seed=bob");
    qtest_memwrite(p.qts, NV, nv, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0x18);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    psp_close(&p);
}

void add_platform_tests(void)
{
    qtest_add_func("/amd-psp/platform", test_platform);
    qtest_add_func("/amd-psp/get-id", test_get_id);
    qtest_add_func("/amd-psp/certs", test_certs);
    qtest_add_func("/amd-psp/pek-csr", test_pek_csr);
    qtest_add_func("/amd-psp/download-firmware", test_download_firmware);
    qtest_add_func("/amd-psp/init-ex", test_init_ex);
}
