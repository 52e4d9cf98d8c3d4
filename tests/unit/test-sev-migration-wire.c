/*
 * Tests of SEV's data in the migration stream: decoding returns what was
 * encoded, and refuses data that is cut, too long or of another version
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "../../target/i386/sev/sev-migration-wire.h"

#define SESSION_FIXED   24

static GByteArray *make_session(void)
{
    GByteArray *out = g_byte_array_new();
    g_autofree uint8_t *pdh = g_malloc(2084), *session = g_malloc(112);

    memset(pdh, 0xaa, 2084);
    memset(session, 0x55, 112);
    sev_wire_put_session(out, &(SevWireSession) {
        .cbitpos = 51,
        .policy = 0x12345678,
        .below_4g = 0x80000000,
        .pdh = pdh,
        .pdh_len = 2084,
        .session = session,
        .session_len = 112,
    });
    return out;
}

static bool get_session(const uint8_t *buf, size_t len, const char *why)
{
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    SevWireSession s;
    Error *err = NULL;

    /* A sanitizer detects reads after @copy, because it has only @len bytes */
    if (sev_wire_get_session(copy, len, &s, &err)) {
        g_assert(!err);
        return true;
    }
    g_assert(err);
    if (why && !strstr(error_get_pretty(err), why)) {
        g_error("\"%s\" does not have \"%s\"", error_get_pretty(err), why);
    }
    error_free(err);
    return false;
}

static void test_session(void)
{
    g_autoptr(GByteArray) out = make_session();
    SevWireSession s;

    g_assert_cmpuint(out->len, ==, SESSION_FIXED + 2084 + 112);
    g_assert_cmpuint(lduw_be_p(out->data), ==, 51);
    g_assert_cmpuint(lduw_be_p(out->data + 2), ==, 1);
    g_assert_cmphex(ldl_be_p(out->data + 4), ==, 0x12345678);
    g_assert_true(sev_wire_get_session(out->data, out->len, &s,
                                       &error_abort));
    g_assert_cmpuint(s.cbitpos, ==, 51);
    g_assert_cmphex(s.policy, ==, 0x12345678);
    g_assert_cmphex(ldq_be_p(out->data + 16), ==, 0x80000000);
    g_assert_cmphex(s.below_4g, ==, 0x80000000);
    g_assert_cmpuint(s.pdh_len, ==, 2084);
    g_assert_cmpuint(s.session_len, ==, 112);
    g_assert(s.pdh == out->data + SESSION_FIXED);
    g_assert(s.session == s.pdh + 2084);
    g_assert_cmphex(s.pdh[2083], ==, 0xaa);
    g_assert_cmphex(s.session[0], ==, 0x55);
}

static void test_session_cut(void)
{
    g_autoptr(GByteArray) out = make_session();

    for (size_t len = 0; len < out->len; len++) {
        g_assert_false(get_session(out->data, len, NULL));
    }
    g_byte_array_append(out, (const uint8_t *)"", 1);
    g_assert_false(get_session(out->data, out->len, "expected"));
}

static void test_session_lengths(void)
{
    /*
     * 0x80000000 and 0xffffffff are negative as an int, so they would pass a
     * check of the maximum that compares signed numbers
     */
    static const uint32_t bad[] = {
        0, 16 * KiB + 1, 0x7fffffff, 0x80000000, 0xffffffff
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autoptr(GByteArray) pdh = make_session();
        g_autoptr(GByteArray) session = make_session();

        stl_be_p(pdh->data + 8, bad[i]);
        g_assert_false(get_session(pdh->data, pdh->len, "PDH"));
        stl_be_p(session->data + 12, bad[i]);
        g_assert_false(get_session(session->data, session->len, "session"));
    }
}

static void test_session_sum(void)
{
    g_autoptr(GByteArray) out = make_session();

    /*
     * Each length is valid, but their sum differs from the length of the data
     */
    stl_be_p(out->data + 8, 2085);
    g_assert_false(get_session(out->data, out->len, "expected"));
    stl_be_p(out->data + 12, 111);
    g_assert_true(get_session(out->data, out->len, NULL));
}

static void test_session_version(void)
{
    g_autoptr(GByteArray) out = make_session();

    stw_be_p(out->data + 2, 2);
    g_assert_false(get_session(out->data, out->len, "version 2"));
    stw_be_p(out->data + 2, 0);
    g_assert_false(get_session(out->data, out->len, "version 0"));
}

static GByteArray *make_pages(size_t n)
{
    GByteArray *out = g_byte_array_new();
    uint8_t hdr[52], trans[4096];

    for (size_t i = 0; i < n; i++) {
        memset(hdr, i, sizeof(hdr));
        memset(trans, ~i, sizeof(trans));
        sev_wire_put_packet(out, &(SevWirePacket) {
            .hdr = hdr,
            .hdr_len = sizeof(hdr),
            .trans = trans,
            .trans_len = sizeof(trans),
        });
    }
    return out;
}

