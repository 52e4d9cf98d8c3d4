/*
 * The mailbox and the commands of the emulated AMD PSP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Offsets in command buffers are written out here instead of shared with the
 * device: they are an interface, and a test that has them from the device
 * would not notice that they changed.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "amd-psp-mailbox.h"
#include "hw/misc/amd-psp-authority.h"
#include "hw/misc/amd-psp-certs.h"
#include "hw/misc/amd-psp-crypto.h"

/* Registers that only this test looks at */
#define BOOTLOADER  0x109ec
#define FEATURE     0x109fc

#define CBIT        (1ull << 47)

/* Where things are in the machine's memory */
#define BUF         0x100000    /* the command buffer */
#define PDH         0x110000
#define CHAIN       0x120000
#define SESSION     0x130000
#define HEADER      0x140000
#define TRANS       0x150000
#define OUT         0x160000
#define ASK_ARK     0x180000
#define PAGE_A      0x200000    /* of the first guest */
#define PAGE_B      0x300000    /* of the second */
#define VMSA_A      0x210000    /* the state of a vCPU of the first guest */
#define VMSA_B      0x310000
#define NV          0x400000    /* the storage of INIT_EX */
#define TMR         0x1000000   /* memory for SEV-ES */
#define NOT_RAM     0xfed00000

#define NV_LEN      (32 * 1024)

#define CERT_LEN    2084
#define CHAIN_LEN   (3 * CERT_LEN)
#define ASK_ARK_LEN 3200
#define MSI_ADDR    0x170000

static unsigned attestation(Psp *p, uint32_t handle, uint64_t pa, uint32_t len);

/* Nothing runs in the machine; this is what it would start with: zeros */
static char *firmware;

/* Where the authority is that platforms have unless they say otherwise */
static char *dir, *ark;

/* Where a platform with an authority has its signed CEK put */
static char *cek;

/* @device: what to say after -device; @cpu: after the CPU's name */
static void psp_open_cpu(Psp *p, const char *device, const char *cpu)
{
    memset(p, 0, sizeof(*p));
    p->qts = qtest_initf("-nodefaults -machine q35 -bios %s "
                         "-cpu EPYC-Milan,+svm,+sev%s "
                         "-device %s", firmware, cpu, device);
    psp_attach(p);
}

static void psp_open_device(Psp *p, const char *device)
{
    psp_open_cpu(p, device, "");
}

/* The ASK and the ARK of @path go to where send_start() has them from */
static void load_ask_ark(Psp *p, const char *path)
{
    g_autofree char *name = g_strdup_printf("%s.cert", path);
    g_autofree char *certs = NULL;
    gsize len;

    g_assert(g_file_get_contents(name, &certs, &len, NULL));
    g_assert_cmpuint(len, ==, ASK_ARK_LEN);
    qtest_memwrite(p->qts, ASK_ARK, certs, len);
}

static void psp_open_ark(Psp *p, const char *path, const char *options)
{
    g_autofree char *device = g_strdup_printf("amd-psp,id=psp,addr=04.0,"
                                              "ark=%s,cek=%s%s", path, cek,
                                              options);

    psp_open_device(p, device);
    load_ask_ark(p, path);
}

static void psp_open(Psp *p, const char *options)
{
    psp_open_ark(p, ark, options);
}

static unsigned psp_cmd(Psp *p, unsigned cmd)
{
    return psp_cmd_at(p, cmd, BUF, false);
}

/* The command buffer */
static void clear(Psp *p)
{
    qtest_memset(p->qts, BUF, 0, 128);
}

static void put32(Psp *p, unsigned offset, uint32_t value)
{
    qtest_writel(p->qts, BUF + offset, value);
}

static void put64(Psp *p, unsigned offset, uint64_t value)
{
    qtest_writeq(p->qts, BUF + offset, value);
}

static uint32_t get32(Psp *p, unsigned offset)
{
    return qtest_readl(p->qts, BUF + offset);
}

static void psp_init(Psp *p)
{
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x01), ==, 0);
    /* No ASID can be used before that */
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
}

static unsigned guest_cmd(Psp *p, unsigned cmd, uint32_t handle)
{
    clear(p);
    put32(p, 0, handle);
    return psp_cmd(p, cmd);
}

static unsigned activate(Psp *p, uint32_t handle, uint32_t asid)
{
    clear(p);
    put32(p, 0, handle);
    put32(p, 4, asid);
    return psp_cmd(p, 0x21);
}

/* 0: there is no such guest */
static unsigned guest_state(Psp *p, uint32_t handle)
{
    g_assert_cmphex(guest_cmd(p, 0x23, handle), ==, 0);
    return qtest_readb(p->qts, BUF + 12);
}

static uint32_t launch_start(Psp *p, uint32_t policy)
{
    clear(p);
    put32(p, 4, policy);
    g_assert_cmphex(psp_cmd(p, 0x30), ==, 0);
    g_assert_cmpuint(get32(p, 0), !=, 0);
    return get32(p, 0);
}

static unsigned launch_update(Psp *p, uint32_t handle, uint64_t pa, uint32_t n)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, pa);
    put32(p, 16, n);
    return psp_cmd(p, 0x31);
}

static unsigned launch_vmsa(Psp *p, uint32_t handle, uint64_t pa, uint32_t n)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, pa);
    put32(p, 16, n);
    return psp_cmd(p, 0x32);
}

static unsigned launch_measure(Psp *p, uint32_t handle)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, OUT);
    put32(p, 16, 48);
    return psp_cmd(p, 0x33);
}

static unsigned dbg(Psp *p, unsigned cmd, uint32_t handle, uint64_t from,
                    uint64_t to, uint32_t len)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, from);
    put64(p, 16, to);
    put32(p, 24, len);
    return psp_cmd(p, cmd);
}

static unsigned export_certs(Psp *p)
{
    clear(p);
    put64(p, 0, PDH);
    put32(p, 8, CERT_LEN);
    put64(p, 16, CHAIN);
    put32(p, 24, CHAIN_LEN);
    return psp_cmd(p, 0x08);
}

/* SEND_START's buffer for the platform at PDH, CHAIN and ASK_ARK */
static void put_send_start(Psp *p, uint32_t handle)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, PDH);
    put32(p, 16, CERT_LEN);
    put64(p, 24, CHAIN);
    put32(p, 32, CHAIN_LEN);
    put64(p, 40, ASK_ARK);
    put32(p, 48, ASK_ARK_LEN);
    put64(p, 56, SESSION);
    put32(p, 64, 128);
}

static unsigned send_start(Psp *p, uint32_t handle)
{
    put_send_start(p, handle);
    return psp_cmd(p, 0x40);
}

static unsigned receive_start(Psp *p, uint32_t policy, uint32_t *handle)
{
    unsigned st;

    clear(p);
    put32(p, 4, policy);
    put64(p, 8, PDH);
    put32(p, 16, CERT_LEN);
    put64(p, 24, SESSION);
    put32(p, 32, 128);
    st = psp_cmd(p, 0x50);
    *handle = get32(p, 0);
    return st;
}

/* SEND_ or RECEIVE_UPDATE_DATA (0x41, 0x51), or _VMSA (0x42, 0x52) */
static unsigned update_data(Psp *p, unsigned cmd, uint32_t handle,
                            uint64_t guest, uint32_t len)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, HEADER);
    put32(p, 16, 52);
    put64(p, 24, guest);
    put32(p, 32, len);
    put64(p, 40, TRANS);
    put32(p, 48, len);
    return psp_cmd(p, cmd);
}

/* What the tests keep in a guest's page */
static void fill(uint8_t page[4096])
{
    int i;

    for (i = 0; i < 4096; i++) {
        page[i] = "private memory of a guest "[i % 26];
    }
}

/* A guest in state RUNNING that has the text at PAGE_A, active as @asid */
static uint32_t launch(Psp *p, uint32_t policy, uint32_t asid)
{
    uint32_t handle = launch_start(p, policy);
    uint8_t page[4096];

    fill(page);
    qtest_memwrite(p->qts, PAGE_A, page, sizeof(page));
    g_assert_cmphex(activate(p, handle, asid), ==, 0);
    g_assert_cmphex(launch_update(p, handle, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(launch_measure(p, handle), ==, 0);
    g_assert_cmphex(guest_cmd(p, 0x35, handle), ==, 0);
    g_assert_cmpuint(guest_state(p, handle), ==, 3);
    return handle;
}

static void test_registers(void)
{
    Psp p;

    psp_open(&p, "");
    g_assert_cmphex(psp_read(&p, FEATURE), ==, 1);
    g_assert_cmphex(psp_read(&p, BOOTLOADER), !=, 0xffffffff);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, 0);
    psp_write(&p, CMDBUF_LO, 0x12345678);
    psp_write(&p, CMDBUF_HI, 0x9a);
    g_assert_cmphex(psp_read(&p, CMDBUF_LO), ==, 0x12345678);
    g_assert_cmphex(psp_read(&p, CMDBUF_HI), ==, 0x9a);
    psp_close(&p);
}

static void test_interrupt(void)
{
    Psp p;

    psp_open(&p, "");
    psp_enable_msi(&p, MSI_ADDR);

    /* Not asked for: no status, no message */
    psp_write(&p, INTEN, ~0u);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF, false), ==, 0);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 0);
    g_assert_cmphex(qtest_readl(p.qts, MSI_ADDR), ==, 0);

    /* Asked for, but masked */
    psp_write(&p, INTEN, 0);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF, true), ==, 0);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 2);
    g_assert_cmphex(qtest_readl(p.qts, MSI_ADDR), ==, 0);
    psp_write(&p, INTSTS, 2);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 0);

    psp_write(&p, INTEN, 2);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF, true), ==, 0);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 2);
    g_assert_cmphex(qtest_readl(p.qts, MSI_ADDR), ==, MSI_DATA);
    psp_write(&p, INTSTS, ~2u);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 2);
    psp_write(&p, INTSTS, 2);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 0);
    psp_close(&p);
}

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

    /* SHUTDOWN forgets guests */
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    psp_init(&p);
    g_assert_cmpuint(guest_state(&p, handle), ==, 0);
    psp_close(&p);
}

static void test_bad_commands(void)
{
    static const unsigned none[] = { 0x00, 0x0e, 0x37, 0x45, 0x70, 0x7ff };
    static const unsigned with_buffer[] = {
        0x04, 0x06, 0x07, 0x08, 0x0c, 0x0f, 0x21, 0x22, 0x23, 0x30, 0x31, 0x32,
        0x33, 0x35, 0x40, 0x41, 0x42, 0x43, 0x44, 0x50, 0x51, 0x52, 0x53, 0x60,
        0x61, 0x20,
    };
    size_t i;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    for (i = 0; i < ARRAY_SIZE(none); i++) {
        g_assert_cmphex(psp_cmd(&p, none[i]), ==, 0x11);
    }
    for (i = 0; i < ARRAY_SIZE(with_buffer); i++) {
        /* Device memory, nothing, beyond everything; RAM's last bytes */
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], NOT_RAM, 0), ==, 0x09);
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], 1ull << 40, 0),
                        ==, 0x09);
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], 0xffffffffffffff00,
                                   0), ==, 0x09);
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], 0x8000000 - 2, 0),
                        ==, 0x09);
    }
    /* The C-bit of an address means nothing */
    clear(&p);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF | CBIT, 0), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);
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
    /* PDH_GEN makes another */
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x09), ==, 0);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, b, CERT_LEN);
    g_assert(memcmp(a, b, CERT_LEN));
    /* A buffer that is no RAM, or too short */
    put64(&p, 0, NOT_RAM);
    g_assert_cmphex(psp_cmd(&p, 0x08), ==, 0x09);
    put64(&p, 0, PDH);
    put32(&p, 24, CHAIN_LEN - 1);
    g_assert_cmphex(psp_cmd(&p, 0x08), ==, 0x04);
    psp_close(&p);

    /* A seed is an identity, no seed is one of its own */
    read_pdh(",seed=alice", a);
    read_pdh(",seed=alice", b);
    read_pdh(",seed=bob", c);
    read_pdh("", d);
    g_assert_cmpmem(a, CERT_LEN, b, CERT_LEN);
    g_assert(memcmp(a, c, CERT_LEN));
    g_assert(memcmp(a, d, CERT_LEN));
}

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

    /* The host sees ciphertext now, and the guest its page */
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

