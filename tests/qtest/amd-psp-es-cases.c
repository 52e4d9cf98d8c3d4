/*
 * Tests of the emulated AMD PSP: guests with SEV-ES
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "amd-psp-cases.h"

static unsigned init_es(Psp *p, uint64_t tmr, uint32_t len)
{
    clear(p);
    put32(p, 0, 1);
    put64(p, 8, tmr);
    put32(p, 16, len);
    return psp_cmd(p, 0x01);
}

static bool has_es(Psp *p)
{
    return platform_flags(p) & 1 << 8;
}

/* ASIDs 1 to 3 are for guests with SEV-ES */
static void psp_open_es(Psp *p)
{
    g_autofree char *device = g_strdup_printf("amd-psp,addr=04.0,ark=%s", ark);

    psp_open_cpu(p, device, ",sev-es-asids=3");
    load_ask_ark(p, ark);
}

static void test_es_init(void)
{
    Psp p;

    /* The host requests SEV-ES, but the CPUs do not have it */
    psp_open(&p, "");
    g_assert_cmphex(init_es(&p, TMR, 1 << 20), ==, 0);
    g_assert(!has_es(&p));
    clear(&p);
    put32(&p, 4, 1 << 2);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x15);
    psp_close(&p);

    /* The CPUs have SEV-ES, but the host does not request it */
    psp_open_es(&p);
    psp_init(&p);
    g_assert(!has_es(&p));
    clear(&p);
    put32(&p, 4, 1 << 2);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x15);
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);

    g_assert_cmphex(init_es(&p, TMR, (1 << 20) - 1), ==, 0x04);
    g_assert_cmphex(init_es(&p, TMR + 4096, 1 << 20), ==, 0x09);
    g_assert_cmphex(init_es(&p, 0xfed00000, 1 << 20), ==, 0x09);
    g_assert(!has_es(&p));
    g_assert_cmphex(init_es(&p, TMR, 1 << 20), ==, 0);
    g_assert(has_es(&p));
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    g_assert(!has_es(&p));

    /* INIT_EX can initialize the platform with SEV-ES, too */
    clear(&p);
    put32(&p, 0, 36);
    put32(&p, 4, 1);
    put64(&p, 8, TMR + 4096);
    put32(&p, 16, 1 << 20);
    put64(&p, 24, NV);
    put32(&p, 32, NV_LEN);
    g_assert_cmphex(psp_cmd(&p, 0x0d), ==, 0x09);
    put64(&p, 8, TMR);
    g_assert_cmphex(psp_cmd(&p, 0x0d), ==, 0);
    g_assert(has_es(&p));
    psp_close(&p);
}

/* Guests with SEV-ES and guests without it use different ranges of ASIDs */
static void test_es_asids(void)
{
    uint32_t es, plain;
    Psp p;

    psp_open_es(&p);
    g_assert_cmphex(init_es(&p, TMR, 1 << 20), ==, 0);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    es = launch_start(&p, 1 << 2);
    plain = launch_start(&p, 0);
    g_assert_cmphex(activate(&p, es, 4), ==, 0x0d);
    g_assert_cmphex(activate(&p, plain, 3), ==, 0x0d);
    g_assert_cmphex(activate_ex(&p, 24, plain, 3, 1, OUT), ==, 0x0d);
    g_assert_cmphex(activate(&p, es, 3), ==, 0);
    g_assert_cmphex(activate(&p, plain, 4), ==, 0);
    psp_close(&p);
}

#define VMSA_CHECKSUM   0x388   /* offset of the checksum's address */
#define VMSA_CHECKED    0xfc0   /* how much of a VMSA the checksum covers */

static void fill_vmsa(uint8_t vmsa[4096])
{
    for (unsigned i = 0; i < 4096; i++) {
        vmsa[i] = "registers of a vCPU "[i % 20];
    }
}

