/*
 * The commands of the emulated AMD PSP, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This file has its own definitions of the offsets in command buffers.  They
 * are an interface to drivers, and a test that used the device's definitions
 * would not notice a change.
 */

#ifndef TESTS_QTEST_AMD_PSP_CASES_H
#define TESTS_QTEST_AMD_PSP_CASES_H

#include "qemu/bswap.h"
#include "amd-psp-mailbox.h"

#define CBIT        (1ull << 47)

/* Addresses in the machine's memory */
#define BUF         0x100000    /* the command buffer */
#define PDH         0x110000
#define CHAIN       0x120000
#define SESSION     0x130000
#define HEADER      0x140000
#define TRANS       0x150000
#define OUT         0x160000
#define ASK_ARK     0x180000
#define PAGE_A      0x200000    /* page of the first guest */
#define PAGE_B      0x300000    /* page of the second guest */
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

/* The machine's firmware, a file of zeros that no vCPU executes */
extern char *firmware;

/*
 * @dir is a directory for files of the tests.  @ark is a file in this
 * directory, which tests use as the value of the device's property "ark".  The
 * file has the keys of an authority that certifies platforms, as AMD does for
 * its processors.
 */
extern char *dir, *ark;

/* The file to which a platform with an authority writes its signed CEK */
extern char *cek;

/*
 * Start a machine with the PSP.  @device is the argument of -device, and @cpu
 * is added to the name of the CPU.
 */
static inline void psp_open_cpu(Psp *p, const char *device, const char *cpu)
{
    memset(p, 0, sizeof(*p));
    p->qts = qtest_initf("-nodefaults -machine q35 -bios %s "
                         "-cpu EPYC-Milan,+svm,+sev%s "
                         "-device %s", firmware, cpu, device);
    psp_attach(p);
}

static inline void psp_open_device(Psp *p, const char *device)
{
    psp_open_cpu(p, device, "");
}

/*
 * Write the ASK and the ARK of an authority to guest memory at ASK_ARK, where
 * send_start() needs them.  @path is the file with the authority's keys; the
 * certificates are in the file @path.cert.
 */
static inline void load_ask_ark(Psp *p, const char *path)
{
    g_autofree char *name = g_strdup_printf("%s.cert", path);
    g_autofree char *certs = NULL;
    gsize len;

    g_assert(g_file_get_contents(name, &certs, &len, NULL));
    g_assert_cmpuint(len, ==, ASK_ARK_LEN);
    qtest_memwrite(p->qts, ASK_ARK, certs, len);
}

static inline void psp_open_ark(Psp *p, const char *path, const char *options)
{
    g_autofree char *device = g_strdup_printf("amd-psp,id=psp,addr=04.0,"
                                              "ark=%s,cek=%s%s", path, cek,
                                              options);

    psp_open_device(p, device);
    load_ask_ark(p, path);
}

static inline void psp_open(Psp *p, const char *options)
{
    psp_open_ark(p, ark, options);
}

static inline unsigned psp_cmd(Psp *p, unsigned cmd)
{
    return psp_cmd_at(p, cmd, BUF, false);
}

/* Clear the command buffer */
static inline void clear(Psp *p)
{
    qtest_memset(p->qts, BUF, 0, 128);
}

static inline void put32(Psp *p, unsigned offset, uint32_t value)
{
    qtest_writel(p->qts, BUF + offset, value);
}

static inline void put64(Psp *p, unsigned offset, uint64_t value)
{
    qtest_writeq(p->qts, BUF + offset, value);
}

static inline uint32_t get32(Psp *p, unsigned offset)
{
    return qtest_readl(p->qts, BUF + offset);
}

static inline void psp_init(Psp *p)
{
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x01), ==, 0);
    /* The firmware lets guests use ASIDs only after a DF_FLUSH */
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
}

static inline unsigned guest_cmd(Psp *p, unsigned cmd, uint32_t handle)
{
    clear(p);
    put32(p, 0, handle);
    return psp_cmd(p, cmd);
}

static inline unsigned activate(Psp *p, uint32_t handle, uint32_t asid)
{
    clear(p);
    put32(p, 0, handle);
    put32(p, 4, asid);
    return psp_cmd(p, 0x21);
}

/* Get the state of a guest, or 0 if there is no such guest */
static inline unsigned guest_state(Psp *p, uint32_t handle)
{
    g_assert_cmphex(guest_cmd(p, 0x23, handle), ==, 0);
    return qtest_readb(p->qts, BUF + 12);
}

static inline uint32_t launch_start(Psp *p, uint32_t policy)
{
    clear(p);
    put32(p, 4, policy);
    g_assert_cmphex(psp_cmd(p, 0x30), ==, 0);
    g_assert_cmpuint(get32(p, 0), !=, 0);
    return get32(p, 0);
}

/* LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA have the same argument */
static inline unsigned launch_pages(Psp *p, unsigned command, uint32_t handle,
                                    uint64_t pa, uint32_t n)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, pa);
    put32(p, 16, n);
    return psp_cmd(p, command);
}

static inline unsigned launch_update(Psp *p, uint32_t handle, uint64_t pa,
                                     uint32_t n)
{
    return launch_pages(p, 0x31, handle, pa, n);
}