/* A long command is done in slices, and the monitor is answered in between */
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

    /* All of it has been measured, and encrypted */
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

    /* A reset in the middle is the end of it */
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
    /* Only the ASID that was given back needs a DF_FLUSH */
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
 * LAUNCH_START (0x30) or RECEIVE_START (0x50) in a session of somebody who has
 * @policy in it, for the platform's own PDH, which is at PDH
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
        { 1 << 2, 0x15 },                   /* SEV-ES, which is not there */
        { 2 << 16, 0x07 },                  /* API 2.0 */
        { 1 << 16 | 56u << 24, 0x07 },      /* API 1.56 */
        { 1 << 6, 0x07 },                   /* what is reserved */
        { 1 << 15, 0x07 },
    };
    uint32_t h;
    size_t i;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        /* Of an owner's session, and from another platform */
        g_assert_cmphex(start_in_session(&p, 0x30, bad[i].policy), ==,
                        bad[i].status);
        g_assert_cmphex(start_in_session(&p, 0x50, bad[i].policy), ==,
                        bad[i].status);
    }
    g_assert_cmphex(start_in_session(&p, 0x30, 1 << 16 | 55 << 24 | 0x3b), ==,
                    0);
    g_assert_cmphex(guest_cmd(&p, 0x20, get32(&p, 0)), ==, 0);
    /* A host that launches without a session has what it asks for */
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

/* DOMAIN: not to a platform of another owner */
static void test_policy_domain(void)
{
    uint8_t pdh[CERT_LEN], chain[CHAIN_LEN];
    uint32_t h;
    Psp p;

    psp_open(&p, ",seed=other");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, pdh, sizeof(pdh));
    qtest_memread(p.qts, CHAIN, chain, sizeof(chain));
    psp_close(&p);

    psp_open(&p, ",seed=one");
    psp_init(&p);
    h = launch(&p, 1 << 4, 1);
    qtest_memwrite(p.qts, PDH, pdh, sizeof(pdh));
    qtest_memwrite(p.qts, CHAIN, chain, sizeof(chain));
    g_assert_cmphex(send_start(&p, h), ==, 0x07);
    g_assert_cmphex(export_certs(&p), ==, 0);
    g_assert_cmphex(send_start(&p, h), ==, 0);
    psp_close(&p);
}

static void test_dbg_encrypt(void)
{
    const char text[16] = "written through";
    char got[16];
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    h = launch(&p, 0, 1);
    qtest_memwrite(p.qts, OUT, text, sizeof(text));
    g_assert_cmphex(dbg(&p, 0x61, h, OUT, PAGE_A + 32, 16), ==, 0);
    qtest_memset(p.qts, OUT, 0, 64);
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 64), ==, 0);
    qtest_memread(p.qts, OUT + 32, got, sizeof(got));
    g_assert_cmpmem(got, sizeof(got), text, sizeof(text));
    qtest_memread(p.qts, OUT, got, 7);
    g_assert_cmpmem(got, 7, "private", 7);
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 1 << 20), ==, 0x04);
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, NOT_RAM, 16), ==, 0x09);
    g_assert_cmphex(dbg(&p, 0x60, h, NOT_RAM, OUT, 16), ==, 0x09);
    psp_close(&p);
}

static void test_migrate(void)
{
    uint8_t page[4096], trans[4096], got[4096];
    uint32_t a, b;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    a = launch(&p, 0, 1);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0x02);

    /* How long is a session? */
    clear(&p);
    put32(&p, 0, a);
    g_assert_cmphex(psp_cmd(&p, 0x40), ==, 0x04);
    g_assert_cmpuint(get32(&p, 64), ==, 128);
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmpuint(guest_state(&p, a), ==, 4);

    /* How long is a header? */
    clear(&p);
    put32(&p, 0, a);
    put32(&p, 32, 4096);
    g_assert_cmphex(psp_cmd(&p, 0x41), ==, 0x04);
    g_assert_cmpuint(get32(&p, 16), ==, 52);
    /* Not that of the transport data, which is the guest's */
    g_assert_cmpuint(get32(&p, 48), ==, 0);
    put32(&p, 16, 52);
    put32(&p, 48, 16);
    g_assert_cmphex(psp_cmd(&p, 0x41), ==, 0x04);
    g_assert_cmpuint(get32(&p, 48), ==, 16);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096 + 8), ==, 0x04);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 0xfffffff0), ==, 0x04);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A + 8, 16), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x41, a, NOT_RAM, 4096), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0);
    qtest_memread(p.qts, TRANS, trans, sizeof(trans));
    g_assert_null(memmem(trans, sizeof(trans), "private", 7));

    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0);
    g_assert_cmpuint(b, !=, a);
    g_assert_cmpuint(guest_state(&p, b), ==, 5);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0x08);
    g_assert_cmphex(activate(&p, b, 2), ==, 0);

    /* A bit of the data, of the header; another length */
    qtest_writeb(p.qts, TRANS + 100, trans[100] ^ 1);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0x0b);
    qtest_writeb(p.qts, TRANS + 100, trans[100]);
    qtest_writeb(p.qts, HEADER + 4, qtest_readb(p.qts, HEADER + 4) ^ 1);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0x0b);
    qtest_writeb(p.qts, HEADER + 4, qtest_readb(p.qts, HEADER + 4) ^ 1);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4080), ==, 0x0b);
    g_assert_cmphex(update_data(&p, 0x51, b, NOT_RAM, 4096), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0);

    g_assert_cmphex(guest_cmd(&p, 0x43, a), ==, 0);
    g_assert_cmpuint(guest_state(&p, a), ==, 6);
    g_assert_cmphex(guest_cmd(&p, 0x53, b), ==, 0);
    g_assert_cmpuint(guest_state(&p, b), ==, 3);
    fill(page);
    g_assert_cmphex(dbg(&p, 0x60, b, PAGE_B, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, got, sizeof(got));
    g_assert_cmpmem(got, sizeof(got), page, sizeof(page));
    /* Each with its own key: not the same ciphertext */
    qtest_memread(p.qts, PAGE_A, got, sizeof(got));
    qtest_memread(p.qts, PAGE_B, page, sizeof(page));
    g_assert(memcmp(got, page, 16));
    psp_close(&p);
}

static void test_cancel(void)
{
    uint32_t a;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    a = launch(&p, 0, 1);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0x02);
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0);
    g_assert_cmpuint(guest_state(&p, a), ==, 3);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0x02);
    /* And again, to the end, from where there is no way back */
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x43, a), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0x02);
    psp_close(&p);
}

/* A session is for one PDH, from one PDH, with one policy, and as it is */
static void test_wrong_session(void)
{
    uint8_t mine[CERT_LEN], other[CERT_LEN], chain[CHAIN_LEN];
    uint8_t other_chain[CHAIN_LEN], session[128];
    uint32_t a, b;
    unsigned i;
    Psp p;

    psp_open(&p, ",seed=other");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, other, sizeof(other));
    qtest_memread(p.qts, CHAIN, other_chain, sizeof(other_chain));
    psp_close(&p);

    psp_open(&p, ",seed=mine");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, mine, sizeof(mine));
    qtest_memread(p.qts, CHAIN, chain, sizeof(chain));
    a = launch(&p, 0, 1);

    /* For the other platform: this one cannot take it */
    qtest_memwrite(p.qts, PDH, other, sizeof(other));
    qtest_memwrite(p.qts, CHAIN, other_chain, sizeof(other_chain));
    g_assert_cmphex(send_start(&p, a), ==, 0);
    qtest_memwrite(p.qts, PDH, mine, sizeof(mine));
    qtest_memwrite(p.qts, CHAIN, chain, sizeof(chain));
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x0b);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0);

    /* For this one, from this one */
    g_assert_cmphex(send_start(&p, a), ==, 0);
    qtest_memwrite(p.qts, PDH, other, sizeof(other));
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x0b);
    qtest_memwrite(p.qts, PDH, mine, sizeof(mine));
    g_assert_cmphex(receive_start(&p, 1, &b), ==, 0x0b);
    qtest_memread(p.qts, SESSION, session, sizeof(session));
    for (i = 0; i < sizeof(session); i += 16) {
        qtest_writeb(p.qts, SESSION + i, session[i] ^ 1);
        g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x0b);
        qtest_writeb(p.qts, SESSION + i, session[i]);
    }
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, a), ==, 0);

    /* No certificate at all, one that is no PDH's, a point off the curve */
    qtest_memset(p.qts, PDH, 0, CERT_LEN);
    g_assert_cmphex(send_start(&p, a), ==, 0x06);
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0x06);
    qtest_memwrite(p.qts, PDH, chain, CERT_LEN);
    g_assert_cmphex(send_start(&p, a), ==, 0x06);
    qtest_memwrite(p.qts, PDH, mine, CERT_LEN);
    qtest_writeb(p.qts, PDH + 0x14, mine[0x14] ^ 1);
    g_assert_cmphex(send_start(&p, a), ==, 0x06);
    g_assert_cmpuint(guest_state(&p, a), ==, 3);
    psp_close(&p);
}

static void test_reset(void)
{
    uint8_t raw[4096], again[4096];
    uint32_t h;
    Psp p;

    psp_open(&p, ",seed=x");
    psp_init(&p);
    h = launch(&p, 0, 1);
    qtest_memread(p.qts, PAGE_A, raw, sizeof(raw));
    qtest_system_reset(p.qts);
    qpci_device_enable(p.dev);
    p.bar = qpci_iomap(p.dev, 2, NULL);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, 0);
    /* The keys are gone with the guests, ciphertext is all that is left */
    g_assert_cmphex(guest_cmd(&p, 0x23, h), ==, 0x01);
    psp_init(&p);
    g_assert_cmpuint(guest_state(&p, h), ==, 0);
    qtest_memread(p.qts, PAGE_A, again, sizeof(again));
    g_assert_cmpmem(raw, sizeof(raw), again, sizeof(again));
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
    /* For each that goes another can come, by a name of its own */
    g_assert_cmphex(guest_cmd(&p, 0x20, 3), ==, 0);
    g_assert_cmpuint(launch_start(&p, 0), ==, n + 1);
    g_assert_cmpuint(guest_state(&p, 3), ==, 0);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x17);
    psp_close(&p);
}

/* Each ASID is one guest's at a time, and each guest has one at a time */
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
 * What the CPU of this machine does: once a byte at 0x500 is set, WBINVD, then
 * the byte is cleared.
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

/* In a machine that runs */
static void wbinvd(Psp *p)
{
    int i;

    qtest_writeb(p->qts, 0x500, 1);
    for (i = 0; qtest_readb(p->qts, 0x500); i++) {
        g_assert_cmpint(i, <, 3000);
        g_usleep(10000);
    }
}

/*
 * Which of INIT, DEACTIVATE, WBINVD, DF_FLUSH there were decides whether an
 * ASID can be used again
 */
