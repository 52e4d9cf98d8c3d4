/*
 * Tests of the certificates of an SEV platform
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "../../target/i386/sev/sev-certificates.h"

#define LEN 2084
#define AMD_LEN(bits) (64 + 3 * (bits) / 8)

typedef bool (*Check)(const uint8_t *data, size_t len, Error **errp);

static void accepted(Check check, const uint8_t *data, size_t len)
{
    g_assert_true(check(data, len, &error_abort));
}

static void refused(Check check, const uint8_t *data, size_t len,
                    const char *why)
{
    /* A sanitizer detects reads after @copy, because it has only @len bytes */
    g_autofree uint8_t *copy = g_memdup2(data, len);
    Error *err = NULL;

    g_assert_false(check(copy, len, &err));
    if (!strstr(error_get_pretty(err), why)) {
        g_error("expected '%s' in: %s", why, error_get_pretty(err));
    }
    error_free(err);
}

static void put_cert(uint8_t *data, uint32_t usage)
{
    stl_le_p(data, 1);
    stl_le_p(data + 8, usage);
}

static void test_pdh(void)
{
    uint8_t data[LEN + 1] = {};

    refused(sev_check_pdh, data, 0, "0 bytes, expected 2084");
    refused(sev_check_pdh, data, LEN, "version 0, expected 1");
    put_cert(data, 0x1003);
    accepted(sev_check_pdh, data, LEN);
    refused(sev_check_pdh, data, LEN - 1, "2083 bytes");
    refused(sev_check_pdh, data, LEN + 1, "2085 bytes");
    put_cert(data, 0x1002);
    refused(sev_check_pdh, data, LEN, "PDH is of a key with usage 0x1002");
}

static void test_plat_certs(void)
{
    uint8_t data[3 * LEN] = {};

    put_cert(data, 0x1002);
    put_cert(data + LEN, 0x1001);
    put_cert(data + 2 * LEN, 0x1004);
    accepted(sev_check_plat_certs, data, sizeof(data));
    refused(sev_check_plat_certs, data, LEN, "2084 bytes, expected 6252");
    put_cert(data, 0x1001);
    put_cert(data + LEN, 0x1002);
    refused(sev_check_plat_certs, data, sizeof(data), "PEK is of a key");
}

static size_t put_amd_cert(uint8_t *data, uint32_t usage, uint32_t bits)
{
    stl_le_p(data, 1);
    stl_le_p(data + 0x24, usage);
    stl_le_p(data + 0x38, bits);
    stl_le_p(data + 0x3c, bits);
    return AMD_LEN(bits);
}

static void test_amd_certs(void)
{
    static const uint32_t sizes[] = { 2048, 4096 };
    uint8_t data[2 * AMD_LEN(4096) + 1] = {};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        size_t len = put_amd_cert(data, 0x13, sizes[i]);

        len += put_amd_cert(data + len, 0, sizes[i]);
        accepted(sev_check_amd_certs, data, len);
        refused(sev_check_amd_certs, data, len + 1, "1 bytes after");
        refused(sev_check_amd_certs, data, len - 1, "certificate ARK: ");
        refused(sev_check_amd_certs, data, len / 2, "certificate ARK: 0 bytes");
        refused(sev_check_amd_certs, data, 63, "ASK: 63 bytes");
        refused(sev_check_amd_certs, data + len / 2, len / 2,
                "ASK is of a key with usage 0x0000, expected 0x0013");
        stl_le_p(data + 0x3c, UINT32_MAX);
        refused(sev_check_amd_certs, data, len, "4294967295 bits");
    }
}

static char *chain(void)
{
    g_autofree uint8_t *data = g_malloc0(3 * LEN);

    put_cert(data, 0x1002);
    put_cert(data + LEN, 0x1001);
    put_cert(data + 2 * LEN, 0x1004);
    return g_base64_encode(data, 3 * LEN);
}

static char *amd(void)
{
    g_autofree uint8_t *data = g_malloc0(2 * AMD_LEN(2048));

    put_amd_cert(data, 0x13, 2048);
    put_amd_cert(data + AMD_LEN(2048), 0, 2048);
    return g_base64_encode(data, 2 * AMD_LEN(2048));
}

static char *pdh_from(uint8_t byte)
{
    uint8_t data[LEN] = {};

    put_cert(data, 0x1003);
    data[LEN - 1] = byte;
    return g_base64_encode(data, LEN);
}

static void not_set(SevCertificates *c, const char *pdh, const char *plat,
                    const char *amd_cert, const char *why)
{
    Error *err = NULL;

    g_assert_false(sev_certificates_set(c, pdh, plat, amd_cert, &err));
    if (!strstr(error_get_pretty(err), why)) {
        g_error("expected '%s' in: %s", why, error_get_pretty(err));
    }
    error_free(err);
}

/*
 * If one of the three certificates is wrong, none of them is set, and the
 * earlier certificates remain
 */
static void test_set(void)
{
    g_autofree char *first = pdh_from(1), *second = pdh_from(2);
    g_autofree char *plat = chain(), *ark = amd();
    SevCertificates c = {};

    not_set(&c, first, plat, "", "certificate 'amd-cert'");
    g_assert_null(c.pdh);
    g_assert_true(sev_certificates_set(&c, first, plat, ark, &error_abort));
    g_assert_cmpuint(c.pdh_len, ==, LEN);
    g_assert_cmpuint(c.plat_len, ==, 3 * LEN);
    g_assert_cmpuint(c.amd_len, ==, 2 * AMD_LEN(2048));
    not_set(&c, plat, plat, ark, "certificate 'pdh'");
    not_set(&c, "!", plat, ark, "certificate 'pdh'");
    not_set(&c, second, second, ark, "certificate 'plat-cert'");
    not_set(&c, second, plat, second, "certificate 'amd-cert'");
    g_assert_cmpuint(c.pdh[LEN - 1], ==, 1);
    g_assert_true(sev_certificates_set(&c, second, plat, ark, &error_abort));
    g_assert_cmpuint(c.pdh[LEN - 1], ==, 2);
    sev_certificates_clear(&c);
    g_assert_null(c.pdh);
    g_assert_null(c.plat);
    g_assert_null(c.amd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sev-certificates/pdh", test_pdh);
    g_test_add_func("/sev-certificates/plat-certs", test_plat_certs);
    g_test_add_func("/sev-certificates/amd-certs", test_amd_certs);
    g_test_add_func("/sev-certificates/set", test_set);
    return g_test_run();
}