/* CRC32C bit by bit, without inversions at the beginning and the end */
static uint32_t crc32c_byte(uint32_t crc, uint8_t byte)
{
    crc ^= byte;
    for (unsigned i = 0; i < 8; i++) {
        crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    return crc;
}

/*
 * Compute a VMSA's checksum by the algorithm in AMD's published source of the
 * firmware for "Genoa"
 */
static uint64_t vmsa_checksum(const uint8_t *vmsa)
{
    uint32_t crc[3] = { ~0u, ~0u, ~0u }, all = ~0u;

    for (unsigned i = 0; i < VMSA_CHECKED; i++) {
        crc[i / 8 % 3] = crc32c_byte(crc[i / 8 % 3], vmsa[i]);
    }
    for (unsigned i = 0; i < 12; i++) {
        all = crc32c_byte(all, ~crc[i / 4] >> i % 4 * 8);
    }
    return (uint64_t)(~crc[0] ^ ~crc[1] ^ ~crc[2]) << 32 | (uint32_t)~all;
}

/* Open a platform, initialize it with SEV-ES, and export its certificates */
static void open_es_platform(Psp *p)
{
    psp_open_es(p);
    g_assert_cmphex(init_es(p, TMR, 1 << 20), ==, 0);
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
    g_assert_cmphex(export_certs(p), ==, 0);
}

/*
 * Launch a guest with SEV-ES, and give it ASID 1.  The guest's private page is
 * at PAGE_A, and the state of its vCPU is at VMSA_A.
 */
static uint32_t launch_es(Psp *p)
{
    uint8_t page[4096], vmsa[4096];
    uint32_t h = launch_start(p, 1 << 2);

    fill(page);
    fill_vmsa(vmsa);
    qtest_memwrite(p->qts, PAGE_A, page, sizeof(page));
    qtest_memwrite(p->qts, VMSA_A, vmsa, sizeof(vmsa));
    g_assert_cmphex(activate(p, h, 1), ==, 0);
    g_assert_cmphex(launch_update(p, h, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(launch_vmsa(p, h, VMSA_A, 4096), ==, 0);
    g_assert_cmphex(launch_measure(p, h), ==, 0);
    g_assert_cmphex(guest_cmd(p, 0x35, h), ==, 0);
    return h;
}

static void read_plaintext(Psp *p, uint32_t handle, uint64_t pa,
                           uint8_t page[4096])
{
    g_assert_cmphex(dbg(p, 0x60, handle, pa, OUT, 4096), ==, 0);
    qtest_memread(p->qts, OUT, page, 4096);
}

/*
 * Check that the VMSA at @pa contains the text of fill_vmsa(), except at offset
 * 0x380, where the firmware writes 0, and at VMSA_CHECKSUM, where the firmware
 * writes an address.  Check that the VMSA's checksum is stored at this address.
 */
static void assert_vmsa(Psp *p, uint32_t handle, uint64_t pa)
{
    uint8_t vmsa[4096], text[4096];
    uint64_t at;

    fill_vmsa(text);
    read_plaintext(p, handle, pa, vmsa);
    g_assert_cmpmem(vmsa, 0x380, text, 0x380);
    g_assert_cmphex(ldq_le_p(vmsa + 0x380), ==, 0);
    g_assert_cmpmem(vmsa + 0x390, 0xc70, text + 0x390, 0xc70);
    at = ldq_le_p(vmsa + VMSA_CHECKSUM);
    g_assert_cmphex(at, >=, TMR + (512 << 10));
    g_assert_cmphex(at, <, TMR + (1 << 20));
    g_assert_cmphex(at % 8, ==, 0);
    g_assert_cmphex(qtest_readq(p->qts, at), ==, vmsa_checksum(vmsa));
}

/* LAUNCH_UPDATE_VMSA: which status it returns, and which data it measures */
static void test_es_launch_vmsa(void)
{
    uint8_t page[4096], vmsa[4096], got[4096], report[208], digest[32];
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    gsize digest_len = sizeof(digest);
    uint32_t a, plain;
    Psp p;

    psp_open_es(&p);
    /* The firmware checks the length first, even before the platform's state */
    g_assert_cmphex(launch_vmsa(&p, 1, VMSA_A, 4080), ==, 0x04);
    g_assert_cmphex(launch_vmsa(&p, 1, VMSA_A, 4096), ==, 0x01);
    g_assert_cmphex(init_es(&p, TMR, 1 << 20), ==, 0);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    g_assert_cmphex(launch_vmsa(&p, 1, VMSA_A, 4096), ==, 0x01);
    fill(page);
    fill_vmsa(vmsa);
    qtest_memwrite(p.qts, PAGE_A, page, sizeof(page));
    qtest_memwrite(p.qts, VMSA_A, vmsa, sizeof(vmsa));

    plain = launch_start(&p, 0);
    g_assert_cmphex(launch_vmsa(&p, plain + 1, VMSA_A, 4096), ==, 0x10);
    g_assert_cmphex(activate(&p, plain, 4), ==, 0);
    g_assert_cmphex(launch_vmsa(&p, plain, VMSA_A, 4096), ==, 0x15);

    a = launch_start(&p, 1 << 2);
    g_assert_cmphex(launch_vmsa(&p, a, VMSA_A, 4096), ==, 0x08);
    g_assert_cmphex(activate(&p, a, 1), ==, 0);
    g_assert_cmphex(launch_update(&p, a, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(launch_vmsa(&p, a, VMSA_A, 4080), ==, 0x04);
    g_assert_cmphex(launch_vmsa(&p, a, VMSA_A, 4112), ==, 0x04);
    g_assert_cmphex(launch_vmsa(&p, a, VMSA_A, 8192), ==, 0x04);
    g_assert_cmphex(launch_vmsa(&p, a, VMSA_A + 8, 4096), ==, 0x09);
    g_assert_cmphex(launch_vmsa(&p, a, NOT_RAM, 4096), ==, 0x09);
    g_assert_cmphex(launch_vmsa(&p, a, VMSA_A, 4096), ==, 0);
    qtest_memread(p.qts, VMSA_A, got, sizeof(got));
    g_assert_null(memmem(got, sizeof(got), "registers", 9));
    assert_vmsa(&p, a, VMSA_A);
    g_assert_cmphex(launch_measure(&p, a), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x35, a), ==, 0);
    g_assert_cmphex(launch_vmsa(&p, a, VMSA_A, 4096), ==, 0x02);

    /*
     * The measurement covers the VMSA as the host wrote it.  If the firmware
     * refuses a command, it does not measure the command's data.
     */
    g_checksum_update(sum, page, sizeof(page));
    g_checksum_update(sum, vmsa, sizeof(vmsa));
    g_checksum_get_digest(sum, digest, &digest_len);
    g_assert_cmphex(attestation(&p, a, OUT, sizeof(report)), ==, 0);
    qtest_memread(p.qts, OUT, report, sizeof(report));
    g_assert_cmpmem(report + 16, 32, digest, 32);
    psp_close(&p);
}

/* The state of a vCPU is sent and received */
static void test_es_vmsa(void)
{
    uint8_t got[4096];
    uint32_t a, b, plain;
    Psp p;

    open_es_platform(&p);
    a = launch_es(&p);
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(receive_start(&p, 1 << 2, &b), ==, 0);
    g_assert_cmphex(activate(&p, b, 2), ==, 0);
    /* SEND_UPDATE_VMSA sends only a page that is a VMSA of this guest */
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4080), ==, 0x16);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A + 16, 4096), ==, 0x16);
    g_assert_cmphex(update_data(&p, 0x42, a, PAGE_A, 4096), ==, 0x16);
    g_assert_cmphex(update_data(&p, 0x42, a, NOT_RAM, 4096), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0);
    qtest_memread(p.qts, TRANS, got, sizeof(got));
    g_assert_null(memmem(got, sizeof(got), "registers", 9));

    /*
     * SEND_UPDATE_VMSA encrypts a VMSA as SEND_UPDATE_DATA encrypts a page, so
     * RECEIVE_UPDATE_DATA accepts the packet
     */
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B, 4080), ==, 0x0b);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B + 8, 4096), ==, 0x09);
    qtest_writeb(p.qts, TRANS + 9, got[9] ^ 1);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B, 4096), ==, 0x0b);
    qtest_writeb(p.qts, TRANS + 9, got[9]);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B, 4096), ==, 0);
    /*
     * The receiving firmware stores the checksum at another address than the
     * sending firmware did, and writes this address into the VMSA
     */
    assert_vmsa(&p, b, VMSA_B);
    read_plaintext(&p, b, VMSA_B, got);
    g_assert_cmphex(ldq_le_p(got + VMSA_CHECKSUM), !=, TMR + (512 << 10));

    /* A guest without SEV-ES has no VMSA to send */
    plain = launch(&p, 0, 4);
    g_assert_cmphex(send_start(&p, plain), ==, 0);
    g_assert_cmphex(update_data(&p, 0x42, plain, PAGE_A, 4096), ==, 0x15);
    g_assert_cmphex(update_data(&p, 0x41, plain, PAGE_A, 4096), ==, 0);
    psp_close(&p);
}