static void test_flushes(void)
{
    static const struct {
        const char *before;     /* in this order */
        unsigned df_flush, activate;
    } cases[] = {
        /* After INIT */
        { "", 0x0e, 0x0f },
        { "W", 0, 0x0f },
        { "F", 0x0e, 0x0f },
        { "FW", 0, 0x0f },
        { "WF", 0, 0 },
        { "WFF", 0, 0 },
        /* After DEACTIVATE; the ASID was used by somebody else */
        { "WFD", 0x0e, 0x0f },
        { "WFDF", 0x0e, 0x0f },
        { "WFDW", 0, 0x0f },
        { "WFDFW", 0, 0x0f },
        { "WFDWF", 0, 0 },
        /* Of another ASID */
        { "WFd", 0x0e, 0 },
        { "WFdF", 0x0e, 0 },
        /* After DEACTIVATE of a guest that was never launched to the end */
        { "WFN", 0, 0 },
        { "WFDWFN", 0, 0 },
        /* SHUTDOWN and INIT */
        { "WFI", 0x0e, 0x0f },
        { "WFIWF", 0, 0 },
    };
    g_autofree char *name = g_strdup_printf("%s/firmware", dir);
    g_autofree char *rom = g_malloc0(64 * 1024);
    const char *c;
    uint32_t a, h;
    size_t i;
    Psp p;

    memcpy(rom, wbinvd_on_demand, sizeof(wbinvd_on_demand));
    memcpy(rom + 0xfff0, jump_to_it, sizeof(jump_to_it));
    g_assert(g_file_set_contents(name, rom, 64 * 1024, NULL));
    memset(&p, 0, sizeof(p));
    /* The second CPU is never started, and not waited for */
    p.qts = qtest_initf("-accel tcg -nodefaults -machine q35 -bios %s -smp 2 "
                        "-cpu EPYC-Milan,+svm,+sev "
                        "-device amd-psp,id=psp,addr=04.0", name);
    psp_attach(&p);
    wbinvd(&p);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_test_message("after INIT %s", cases[i].before);
        g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
        clear(&p);
        g_assert_cmphex(psp_cmd(&p, 0x01), ==, 0);
        for (c = cases[i].before; *c; c++) {
            switch (*c) {
            case 'W':
                wbinvd(&p);
                break;
            case 'F':
                psp_cmd(&p, 0x0a);
                break;
            case 'D':
            case 'd':
                a = launch(&p, 0, *c == 'D' ? 1 : 2);
                g_assert_cmphex(guest_cmd(&p, 0x22, a), ==, 0);
                break;
            case 'N':
                a = launch_start(&p, 0);
                g_assert_cmphex(activate(&p, a, 1), ==, 0);
                g_assert_cmphex(guest_cmd(&p, 0x22, a), ==, 0);
                break;
            case 'I':
                g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
                clear(&p);
                g_assert_cmphex(psp_cmd(&p, 0x01), ==, 0);
                break;
            }
        }
        h = launch_start(&p, 0);
        g_assert_cmphex(activate(&p, h, 1), ==, cases[i].activate);
        g_assert_cmphex(psp_cmd(&p, 0x0a), ==, cases[i].df_flush);
    }
    psp_close(&p);
    unlink(name);
}

static unsigned attestation(Psp *p, uint32_t handle, uint64_t pa, uint32_t len)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, pa);
    qtest_memwrite(p->qts, BUF + 16, "sixteen bytes...", 16);
    put32(p, 32, len);
    return psp_cmd(p, 0x36);
}

/* A report on what was launched, signed by the PEK */
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

    /* A guest that comes from elsewhere was not launched here */
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

static QDict *set_faults(Psp *p, const char *json)
{
    return psp_set_property(p, "faults", json);
}

/* The faults that are still to happen, from the property */
static QList *get_faults(Psp *p)
{
    QDict *answer = qtest_qmp(p->qts, "{'execute': 'qom-get', 'arguments': {"
                              "'path': '/machine/peripheral/psp',"
                              "'property': 'faults'}}");
    QList *faults = qdict_get_qlist(answer, "return");

    g_assert_nonnull(faults);
    qobject_ref(faults);
    qobject_unref(answer);
    return faults;
}

static void assert_query(Psp *p, const char *state, bool busy, bool hung)
{
    QDict *info = psp_query(p);

    g_assert_cmpstr(qdict_get_str(info, "qom-path"), ==,
                    "/machine/peripheral/psp");
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, state);
    g_assert(qdict_get_bool(info, "busy") == busy);
    g_assert(qdict_get_bool(info, "hung") == hung);
    qobject_unref(info);
}

/* The only guest that the platform has */
static void assert_guest(Psp *p, uint32_t handle, uint32_t asid,
                         const char *state)
{
    QDict *info = psp_query(p), *g;

    g = qobject_to(QDict, qlist_peek(qdict_get_qlist(info, "contexts")));
    g_assert_nonnull(g);
    g_assert_cmpuint(qdict_get_int(g, "handle"), ==, handle);
    g_assert_cmpuint(qdict_get_int(g, "asid"), ==, asid);
    g_assert_cmpstr(qdict_get_str(g, "state"), ==, state);
    qobject_unref(info);
}

static void test_fault_status(void)
{
    Psp p;

    psp_open(&p, "");
    psp_init(&p);

    /* The second and the third of one kind; those between do not count */
    psp_inject(&p, "[{'kind': 'status', 'command': 'PLATFORM_STATUS', 'nth': 2,"
                   "  'count': 2, 'status': 23}]");
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0x17);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 0);   /* not executed */
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0x17);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);

    /* A guest that was not launched is not there */
    psp_inject(&p, "[{'kind': 'status', 'command': 'LAUNCH_START',"
                   "  'status': 19}]");
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x13);
    g_assert_cmpuint(get32(&p, 0), ==, 0);
    g_assert_cmpuint(psp_stat_of(&p, NULL, "guests"), ==, 0);
    launch_start(&p, 0);

    /* All commands, for ever, with any status, even those that are none */
    psp_inject(&p, "[{'kind': 'status', 'count': 0, 'status': 65535}]");
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0xffff);
    g_assert_cmphex(psp_cmd(&p, 0x7f), ==, 0xffff);
    g_assert_cmphex(psp_cmd(&p, 0x09), ==, 0xffff);
    psp_inject(&p, "[]");
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x7f), ==, 0x11);

    /* Two that are due together happen one after the other */
    psp_inject(&p, "[{'kind': 'status', 'command': 'DF_FLUSH', 'status': 1},"
                   " {'kind': 'status', 'status': 2}]");
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 1);
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 2);
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    psp_close(&p);
}

static void test_fault_hang(void)
{
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    psp_inject(&p, "[{'kind': 'hang', 'command': 'LAUNCH_START'}]");
    clear(&p);
    psp_give(&p, 0x30, BUF, true);
    qtest_clock_step(p.qts, 1000 * 1000 * 1000);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, 0x30 << 16 | 1);
    assert_query(&p, "init", true, true);

    /* Nor does another command end, and taking the fault back is too late */
    psp_inject(&p, "[]");
    psp_give(&p, 0x0a, BUF, false);
    qtest_clock_step(p.qts, 1000 * 1000 * 1000);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, 0x30 << 16 | 1);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 0);

    qtest_system_reset(p.qts);
    qpci_device_enable(p.dev);
    p.bar = qpci_iomap(p.dev, 2, NULL);
    assert_query(&p, "uninit", false, false);
    psp_init(&p);
    launch_start(&p, 0);
    psp_close(&p);
}

/* Give a command; it has to end after @ns, and not before */
static void assert_takes(Psp *p, const char *name, unsigned cmd, int64_t ns,
                         unsigned status)
{
    uint64_t before = psp_stat_of(p, name, "busy-ns");

    psp_give(p, cmd, BUF, false);
    /* The firmware's own time has passed: only what we wait for is left */
    while (psp_stat_of(p, name, "busy-ns") == before) {
        g_usleep(100);
    }
    qtest_clock_step(p->qts, ns - 1);
    g_assert_cmphex(psp_read(p, CMDRESP) & DONE, ==, 0);
    assert_query(p, "init", true, false);
    qtest_clock_step(p->qts, 1);
    g_assert_cmphex(psp_wait(p, cmd), ==, status);
}

static void test_fault_late(void)
{
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    psp_inject(&p, "[{'kind': 'late', 'command': 'PLATFORM_STATUS',"
                   "  'delay-us': 3000000}]");
    clear(&p);
    assert_takes(&p, "PLATFORM_STATUS", 0x04, 3000000000, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);
    /* Just this one */
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);

    /* A reset while the end is still to come: it does not come */
    psp_inject(&p, "[{'kind': 'late', 'delay-us': 10}]");
    psp_give(&p, 0x04, BUF, false);
    qtest_system_reset(p.qts);
    qpci_device_enable(p.dev);
    p.bar = qpci_iomap(p.dev, 2, NULL);
    qtest_clock_step(p.qts, 1000 * 1000);
    g_assert_cmphex(psp_read(&p, CMDRESP), ==, 0);
    psp_close(&p);
}

static void test_fault_corrupt(void)
{
    uint8_t id[64], again[64], page[4096], got[4096];
    uint32_t a, b;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);

    /* A byte of data, exactly that */
    clear(&p);
    put64(&p, 0, OUT);
    put32(&p, 8, 64);
    g_assert_cmphex(psp_cmd(&p, 0x0c), ==, 0);
    qtest_memread(p.qts, OUT, id, sizeof(id));
    psp_inject(&p, "[{'kind': 'corrupt', 'command': 'GET_ID', 'offset': 10}]");
    g_assert_cmphex(psp_cmd(&p, 0x0c), ==, 0);
    qtest_memread(p.qts, OUT, again, sizeof(again));
    again[10] ^= 1;
    g_assert_cmpmem(id, sizeof(id), again, sizeof(again));

    /* Where there is no other reply, the buffer; none beyond it */
    psp_inject(&p, "[{'kind': 'corrupt', 'command': 'PLATFORM_STATUS',"
                   "  'offset': 8},"
                   " {'kind': 'corrupt', 'command': 'PLATFORM_STATUS',"
                   "  'offset': 12}]");
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
    g_assert_cmpuint(get32(&p, 8), ==, 1);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
    g_assert_cmpuint(get32(&p, 8), ==, 0);
    g_assert_cmpuint(psp_stat_of(&p, "PLATFORM_STATUS", "faults"), ==, 2);

    /* A packet that was corrupted, data or header, is not taken */
    g_assert_cmphex(export_certs(&p), ==, 0);
    a = launch(&p, 0, 1);
    g_assert_cmphex(send_start(&p, a), ==, 0);
    g_assert_cmphex(receive_start(&p, 0, &b), ==, 0);
    g_assert_cmphex(activate(&p, b, 2), ==, 0);
    psp_inject(&p, "[{'kind': 'corrupt', 'command': 'SEND_UPDATE_DATA'},"
                   " {'kind': 'corrupt', 'command': 'SEND_UPDATE_DATA',"
                   "  'offset': 4100}]");
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0x0b);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0x0b);
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0);

    /* Memory of the guest */
    psp_inject(&p, "[{'kind': 'corrupt', 'command': 'RECEIVE_UPDATE_DATA',"
                   "  'offset': 7}]");
    g_assert_cmphex(update_data(&p, 0x41, a, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0);
    g_assert_cmphex(dbg(&p, 0x60, b, PAGE_B, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, got, sizeof(got));
    fill(page);
    got[7] ^= 1;
    g_assert_cmpmem(got, sizeof(got), page, sizeof(page));
    psp_close(&p);
}

static void test_fault_no_interrupt(void)
{
    Psp p;

    psp_open(&p, "");
    psp_enable_msi(&p, MSI_ADDR);
    psp_write(&p, INTEN, 2);
    psp_inject(&p, "[{'kind': 'no-interrupt'}]");
    clear(&p);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF, true), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 0);
    g_assert_cmphex(qtest_readl(p.qts, MSI_ADDR), ==, 0);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF, true), ==, 0);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 2);
    g_assert_cmphex(qtest_readl(p.qts, MSI_ADDR), ==, MSI_DATA);
    psp_close(&p);
}

