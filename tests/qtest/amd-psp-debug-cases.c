/*
 * Tests of the emulated AMD PSP: copies of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "amd-psp-cases.h"

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
    /*
     * The ciphertexts of the two pages differ, because they depend on the
     * address
     */
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

void add_debug_tests(void)
{
    qtest_add_func("/amd-psp/dbg-encrypt", test_dbg_encrypt);
    qtest_add_func("/amd-psp/copy", test_copy);
}