static void test_pages(void)
{
    g_autoptr(GByteArray) out = make_pages(3);
    size_t pos = 0;

    g_assert_cmpuint(out->len, ==, 3 * (4 + 52 + 4096));
    for (size_t i = 0; i < 3; i++) {
        SevWirePacket p;

        g_assert_true(sev_wire_get_packet(out->data, out->len, &pos, &p,
                                        &error_abort));
        g_assert_cmpuint(p.hdr_len, ==, 52);
        g_assert_cmpuint(p.trans_len, ==, 4096);
        g_assert_cmphex(p.hdr[51], ==, i);
        g_assert_cmphex(p.trans[4095], ==, (uint8_t)~i);
    }
    g_assert_cmpuint(pos, ==, out->len);
}

static void expect_no_page(const uint8_t *buf, size_t len, size_t pos)
{
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    Error *err = NULL;
    SevWirePacket p;
    size_t at = pos;

    g_assert_false(sev_wire_get_packet(copy, len, &at, &p, &err));
    error_free_or_abort(&err);
    g_assert_cmpuint(at, ==, pos);
}

static void test_pages_cut(void)
{
    g_autoptr(GByteArray) out = make_pages(2);
    size_t one = out->len / 2;

    for (size_t len = 0; len < one; len++) {
        expect_no_page(out->data, len, 0);
        expect_no_page(out->data, one + len, one);
    }
    expect_no_page(out->data, out->len, out->len);
}

static void test_pages_lengths(void)
{
    static const uint16_t bad_hdr[] = { 0, 257, 0x7fff, 0xffff };
    static const uint16_t bad_trans[] = {
        0, 4097, 8191, 8193, 12289, 16383, 16385, 20480, 0x7fff, 0xffff
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad_hdr); i++) {
        /*
         * The buffer has more bytes than any of these lengths, so the decoder
         * can refuse a length only because the format does not allow it, and
         * not because the buffer ends
         */
        g_autoptr(GByteArray) hdr = make_pages(20);
        g_autoptr(GByteArray) trans = make_pages(20);

        stw_be_p(hdr->data, bad_hdr[i]);
        expect_no_page(hdr->data, hdr->len, 0);
        stw_be_p(trans->data + 2, bad_trans[i]);
        expect_no_page(trans->data, trans->len, 0);
    }
}

/* The data of a packet can have 1 to 4 pages */
static void test_pages_large(void)
{
    g_autofree uint8_t *data = g_malloc(SEV_WIRE_TRANS_MAX);
    g_autoptr(GByteArray) out = g_byte_array_new();
    SevWirePacket p;
    size_t pos = 0;

    for (size_t i = 1; i <= SEV_WIRE_PACKET_PAGES; i++) {
        memset(data, i, i * 4096);
        sev_wire_put_packet(out, &(SevWirePacket) {
            .hdr = (const uint8_t *)"header", .hdr_len = 6,
            .trans = data, .trans_len = i * 4096,
        });
    }
    for (size_t i = 1; i <= SEV_WIRE_PACKET_PAGES; i++) {
        g_assert_true(sev_wire_get_packet(out->data, out->len, &pos, &p,
                                          &error_abort));
        g_assert_cmpuint(p.trans_len, ==, i * 4096);
        g_assert_cmpuint(sev_wire_packet_pages(&p), ==, i);
        g_assert_cmphex(p.trans[i * 4096 - 1], ==, i);
    }
    g_assert_cmpuint(pos, ==, out->len);
    expect_no_page(out->data, out->len - 1, out->len - 4 - 6 - 16384);
    for (uint16_t len = 1; len <= 4096; len += 4095) {
        p.trans_len = len;
        g_assert_cmpuint(sev_wire_packet_pages(&p), ==, 1);
    }
}

static void test_final(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    uint64_t control = 0;
    Error *err = NULL;

    sev_wire_put_final(out, 0x8000000000000001);
    g_assert_cmpuint(out->len, ==, 12);
    g_assert_true(sev_wire_get_final(out->data, out->len, &control,
                                     &error_abort));
    g_assert_cmphex(control, ==, 0x8000000000000001);
    for (size_t len = 0; len < 12; len++) {
        g_autofree uint8_t *copy = g_memdup2(out->data, len);

        g_assert_false(sev_wire_get_final(copy, len, &control, &err));
        error_free_or_abort(&err);
    }
    g_byte_array_append(out, (const uint8_t *)"", 1);
    g_assert_false(sev_wire_get_final(out->data, 13, &control, &err));
    error_free_or_abort(&err);
    out->data[3] = 2;
    g_assert_false(sev_wire_get_final(out->data, 12, &control, &err));
    error_free_or_abort(&err);
}