/* The property: what it takes, what it shows, and from the command line */
static void test_fault_property(void)
{
    static const char *const bad[] = {
        "[{'kind': 'status', 'command': 'LAUNCH_STRAT', 'status': 1}]",
        "[{'kind': 'status', 'command': 'unknown', 'status': 1}]",
        "[{'kind': 'status', 'nth': 0, 'status': 1}]",
        "[{'kind': 'status', 'status': 0}]",
        "[{'kind': 'status', 'status': 65536}]",
        "[{'kind': 'status'}]",
        "[{'kind': 'late'}]",
        "[{'kind': 'hang', 'status': 1}]",
        "[{'kind': 'explode'}]",
        "[{'kind': 'hang'}, {'kind': 'hang', 'nth': 0}]",
        "{'kind': 'hang'}",
    };
    QDict *answer, *f;
    QList *faults;
    size_t i;
    Psp p;

    psp_open_device(&p, "'{\"driver\": \"amd-psp\", \"id\": \"psp\","
                    "\"addr\": \"04.0\", \"faults\": [{"
                    "\"kind\": \"status\", \"status\": 23,"
                    "\"command\": \"INIT\", \"nth\": 3}]}'");
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x01), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x01), ==, 1);

    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        answer = set_faults(&p, bad[i]);
        g_assert(qdict_haskey(answer, "error"));
        qobject_unref(answer);
    }
    /* What was there is still there, but nearer */
    faults = get_faults(&p);
    f = qobject_to(QDict, qlist_peek(faults));
    g_assert_cmpstr(qdict_get_str(f, "kind"), ==, "status");
    g_assert_cmpstr(qdict_get_str(f, "command"), ==, "INIT");
    g_assert_cmpint(qdict_get_int(f, "nth"), ==, 1);
    g_assert_cmpint(qdict_get_int(f, "count"), ==, 1);
    g_assert_cmpint(qdict_get_int(f, "status"), ==, 23);
    qobject_unref(faults);
    g_assert_cmphex(psp_cmd(&p, 0x01), ==, 0x17);
    faults = get_faults(&p);
    g_assert(qlist_empty(faults));
    qobject_unref(faults);
    psp_close(&p);
}

static void test_stats(void)
{
    g_autofree char *text = NULL;
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    assert_query(&p, "uninit", false, false);
    g_assert_cmpuint(psp_stat_of(&p, "INIT", "count"), ==, 0);
    psp_init(&p);
    assert_query(&p, "init", false, false);
    g_assert_cmphex(psp_cmd(&p, 0x01), ==, 0x01);
    g_assert_cmphex(psp_cmd(&p, 0x7f), ==, 0x11);
    h = launch(&p, 0, 1);
    assert_query(&p, "working", false, false);
    g_assert_cmpuint(psp_stat_of(&p, NULL, "guests"), ==, 1);
    g_assert_cmpuint(psp_stat_of(&p, NULL, "active"), ==, 1);
    assert_guest(&p, h, 1, "running");
    g_assert_cmpuint(psp_stat_of(&p, "INIT", "count"), ==, 2);
    g_assert_cmpuint(psp_stat_of(&p, "INIT", "failed"), ==, 1);
    g_assert_cmpuint(psp_stat_of(&p, "INIT", "last-status"), ==, 1);
    g_assert_cmpuint(psp_stat_of(&p, "unknown", "count"), ==, 1);
    g_assert_cmpuint(psp_stat_of(&p, "LAUNCH_UPDATE_DATA", "guest-bytes"), ==,
                     4096);
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 48), ==, 0);
    g_assert_cmpuint(psp_stat_of(&p, "DBG_DECRYPT", "guest-bytes"), ==, 48);
    g_assert_cmphex(guest_cmd(&p, 0x22, h), ==, 0);
    g_assert_cmpuint(psp_stat_of(&p, NULL, "active"), ==, 0);
    assert_guest(&p, h, 0, "running");

    psp_inject(&p, "[{'kind': 'late', 'delay-us': 7, 'command': 'INIT',"
                   "  'nth': 5}]");
    text = qtest_hmp(p.qts, "info sev-platform");
    g_assert_nonnull(strstr(text, "/machine/peripheral/psp: working, "
                            "1 guests, 0 active"));
    g_assert_nonnull(strstr(text, "running, ASID 0"));
    g_assert_nonnull(strstr(text, "late by 7 us, at INIT 5 from now"));
    g_assert_nonnull(strstr(text, "LAUNCH_UPDATE_DATA"));
    g_assert_null(strstr(text, "SEND_START"));
    psp_close(&p);
}

static void test_cost(void)
{
    uint32_t h;
    Psp p;

    psp_open(&p, ",cost-doorbell-ns=500,cost-command-ns=1000,cost-kib-ns=200");
    assert_query(&p, "uninit", false, false);
    p.step = 1000;
    psp_init(&p);
    clear(&p);
    assert_takes(&p, "PLATFORM_STATUS", 0x04, 1500, 0);
    assert_takes(&p, "unknown", 0x7f, 500, 0x11);
    psp_inject(&p, "[{'kind': 'late', 'delay-us': 2}]");
    assert_takes(&p, "DF_FLUSH", 0x0a, 3500, 0);

    /* 4 KiB more */
    h = launch_start(&p, 0);
    g_assert_cmphex(activate(&p, h, 1), ==, 0);
    clear(&p);
    put32(&p, 0, h);
    put64(&p, 8, PAGE_A);
    put32(&p, 16, 4096);
    psp_give(&p, 0x31, BUF, false);
    while (!psp_stat_of(&p, "LAUNCH_UPDATE_DATA", "busy-ns")) {
        g_usleep(100);
    }
    qtest_clock_step(p.qts, 2299);
    g_assert_cmphex(psp_read(&p, CMDRESP) & DONE, ==, 0);
    qtest_clock_step(p.qts, 1);
    p.step = 0;
    g_assert_cmphex(psp_wait(&p, 0x31), ==, 0);
    psp_close(&p);
}

static void set_costs(Psp *p, const char *json, const char *error)
{
    QDict *answer = psp_set_property(p, "costs", json);

    if (error) {
        g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(answer, "error"),
                                              "desc"), error));
    } else {
        g_assert(qdict_haskey(answer, "return"));
    }
    qobject_unref(answer);
}

/* Of single commands; what is not told of them is as for all */
static void test_costs(void)
{
    Psp p;

    psp_open(&p, ",cost-doorbell-ns=500,cost-command-ns=1000");
    p.step = 10000;
    psp_init(&p);
    clear(&p);
    set_costs(&p, "[{'command': 'DF_FLUSH', 'command-ns': 7000},"
                  " {'command': 'PLATFORM_STATUS', 'doorbell-ns': 0}]", NULL);
    assert_takes(&p, "DF_FLUSH", 0x0a, 7500, 0);
    assert_takes(&p, "PLATFORM_STATUS", 0x04, 1000, 0);
    assert_takes(&p, "PDH_GEN", 0x09, 1500, 0);

    /* Who is refused changes nothing */
    set_costs(&p, "[{'command': 'DF_FLUSHED', 'command-ns': 1}]",
              "no command 'DF_FLUSHED'");
    set_costs(&p, "[{'command': 'DF_FLUSH'}, {'command': 'DF_FLUSH'}]",
              "costs of 'DF_FLUSH' are there twice");
    assert_takes(&p, "DF_FLUSH", 0x0a, 7500, 0);
    set_costs(&p, "[]", NULL);
    assert_takes(&p, "DF_FLUSH", 0x0a, 1500, 0);

    /* As long as can be said: it ends, and not before it began */
    set_costs(&p, "[{'command': 'DF_FLUSH', 'doorbell-ns': 4294967295,"
                  "  'command-ns': 4294967295, 'kib-ns': 4294967295}]", NULL);
    assert_takes(&p, "DF_FLUSH", 0x0a, 2LL * UINT32_MAX, 0);
    psp_close(&p);
}

/* Keys and plaintext do not leave the machine, with or without guests */
static void test_stays(void)
{
    const char *why = "amd-psp: keys and encrypted memory";
    g_autofree char *said = NULL;
    QDict *answer;
    Psp p;

    psp_open(&p, "");
    answer = qtest_qmp(p.qts, "{'execute': 'migrate', 'arguments': {"
                       "'uri': 'exec:cat >/dev/null'}}");
    g_assert(qdict_haskey(answer, "error"));
    g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(answer, "error"),
                                          "desc"), why));
    qobject_unref(answer);
    psp_init(&p);
    launch(&p, 0, 1);
    said = qtest_hmp(p.qts, "savevm snapshot");
    g_assert_nonnull(strstr(said, why));
    psp_close(&p);
}

static void test_trace(void)
{
    g_autofree char *path = NULL, *options = NULL, *text = NULL;
    uint32_t h;
    int fd;
    Psp p;

    fd = g_file_open_tmp("amd-psp-test-XXXXXX", &path, NULL);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    options = g_strdup_printf(" -D %s -d trace:amd_psp_request,"
                              "trace:amd_psp_reply,trace:amd_psp_fault", path);
    psp_open(&p, options);
    psp_init(&p);
    h = launch_start(&p, 0x20);
    psp_inject(&p, "[{'kind': 'status', 'status': 1, 'command': 'DF_FLUSH'}]");
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 1);
    g_assert_cmphex(activate(&p, h, 3), ==, 0);
    psp_close(&p);

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    unlink(path);
    if (!*text) {
        g_test_skip("QEMU was built without the trace backend 'log'");
        return;
    }
    g_assert_nonnull(strstr(text, "LAUNCH_START: handle 0x0, policy 0x20, "
                            "cert 0x0, "));
    g_assert_nonnull(strstr(text, "LAUNCH_START: handle 0x1, policy 0x20, "));
    g_assert_nonnull(strstr(text, "ACTIVATE: handle 0x1, asid 0x3"));
    g_assert_nonnull(strstr(text, "DF_FLUSH (0xa): status"));
}

/* States of a guest in which a command is possible, as GUEST_STATUS has them */
static const struct {
    unsigned cmd;
    const char *states;
    unsigned handle_at;
} guest_commands[] = {
    { 0x20, "123456" },     /* DECOMMISSION */
    { 0x21, "12345" },      /* ACTIVATE */
    { 0x22, "123456" },     /* DEACTIVATE */
    { 0x24, "123456" },     /* COPY */
    { 0x25, "12345", 4 },   /* ACTIVATE_EX */
    { 0x31, "1" },          /* LAUNCH_UPDATE_DATA */
    { 0x32, "1" },          /* LAUNCH_UPDATE_VMSA */
    { 0x33, "1" },          /* LAUNCH_MEASURE */
    { 0x34, "2" },          /* LAUNCH_UPDATE_SECRET */
    { 0x35, "2" },          /* LAUNCH_FINISH */
    { 0x36, "2346" },       /* ATTESTATION */
    { 0x40, "3" },          /* SEND_START */
    { 0x41, "4" },          /* SEND_UPDATE_DATA */
    { 0x42, "4" },          /* SEND_UPDATE_VMSA */
    { 0x43, "4" },          /* SEND_FINISH */
    { 0x44, "4" },          /* SEND_CANCEL */
    { 0x51, "5" },          /* RECEIVE_UPDATE_DATA */
    { 0x52, "5" },          /* RECEIVE_UPDATE_VMSA */
    { 0x53, "5" },          /* RECEIVE_FINISH */
    { 0x60, "123456" },     /* DBG_DECRYPT */
    { 0x61, "123456" },     /* DBG_ENCRYPT */
};

