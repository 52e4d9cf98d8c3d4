/*
 * Tests of the emulated AMD PSP: commands in each state, and their replies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "amd-psp-cases.h"

/*
 * Guest commands, and the states of the guest in which each is possible.
 * States are numbers that GUEST_STATUS returns.
 */
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

/*
 * Platform commands, and the states of the platform in which each is possible:
 * 0 UNINIT, 1 INIT, 2 WORKING
 */
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

/*
 * Return the handle of a guest in @state.  For states 4 and 6, the caller must
 * have exported this platform's certificates to PDH and CHAIN.  For state 5,
 * PDH must contain this platform's PDH, and SESSION must contain a session that
 * the platform has made for itself.
 */
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

/*
 * Write the buffer of guest_commands[@i], with valid lengths, because the
 * firmware checks lengths before the guest's state
 */
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
 * Check what the firmware writes back to command buffers.  A command that
 * fails writes nothing, or only the length that the host should have given.
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

    /*
     * SEND_START with too small a length returns the session's length, and not
     * the policy.  With any other error, SEND_START writes nothing.
     */
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

    /*
     * SEND_UPDATE_DATA checks the header's length before it checks the handle
     * and the guest's state.  The firmware writes the length of the header to
     * the command buffer only if the length there is too small, or on success.
     */
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

    /* PDH_CERT_EXPORT returns no lengths if the output is not in RAM */
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
    guest_gone(&p, guest_in(&p, 4));        /* makes the session at SESSION */
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
        /* The firmware refuses the handle of a guest that does not exist */
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

void add_states_tests(void)
{
    qtest_add_func("/amd-psp/states/platform", test_platform_states);
    qtest_add_func("/amd-psp/states/guest", test_guest_states);
    qtest_add_func("/amd-psp/replies", test_replies);
}