/* Flip a bit of a private page with DBG_DECRYPT and DBG_ENCRYPT */
static void flip_private(Psp *p, uint32_t handle, uint64_t pa)
{
    uint64_t block = pa & ~15ull;

    g_assert_cmphex(dbg(p, 0x60, handle, block, OUT, 16), ==, 0);
    qtest_writeb(p->qts, OUT + pa % 16, qtest_readb(p->qts, OUT + pa % 16) ^ 1);
    g_assert_cmphex(dbg(p, 0x61, handle, OUT, block, 16), ==, 0);
}

/*
 * SEND_UPDATE_VMSA verifies the checksum of the VMSA, so it refuses a VMSA that
 * the host has changed
 */
static void test_es_vmsa_checksum(void)
{
    static const struct {
        unsigned offset;
        unsigned status;
    } bytes[] = {
        { 0, 0x16 }, { 0x178, 0x16 }, { 0x380, 0x16 }, { VMSA_CHECKSUM, 0x16 },
        { VMSA_CHECKED - 1, 0x16 },
        /* The checksum does not cover the end of the page */
        { VMSA_CHECKED, 0 }, { 4095, 0 },
    };
    uint8_t vmsa[4096];
    uint32_t a;
    uint64_t at;
    size_t i;
    Psp p;

    open_es_platform(&p);
    a = launch_es(&p);
    g_assert_cmphex(send_start(&p, a), ==, 0);
    for (i = 0; i < ARRAY_SIZE(bytes); i++) {
        g_test_message("byte 0x%x of the VMSA", bytes[i].offset);
        flip_private(&p, a, VMSA_A + bytes[i].offset);
        g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==,
                        bytes[i].status);
        flip_private(&p, a, VMSA_A + bytes[i].offset);
        g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0);
    }
    /*
     * SEND_UPDATE_VMSA also refuses an unchanged VMSA if the stored checksum is
     * wrong.  The test can change the stored checksum.  The host of a real PSP
     * cannot, because the hardware protects the memory at TMR.
     */
    read_plaintext(&p, a, VMSA_A, vmsa);
    at = ldq_le_p(vmsa + VMSA_CHECKSUM);
    qtest_writeq(p.qts, at, qtest_readq(p.qts, at) ^ 1);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0x16);
    qtest_writeq(p.qts, at, qtest_readq(p.qts, at) ^ 1);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0);
    psp_close(&p);
}