/* States of the platform: 0 UNINIT, 1 INIT, 2 WORKING */
static const struct {
    unsigned cmd;
    const char *states;
} platform_commands[] = {
    { 0x01, "0" },          /* INIT */
    { 0x02, "012" },        /* SHUTDOWN */
    { 0x03, "0" },          /* PLATFORM_RESET */
    { 0x04, "012" },        /* PLATFORM_STATUS */
    { 0x05, "1" },          /* PEK_GEN */
    { 0x06, "12" },         /* PEK_CSR */
    { 0x07, "1" },          /* PEK_CERT_IMPORT */
    { 0x08, "12" },         /* PDH_CERT_EXPORT */
    { 0x09, "12" },         /* PDH_GEN */
    { 0x0a, "12" },         /* DF_FLUSH */
    { 0x0b, "0" },          /* DOWNLOAD_FIRMWARE */
    { 0x0c, "012" },        /* GET_ID */
    { 0x0d, "0" },          /* INIT_EX */
    { 0x0f, "12" },         /* RING_BUFFER */
    { 0x23, "12" },         /* GUEST_STATUS */
    { 0x30, "12" },         /* LAUNCH_START */
    { 0x50, "12" },         /* RECEIVE_START */
};

/* A guest in a state; PDH, CHAIN and SESSION are this platform's, for itself */
static uint32_t guest_in(Psp *p, unsigned state)
{
    uint32_t h;

    switch (state) {
    case 1:
    case 2:
        h = launch_start(p, 0);
        g_assert_cmphex(activate(p, h, 1), ==, 0);
        g_assert_cmphex(launch_update(p, h, PAGE_A, 4096), ==, 0);
        if (state == 2) {
            g_assert_cmphex(launch_measure(p, h), ==, 0);
        }
        break;
    case 5:
        g_assert_cmphex(receive_start(p, 0, &h), ==, 0);
        g_assert_cmphex(activate(p, h, 1), ==, 0);
        break;
    default:
        h = launch(p, 0, 1);
        if (state != 3) {
            g_assert_cmphex(send_start(p, h), ==, 0);
        }
        if (state == 6) {
            g_assert_cmphex(guest_cmd(p, 0x43, h), ==, 0);
        }
        break;
    }
    g_assert_cmpuint(guest_state(p, h), ==, state);
    return h;
}

/* Whatever became of it */
static void guest_gone(Psp *p, uint32_t h)
{
    guest_cmd(p, 0x22, h);
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
    guest_cmd(p, 0x20, h);
    g_assert_cmpuint(guest_state(p, h), ==, 0);
}

/* The buffer of guest_commands[@i], with lengths that are looked at first */
static void put_guest_command(Psp *p, size_t i, uint32_t handle)
{
    clear(p);
    put32(p, guest_commands[i].handle_at, handle);
    switch (guest_commands[i].cmd) {
    case 0x32:
        put32(p, 16, 4096);
        break;
    case 0x40:
        put32(p, 64, 128);
        break;
    case 0x41:
    case 0x42:
        put32(p, 16, 52);
        break;
    }
}

/*
 * What is written back: nothing after a failure but a length that was asked
 * for, and nothing else of the buffer then
 */
static void test_replies(void)
{
    static const uint64_t mark = 0x1122334455667788;
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    h = launch(&p, 0, 1);

    /* SEND_START: session length before state and policy, and only that */
    clear(&p);
    put32(&p, 0, h);
    put32(&p, 64, 127);
    g_assert_cmphex(psp_cmd(&p, 0x40), ==, 0x04);
    g_assert_cmphex(get32(&p, 64), ==, 128);
    g_assert_cmphex(get32(&p, 4), ==, 0);
    put_send_start(&p, h);
    put32(&p, 4, 0x5555);
    put64(&p, 8, NOT_RAM);
    g_assert_cmphex(psp_cmd(&p, 0x40), ==, 0x09);
    g_assert_cmphex(get32(&p, 4), ==, 0x5555);
    put_send_start(&p, h);
    put32(&p, 64, 129);
    g_assert_cmphex(psp_cmd(&p, 0x40), ==, 0x04);

    /* SEND_UPDATE_DATA: the header's length before all else */
    clear(&p);
    put32(&p, 0, 0xabcdef);
    put32(&p, 16, 51);
    put64(&p, 24, mark);
    g_assert_cmphex(psp_cmd(&p, 0x41), ==, 0x04);
    g_assert_cmphex(get32(&p, 16), ==, 52);
    g_assert_cmphex(qtest_readq(p.qts, BUF + 24), ==, mark);
    g_assert_cmphex(psp_cmd(&p, 0x41), ==, 0x10);
    put32(&p, 16, 60);
    put32(&p, 0, h);
    g_assert_cmphex(psp_cmd(&p, 0x41), ==, 0x02);
    g_assert_cmphex(get32(&p, 16), ==, 60);
    g_assert_cmphex(send_start(&p, h), ==, 0);
    update_data(&p, 0x41, h, PAGE_A, 4096);
    put32(&p, 16, 60);
    g_assert_cmphex(psp_cmd(&p, 0x41), ==, 0);
    g_assert_cmphex(get32(&p, 16), ==, 52);

    /* The room for certificates is not RAM: no lengths */
    clear(&p);
    put64(&p, 0, NOT_RAM);
    put32(&p, 8, CERT_LEN + 1);
    put64(&p, 16, CHAIN);
    put32(&p, 24, CHAIN_LEN);
    g_assert_cmphex(psp_cmd(&p, 0x08), ==, 0x09);
    g_assert_cmphex(get32(&p, 8), ==, CERT_LEN + 1);
    put64(&p, 0, PDH);
    g_assert_cmphex(psp_cmd(&p, 0x08), ==, 0);
    g_assert_cmphex(get32(&p, 8), ==, CERT_LEN);
    psp_close(&p);
}

static void test_guest_states(void)
{
    unsigned state, st;
    uint32_t h;
    size_t i;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    guest_gone(&p, guest_in(&p, 4));        /* and there is a session */
    launch_start(&p, 0);                    /* the platform stays WORKING */
    for (i = 0; i < ARRAY_SIZE(guest_commands); i++) {
        for (state = 1; state <= 6; state++) {
            h = guest_in(&p, state);
            put_guest_command(&p, i, h);
            st = psp_cmd(&p, guest_commands[i].cmd);
            g_test_message("command 0x%x in guest state %u: 0x%x",
                           guest_commands[i].cmd, state, st);
            if (strchr(guest_commands[i].states, '0' + state)) {
                g_assert_cmphex(st, !=, 0x02);
                g_assert_cmphex(st, !=, 0x10);
                g_assert_cmphex(st, !=, 0x11);
            } else {
                g_assert_cmphex(st, ==, 0x02);
                g_assert_cmpuint(guest_state(&p, h), ==, state);
            }
            guest_gone(&p, h);
        }
        /* A guest that is not there */
        put_guest_command(&p, i, 0xabcdef);
        g_assert_cmphex(psp_cmd(&p, guest_commands[i].cmd), ==, 0x10);
        put_guest_command(&p, i, 0);
        g_assert_cmphex(psp_cmd(&p, guest_commands[i].cmd), ==, 0x10);
    }
    psp_close(&p);
}

static void test_platform_states(void)
{
    unsigned state, st;
    size_t i;
    Psp p;

    psp_open(&p, "");
    for (i = 0; i < ARRAY_SIZE(platform_commands); i++) {
        for (state = 0; state <= 2; state++) {
            g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
            if (state) {
                psp_init(&p);
            }
            if (state == 2) {
                launch_start(&p, 0);
            }
            clear(&p);
            st = psp_cmd(&p, platform_commands[i].cmd);
            g_test_message("command 0x%x in platform state %u: 0x%x",
                           platform_commands[i].cmd, state, st);
            if (strchr(platform_commands[i].states, '0' + state)) {
                g_assert_cmphex(st, !=, 0x01);
                g_assert_cmphex(st, !=, 0x11);
            } else {
                g_assert_cmphex(st, ==, 0x01);
                clear(&p);
                g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);
                g_assert_cmpuint(qtest_readb(p.qts, BUF + 2), ==, state);
            }
        }
    }
    /* A guest command needs a guest, so it needs the state WORKING */
    for (state = 0; state <= 1; state++) {
        g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
        if (state) {
            psp_init(&p);
        }
        for (i = 0; i < ARRAY_SIZE(guest_commands); i++) {
            put_guest_command(&p, i, 1);
            g_assert_cmphex(psp_cmd(&p, guest_commands[i].cmd), ==, 0x01);
        }
    }
    psp_close(&p);
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
    /* The same key; what is signed is before 0x414 */
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

static unsigned copy(Psp *p, uint32_t handle, uint64_t from, uint64_t to,
                     uint32_t len)
{
    clear(p);
    put32(p, 0, handle);
    put32(p, 4, len);
    put64(p, 8, from);
    put64(p, 16, to);
    return psp_cmd(p, 0x24);
}

static void test_copy(void)
{
    uint8_t page[4096], got[4096];
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    h = launch(&p, 1, 1);                               /* NODBG */
    g_assert_cmphex(copy(&p, h, PAGE_A, PAGE_B, 0), ==, 0x04);
    g_assert_cmphex(copy(&p, h, PAGE_A, PAGE_B, 17), ==, 0x04);
    g_assert_cmphex(copy(&p, h, PAGE_A, PAGE_B, 0xfffffff0), ==, 0x04);
    g_assert_cmphex(copy(&p, h, PAGE_A + 8, PAGE_B, 16), ==, 0x09);
    g_assert_cmphex(copy(&p, h, PAGE_A, PAGE_B + 8, 16), ==, 0x09);
    g_assert_cmphex(copy(&p, h, NOT_RAM, PAGE_B, 16), ==, 0x09);
    g_assert_cmphex(copy(&p, h, PAGE_A, NOT_RAM, 16), ==, 0x09);
    g_assert_cmphex(copy(&p, h, PAGE_A, PAGE_B, 4096), ==, 0);
    /* Ciphertext, and not that of the other place */
    qtest_memread(p.qts, PAGE_A, page, sizeof(page));
    qtest_memread(p.qts, PAGE_B, got, sizeof(got));
    g_assert(memcmp(page, got, 16));
    g_assert_null(memmem(got, sizeof(got), "private", 7));
    guest_gone(&p, h);

    h = launch(&p, 0, 1);
    g_assert_cmphex(copy(&p, h, PAGE_A, PAGE_B | CBIT, 4096), ==, 0);
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_B, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, got, sizeof(got));
    fill(page);
    g_assert_cmpmem(got, sizeof(got), page, sizeof(page));
    g_assert_cmphex(guest_cmd(&p, 0x22, h), ==, 0);
    g_assert_cmphex(copy(&p, h, PAGE_A, PAGE_B, 4096), ==, 0x08);
    psp_close(&p);
}

static unsigned activate_ex(Psp *p, uint32_t len, uint32_t handle,
                            uint32_t asid, uint32_t n, uint64_t ids)
{
    clear(p);
    put32(p, 0, len);
    put32(p, 4, handle);
    put32(p, 8, asid);
    put32(p, 12, n);
    put64(p, 16, ids);
    return psp_cmd(p, 0x25);
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

/* Sharing a key: with whom, and whether policies allow it */
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
    /* Policies that differ, though either allows it */
    clear(&p);
    put32(&p, 0, open);
    put32(&p, 4, 1);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x07);
    /* The same of a guest that is received */
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

