/*
 * Tests of the emulated AMD PSP: fault injection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "amd-psp-cases.h"

static QDict *set_faults(Psp *p, const char *json)
{
    return psp_set_property(p, "faults", json);
}

/* Get the pending faults from the property */
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

static void test_fault_status(void)
{
    Psp p;

    psp_open(&p, "");
    psp_init(&p);

    /* Fail the second and third PLATFORM_STATUS; other commands do not count */
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

    /* A LAUNCH_START that was not executed creates no guest */
    psp_inject(&p, "[{'kind': 'status', 'command': 'LAUNCH_START',"
                   "  'status': 19}]");
    clear(&p);
    g_assert_cmphex(psp_cmd(&p, 0x30), ==, 0x13);
    g_assert_cmpuint(get32(&p, 0), ==, 0);
    g_assert_cmpuint(psp_stat_of(&p, NULL, "guests"), ==, 0);
    launch_start(&p, 0);

    /* All commands from now on fail, including unknown ones */
    psp_inject(&p, "[{'kind': 'status', 'count': 0, 'status': 65535}]");
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0xffff);
    g_assert_cmphex(psp_cmd(&p, 0x7f), ==, 0xffff);
    g_assert_cmphex(psp_cmd(&p, 0x09), ==, 0xffff);
    psp_inject(&p, "[]");
    g_assert_cmphex(psp_cmd(&p, 0x0a), ==, 0);
    g_assert_cmphex(psp_cmd(&p, 0x7f), ==, 0x11);

    /* Two faults are due: the first hits this command, the second the next */
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

    /*
     * After a command that hangs, later commands do not end either, even if
     * the fault is removed
     */
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
    /* Only this command was late */
    g_assert_cmphex(psp_cmd(&p, 0x04), ==, 0);

    /* A reset drops a command whose end the fault "late" has delayed */
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

    /* The fault changes only the byte at "offset" of the command's output */
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

    /*
     * PLATFORM_STATUS writes its output to the command buffer, which has 12
     * bytes.  The fault at offset 8 corrupts the buffer.  The fault at offset
     * 12, the end of the buffer, changes nothing.
     */
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

    /* A packet with corrupted data or header is refused */
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

    /* Corrupt the guest memory that RECEIVE_UPDATE_DATA writes */
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

/*
 * The property "faults": which values it accepts, what a read returns, and that
 * the command line can set it
 */
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
    /*
     * The refused values have not replaced the fault of the command line.  Its
     * "nth" was 3 and is 1 now, because two INIT commands were executed.
     */
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

void add_faults_tests(void)
{
    qtest_add_func("/amd-psp/fault/status", test_fault_status);
    qtest_add_func("/amd-psp/fault/hang", test_fault_hang);
    qtest_add_func("/amd-psp/fault/late", test_fault_late);
    qtest_add_func("/amd-psp/fault/corrupt", test_fault_corrupt);
    qtest_add_func("/amd-psp/fault/no-interrupt", test_fault_no_interrupt);
    qtest_add_func("/amd-psp/fault/property", test_fault_property);
}