/*
 * The firmware refuses a header whose flags say that the data are compressed,
 * before it reads the data.  The firmware checks other flags only as part of
 * the MAC.
 */
static void test_es_compressed(void)
{
    static const unsigned commands[] = { 0x51, 0x52 };
    uint32_t a, b;
    size_t i;
    Psp p;

    open_es_platform(&p);
    a = launch_es(&p);
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(receive_start(&p, 1 << 2, &b), ==, 0);
    g_assert_cmphex(activate(&p, b, 2), ==, 0);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0);
    for (i = 0; i < ARRAY_SIZE(commands); i++) {
        qtest_writel(p.qts, HEADER, 1);
        g_assert_cmphex(update_data(&p, commands[i], b, VMSA_B, 4096), ==,
                        0x15);
        put64(&p, 40, NOT_RAM);
        g_assert_cmphex(psp_cmd(&p, commands[i]), ==, 0x15);
        qtest_writel(p.qts, HEADER, 2);
        g_assert_cmphex(psp_cmd(&p, commands[i]), ==, 0x09);
        g_assert_cmphex(update_data(&p, commands[i], b, VMSA_B, 4096), ==,
                        0x0b);
        qtest_writel(p.qts, HEADER, 0);
        g_assert_cmphex(update_data(&p, commands[i], b, VMSA_B, 4096), ==, 0);
    }
    psp_close(&p);
}

void add_es_tests(void)
{
    qtest_add_func("/amd-psp/es/init", test_es_init);
    qtest_add_func("/amd-psp/es/asids", test_es_asids);
    qtest_add_func("/amd-psp/es/launch-vmsa", test_es_launch_vmsa);
    qtest_add_func("/amd-psp/es/vmsa", test_es_vmsa);
    qtest_add_func("/amd-psp/es/vmsa-checksum", test_es_vmsa_checksum);
    qtest_add_func("/amd-psp/es/compressed", test_es_compressed);
}