/* Guests that share a key can read each other's memory, and no more */
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
        /* It is a guest of its own */
        g_assert_cmpuint(guest_state(&p, h), ==, 1);
        g_assert_cmphex(activate(&p, h, 1), ==, 0x0c);
        g_assert_cmphex(activate(&p, h, others[i].asid), ==, 0);
        g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 4096), ==, 0);
        qtest_memread(p.qts, OUT, buf, sizeof(buf));
        g_assert_cmpint(!memcmp(buf, page, sizeof(buf)), ==,
                        others[i].shared);
    }
    /* It has the key for as long as it likes */
    g_assert_cmphex(guest_cmd(&p, 0x22, first), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x20, first), ==, 0);
    g_assert_cmphex(dbg(&p, 0x60, first + 1, PAGE_A, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT, buf, sizeof(buf));
    g_assert_cmpmem(buf, sizeof(buf), page, sizeof(page));
    psp_close(&p);
}

/* A guest's owner sends a secret to the guest that was measured */
static void test_secret(void)
{
    static const uint8_t seed[AMD_PSP_SEED_LEN] = "an owner", nonce[16], iv[16];
    const AmdPspTransportKeys keys = { "encrypts packets", "vouches for them" };
    uint8_t secret[32] = "what only the guest may know...", sealed[32];
    uint8_t cert[CERT_LEN], z[AMD_PSP_P384_LEN], measure[48], mac[32];
    uint8_t digest[32], page[4096];
    gsize digest_len = sizeof(digest);
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    AmdPspPacketHeader header;
    AmdPspSession session;
    AmdPspEcPoint pdh;
    AmdPspEcKey owner;
    uint32_t h;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    g_assert_cmphex(export_certs(&p), ==, 0);
    qtest_memread(p.qts, PDH, cert, sizeof(cert));
    g_assert(amd_psp_cert_key(cert, AMD_PSP_CERT_PDH, &pdh));
    amd_psp_ec_key(seed, "owner", 0, &owner);
    g_assert(amd_psp_ecdh(&owner, &pdh, z));
    amd_psp_session_wrap(z, nonce, iv, &keys, 0x20, &session);
    amd_psp_cert_make(&owner.q, AMD_PSP_CERT_PDH, 1, 55, cert);
    qtest_memwrite(p.qts, PDH, cert, sizeof(cert));
    qtest_memwrite(p.qts, SESSION, &session, sizeof(session));
    clear(&p);
    put32(&p, 4, 0x20);
    put64(&p, 8, PDH);
    put32(&p, 16, CERT_LEN);
    put64(&p, 24, SESSION);
    put32(&p, 32, sizeof(session));
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0);
    h = get32(&p, 0);
    fill(page);
    qtest_memwrite(p.qts, PAGE_A, page, sizeof(page));
    g_assert_cmphex(activate(&p, h, 1), ==, 0);
    g_assert_cmphex(launch_update(&p, h, PAGE_A, 4096), ==, 0);
    g_assert_cmphex(launch_measure(&p, h), ==, 0);

    /* The owner can tell that it is what was meant to be launched */
    qtest_memread(p.qts, OUT, measure, sizeof(measure));
    g_checksum_update(sum, page, sizeof(page));
    g_checksum_get_digest(sum, digest, &digest_len);
    amd_psp_measurement(keys.tik, 1, 55, 1, 0x20, digest, measure + 32, mac);
    g_assert_cmpmem(measure, 32, mac, 32);

    memcpy(sealed, secret, sizeof(sealed));
    amd_psp_packet_seal(&keys, AMD_PSP_PACKET_DATA, iv, sealed,
                        sizeof(sealed), &header);
    qtest_memwrite(p.qts, TRANS, sealed, sizeof(sealed));
    qtest_memwrite(p.qts, HEADER, &header, sizeof(header));
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 32), ==, 0x0b);

    /* For a guest with another measurement */
    memcpy(sealed, secret, sizeof(sealed));
    mac[0] ^= 1;
    amd_psp_secret_seal(&keys, mac, iv, sealed, sizeof(sealed), &header);
    qtest_memwrite(p.qts, HEADER, &header, sizeof(header));
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 32), ==, 0x0b);
    mac[0] ^= 1;

    memcpy(sealed, secret, sizeof(sealed));
    amd_psp_secret_seal(&keys, mac, iv, sealed, sizeof(sealed), &header);
    qtest_memwrite(p.qts, TRANS, sealed, sizeof(sealed));
    qtest_memwrite(p.qts, HEADER, &header, sizeof(header));
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 31), ==, 0x04);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A, 0xfffffff0), ==, 0x04);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A + 1, 32), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x34, h, NOT_RAM, 32), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A + 64, 32), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x35, h), ==, 0);
    g_assert_cmphex(update_data(&p, 0x34, h, PAGE_A + 64, 32), ==, 0x02);

    qtest_memread(p.qts, PAGE_A + 64, sealed, sizeof(sealed));
    g_assert(memcmp(sealed, secret, sizeof(sealed)));
    g_assert_cmphex(dbg(&p, 0x60, h, PAGE_A, OUT, 4096), ==, 0);
    qtest_memread(p.qts, OUT + 64, sealed, sizeof(sealed));
    g_assert_cmpmem(sealed, sizeof(sealed), secret, sizeof(secret));
    psp_close(&p);
}

static unsigned init_ex(Psp *p, uint32_t length, uint64_t nv, uint32_t nv_len)
{
    clear(p);
    put32(p, 0, length);
    put64(p, 24, nv);
    put32(p, 32, nv_len);
    return psp_cmd(p, 0x0d);
}

static void get_pdh(Psp *p, uint8_t pdh[CERT_LEN])
{
    g_assert_cmphex(export_certs(p), ==, 0);
    qtest_memread(p->qts, PDH, pdh, CERT_LEN);
}

/* The keys of a platform outlive it in the storage that the host keeps */
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

    /* Without it, the keys are those of the beginning */
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

    /* Somebody changed it: it is made anew, and the next try works */
    nv[8] ^= 1;
    qtest_memwrite(p.qts, NV, nv, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0x18);
    assert_query(&p, "uninit", false, false);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    nv[8] ^= 1;
    psp_close(&p);

    /* Another platform's is of no use */
    psp_open(&p, ",seed=bob");
    qtest_memwrite(p.qts, NV, nv, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0x18);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    psp_close(&p);
}

/* All that another platform needs to send a guest here */
typedef struct Identity {
    uint8_t pdh[CERT_LEN];
    uint8_t chain[CHAIN_LEN];
} Identity;

static void get_identity(Psp *p, Identity *id)
{
    g_assert_cmphex(export_certs(p), ==, 0);
    qtest_memread(p->qts, PDH, id->pdh, sizeof(id->pdh));
    qtest_memread(p->qts, CHAIN, id->chain, sizeof(id->chain));
}

/*
 * That of the platform at @p, which has an authority.  The CEK that it exports
 * has no signature; the signed one is in a file.
 */
static void get_signed_identity(Psp *p, Identity *id)
{
    uint8_t *exported = id->chain + 2 * CERT_LEN;
    g_autofree char *signed_cek = NULL;
    gsize len;

    get_identity(p, id);
    g_assert(g_file_get_contents(cek, &signed_cek, &len, NULL));
    g_assert_cmpuint(len, ==, CERT_LEN);
    /* Body, and two signatures by nobody; the file has one by the ASK */
    g_assert_cmpmem(exported, 0x414, signed_cek, 0x414);
    g_assert_cmphex(ldl_le_p(exported + 0x414), ==, 0x1000);
    g_assert_cmphex(ldl_le_p(signed_cek + 0x414), ==, 0x13);
    memcpy(exported, signed_cek, CERT_LEN);
}

static void put_identity(Psp *p, const Identity *id)
{
    qtest_memwrite(p->qts, PDH, id->pdh, sizeof(id->pdh));
    qtest_memwrite(p->qts, CHAIN, id->chain, sizeof(id->chain));
}

/* May a guest with @policy go to the platform at PDH, CHAIN and ASK_ARK? */
static unsigned may_go(Psp *p, uint32_t policy)
{
    uint32_t h = launch(p, policy, 1);
    unsigned st = send_start(p, h);

    g_assert_cmpuint(guest_state(p, h), ==, st ? 3 : 4);
    g_assert_cmphex(guest_cmd(p, 0x22, h), ==, 0);
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
    g_assert_cmphex(guest_cmd(p, 0x20, h), ==, 0);
    return st;
}

/* A wrong bit in any certificate: each link of the chain is looked at */
static void test_chain_links(void)
{
    static const struct {
        const char *what;
        uint64_t at;
    } bits[] = {
        { "PDH: version", PDH },
        { "PDH: API", PDH + 5 },
        { "PDH: usage", PDH + 8 },
        { "PDH: key", PDH + 0x14 },
        { "PDH: what is reserved", PDH + 0x400 },
        { "PDH: usage of the signer", PDH + 0x414 },
        { "PDH: algorithm of the signer", PDH + 0x418 },
        { "PDH: signature, r", PDH + 0x41c },
        { "PDH: signature, too large", PDH + 0x41c + 71 },
        { "PDH: signature, s", PDH + 0x41c + 72 },
        { "PEK: API", CHAIN + 5 },
        { "PEK: key", CHAIN + 0x14 },
        { "PEK: signature by the OCA", CHAIN + 0x41c },
        { "PEK: signature by the CEK", CHAIN + 0x61c + 8 },
        { "PEK: usage of the first signer", CHAIN + 0x414 },
        { "PEK: usage of the second signer", CHAIN + 0x61c },
        { "OCA: API", CHAIN + CERT_LEN + 5 },
        { "OCA: key", CHAIN + CERT_LEN + 0x14 },
        { "OCA: signature by itself", CHAIN + CERT_LEN + 0x41c },
        { "CEK: API", CHAIN + 2 * CERT_LEN + 5 },
        { "CEK: key", CHAIN + 2 * CERT_LEN + 0x14 },
        { "CEK: usage of the signer", CHAIN + 2 * CERT_LEN + 0x414 },
        { "CEK: signature by the ASK", CHAIN + 2 * CERT_LEN + 0x41c },
        { "ASK: version", ASK_ARK },
        { "ASK: ID", ASK_ARK + 4 },
        { "ASK: ID of the signer", ASK_ARK + 20 },
        { "ASK: usage", ASK_ARK + 36 },
        { "ASK: bits of the exponent", ASK_ARK + 57 },
        { "ASK: bits of the modulus", ASK_ARK + 61 },
        { "ASK: exponent", ASK_ARK + 64 },
        { "ASK: modulus", ASK_ARK + 64 + 512 },
        { "ASK: signature by the ARK", ASK_ARK + 64 + 1024 },
        { "ARK: version", ASK_ARK + 1600 },
        { "ARK: ID", ASK_ARK + 1600 + 4 },
        { "ARK: modulus", ASK_ARK + 1600 + 64 + 512 },
        { "ARK: signature by itself", ASK_ARK + 1600 + 64 + 1024 },
    };
    Identity id;
    uint32_t h;
    size_t i;
    Psp p;

    psp_open(&p, ",always-check-certs=on");
    psp_init(&p);
    get_signed_identity(&p, &id);
    put_identity(&p, &id);
    h = launch(&p, 0, 1);
    for (i = 0; i < ARRAY_SIZE(bits); i++) {
        uint8_t old = qtest_readb(p.qts, bits[i].at);

        g_test_message("%s", bits[i].what);
        qtest_writeb(p.qts, bits[i].at, old ^ 1);
        g_assert_cmphex(send_start(&p, h), ==, 0x06);
        g_assert_cmpuint(guest_state(&p, h), ==, 3);
        qtest_writeb(p.qts, bits[i].at, old);
    }
    /* Where they are, and how many bytes */
    g_assert_cmphex(send_start(&p, h), ==, 0);
    g_assert_cmphex(guest_cmd(&p, 0x44, h), ==, 0);
    put_send_start(&p, h);
    put64(&p, 40, NOT_RAM);
    g_assert_cmphex(psp_cmd(&p, 0x40), ==, 0x09);
    put64(&p, 40, ASK_ARK);
    put32(&p, 48, ASK_ARK_LEN - 1);
    g_assert_cmphex(psp_cmd(&p, 0x40), ==, 0x04);
    put32(&p, 48, 0xffffffff);
    g_assert_cmphex(psp_cmd(&p, 0x40), ==, 0x04);
    psp_close(&p);
}

