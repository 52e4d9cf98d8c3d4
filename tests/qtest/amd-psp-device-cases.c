/*
 * Tests of the emulated AMD PSP: registers, statistics and costs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "amd-psp-cases.h"

/* Registers that only test_registers() reads */
#define BOOTLOADER  0x109ec
#define FEATURE     0x109fc

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

    /*
     * A command that requests no interrupt sets no bit in the interrupt status
     * register and sends no MSI
     */
    psp_write(&p, INTEN, ~0u);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF, false), ==, 0);
    g_assert_cmphex(psp_read(&p, INTSTS), ==, 0);
    g_assert_cmphex(qtest_readl(p.qts, MSI_ADDR), ==, 0);

    /*
     * A command requests an interrupt, but INTEN masks the interrupt: the
     * device sets the bit in the interrupt status register and sends no MSI
     */
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
        /*
         * The device refuses a command buffer in device memory, outside of
         * memory, at an address that wraps, or across the end of RAM
         */
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], NOT_RAM, 0), ==, 0x09);
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], 1ull << 40, 0),
                        ==, 0x09);
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], 0xffffffffffffff00,
                                   0), ==, 0x09);
        g_assert_cmphex(psp_cmd_at(&p, with_buffer[i], 0x8000000 - 2, 0),
                        ==, 0x09);
    }
    /* The C-bit of an address is ignored */
    clear(&p);
    g_assert_cmphex(psp_cmd_at(&p, 0x04, BUF | CBIT, 0), ==, 0);
    g_assert_cmpuint(qtest_readb(p.qts, BUF), ==, 1);
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
    /*
     * After the reset, the guest and its key are gone, and the page contains
     * ciphertext
     */
    g_assert_cmphex(guest_cmd(&p, 0x23, h), ==, 0x01);
    psp_init(&p);
    g_assert_cmpuint(guest_state(&p, h), ==, 0);
    qtest_memread(p.qts, PAGE_A, again, sizeof(again));
    g_assert_cmpmem(raw, sizeof(raw), again, sizeof(again));
    psp_close(&p);
}

/* Check the first guest that query-sev-platform returns */
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

    /*
     * LAUNCH_UPDATE_DATA of 4 KiB takes cost-doorbell-ns, cost-command-ns, and
     * 4 times cost-kib-ns
     */
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

/*
 * Test the property that sets the costs of single commands.  For values that it
 * does not set, the properties cost-*-ns are the defaults.
 */
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

    /* If the device refuses a list of costs, it keeps the previous costs */
    set_costs(&p, "[{'command': 'DF_FLUSHED', 'command-ns': 1}]",
              "no command 'DF_FLUSHED'");
    set_costs(&p, "[{'command': 'DF_FLUSH'}, {'command': 'DF_FLUSH'}]",
              "two costs of command 'DF_FLUSH'");
    assert_takes(&p, "DF_FLUSH", 0x0a, 7500, 0);
    set_costs(&p, "[]", NULL);
    assert_takes(&p, "DF_FLUSH", 0x0a, 1500, 0);

    /* The largest values do not overflow */
    set_costs(&p, "[{'command': 'DF_FLUSH', 'doorbell-ns': 4294967295,"
                  "  'command-ns': 4294967295, 'kib-ns': 4294967295}]", NULL);
    assert_takes(&p, "DF_FLUSH", 0x0a, 2LL * UINT32_MAX, 0);
    psp_close(&p);
}

/*
 * QEMU refuses to migrate or save a machine that has the device, even if the
 * machine runs no guest.  The keys and the plaintext of SEV guests must not
 * leave the machine.
 */
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

    text = psp_take_trace(path);
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

void add_device_tests(void)
{
    qtest_add_func("/amd-psp/registers", test_registers);
    qtest_add_func("/amd-psp/interrupt", test_interrupt);
    qtest_add_func("/amd-psp/bad-commands", test_bad_commands);
    qtest_add_func("/amd-psp/reset", test_reset);
    qtest_add_func("/amd-psp/stats", test_stats);
    qtest_add_func("/amd-psp/cost", test_cost);
    qtest_add_func("/amd-psp/costs", test_costs);
    qtest_add_func("/amd-psp/stays", test_stays);
    qtest_add_func("/amd-psp/trace", test_trace);
}