static inline unsigned launch_vmsa(Psp *p, uint32_t handle, uint64_t pa,
                                   uint32_t n)
{
    return launch_pages(p, 0x32, handle, pa, n);
}

static inline unsigned launch_measure(Psp *p, uint32_t handle)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, OUT);
    put32(p, 16, 48);
    return psp_cmd(p, 0x33);
}

static inline unsigned dbg(Psp *p, unsigned cmd, uint32_t handle, uint64_t from,
                           uint64_t to, uint32_t len)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, from);
    put64(p, 16, to);
    put32(p, 24, len);
    return psp_cmd(p, cmd);
}

static inline unsigned export_certs(Psp *p)
{
    clear(p);
    put64(p, 0, PDH);
    put32(p, 8, CERT_LEN);
    put64(p, 16, CHAIN);
    put32(p, 24, CHAIN_LEN);
    return psp_cmd(p, 0x08);
}

/*
 * Write the command buffer of SEND_START.  The command sends the guest to the
 * platform whose certificates are at PDH, CHAIN and ASK_ARK.
 */
static inline void put_send_start(Psp *p, uint32_t handle)
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

static inline unsigned send_start(Psp *p, uint32_t handle)
{
    put_send_start(p, handle);
    return psp_cmd(p, 0x40);
}

static inline unsigned receive_start(Psp *p, uint32_t policy, uint32_t *handle)
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

/* Execute SEND_UPDATE (0x41 data, 0x42 VMSA) or RECEIVE_UPDATE (0x51, 0x52) */
static inline unsigned update_data(Psp *p, unsigned cmd, uint32_t handle,
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

/* Fill a guest's page with a text */
static inline void fill(uint8_t page[4096])
{
    int i;

    for (i = 0; i < 4096; i++) {
        page[i] = "private memory of a guest "[i % 26];
    }
}

/*
 * Launch a guest with the text of fill() at PAGE_A, and activate it with @asid.
 * Returns its handle; the guest is in the state RUNNING.
 */
static inline uint32_t launch(Psp *p, uint32_t policy, uint32_t asid)
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

static inline unsigned attestation(Psp *p, uint32_t handle, uint64_t pa,
                                   uint32_t len)
{
    clear(p);
    put32(p, 0, handle);
    put64(p, 8, pa);
    qtest_memwrite(p->qts, BUF + 16, "sixteen bytes...", 16);
    put32(p, 32, len);
    return psp_cmd(p, 0x36);
}

static inline void assert_query(Psp *p, const char *state, bool busy, bool hung)
{
    QDict *info = psp_query(p);

    g_assert_cmpstr(qdict_get_str(info, "qom-path"), ==,
                    "/machine/peripheral/psp");
    g_assert_cmpstr(qdict_get_str(info, "state"), ==, state);
    g_assert(qdict_get_bool(info, "busy") == busy);
    g_assert(qdict_get_bool(info, "hung") == hung);
    qobject_unref(info);
}

/* Execute a command, which must end after exactly @ns of virtual time */
static inline void assert_takes(Psp *p, const char *name, unsigned cmd,
                                int64_t ns, unsigned status)
{
    uint64_t before = psp_stat_of(p, name, "busy-ns");

    psp_give(p, cmd, BUF, false);
    /*
     * Wait until the device has executed the command and has thus set the
     * timer for the command's end.  The timer uses the virtual clock, which
     * only qtest_clock_step() moves.
     */
    while (psp_stat_of(p, name, "busy-ns") == before) {
        g_usleep(100);
    }
    qtest_clock_step(p->qts, ns - 1);
    g_assert_cmphex(psp_read(p, CMDRESP) & DONE, ==, 0);
    assert_query(p, "init", true, false);
    qtest_clock_step(p->qts, 1);
    g_assert_cmphex(psp_wait(p, cmd), ==, status);
}

/* Remove a guest in any state */
static inline void guest_gone(Psp *p, uint32_t h)
{
    guest_cmd(p, 0x22, h);
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x0a), ==, 0);
    guest_cmd(p, 0x20, h);
    g_assert_cmpuint(guest_state(p, h), ==, 0);
}

static inline unsigned activate_ex(Psp *p, uint32_t len, uint32_t handle,
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

static inline unsigned init_ex(Psp *p, uint32_t length, uint64_t nv,
                               uint32_t nv_len)
{
    clear(p);
    put32(p, 0, length);
    put64(p, 24, nv);
    put32(p, 32, nv_len);
    return psp_cmd(p, 0x0d);
}

/*
 * Get the flags of PLATFORM_STATUS.  Bit 0 is 1 if an external owner has signed
 * the platform's PEK.  Bit 8 is CONFIG.ES.
 */
static inline uint32_t platform_flags(Psp *p)
{
    clear(p);
    g_assert_cmphex(psp_cmd(p, 0x04), ==, 0);
    return get32(p, 3);
}

/* Register the test cases of each source file */
void add_device_tests(void);
void add_platform_tests(void);
void add_guest_tests(void);
void add_states_tests(void);
void add_transport_tests(void);
void add_certs_tests(void);
void add_debug_tests(void);
void add_es_tests(void);
void add_faults_tests(void);

#endif