/* Platforms trust those whose root is theirs, whatever else they show */
static void test_chain_roots(void)
{
    g_autofree char *other = g_strdup_printf("%s/other", dir);
    g_autofree char *name = g_strdup_printf("%s.cert", other);
    Identity friend, stranger, forged;
    Psp p;

    psp_open(&p, ",seed=friend");
    psp_init(&p);
    get_signed_identity(&p, &friend);
    psp_close(&p);
    psp_open_ark(&p, other, ",seed=stranger");
    psp_init(&p);
    get_signed_identity(&p, &stranger);
    psp_close(&p);

    psp_open(&p, ",seed=me,always-check-certs=on");
    psp_init(&p);
    put_identity(&p, &friend);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0);
    put_identity(&p, &stranger);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    load_ask_ark(&p, other);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);
    put_identity(&p, &friend);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    load_ask_ark(&p, ark);
    g_assert_cmphex(may_go(&p, 0), ==, 0);

    /* A good chain, and a PDH that it does not vouch for */
    forged = friend;
    memcpy(forged.pdh, stranger.pdh, CERT_LEN);
    put_identity(&p, &forged);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    /* A good CEK, of somebody else */
    forged = stranger;
    memcpy(forged.chain + 2 * CERT_LEN, friend.chain + 2 * CERT_LEN, CERT_LEN);
    put_identity(&p, &forged);
    g_assert_cmphex(may_go(&p, 0), ==, 0x06);
    psp_close(&p);
    unlink(other);
    unlink(name);
}

/* Without a root it is the policy that asks for certificates */
static void test_chain_by_policy(void)
{
    Identity mine, broken;
    Psp p;

    psp_open_device(&p, "amd-psp,id=psp,addr=04.0");
    psp_init(&p);
    get_identity(&p, &mine);
    g_assert_cmphex(ldl_le_p(mine.chain + 2 * CERT_LEN + 0x414), ==, 0x1000);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0);       /* DOMAIN */
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);    /* SEV: by whom? */
    broken = mine;
    broken.chain[CERT_LEN + 0x41c] ^= 1;
    put_identity(&p, &broken);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0x06);
    psp_close(&p);

    /* With a root, too: no certificate but the PDH is even read */
    psp_open(&p, "");
    psp_init(&p);
    get_signed_identity(&p, &mine);
    broken = mine;
    memset(broken.chain, 0, sizeof(broken.chain));
    put_identity(&p, &broken);
    g_assert_cmphex(may_go(&p, 0), ==, 0);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0x06);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);
    put_identity(&p, &mine);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0);
    g_assert_cmphex(may_go(&p, 0x30), ==, 0);
    /* What PDH_CERT_EXPORT has is not enough for the policy SEV */
    get_identity(&p, &mine);
    put_identity(&p, &mine);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0x06);
    psp_close(&p);
}

/* Where the signed CEK goes, and when it cannot */
static void test_cek(void)
{
    g_autofree char *args = g_strdup_printf(
        "-nodefaults -machine q35 -bios %s -cpu EPYC-Milan,+svm,+sev -S",
        firmware);
    static const struct {
        const char *device, *error;
    } cases[] = {
        { "amd-psp,cek=/nowhere", "set 'ark', too" },
        { "amd-psp,ark=%s,cek=/nowhere/at/all", "cannot write the signed CEK" },
    };
    size_t i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *device = g_strdup_printf(cases[i].device, ark);
        g_autofree char *line = g_strdup_printf("%s %s -device %s",
                                                getenv("QTEST_QEMU_BINARY"),
                                                args, device);
        g_autofree char *err = NULL;
        int status;

        g_assert(g_spawn_command_line_sync(line, NULL, &err, &status, NULL));
        g_assert_cmpint(status, !=, 0);
        g_assert_nonnull(strstr(err, cases[i].error));
    }
}

/* A platform that this test is: its keys, and certificates with any API */
static void make_identity(Identity *id, const AmdPspAuthority *a,
                          unsigned major, unsigned minor)
{
    static const uint8_t seed[AMD_PSP_SEED_LEN] = "made by the test";
    uint8_t *pek = id->chain, *oca = pek + CERT_LEN, *cek = oca + CERT_LEN;
    AmdPspEcKey pdh_key, pek_key, oca_key, cek_key;

    amd_psp_ec_key(seed, "pdh", 0, &pdh_key);
    amd_psp_ec_key(seed, "pek", 0, &pek_key);
    amd_psp_ec_key(seed, "oca", 0, &oca_key);
    amd_psp_ec_key(seed, "cek", 0, &cek_key);
    amd_psp_cert_make(&pdh_key.q, AMD_PSP_CERT_PDH, major, minor, id->pdh);
    amd_psp_cert_make(&pek_key.q, AMD_PSP_CERT_PEK, major, minor, pek);
    amd_psp_cert_make(&oca_key.q, AMD_PSP_CERT_OCA, major, minor, oca);
    amd_psp_cert_make(&cek_key.q, AMD_PSP_CERT_CEK, major, minor, cek);
    g_assert(amd_psp_cert_sign(id->pdh, AMD_PSP_CERT_PEK, &pek_key));
    /* The other way round than the device has them */
    g_assert(amd_psp_cert_sign(pek, AMD_PSP_CERT_CEK, &cek_key));
    g_assert(amd_psp_cert_sign(pek, AMD_PSP_CERT_OCA, &oca_key));
    g_assert(amd_psp_cert_sign(oca, AMD_PSP_CERT_OCA, &oca_key));
    g_assert(amd_psp_authority_sign(a, cek));
}

/* Nor does a guest with SEV go where the firmware is too old for its policy */
static void test_policy_api(void)
{
    AmdPspAuthority *a = amd_psp_authority_open(ark, &error_abort);
    Identity id;
    Psp p;

    psp_open(&p, "");
    psp_init(&p);
    make_identity(&id, a, 1, 50);
    put_identity(&p, &id);
    g_assert_cmphex(may_go(&p, 0x20), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16), ==, 0);
    /* Without SEV, nobody looks */
    g_assert_cmphex(may_go(&p, 1 << 16 | 51 << 24), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16 | 50 << 24), ==, 0);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16 | 51 << 24), ==, 0x07);
    g_assert_cmphex(may_go(&p, 0x20 | 99u << 24), ==, 0);  /* 0.99 */
    make_identity(&id, a, 0, 99);
    put_identity(&p, &id);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16), ==, 0x07);
    g_assert_cmphex(may_go(&p, 0x20 | 99u << 24), ==, 0);
    make_identity(&id, a, 2, 0);
    put_identity(&p, &id);
    g_assert_cmphex(may_go(&p, 0x20 | 1 << 16 | 55 << 24), ==, 0);
    psp_close(&p);
    amd_psp_authority_free(a);
}

static unsigned pek_cert_import(Psp *p, const uint8_t *pek, const uint8_t *oca)
{
    qtest_memwrite(p->qts, PAGE_A, pek, CERT_LEN);
    qtest_memwrite(p->qts, PAGE_B, oca, CERT_LEN);
    clear(p);
    put64(p, 0, PAGE_A);
    put32(p, 8, CERT_LEN);
    put64(p, 16, PAGE_B);
    put32(p, 24, CERT_LEN);
    return psp_cmd(p, 0x07);
}

/* The word of PLATFORM_STATUS that has the owner in bit 0 and CONFIG.ES in 8 */
static uint32_t platform_flags(Psp *p)
{
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x04), ==, 0);
    return get32(p, 3);
}

static bool is_owned(Psp *p)
{
    return platform_flags(p) & 1;
}

/* An owner takes the platform: the PEK, signed by the owner's key */
static void own(Psp *p, const char *owner, uint8_t pek[CERT_LEN],
                uint8_t oca[CERT_LEN])
{
    uint8_t seed[AMD_PSP_SEED_LEN] = { 0 };
    AmdPspEcKey key;

    g_strlcpy((char *)seed, owner, sizeof(seed));
    amd_psp_ec_key(seed, "oca", 0, &key);
    amd_psp_cert_make(&key.q, AMD_PSP_CERT_OCA, 0, 0, oca);
    g_assert(amd_psp_cert_sign(oca, AMD_PSP_CERT_OCA, &key));
    clear(p);
    put64(p, 0, OUT);
    put32(p, 8, CERT_LEN);
    g_assert_cmphex(psp_cmd(p, 0x06), ==, 0);
    qtest_memread(p->qts, OUT, pek, CERT_LEN);
    g_assert(amd_psp_cert_sign(pek, AMD_PSP_CERT_OCA, &key));
}