static void test_answer(void)
{
    static const struct {
        uint32_t bytes;
        size_t npages;      /* 0: refused */
    } limits[] = {
        { 0, 0 }, { 16, 0 }, { 4095, 0 }, { 4096, 1 }, { 8191, 1 },
        { 8192, 2 }, { 12288, 3 }, { 16384, 4 }, { 20480, 4 },
        { UINT32_MAX, 4 },
    };
    g_autoptr(GByteArray) out = g_byte_array_new();
    Error *err = NULL;
    size_t npages = 0;
    uint8_t helper;

    for (size_t i = 1; i <= SEV_WIRE_PACKET_PAGES; i++) {
        g_byte_array_set_size(out, 0);
        sev_wire_put_answer(out, i, i * 3);
        g_assert_true(sev_wire_get_answer(out->data, out->len, &npages,
                                          &helper, &error_abort));
        g_assert_cmpuint(npages, ==, i);
        g_assert_cmpuint(helper, ==, i * 3);
        /*
         * The low bits of the maximum number of bytes are the version of the
         * migration helper.  A source that does not know the helper rounds
         * the number down to whole pages, so the version has no effect.
         */
        g_assert_cmpuint(ldl_be_p(out->data + 4) / SEV_WIRE_PAGE, ==, i);
    }
    g_assert_cmpuint(out->len, ==, 8);
    for (size_t len = 0; len < 8; len++) {
        g_autofree uint8_t *copy = g_memdup2(out->data, len);

        g_assert_false(sev_wire_get_answer(copy, len, &npages, &helper,
                                           &err));
        error_free_or_abort(&err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        npages = 0;
        stl_be_p(out->data + 4, limits[i].bytes);
        if (sev_wire_get_answer(out->data, out->len, &npages, &helper,
                                &err)) {
            g_assert_cmpuint(npages, ==, limits[i].npages);
        } else {
            g_assert_cmpuint(limits[i].npages, ==, 0);
            error_free_or_abort(&err);
        }
    }
    stl_be_p(out->data + 4, 4096);
    out->data[3] = 2;
    g_assert_false(sev_wire_get_answer(out->data, 8, &npages, &helper, &err));
    error_free_or_abort(&err);
    out->data[3] = 1;
    g_byte_array_append(out, (const uint8_t *)"", 1);
    g_assert_false(sev_wire_get_answer(out->data, 9, &npages, &helper, &err));
    error_free_or_abort(&err);
}

/* The beginning of platform data */
static void test_helper(void)
{
    const SevWireHelper h = {
        .version = 1, .npages = 16, .private_gpa = 0x123456789000,
        .shared_gpa = 0x8000000000, .entry = 0x1234,
    };
    g_autoptr(GByteArray) out = g_byte_array_new();
    Error *err = NULL;
    SevWireHelper got;
    size_t pos = 0;

    sev_wire_put_helper(out, &h);
    g_assert_cmpuint(out->len, ==, 32);
    g_assert_true(sev_wire_get_helper(out->data, out->len, &pos, &got,
                                      &error_abort));
    g_assert_cmpuint(pos, ==, 32);
    g_assert_cmpuint(got.version, ==, h.version);
    g_assert_cmpuint(got.npages, ==, h.npages);
    g_assert_cmphex(got.private_gpa, ==, h.private_gpa);
    g_assert_cmphex(got.shared_gpa, ==, h.shared_gpa);
    g_assert_cmphex(got.entry, ==, h.entry);
    for (size_t len = 0; len < 32; len++) {
        g_autofree uint8_t *copy = g_memdup2(out->data, len);

        g_assert_false(sev_wire_get_helper(copy, len, &pos, &got, &err));
        error_free_or_abort(&err);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sev-migration/session", test_session);
    g_test_add_func("/sev-migration/session/cut", test_session_cut);
    g_test_add_func("/sev-migration/session/lengths", test_session_lengths);
    g_test_add_func("/sev-migration/session/sum", test_session_sum);
    g_test_add_func("/sev-migration/session/version", test_session_version);
    g_test_add_func("/sev-migration/pages", test_pages);
    g_test_add_func("/sev-migration/pages/cut", test_pages_cut);
    g_test_add_func("/sev-migration/pages/lengths", test_pages_lengths);
    g_test_add_func("/sev-migration/pages/large", test_pages_large);
    g_test_add_func("/sev-migration/answer", test_answer);
    g_test_add_func("/sev-migration/helper", test_helper);
    g_test_add_func("/sev-migration/final", test_final);
    return g_test_run();
}