static void test_pek_cert_import(void)
{
    uint8_t pek[CERT_LEN], oca[CERT_LEN], bad[CERT_LEN], other[CERT_LEN];
    g_autofree uint8_t *nv = g_malloc(NV_LEN);
    Identity before, after, got;
    AmdPspEcKey key;
    uint32_t h;
    Psp p;

    psp_open(&p, ",seed=alice");
    qtest_memset(p.qts, NV, 0, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    get_identity(&p, &before);
    g_assert(!is_owned(&p));
    own(&p, "owner", pek, oca);

    /* Lengths and addresses */
    g_assert_cmphex(pek_cert_import(&p, before.chain, oca), ==, 0x06);
    put32(&p, 8, CERT_LEN - 1);
    g_assert_cmphex(psp_cmd(&p, 0x07), ==, 0x04);
    put32(&p, 8, CERT_LEN);
    put32(&p, 24, 0xffffffff);
    g_assert_cmphex(psp_cmd(&p, 0x07), ==, 0x04);
    put32(&p, 24, CERT_LEN);
    put64(&p, 16, NOT_RAM);
    g_assert_cmphex(psp_cmd(&p, 0x07), ==, 0x09);

    /* An OCA that has not signed itself, or not this PEK */
    memcpy(bad, oca, CERT_LEN);
    bad[0x41c] ^= 1;
    g_assert_cmphex(pek_cert_import(&p, pek, bad), ==, 0x06);
    memcpy(bad, pek, CERT_LEN);
    bad[0x41c] ^= 1;
    g_assert_cmphex(pek_cert_import(&p, bad, oca), ==, 0x06);
    own(&p, "somebody else", bad, other);
    g_assert_cmphex(pek_cert_import(&p, bad, oca), ==, 0x06);
    /* A PEK that is not this one, but signed well */
    amd_psp_ec_key((const uint8_t[AMD_PSP_SEED_LEN]) { "owner" }, "oca", 0,
                   &key);
    memcpy(bad, before.chain, CERT_LEN);
    amd_psp_cert_make(&key.q, AMD_PSP_CERT_PEK, 1, 55, bad);
    g_assert(amd_psp_cert_sign(bad, AMD_PSP_CERT_OCA, &key));
    g_assert_cmphex(pek_cert_import(&p, bad, oca), ==, 0x06);
    /* No room for the signature by the CEK */
    memcpy(bad, pek, CERT_LEN);
    g_assert(amd_psp_cert_sign(bad, AMD_PSP_CERT_OCA, &key));
    g_assert_cmphex(pek_cert_import(&p, bad, oca), ==, 0x06);
    g_assert(!is_owned(&p));
    get_identity(&p, &got);
    g_assert_cmpmem(&got, sizeof(got), &before, sizeof(before));

    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0);
    g_assert(is_owned(&p));
    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0x05);
    get_identity(&p, &after);
    g_assert_cmpmem(after.chain, 0x414, before.chain, 0x414);
    g_assert_cmpmem(after.chain + CERT_LEN, CERT_LEN, oca, CERT_LEN);
    g_assert_cmpmem(after.chain + 2 * CERT_LEN, CERT_LEN,
                    before.chain + 2 * CERT_LEN, CERT_LEN);
    g_assert(memcmp(after.pdh, before.pdh, 0x414));
    g_assert(amd_psp_cert_verify(after.chain, AMD_PSP_CERT_PEK,
                                 oca, AMD_PSP_CERT_OCA));
    g_assert(amd_psp_cert_verify(after.chain, AMD_PSP_CERT_PEK,
                                 after.chain + 2 * CERT_LEN,
                                 AMD_PSP_CERT_CEK));
    g_assert(amd_psp_cert_verify(after.pdh, AMD_PSP_CERT_PDH,
                                 after.chain, AMD_PSP_CERT_PEK));
    qtest_memread(p.qts, NV, nv, NV_LEN);
    psp_close(&p);

    /* The storage keeps it */
    psp_open(&p, ",seed=alice");
    qtest_memwrite(p.qts, NV, nv, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0);
    g_assert(is_owned(&p));
    get_identity(&p, &got);
    g_assert_cmpmem(&got, sizeof(got), &after, sizeof(after));
    /* And a new PEK ends it */
    g_assert_cmphex(psp_cmd(&p, 0x05), ==, 0);
    g_assert(!is_owned(&p));
    psp_close(&p);

    /* Not a byte of it can be changed */
    psp_open(&p, ",seed=alice");
    nv[64 + 0x41c] ^= 1;
    qtest_memwrite(p.qts, NV, nv, NV_LEN);
    g_assert_cmphex(init_ex(&p, 36, NV, NV_LEN), ==, 0x18);
    psp_close(&p);

    /* DOMAIN: what the same owner has is one domain */
    psp_open(&p, ",seed=bob");
    psp_init(&p);
    put_identity(&p, &after);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0x07);
    own(&p, "owner", pek, oca);
    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0);
    put_identity(&p, &after);
    g_assert_cmphex(may_go(&p, 0x10), ==, 0);
    /* SHUTDOWN does not end it, PLATFORM_RESET does */
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    psp_init(&p);
    g_assert(is_owned(&p));
    h = launch_start(&p, 0);
    g_assert_cmphex(pek_cert_import(&p, pek, oca), ==, 0x01);
    g_assert_cmphex(guest_cmd(&p, 0x20, h), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x02), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x03), ==, 0);
    psp_init(&p);
    g_assert(!is_owned(&p));
    psp_close(&p);
}

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

    /* The host asks for it, the CPUs have none */
    psp_open(&p, "");
    g_assert_cmphex(init_es(&p, TMR, 1 << 20), ==, 0);
    g_assert(!has_es(&p));
    clear(&p);
    put32(&p, 4, 1 << 2);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x15);
    psp_close(&p);

    /* The CPUs have it, the host does not ask for it */
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

    /* And so with INIT_EX */
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

/* Guests with and without SEV-ES have ASIDs of their own */
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

/* As the source of the firmware for "Genoa" computes it */
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

/* A platform with SEV-ES, initialized, that has exported its certificates */
static void open_es_platform(Psp *p)
{
    psp_open_es(p);
    g_assert_cmphex(init_es(p, TMR, 1 << 20), ==, 0);
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
    g_assert_cmphex(export_certs(p), ==, 0);
}

/* A running guest with the page at PAGE_A and the vCPU at VMSA_A, ASID 1 */
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

/* The VMSA at @pa has the text, and its checksum is where it says */
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

/* LAUNCH_UPDATE_VMSA: its statuses, and what it measures */
static void test_es_launch_vmsa(void)
{
    uint8_t page[4096], vmsa[4096], got[4096], report[208], digest[32];
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    gsize digest_len = sizeof(digest);
    uint32_t a, plain;
    Psp p;

    psp_open_es(&p);
    /* The length comes first, even before INIT */
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

    /* What the host wrote is measured, and nothing that was refused */
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
    /* Only what was launched as a VMSA of this guest */
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4080), ==, 0x16);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A + 16, 4096), ==, 0x16);
    g_assert_cmphex(update_data(&p, 0x42, a, PAGE_A, 4096), ==, 0x16);
    g_assert_cmphex(update_data(&p, 0x42, a, NOT_RAM, 4096), ==, 0x09);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0);
    qtest_memread(p.qts, TRANS, got, sizeof(got));
    g_assert_null(memmem(got, sizeof(got), "registers", 9));

    /* A VMSA is sealed as data are: nobody notices the other command */
    g_assert_cmphex(update_data(&p, 0x51, b, PAGE_B, 4096), ==, 0);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B, 4080), ==, 0x0b);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B + 8, 4096), ==, 0x09);
    qtest_writeb(p.qts, TRANS + 9, got[9] ^ 1);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B, 4096), ==, 0x0b);
    qtest_writeb(p.qts, TRANS + 9, got[9]);
    g_assert_cmphex(update_data(&p, 0x52, b, VMSA_B, 4096), ==, 0);
    /* The receiver assigns another place for the checksum */
    assert_vmsa(&p, b, VMSA_B);
    read_plaintext(&p, b, VMSA_B, got);
    g_assert_cmphex(ldq_le_p(got + VMSA_CHECKSUM), !=, TMR + (512 << 10));

    /* Guests without SEV-ES send none */
    plain = launch(&p, 0, 4);
    g_assert_cmphex(send_start(&p, plain), ==, 0);
    g_assert_cmphex(update_data(&p, 0x42, plain, PAGE_A, 4096), ==, 0x15);
    g_assert_cmphex(update_data(&p, 0x41, plain, PAGE_A, 4096), ==, 0);
    psp_close(&p);
}

/* Flip a bit of a private page in the way that a debugger can */
static void flip_private(Psp *p, uint32_t handle, uint64_t pa)
{
    uint64_t block = pa & ~15ull;

    g_assert_cmphex(dbg(p, 0x60, handle, block, OUT, 16), ==, 0);
    qtest_writeb(p->qts, OUT + pa % 16, qtest_readb(p->qts, OUT + pa % 16) ^ 1);
    g_assert_cmphex(dbg(p, 0x61, handle, OUT, block, 16), ==, 0);
}

/* SEND_UPDATE_VMSA refuses a VMSA that something other than its vCPU changed */
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
    /* The host has no way to write the checksum itself on hardware */
    read_plaintext(&p, a, VMSA_A, vmsa);
    at = ldq_le_p(vmsa + VMSA_CHECKSUM);
    qtest_writeq(p.qts, at, qtest_readq(p.qts, at) ^ 1);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0x16);
    qtest_writeq(p.qts, at, qtest_readq(p.qts, at) ^ 1);
    g_assert_cmphex(update_data(&p, 0x42, a, VMSA_A, 4096), ==, 0);
    psp_close(&p);
}

/*
 * A header that says that the data are compressed is refused before the data
 * are read; other flags are just covered by the MAC.
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

int main(int argc, char **argv)
{
    g_autofree char *certs = NULL;
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    if (!qtest_has_device("amd-psp")) {
        g_test_skip("QEMU has no amd-psp device: built without hogweed?");
        return 0;
    }
    qtest_add_func("/amd-psp/registers", test_registers);
    qtest_add_func("/amd-psp/interrupt", test_interrupt);
    qtest_add_func("/amd-psp/platform", test_platform);
    qtest_add_func("/amd-psp/bad-commands", test_bad_commands);
    qtest_add_func("/amd-psp/get-id", test_get_id);
    qtest_add_func("/amd-psp/certs", test_certs);
    qtest_add_func("/amd-psp/launch", test_launch);
    qtest_add_func("/amd-psp/slices", test_slices);
    qtest_add_func("/amd-psp/teardown", test_teardown);
    qtest_add_func("/amd-psp/policy", test_policy);
    qtest_add_func("/amd-psp/policy/domain", test_policy_domain);
    qtest_add_func("/amd-psp/dbg-encrypt", test_dbg_encrypt);
    qtest_add_func("/amd-psp/migrate", test_migrate);
    qtest_add_func("/amd-psp/cancel", test_cancel);
    qtest_add_func("/amd-psp/wrong-session", test_wrong_session);
    qtest_add_func("/amd-psp/reset", test_reset);
    qtest_add_func("/amd-psp/too-many", test_too_many);
    qtest_add_func("/amd-psp/states/platform", test_platform_states);
    qtest_add_func("/amd-psp/states/guest", test_guest_states);
    qtest_add_func("/amd-psp/replies", test_replies);
    qtest_add_func("/amd-psp/pek-csr", test_pek_csr);
    qtest_add_func("/amd-psp/download-firmware", test_download_firmware);
    qtest_add_func("/amd-psp/copy", test_copy);
    qtest_add_func("/amd-psp/activate-ex", test_activate_ex);
    qtest_add_func("/amd-psp/policy/noks", test_policy_noks);
    qtest_add_func("/amd-psp/key-sharing", test_key_sharing);
    qtest_add_func("/amd-psp/secret", test_secret);
    qtest_add_func("/amd-psp/init-ex", test_init_ex);
    qtest_add_func("/amd-psp/asids", test_asids);
    qtest_add_func("/amd-psp/flushes", test_flushes);
    qtest_add_func("/amd-psp/attestation", test_attestation);
    qtest_add_func("/amd-psp/chain/links", test_chain_links);
    qtest_add_func("/amd-psp/chain/roots", test_chain_roots);
    qtest_add_func("/amd-psp/chain/by-policy", test_chain_by_policy);
    qtest_add_func("/amd-psp/cek", test_cek);
    qtest_add_func("/amd-psp/policy/api", test_policy_api);
    qtest_add_func("/amd-psp/pek-cert-import", test_pek_cert_import);
    qtest_add_func("/amd-psp/es/init", test_es_init);
    qtest_add_func("/amd-psp/es/asids", test_es_asids);
    qtest_add_func("/amd-psp/es/launch-vmsa", test_es_launch_vmsa);
    qtest_add_func("/amd-psp/es/vmsa", test_es_vmsa);
    qtest_add_func("/amd-psp/es/vmsa-checksum", test_es_vmsa_checksum);
    qtest_add_func("/amd-psp/es/compressed", test_es_compressed);
    qtest_add_func("/amd-psp/fault/status", test_fault_status);
    qtest_add_func("/amd-psp/fault/hang", test_fault_hang);
    qtest_add_func("/amd-psp/fault/late", test_fault_late);
    qtest_add_func("/amd-psp/fault/corrupt", test_fault_corrupt);
    qtest_add_func("/amd-psp/fault/no-interrupt", test_fault_no_interrupt);
    qtest_add_func("/amd-psp/fault/property", test_fault_property);
    qtest_add_func("/amd-psp/stats", test_stats);
    qtest_add_func("/amd-psp/cost", test_cost);
    qtest_add_func("/amd-psp/costs", test_costs);
    qtest_add_func("/amd-psp/stays", test_stays);
    qtest_add_func("/amd-psp/trace", test_trace);

    fd = g_file_open_tmp("amd-psp-test-XXXXXX", &firmware, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, 64 * 1024), ==, 0);
    close(fd);
    dir = g_dir_make_tmp("amd-psp-test-XXXXXX", NULL);
    g_assert_nonnull(dir);
    ark = g_strdup_printf("%s/ark", dir);
    cek = g_strdup_printf("%s/cek", dir);
    certs = g_strdup_printf("%s.cert", ark);
    ret = g_test_run();
    unlink(firmware);
    unlink(ark);
    unlink(certs);
    unlink(cek);
    rmdir(dir);
    g_free(cek);
    g_free(ark);
    g_free(dir);
    g_free(firmware);
    return ret;
}
